"""Noise floors: how alike circuits are by chance, or when only the words differ."""

import numpy as np
from pydantic import BaseModel, ConfigDict

from circuits.circuit import Circuit, jaccard
from circuits.evaluation.baseline import random_circuit

DRAWS = 20
"""Pairs of random circuits that the noise floor is a mean over."""


class Floor(BaseModel):
    """How alike two circuits are when nothing that matters differs: what an overlap is to be read against."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    edge_jaccard: float
    node_jaccard: float


def random_floor(before: Circuit, after: Circuit, *, draws: int = DRAWS, seed: int = 0) -> Floor:
    """The mean overlap of pairs of random circuits with as many edges as these two."""
    edges, nodes = [], []
    for draw in range(draws):
        pair = [
            random_circuit(
                each.graph, each.n_edges, seed=(seed, draw, side), draw="uniform", provenance=each.provenance
            )
            for side, each in enumerate((before, after))
        ]
        edges.append(jaccard(*({edge.name for edge in each.edges} for each in pair)))
        nodes.append(jaccard(*({node.name for node in each.nodes} for each in pair)))
    return Floor(
        name="random circuits of these sizes",
        edge_jaccard=float(np.mean(edges)),
        node_jaccard=float(np.mean(nodes)),
    )


def floor_of(name: str, before: Circuit, after: Circuit) -> Floor:
    """The overlap of two circuits that differ in nothing that should matter, such as the prompt's wording."""
    edges = ({edge.name for edge in each.edges} for each in (before, after))
    nodes = ({node.name for node in each.nodes} for each in (before, after))
    return Floor(name=name, edge_jaccard=jaccard(*edges), node_jaccard=jaccard(*nodes))

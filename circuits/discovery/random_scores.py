"""The control: scores drawn by chance. A method is worth no more than its lead over them."""

import numpy as np

from circuits.circuit import Provenance, Scores
from circuits.graph import Graph


def random_scores(graph: Graph, *, seed: int = 0, provenance: Provenance) -> Scores:
    """Each edge's score is uniform between 0 and 1, independent of all others; the same for the same seed."""
    return Scores(graph, np.random.default_rng(seed).random(graph.legal.shape), provenance)

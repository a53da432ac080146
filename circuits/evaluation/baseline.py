"""Random circuits of a circuit's size: what that many edges are worth when nobody chose them.

``uniform`` draws edges of the graph, each set of n equally likely. Below some per cent of the edges such a circuit hardly
ever joins the input to the logits, so it answers as the model with every edge ablated does: an easy baseline.
``connected`` draws n edges of which each lies on a path from ``input`` to ``logits``: the harder one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool

from circuits.circuit import Circuit, Provenance
from circuits.engines.engine import Engine
from circuits.evaluation.answers import Answers, standalone
from circuits.facts import Fact
from circuits.graph import Graph
from circuits.model import Model

Draw = Literal["uniform", "connected"]
DRAWS: tuple[Draw, ...] = ("uniform", "connected")
RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Interval:
    """The mean of some values, and where it may lie: a percentile bootstrap over the values."""

    mean: float
    low: float
    high: float
    least: float
    """The smallest value."""
    most: float
    """The largest value."""
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def bootstrap(values: Sequence[float], *, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of ``values`` with its interval: the middle ``level`` of the means of resampled values.

    With few values that are all alike, as random circuits' often are, it has no width: it says nothing of values unseen.
    """
    if not values:
        raise ValueError("expected at least one value, got none")
    array = np.asarray(values, dtype=np.float64)
    rows = np.random.default_rng(seed).integers(0, len(array), (RESAMPLES, len(array)))
    low, high = np.quantile(array[rows].mean(1), [(1 - level) / 2, (1 + level) / 2])
    mean = float(array.mean())
    # Resampled means of one value repeated differ from it in the last bits.
    return Interval(mean, min(float(low), mean), max(float(high), mean), float(array.min()), float(array.max()), level)


def random_circuit(graph: Graph, n: int, *, seed: Sequence[int] | int, draw: Draw, provenance: Provenance) -> Circuit:
    """A random circuit of exactly n edges; the same seed gives the same one.

    Raises:
        ValueError: n is not between 0 and the graph's number of edges.
    """
    if not 0 <= n <= graph.n_edges:
        raise ValueError(f"expected 0 to {graph.n_edges} edges, got {n}")
    rng = np.random.default_rng(seed)
    kept = _uniform(graph, n, rng) if draw == "uniform" else _connected(graph, n, rng)
    label = seed if isinstance(seed, int) else int(seed[0])
    return Circuit(graph, kept, replace(provenance, method=f"random-{draw}", seed=label))


def _uniform(graph: Graph, n: int, rng: np.random.Generator) -> Bool[np.ndarray, "writer reader"]:
    kept = np.zeros(graph.legal.size, dtype=bool)
    kept[rng.choice(np.flatnonzero(graph.legal), n, replace=False)] = True
    return kept.reshape(graph.legal.shape)


def _connected(graph: Graph, n: int, rng: np.random.Generator) -> Bool[np.ndarray, "writer reader"]:
    """Random edges in turn, each with a random walk back to what the input reaches and one on to what reaches the logits.

    The last edge's walks are left out where they would exceed n: at most a path's length of edges then dangles.
    """
    kept = np.zeros_like(graph.legal)
    growth = _Growth(graph, kept, rng)
    count = 0
    for flat in rng.permutation(np.flatnonzero(graph.legal)):
        if count == n:
            break
        writer, reader = (int(i) for i in np.unravel_index(flat, kept.shape))
        if kept[writer, reader]:
            continue
        for edge in growth.path_through(writer, reader):
            if count < n and not kept[edge]:
                kept[edge] = True
                count += 1
    return kept


class _Growth:
    """A circuit that grows by paths: which writers it reaches from the input, and from which the logits are reached."""

    def __init__(self, graph: Graph, kept: Bool[np.ndarray, "writer reader"], rng: np.random.Generator) -> None:
        self.graph, self.kept, self.rng = graph, kept, rng
        self.slots = [graph.readers_of(node) for node in graph.writers]
        self.owner = {slot: writer for writer, slots in enumerate(self.slots) for slot in slots}
        self.fed, self.read = {0}, set[int]()
        """Writers with a path from the input; writers with a path to the logits."""

    def path_through(self, writer: int, reader: int) -> list[tuple[int, int]]:
        """The edge, and what joins it to the rest: the new edges of one path from input to logits, in no order that matters."""
        edges = [(writer, reader)]
        back = writer
        while back not in self.fed:
            self.fed.add(back)
            slot = int(self.rng.choice(self.slots[back]))
            sender = int(self.rng.integers(self.graph.upstream[slot]))
            edges.append((sender, slot))
            self.read.add(sender)
            back = sender
        ahead = self.owner.get(reader)
        self.read.add(writer)
        if ahead is not None:
            self.fed.add(ahead)
        while ahead is not None and ahead not in self.read:
            self.read.add(ahead)
            legal = np.flatnonzero(self.graph.legal[ahead])
            slot = int(self.rng.choice(legal))
            edges.append((ahead, slot))
            ahead = self.owner.get(slot)
            if ahead is not None:
                self.fed.add(ahead)
        return edges


def size_matched(circuit: Circuit, *, draws: int = 10, seed: int = 0, draw: Draw = "uniform") -> tuple[Circuit, ...]:
    """Random circuits of the circuit's graph with as many edges as it has."""
    return tuple(
        random_circuit(circuit.graph, circuit.n_edges, seed=(seed, i), draw=draw, provenance=circuit.provenance)
        for i in range(draws)
    )


def random_answers(
    model: Model,
    engine: Engine,
    circuit: Circuit,
    facts: Sequence[Fact],
    *,
    draws: int = 10,
    seed: int = 0,
    draw: Draw = "uniform",
) -> tuple[Answers, ...]:
    """How each of ``draws`` size-matched random circuits answers, alone, on the engine's facts."""
    return tuple(
        standalone(model, engine, other, facts) for other in size_matched(circuit, draws=draws, seed=seed, draw=draw)
    )

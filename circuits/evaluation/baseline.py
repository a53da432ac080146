"""Random circuits of a circuit's size: what that many edges are worth when nobody chose them.

``uniform`` draws edges of the graph, each set of n equally likely. Below some per cent of the edges such a circuit hardly
ever joins the input to the logits, so it answers as the model with every edge ablated does: an easy baseline.
``connected`` draws n edges that are `live`, each on a path from ``input`` to ``logits``: the harder one.
"""

from collections import Counter
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
from circuits.metrics import Share
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

    @property
    def points(self) -> str:
        """Of a difference of shares, in points."""
        return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


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


def likely(values: Sequence[float], *, shares: bool = True) -> tuple[float, float]:
    """Where the mean of values like these may lie, in 95 %: of shares each of which is 0 or 1 Wilson's interval, else a bootstrap."""
    if shares and {*values} <= {0.0, 1.0}:
        share = Share.of([value == 1 for value in values])
        return share.low, share.high
    found = bootstrap(values)
    return found.low, found.high


def commonest(facts: Sequence[Fact], k: int) -> frozenset[str]:
    """The k objects that most of the facts have; of equally common ones, those that come first.

    Given to every subject alike, they are the subject-blind baseline of Hit@k: what a relation's objects give away by
    themselves.
    """
    return frozenset(answer for answer, _ in Counter(fact.object for fact in facts).most_common(k))


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
    """Random edges in turn, each with random walks that feed what it needs from the input and take it on to the logits.

    An edge whose walks would exceed n is passed over. Where no edge fits any more, its walks are cut short: of what is
    then added, less than one path, some edges are not `live`.
    """
    growth = _Growth(graph, rng)
    order = rng.permutation(np.flatnonzero(graph.legal)).tolist()
    for whole in (True, False):
        before = -1
        while before < growth.count < n:
            before = growth.count
            for flat in order:
                if growth.count == n:
                    break
                writer, reader = divmod(flat, len(graph.readers))
                growth.add(writer, reader, n - growth.count, whole=whole)
    return growth.kept


class _Growth:
    """A circuit that grows by paths, on which every head is read through v."""

    def __init__(self, graph: Graph, rng: np.random.Generator) -> None:
        self.graph, self.rng = graph, rng
        self.kept = np.zeros_like(graph.legal)
        self.count = 0
        self.owner = {slot: i for i, node in enumerate(graph.writers) for slot in graph.readers_of(node)}
        self.fed, self.read = {0}, set[int]()
        """Writers that carry something of the input; writers of which something gets to the logits."""

    def add(self, writer: int, reader: int, room: int, *, whole: bool) -> None:
        """Keep the edge and new ones that make it live, if that is at most ``room``; unless ``whole``, the first ``room`` of them."""
        if self.kept[writer, reader]:
            return
        fed, read, edges = set(self.fed), set(self.read), [(writer, reader)]
        self._feed(writer, fed, read, edges)
        read.add(writer)
        slot = reader
        while (ahead := self.owner.get(slot)) is not None:
            if slot == self.graph.value_readers[ahead]:
                fed.add(ahead)
            self._feed(ahead, fed, read, edges)
            if ahead in read:
                break
            read.add(ahead)
            slot = int(self.rng.choice(np.flatnonzero(self.graph.legal[ahead])))
            edges.append((ahead, slot))
            if whole and len(edges) > room:
                return
        if whole and len(edges) > room:
            return
        # None of them is kept already: a node that was not fed, or not read, had no edge.
        for edge in edges[:room]:
            self.kept[edge] = True
        self.count += min(len(edges), room)
        self.fed, self.read = fed, read

    def _feed(self, writer: int, fed: set[int], read: set[int], edges: list[tuple[int, int]]) -> None:
        """A walk back from the writer to one that is fed, through what each node's write is made of."""
        while writer not in fed:
            fed.add(writer)
            slot = self.graph.value_readers[writer]
            assert slot is not None  # only ``input`` has none, and it is fed
            sender = int(self.rng.integers(self.graph.upstream[slot]))
            edges.append((sender, slot))
            read.add(sender)
            writer = sender


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

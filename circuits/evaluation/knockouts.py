"""What is lost when edges are knocked out: one edge from the circuit, or the same edges from circuit and model alike.

Minimality: what each edge of a finished circuit is worth there, NLL(C without e) - NLL(C), in nats. ACDC's own score of an
edge was taken when the circuit was still larger: edges kept early may be worth nothing by the end. In a minimal circuit every
edge is worth something.

Completeness: the circuit and the model stay alike when the same parts are knocked out of both (Wang et al. 2023, section 4).
For edges K of the circuit C, the answers of C without K are compared with those of the whole graph G without K. A
circuit that lacks a part which the model falls back on agrees with the model as a whole, and not under the knockout that
makes the model fall back. K is drawn at random, or grown greedily to set the two as far apart as it can.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from circuits.circuit import Circuit
from circuits.engines.engine import Cut, Engine
from circuits.evaluation.answers import Answers, standalone
from circuits.facts import Fact
from circuits.graph import Edge
from circuits.metrics import Measurement
from circuits.model import Model


@dataclass(frozen=True)
class Minimality:
    """The worth of every edge of a circuit, in nats."""

    circuit: Circuit
    """The circuit, its edges' scores replaced by their worth: `Circuit.score` reads one."""
    nll: float
    """NLL of the circuit, in nats."""

    def worth(self, edge: Edge) -> float:
        return self.circuit.score(edge)

    @property
    def ranked(self) -> tuple[tuple[Edge, float], ...]:
        """(edge, worth), the most valuable first."""
        return tuple(sorted(((edge, self.worth(edge)) for edge in self.circuit.edges), key=lambda item: -item[1]))

    def superfluous(self, least: float) -> tuple[Edge, ...]:
        """The edges worth less than ``least`` nats. Each may go alone; together they need not be superfluous."""
        return tuple(edge for edge, worth in self.ranked if worth < least)

    def share_minimal(self, least: float) -> float:
        """The share of edges worth at least ``least`` nats; NaN for a circuit without edges."""
        n = self.circuit.n_edges
        return 1 - len(self.superfluous(least)) / n if n else float("nan")


def minimality(engine: Engine, circuit: Circuit) -> Minimality:
    """Remove each edge alone from the circuit, on the engine's facts. NLL is the mean over them."""
    values: Float[np.ndarray, "writer reader"] = np.full(circuit.kept.shape, np.nan)
    whole = engine.nll(circuit.kept)
    for reader in np.flatnonzero(circuit.kept.any(0)).tolist():
        writers = np.flatnonzero(circuit.kept[:, reader]).tolist()
        without = engine.nll_without(circuit.kept, reader, [[writer] for writer in writers])
        values[writers, reader] = (without - whole).mean(1)
    return Minimality(Circuit(circuit.graph, circuit.kept, circuit.provenance, values), float(whole.mean()))


# ---- completeness ------------------------------------------------------------------------------------------

SHARES = (0.1, 0.25, 0.5)
"""Parts of the circuit that random knockouts take."""


@dataclass(frozen=True, slots=True)
class Knockout:
    """What circuit and model answer without the same edges."""

    edges: tuple[Edge, ...]
    circuit: Answers
    model: Answers

    @property
    def gap(self) -> Measurement:
        """|NLL(C without K) - NLL(G without K)| of each fact, in nats."""
        pairs = zip(self.circuit.nll.per_example, self.model.nll.per_example, strict=True)
        return Measurement("gap under knockout", "nats", tuple(abs(ours - theirs) for ours, theirs in pairs))

    def agreement(self, k: int = 10) -> Measurement:
        """Share of facts that both or neither rank among the first k."""
        pairs = zip(self.circuit.hit(k).per_example, self.model.hit(k).per_example, strict=True)
        return Measurement(f"agreement in Hit@{k}", "", tuple(float(ours == theirs) for ours, theirs in pairs))


@dataclass(frozen=True, slots=True)
class Completeness:
    """All knockouts tried. A complete circuit has gaps near 0 and agreements near 1 in every one."""

    intact: Knockout
    """The empty knockout: circuit and model as they are."""
    random: tuple[Knockout, ...]
    greedy: tuple[Knockout, ...]
    """Growing: each has one edge more than the one before."""

    @property
    def random_gap(self) -> float:
        """Mean gap of the random knockouts, in nats."""
        return _mean([knockout.gap.value for knockout in self.random])

    @property
    def random_agreement(self) -> float:
        return _mean([knockout.agreement().value for knockout in self.random])

    @property
    def worst(self) -> Knockout:
        """The knockout of the largest gap."""
        return max((self.intact, *self.random, *self.greedy), key=lambda knockout: knockout.gap.value)

    def __str__(self) -> str:
        return (
            f"completeness: gap {self.intact.gap.value:.3g} nats intact, {self.random_gap:.3g} under random knockouts "
            f"(agreement {self.random_agreement:.2f}), {self.worst.gap.value:.3g} under the worst of {len(self.worst.edges)} edges"
        )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def completeness(
    model: Model,
    engine: Engine,
    circuit: Circuit,
    facts: Sequence[Fact],
    *,
    shares: Sequence[float] = SHARES,
    draws: int = 5,
    steps: int = 5,
    seed: int = 0,
) -> Completeness:
    """Knock out random and adversarial parts of the circuit, on the engine's facts.

    Args:
        shares: the parts of the circuit's edges that random knockouts take; ``draws`` of each.
        steps: edges of the largest greedy knockout.
    """
    rng = np.random.default_rng(seed)
    cuts = np.argwhere(circuit.kept)
    random = []
    for share in shares:
        if not 0 < share <= 1:
            raise ValueError(f"expected shares above 0 and at most 1, got {share}")
        size = math.ceil(share * len(cuts))
        random += [cuts[rng.choice(len(cuts), size, replace=False)] for _ in range(draws if len(cuts) else 0)]
    greedy = greedy_knockout(engine, circuit, steps)
    return Completeness(
        _knockout(model, engine, circuit, facts, ()),
        tuple(_knockout(model, engine, circuit, facts, _pairs(chosen)) for chosen in random),
        tuple(_knockout(model, engine, circuit, facts, greedy[: i + 1]) for i in range(len(greedy))),
    )


def greedy_knockout(engine: Engine, circuit: Circuit, steps: int) -> tuple[Cut, ...]:
    """Edges of the circuit, each chosen to set circuit and model farthest apart in mean |NLL difference|, in that order.

    Ends early when no further edge sets them farther apart. Ties go to the later reader, then the later writer.
    """
    chosen: list[Cut] = []
    ours, theirs = circuit.kept.copy(), circuit.graph.legal.copy()
    best = float(np.abs(engine.nll(ours) - engine.nll(theirs)).mean())
    for _ in range(steps):
        left = _pairs(np.argwhere(ours))
        if not left:
            break
        # One after the other, so that the engine keeps its values from call to call.
        gaps = np.abs(_without_each(engine, ours, left) - _without_each(engine, theirs, left)).mean(1)
        order = sorted(range(len(left)), key=lambda i: (-gaps[i], -left[i][1], -left[i][0]))
        if not gaps[order[0]] > best:
            break
        best, cut = float(gaps[order[0]]), left[order[0]]
        chosen.append(cut)
        ours[cut] = theirs[cut] = False
    return tuple(chosen)


def _pairs(cuts: np.ndarray) -> tuple[Cut, ...]:
    return tuple((int(writer), int(reader)) for writer, reader in sorted(map(tuple, cuts.tolist())))


def _without_each(
    engine: Engine, kept: Bool[np.ndarray, "writer reader"], cuts: Sequence[Cut]
) -> Float[np.ndarray, "cut fact"]:
    rows: dict[Cut, np.ndarray] = {}
    for reader in sorted({reader for _, reader in cuts}, reverse=True):
        writers = [writer for writer, own in cuts if own == reader]
        nlls = engine.nll_without(kept, reader, [[writer] for writer in writers])
        rows |= {(writer, reader): nll for writer, nll in zip(writers, nlls, strict=True)}
    return np.stack([rows[cut] for cut in cuts])


def _knockout(model: Model, engine: Engine, circuit: Circuit, facts: Sequence[Fact], cuts: Sequence[Cut]) -> Knockout:
    graph = circuit.graph
    ours, theirs = circuit.kept.copy(), graph.legal.copy()
    for cut in cuts:
        ours[cut] = theirs[cut] = False
    return Knockout(
        tuple(Edge(graph.writers[writer], graph.readers[reader]) for writer, reader in cuts),
        standalone(model, engine, Circuit(graph, ours, circuit.provenance), facts),
        standalone(model, engine, Circuit(graph, theirs, circuit.provenance), facts),
    )

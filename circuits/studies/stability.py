"""How much of a circuit survives a change that should not matter: other words, another tau, another order, another draw.

Two circuits are compared by the Jaccard index of their edges, and of their heads and MLPs, beside that of random circuits
of the same two sizes. A control says what the circuits of unrelated facts share.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from circuits.circuit import Circuit, Provenance, jaccard
from circuits.datasets import corrupted as corruption
from circuits.datasets.split import split_facts
from circuits.discovery.acdc import acdc, sweep
from circuits.engines import Ablation, Engine, make_engine
from circuits.engines.ablation import AblationKind
from circuits.evaluation import known, whole_model
from circuits.evaluation.baseline import DRAWS, Draw, Interval, bootstrap, random_circuit
from circuits.facts import Fact, FactError, Relations
from circuits.graph import Node
from circuits.model import Model
from circuits.studies.discover import DEFAULT_TAU, require_known

FACTORS = (0.5, 2.0)
"""What tau is multiplied by."""


def components(circuit: Circuit) -> frozenset[Node]:
    """The circuit's nodes without ``input`` and ``logits``, which every circuit has."""
    return frozenset(node for node in circuit.nodes if node.kind not in ("input", "logits"))


@dataclass(frozen=True, slots=True)
class Chance:
    """Jaccard indices of pairs of random circuits with the two circuits' sizes."""

    draw: Draw
    edges: Interval
    nodes: Interval


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two circuits compared."""

    edges_before: int
    edges_after: int
    edges_survive: float
    """Share of the first circuit's edges that the second has."""
    edges: float
    """Jaccard index of the edges."""
    nodes: float
    """Jaccard index of heads and MLPs."""
    chance: tuple[Chance, ...]


def overlap(before: Circuit, after: Circuit, *, draws: int = 100, seed: int = 0) -> Overlap:
    """Compare two circuits of one graph, and ``draws`` random pairs of their sizes by each kind of draw.

    Raises:
        ValueError: the circuits are of different graphs.
    """
    if before.graph != after.graph:
        raise ValueError(f"expected circuits of one graph, got {before.graph} and {after.graph}")
    both = int((before.kept & after.kept).sum())
    return Overlap(
        edges_before=before.n_edges,
        edges_after=after.n_edges,
        edges_survive=both / before.n_edges if before.n_edges else 1.0,
        edges=_edge_jaccard(before, after),
        nodes=jaccard(components(before), components(after)),
        chance=tuple(_chance(before, after, draw, draws, seed) for draw in DRAWS),
    )


def _edge_jaccard(before: Circuit, after: Circuit) -> float:
    return jaccard(*({int(flat) for flat in np.flatnonzero(circuit.kept)} for circuit in (before, after)))


def _chance(before: Circuit, after: Circuit, draw: Draw, draws: int, seed: int) -> Chance:
    edges, nodes = [], []
    for i in range(draws):
        one, other = (
            random_circuit(
                circuit.graph, circuit.n_edges, seed=(seed, i, side), draw=draw, provenance=circuit.provenance
            )
            for side, circuit in enumerate((before, after))
        )
        edges.append(_edge_jaccard(one, other))
        nodes.append(jaccard(components(one), components(other)))
    return Chance(draw, bootstrap(edges, seed=seed), bootstrap(nodes, seed=seed))


@dataclass(frozen=True, slots=True)
class Change:
    """What was changed, and what is left of the circuit."""

    name: str
    """paraphrase, tau, order, seed or control."""
    detail: str
    overlap: Overlap

    def to_json(self) -> dict[str, Any]:
        own = self.overlap
        row: dict[str, Any] = {
            "change": self.name,
            "detail": self.detail,
            "edges_before": own.edges_before,
            "edges_after": own.edges_after,
            "edges_survive": own.edges_survive,
            "edges_jaccard": own.edges,
            "nodes_jaccard": own.nodes,
        }
        for chance in own.chance:
            suffix = "" if chance.draw == "uniform" else f"_{chance.draw}"
            row[f"edges_random{suffix}"] = asdict(chance.edges)
            row[f"nodes_random{suffix}"] = asdict(chance.nodes)
        return row


@dataclass(frozen=True, slots=True)
class Skip:
    """A change that could not be made, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Request:
    """What circuit is asked about: its facts, all of one relation, and how it is found (by ACDC)."""

    facts: tuple[Fact, ...]
    tau: float = DEFAULT_TAU
    absolute: bool = False
    granularity: str = "qkv"
    ablation: AblationKind = "zero"
    engine: str = "sparse"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.facts:
            raise ValueError("expected at least one fact, got none")
        if not 0 < self.tau < float("inf"):
            raise ValueError(f"tau must be a finite number of nats above 0, got {self.tau}")


@dataclass(frozen=True)
class _Lab:
    """Finds circuits as the request asks, but for what a change changes."""

    request: Request
    model: Model
    relations: Relations
    notice: Callable[[str], None]

    def engine(self, facts: tuple[Fact, ...], ablation: AblationKind, seed: int, *, half: bool = False) -> Engine:
        """``half``: the mean over a random half of the reference set, so that the seed matters to it."""
        match ablation:
            case "zero":
                values = Ablation("zero")
            case "mean":
                reference = corruption.reference(facts, self.relations)
                if half:
                    size = max(1, len(reference) // 2)
                    reference = tuple(random.Random(f"{seed}/reference").sample(reference, size))
                values = Ablation("mean", reference=reference)
            case "resample":
                donors = (corruption.corrupted(fact, self.relations, self.model, seed) for fact in facts)
                values = Ablation("resample", corrupted=tuple(donors))
        granularity = "node" if self.request.granularity == "node" else "qkv"
        return make_engine(
            self.request.engine, self.model, facts, ablation=values, granularity=granularity, notice=self.notice
        )

    def circuit(self, engine: Engine, facts: tuple[Fact, ...], *, reverse_senders: bool = False) -> Circuit:
        tau, absolute = self.request.tau, self.request.absolute
        scores, _ = acdc(
            engine,
            tau=tau,
            absolute=absolute,
            provenance=self.provenance(tau, facts),
            reverse_senders=reverse_senders,
        )
        return scores.above(tau, absolute=absolute)

    def at_taus(self, engine: Engine, facts: tuple[Fact, ...], taus: Sequence[float]) -> dict[float, Circuit]:
        absolute = self.request.absolute
        found = sweep(engine, taus, provenance=lambda tau: self.provenance(tau, facts), absolute=absolute)
        return {tau: scores.above(tau, absolute=absolute) for tau, scores, _ in found}

    def provenance(self, tau: float, facts: tuple[Fact, ...]) -> Provenance:
        return Provenance(
            model=self.model.name,
            weights=self.model.weights,
            processing=self.model.processing,
            method="acdc",
            settings={"tau": tau, "absolute": self.request.absolute, "ablation": self.request.ablation},
            seed=self.request.seed,
            facts=tuple(str(fact) for fact in facts),
        )

    def known(self, facts: Sequence[Fact]) -> tuple[Fact, ...]:
        return known(self.model, facts)


def changes(
    request: Request,
    relations: Relations,
    model: Model,
    *,
    draws: int = 100,
    notice: Callable[[str], None] = lambda _: None,
) -> Iterator[Change | Skip]:
    """Every change in turn, as it is measured.

    Paraphrases, thresholds and order are compared with the circuit asked for. The seed matters to mean and resample ablation
    alone: two circuits of two seeds are compared with each other, under the request's ablation if it is one of these,
    else under both. For mean ablation a seed draws half of the reference set. The control is the circuit of as many
    facts of another relation.

    Raises:
        circuits.studies.discover.UnknownFactError: the model does not recall a fact.
    """
    require_known(model, request.facts, whole_model(model, request.facts))
    lab = _Lab(request, model, relations, notice)
    facts, tau, seed = request.facts, request.tau, request.seed
    engine = lab.engine(facts, request.ablation, seed)
    by_tau = lab.at_taus(engine, facts, sorted(tau * factor for factor in (1.0, *FACTORS)))
    base = by_tau[tau]

    def compared(name: str, detail: str, after: Circuit, before: Circuit = base) -> Change:
        return Change(name, detail, overlap(before, after, draws=draws, seed=seed))

    yield from _paraphrases(lab, compared)
    for factor in FACTORS:
        yield compared("tau", f"tau {tau * factor:g} instead of {tau:g} nats", by_tau[tau * factor])
    yield compared("order", "senders tried from the input on", lab.circuit(engine, facts, reverse_senders=True))
    kinds: tuple[AblationKind, ...] = ("mean", "resample") if request.ablation == "zero" else (request.ablation,)
    for kind in kinds:
        try:
            one, other = (lab.circuit(lab.engine(facts, kind, draw, half=True), facts) for draw in (seed, seed + 1))
        except corruption.CorruptionError as error:
            yield Skip("seed", f"{kind} ablation: {error}")
        else:
            what = "halves of the reference set" if kind == "mean" else "corrupted prompts"
            yield compared("seed", f"{kind} ablation, {what} of seeds {seed} and {seed + 1}", other, one)
    yield _control(lab, compared)


def _paraphrases(lab: _Lab, compared: Callable[..., Change]) -> Iterator[Change | Skip]:
    facts = lab.request.facts
    name = facts[0].relation
    if name is None or name not in lab.relations:
        yield Skip("paraphrase", f"{facts[0].prompt!r} is in the words of no relation of the dataset")
        return
    relation = lab.relations[name]
    subjects = [fact.subject for fact in facts]
    own = {fact.prompt for fact in facts}
    for template, words in enumerate(relation.templates):
        same = tuple(relation.fact(subject, template) for subject in subjects)
        if own & {fact.prompt for fact in same}:
            continue
        known = lab.known(same)
        if not known:
            yield Skip("paraphrase", f"the model knows none of the facts as {words!r}")
            continue
        detail = f"“{words}”" + (f", {len(known)} of {len(facts)} facts known so" if len(known) < len(facts) else "")
        engine = lab.engine(known, lab.request.ablation, lab.request.seed)
        yield compared("paraphrase", detail, lab.circuit(engine, known))


def _control(lab: _Lab, compared: Callable[..., Change]) -> Change | Skip:
    """The circuit of as many known facts of a relation drawn from the others."""
    request = lab.request
    others = sorted(set(lab.relations) - {request.facts[0].relation})
    random.Random(f"{request.seed}/control").shuffle(others)
    for name in others:
        known = lab.known(split_facts(lab.relations[name], "val", seed=request.seed))[: len(request.facts)]
        if len(known) < len(request.facts):
            continue
        try:
            engine = lab.engine(known, request.ablation, request.seed)
        except corruption.CorruptionError:
            continue
        what = f"“{known[0]}”" if len(known) == 1 else f"{len(known)} facts of {name}"
        return compared("control", f"another relation: {what}", lab.circuit(engine, known))
    return Skip("control", f"no other relation has {len(request.facts)} facts that the model knows")


def known_facts(relations: Relations, name: str, model: Model, n: int, *, seed: int = 0) -> tuple[Fact, ...]:
    """The first n facts of the relation's D_val that the model knows.

    Raises:
        FactError: it knows none.
    """
    found = known(model, split_facts(relations[name], "val", seed=seed))[:n]
    if not found:
        raise FactError(f"{model.name} knows no fact of {name}, so there is no circuit whose stability could be asked")
    return found

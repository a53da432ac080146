"""How much of a circuit survives a change that should not matter: other words, another tau, another order, another draw.

Two circuits are compared by the Jaccard index of their edges, and of their heads and MLPs, beside that of random circuits
of the same two sizes. A control says what the circuits of unrelated facts share.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from circuits.circuit import Circuit, Provenance, jaccard
from circuits.datasets import corrupted as corruption
from circuits.datasets.split import split_facts
from circuits.discovery.acdc import AcdcOptions, search
from circuits.discovery.acdc import sweep as sweep_taus
from circuits.discovery.traversal import Traversal
from circuits.engines import Ablation, Engine, make_engine
from circuits.engines.ablation import AblationKind
from circuits.evaluation import known, whole_model
from circuits.evaluation.baseline import DRAWS, Draw, Interval, bootstrap, random_circuit
from circuits.facts import Fact, FactError, Relations
from circuits.graph import Node
from circuits.model import Model
from circuits.studies.loading import put_edit
from circuits.studies.search import load_model, require_known, shown
from circuits.studies.specs import StabilitySpec
from circuits.studies.study import Case, Outcome, Study, Watch
from circuits.studies.sweep import Store, sweep

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
class Survival:
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
class Lab:
    """Finds circuits as the spec asks, but for what a change changes."""

    spec: StabilitySpec
    model: Model
    relations: Relations
    watch: Watch = field(default_factory=Watch)
    held: ExitStack = field(default_factory=ExitStack)
    """The edit on the model."""

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
        granularity = "node" if self.spec.granularity == "node" else "qkv"
        return make_engine(
            self.spec.engine, self.model, facts, ablation=values, granularity=granularity, notice=self.watch.notice
        )

    def circuit(self, engine: Engine, facts: tuple[Fact, ...], what: str, *, reverse_senders: bool = False) -> Circuit:
        """``what`` it is compared for: told to whoever watches."""
        tau, absolute = self.spec.tau, self.spec.absolute
        scores, _ = search(
            engine,
            AcdcOptions(tau, absolute=absolute),
            provenance=self.provenance(tau, facts),
            walk=Traversal(engine.graph, reverse_senders=reverse_senders),
            progress=shown(self.watch.at(what)),
        )
        return scores.above(tau, absolute=absolute)

    def at_taus(self, engine: Engine, facts: tuple[Fact, ...], taus: Sequence[float]) -> dict[float, Circuit]:
        absolute = self.spec.absolute
        found = sweep_taus(
            engine,
            taus,
            provenance=lambda tau: self.provenance(tau, facts),
            absolute=absolute,
            progress=shown(self.watch.at("the circuit at each tau")),
        )
        return {tau: scores.above(tau, absolute=absolute) for tau, scores, _ in found}

    def provenance(self, tau: float, facts: tuple[Fact, ...]) -> Provenance:
        return Provenance(
            model=self.model.name,
            weights=self.model.weights,
            processing=self.model.processing,
            method="acdc",
            settings={"tau": tau, "absolute": self.spec.absolute, "ablation": self.spec.ablation},
            seed=self.spec.seed,
            facts=tuple(str(fact) for fact in facts),
        )

    def known(self, facts: Sequence[Fact]) -> tuple[Fact, ...]:
        return known(self.model, facts)

    @cached_property
    def asked(self) -> Engine:
        """The engine of the circuit that is asked about."""
        return self.engine(self.spec.facts, self.spec.ablation, self.spec.seed)

    @cached_property
    def by_tau(self) -> dict[float, Circuit]:
        """The circuit that is asked about, at its own threshold and the others."""
        tau = self.spec.tau
        return self.at_taus(self.asked, self.spec.facts, sorted(tau * factor for factor in (1.0, *FACTORS)))

    def change(self, name: str, detail: str, after: Circuit, before: Circuit | None = None) -> Survival:
        before = self.by_tau[self.spec.tau] if before is None else before
        return Survival(name, detail, overlap(before, after, draws=self.spec.draws, seed=self.spec.seed))


# ---- the changes -----------------------------------------------------------------------------------------------------


def _paraphrase(lab: Lab, template: int | None) -> Survival | Skip:
    """The circuit of the facts in another template's words; None where there is no other."""
    facts = lab.spec.facts
    if template is None:
        return Skip("paraphrase", f"{facts[0].prompt!r} is in the words of no relation of the dataset")
    relation = lab.relations[facts[0].relation or ""]
    words = relation.templates[template]
    known = lab.known([relation.fact(fact.subject, template) for fact in facts])
    if not known:
        return Skip("paraphrase", f"the model knows none of the facts as {words!r}")
    detail = f"“{words}”" + (f", {len(known)} of {len(facts)} facts known so" if len(known) < len(facts) else "")
    return lab.change(
        "paraphrase", detail, lab.circuit(lab.engine(known, lab.spec.ablation, lab.spec.seed), known, "paraphrase")
    )


def _other_templates(lab: Lab) -> list[int | None]:
    """The templates that put the facts in other words."""
    facts = lab.spec.facts
    name = facts[0].relation
    if name is None or name not in lab.relations:
        return [None]
    relation, own = lab.relations[name], {fact.prompt for fact in facts}
    return [
        template
        for template in range(len(relation.templates))
        if not own & {relation.fact(fact.subject, template).prompt for fact in facts}
    ]


def _tau(lab: Lab, factor: float) -> Survival:
    tau = lab.spec.tau
    return lab.change("tau", f"tau {tau * factor:g} instead of {tau:g} nats", lab.by_tau[tau * factor])


def _order(lab: Lab, _: None) -> Survival:
    after = lab.circuit(lab.asked, lab.spec.facts, "order", reverse_senders=True)
    return lab.change("order", "senders tried from the input on", after)


def _seed(lab: Lab, kind: AblationKind) -> Survival | Skip:
    facts, seed = lab.spec.facts, lab.spec.seed
    try:
        one, other = (
            lab.circuit(lab.engine(facts, kind, draw, half=True), facts, f"seed {draw}") for draw in (seed, seed + 1)
        )
    except corruption.CorruptionError as error:
        return Skip("seed", f"{kind} ablation: {error}")
    what = "halves of the reference set" if kind == "mean" else "corrupted prompts"
    return lab.change("seed", f"{kind} ablation, {what} of seeds {seed} and {seed + 1}", other, one)


def _control(lab: Lab, _: None) -> Survival | Skip:
    """The circuit of as many known facts of a relation drawn from the others."""
    spec = lab.spec
    others = sorted(set(lab.relations) - {spec.facts[0].relation})
    random.Random(f"{spec.seed}/control").shuffle(others)
    for name in others:
        known = lab.known(split_facts(lab.relations[name], "val", seed=spec.seed))[: len(spec.facts)]
        if len(known) < len(spec.facts):
            continue
        try:
            engine = lab.engine(known, spec.ablation, spec.seed)
        except corruption.CorruptionError:
            continue
        what = f"“{known[0]}”" if len(known) == 1 else f"{len(known)} facts of {name}"
        return lab.change("control", f"another relation: {what}", lab.circuit(engine, known, "control"))
    return Skip("control", f"no other relation has {len(spec.facts)} facts that the model knows")


CHANGES: dict[str, Callable[[Lab, Any], Survival | Skip]] = {
    "paraphrase": _paraphrase,
    "tau": _tau,
    "order": _order,
    "seed": _seed,
    "control": _control,
}


# ---- the study -------------------------------------------------------------------------------------------------------


def _open(spec: StabilitySpec, relations: Relations) -> Lab:
    held, model = ExitStack(), load_model(spec.run_spec(spec.facts[0].relation))
    return Lab(spec, put_edit(model, spec.with_edit, held), relations, held=held)


def _cases(spec: StabilitySpec, lab: Lab) -> list[Case[tuple[str, Any]]]:
    """The seed matters to mean and resample ablation alone: it is asked about under the spec's ablation if it is one of
    these, else under both."""
    require_known(lab.model, spec.facts, whole_model(lab.model, spec.facts))
    kinds = ("mean", "resample") if spec.ablation == "zero" else (spec.ablation,)
    asked = [("paraphrase", template) for template in _other_templates(lab)]
    asked += [("tau", factor) for factor in FACTORS]
    asked += [("order", None), *(("seed", kind) for kind in kinds), ("control", None)]
    # Of one group: all but the seed's are compared with one circuit, which is searched once.
    return [Case(name if what is None else f"{name} {what}", (name, what), "one circuit") for name, what in asked]


def _run(spec: StabilitySpec, case: Case[tuple[str, Any]], lab: Lab, watch: Watch) -> Survival | Skip:
    name, what = case.asked
    return CHANGES[name](lab, what)


STABILITY: Study[StabilitySpec, Lab, tuple[str, Any], Survival | Skip] = Study(
    "stability", Survival | Skip, _open, _cases, _run
)


def changes(
    spec: StabilitySpec,
    relations: Relations,
    model: Model,
    *,
    watch: Watch | None = None,
    store: Store | None = None,
    finished: Callable[[int, int, Outcome[Any]], None] = lambda done, total, outcome: None,
) -> Iterator[Survival | Skip]:
    """Every change in turn, as it is measured.

    Paraphrases, thresholds and order are compared with the circuit asked for; two circuits of two seeds with each other. For
    mean ablation a seed draws half of the reference set. The control is the circuit of as many facts of another relation.

    Args:
        watch, store, finished: as of `circuits.studies.sweep.sweep`.

    Raises:
        circuits.studies.search.UnknownFactError: the model does not recall a fact.
    """
    lab = Lab(spec, model, relations, watch or Watch())
    for outcome in sweep(STABILITY, spec, relations, context=lab, watch=watch, store=store, finished=finished):
        assert outcome.row is not None
        yield outcome.row


def known_facts(relations: Relations, name: str, model: Model, n: int, *, seed: int = 0) -> tuple[Fact, ...]:
    """The first n facts of the relation's D_val that the model knows.

    Raises:
        FactError: it knows none.
    """
    found = known(model, split_facts(relations[name], "val", seed=seed))[:n]
    if not found:
        raise FactError(f"{model.name} knows no fact of {name}, so there is no circuit whose stability could be asked")
    return found

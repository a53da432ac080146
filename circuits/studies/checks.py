"""What is asked of a circuit without searching its fact again: each check is lines with a number, its interval, chance and bar."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circuits.circuit import Circuit
from circuits.datasets.corrupted import CorruptionError
from circuits.datasets.split import split_facts
from circuits.discovery import find_method
from circuits.engines import Engine
from circuits.evaluation import known, standalone, whole_model
from circuits.evaluation.baseline import size_matched
from circuits.evaluation.certificate import KL_BAR, Certificate, certify, gives
from circuits.evaluation.hypotheses import LEAST, LEVEL, equivalence, independence, inflated_worth, superfluous
from circuits.evaluation.knockouts import minimality
from circuits.evaluation.lines import Line, of_number, of_share
from circuits.facts import Fact, FactError, Relations
from circuits.metrics import Share
from circuits.model import Model
from circuits.studies.certify_specs import CertifySpec
from circuits.studies.search import engine_for, problem_of, search
from circuits.studies.specs import RunSpec
from circuits.studies.subjects import asked, beside

SHARE_BAR = 0.5
"""Of random circuits, cuts and other circuits, the share that must not do what the circuit does; of its edges, the share that
must be worth something."""
JACCARD_BAR = 0.8
"""Of the edges of two circuits of one fact (2510.00845)."""
NDF_BAR = 0.9
"""Of eight circuits searched for facts of D_val the least was 0.977; the medians of random ones were at most 0.43."""


@dataclass(frozen=True)
class Examined:
    """A circuit under examination."""

    model: Model
    relations: Relations
    circuit: Circuit
    notice: Callable[[str], None] = lambda _: None

    def engine(self, run: RunSpec, facts: Sequence[Fact]) -> Engine:
        return engine_for(run, tuple(facts), self.relations, self.model, notice=self.notice)

    def others(self, spec: CertifySpec) -> list[Fact]:
        """The subjects of the relation that the circuit was not built from."""
        return asked(spec.run.facts[0], spec.run.built_from, self.relations, self.model, spec.run.seed)

    def wordings(self, fact: Fact) -> tuple[Fact, ...]:
        """The fact in its own words first, then in the relation's others that the model puts first."""
        relation = self.relations.get(fact.relation or "")
        if relation is None:
            return (fact,)
        found = [relation.fact(fact.subject, i) for i in range(len(relation.templates))]
        return (fact, *known(self.model, [other for other in found if other.prompt != fact.prompt], rank=1))


Check = Callable[[CertifySpec, Examined], tuple[Line, ...]]


def tried_otherwise(
    run: RunSpec, bench: Examined, *, reverse_senders: bool = False, candidates: np.ndarray | None = None
) -> Circuit:
    """The circuit of a search that tries edges in another order, or only these candidates; of a method that tries none, its own."""
    method = find_method(run.method)
    if method.sweep is None:
        return search(run, bench.relations, bench.model)
    found = method.sweep(
        problem_of(run, bench.relations, bench.model, bench.engine(run, run.built_from)),
        run.options_of(method),
        (run.tau,),
        provenance=lambda _: bench.circuit.provenance,
        candidates=candidates,
        reverse_senders=reverse_senders,
        force=run.force,
    )
    _, scores, _ = next(found)
    return scores.above(run.tau, absolute=run.absolute)


def _quick(spec: CertifySpec, bench: Examined) -> tuple[Line, ...]:
    """Sufficiency, specificity and necessity, with more random circuits than the quick certificate has."""
    found: Certificate = certify(
        bench.model,
        lambda facts: bench.engine(spec.run, facts),
        bench.circuit,
        spec.run.facts[0],
        bench.others(spec),
        draws=spec.random,
        seed=spec.seed,
    )
    alone, own, rest = found.sufficiency, found.specificity, found.necessity
    ahead = alone.model.nll.value - alone.circuit.nll.value
    by_chance = float(np.median(alone.random_kl)) if alone.random_kl else math.nan
    specific = Line(
        "specificity",
        "other subjects that get their own answer; chance: the commonest answer for all",
        own.own_answer.value,
        own.own_answer.low,
        own.own_answer.high,
        own.own_answer.n,
        own.blind,
        "above chance and above this answer’s share",
        own.grade,
    )
    told = Line("specificity", "other subjects that get this fact’s answer", own.this_answer.value)
    return (
        of_number("sufficiency", "gives the answer, every token first", float(alone.given), "at least", 1.0),
        of_number(
            "sufficiency",
            "KL from the model, nats; chance: median random circuit",
            alone.kl,
            "at most",
            KL_BAR,
            chance=by_chance,
        ),
        Line("sufficiency", "nats by which it is more certain of the answer than the model", ahead),
        of_share("sufficiency", "random circuits of its size that give the answer", alone.random, "at most", SHARE_BAR),
        specific,
        replace(told, low=own.this_answer.low, high=own.this_answer.high, n=own.this_answer.n),
        of_number("necessity", "the model without it loses the answer", float(rest.lost), "at least", 1.0),
        of_share("necessity", "cuts of as many random edges that lose it", rest.random, "at most", SHARE_BAR),
    )


def _minimality(spec: CertifySpec, bench: Examined) -> tuple[Line, ...]:
    """Edges worth tau or more in the finished circuit, and in random circuits of its size; and the test of Shi et al."""
    engine, circuit = bench.engine(spec.run, spec.run.built_from), bench.circuit

    def worth(of: Circuit) -> list[float]:
        return [abs(value) for _, value in minimality(engine, of).ranked]

    own = worth(circuit)
    draws = size_matched(circuit, draws=3, seed=spec.seed, draw="connected")
    by_chance = float(np.mean([value >= spec.run.tau for other in draws for value in worth(other)] or [math.nan]))
    reference = inflated_worth(engine, circuit, draws=spec.random, seed=spec.seed)
    kept = len(own) - superfluous(own, reference)
    return (
        of_share(
            "minimality",
            f"edges worth {spec.run.tau:g} nats or more",
            Share.of([value >= spec.run.tau for value in own]),
            "at least",
            SHARE_BAR,
            chance=by_chance,
        ),
        of_share(
            "Shi et al.",
            "minimality: edges worth more than 95 % of added random ones",
            Share(kept, len(own)),
            "at least",
            SHARE_BAR,
        ),
    )


def _ndf(spec: CertifySpec, bench: Examined) -> tuple[Line, ...]:
    """1 - min(|(m(M) - m(C)) / (m(M) - m(empty))|, 1), m the log-probability of the answer: normalised deviation faithfulness."""
    facts = spec.run.facts
    engine, graph = bench.engine(spec.run, facts), bench.circuit.graph

    def nll(of: Circuit) -> float:
        return standalone(bench.model, engine, of, facts).nll.value

    origin = bench.circuit.provenance
    whole, empty = nll(Circuit.full(graph, origin)), nll(Circuit.empty(graph, origin))

    def ndf(of: Circuit) -> float:
        return 1 - min(abs((nll(of) - whole) / (empty - whole)), 1.0) if empty != whole else math.nan

    draws = size_matched(bench.circuit, draws=spec.random, seed=spec.seed, draw="connected")
    by_chance = float(np.median([ndf(other) for other in draws]))
    return (
        of_number(
            "faithfulness",
            "NDF; chance: median random circuit",
            ndf(bench.circuit),
            "at least",
            NDF_BAR,
            chance=by_chance,
        ),
    )


def _hypotheses(spec: CertifySpec, bench: Examined) -> tuple[Line, ...]:
    """Equivalence and independence over the relation's subjects: the fact and those that specificity asks."""
    facts = (*spec.run.facts, *bench.others(spec))
    engine, circuit = bench.engine(spec.run, facts), bench.circuit
    rest = Circuit(circuit.graph, circuit.graph.legal & ~circuit.kept, circuit.provenance)
    alone, without = (standalone(bench.model, engine, of, facts).nll.per_example for of in (circuit, rest))
    model = whole_model(bench.model, facts).nll.per_example
    tests = (
        ("equivalence: share of subjects on which it outdoes the model; p", equivalence(alone, model), 0.5),
        ("independence of the rest from the model: HSIC; p", independence(without, model, seed=spec.seed), math.nan),
    )
    return tuple(
        Line(
            "Shi et al.",
            f"{what} {found.p:.3f}",
            found.statistic,
            n=found.n,
            chance=chance,
            bar=f"not refuted: p at least {LEVEL:g}",
            grade="failed" if found.p < LEVEL else "undecided" if len(facts) < LEAST else "passed",
        )
        for what, found, chance in tests
    )


def _uniqueness(spec: CertifySpec, bench: Examined) -> tuple[Line, ...]:
    """Whether another circuit gives the answer: among the edges that the first lacks, and without random halves of it."""
    facts, circuit, graph = spec.run.facts, bench.circuit, bench.circuit.graph
    engine, rng = bench.engine(spec.run, facts), np.random.default_rng(spec.seed)
    edges = np.argwhere(circuit.kept)

    def given(kept: np.ndarray) -> bool:
        return gives(bench.model, engine, kept, facts)[0]

    left = [
        given(_without(graph.legal, edges[rng.choice(len(edges), len(edges) // 2, replace=False)]))
        for _ in range(spec.random)
    ]
    anywhere = np.argwhere(graph.legal)
    by_chance = [
        given(_without(graph.legal, anywhere[rng.choice(len(anywhere), len(edges) // 2, replace=False)]))
        for _ in range(spec.random)
    ]
    repelled = tried_otherwise(spec.run, bench, candidates=graph.legal & ~circuit.kept)
    return (
        of_number(
            "uniqueness",
            "the circuit found without its edges gives the answer too",
            float(given(repelled.kept)),
            "at most",
            0.0,
        ),
        of_share(
            "uniqueness",
            "random halves of it that the model does without; chance: as many random edges",
            Share.of(left),
            "at most",
            SHARE_BAR,
            chance=Share.of(by_chance).value,
        ),
    )


def _without(kept: np.ndarray, edges: np.ndarray) -> np.ndarray:
    rest = kept.copy()
    rest[edges[:, 0], edges[:, 1]] = False
    return rest


def _elsewhere(spec: CertifySpec, bench: Examined) -> tuple[Line, ...]:
    """Circuits of single facts of other relations, found by the same criterion, run on this fact."""
    facts, found = spec.run.facts, list[bool]()
    engine = bench.engine(spec.run, facts)
    names = sorted(set(bench.relations) - {facts[0].relation})
    random.Random(f"{spec.seed}/elsewhere").shuffle(names)
    for name in names:
        if len(found) == spec.others:
            break
        try:
            other = known(bench.model, split_facts(bench.relations[name], "val", seed=spec.seed), rank=1)[0]
            siblings = beside(other, bench.relations, bench.model, len(spec.run.siblings), spec.seed)
            run = spec.run.model_copy(update={"facts": (other,), "siblings": siblings})
            found.append(gives(bench.model, engine, search(run, bench.relations, bench.model).kept, facts)[0])
        except (IndexError, FactError, CorruptionError):
            continue
    return (
        of_share(
            "another relation",
            "circuits of other relations that give this answer",
            Share.of(found),
            "at most",
            SHARE_BAR,
        ),
    )


CHECKS: dict[str, Check] = {
    "quick": _quick,
    "faithfulness": _ndf,
    "minimality": _minimality,
    "hypotheses": _hypotheses,
    "uniqueness": _uniqueness,
    "another relation": _elsewhere,
}

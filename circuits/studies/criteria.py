"""Which criterion of a search leaves a circuit that is about its fact: the same facts by each, every circuit certified.

A criterion is what is measured (MatchNLL, KL to the model), what an ablated edge carries, and beside how many siblings the
fact is searched. Controls of each ablation: the whole model, and a random connected circuit of the first criterion's size.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated, Literal

from circuits.choices import AblationKind, MetricName
from circuits.circuit import Circuit, jaccard
from circuits.datasets.split import split_facts
from circuits.evaluation import known
from circuits.evaluation.baseline import size_matched
from circuits.evaluation.certificate import Certificate
from circuits.facts import Fact, FactError, Relations
from circuits.model import Model
from circuits.records import Number
from circuits.studies.certify_specs import CriteriaSpec
from circuits.studies.columns import Column
from circuits.studies.loading import put_edit
from circuits.studies.runs import certifier
from circuits.studies.search import load_model, search
from circuits.studies.specs import RunSpec
from circuits.studies.study import Case, Study, Watch
from circuits.studies.subjects import beside, recalled_others

LEAST_ASKED = 10
"""Other subjects that must be left to ask when as many siblings are taken as any criterion does."""
Circuits = Literal["searched", "whole model", "random"]


@dataclass(frozen=True, slots=True)
class Criterion:
    """What a circuit was searched by; of controls, under what ablation it is run."""

    circuits: Circuits
    metric: MetricName
    ablation: AblationKind
    siblings: int

    @property
    def name(self) -> str:
        if self.circuits != "searched":
            return f"{self.circuits}, {self.ablation}"
        return f"{self.metric}, {self.ablation}, {self.siblings} siblings"


@dataclass(frozen=True, slots=True)
class CriterionRow:
    """One fact's circuit by one criterion, and what it is worth."""

    relation: str
    statement: str
    criterion: Criterion
    edges: Annotated[int, Column("edges")]
    certificate: Certificate
    paraphrase: Annotated[Number, Column("edge Jaccard, other words")]
    """Of its edges and those of the same criterion's circuit in other words; NaN where the model knows none, and of controls."""
    seconds: Annotated[float, Column("CPU seconds", digits=1)]
    """Of the search, on one core: the one field that another run does not give again."""


@dataclass(frozen=True)
class Workbench:
    model: Model
    relations: Relations
    facts: tuple[Fact, ...]
    notice: Callable[[str], None] = lambda _: None
    held: ExitStack = field(default_factory=ExitStack)
    """The edit on the model."""

    def run_spec(self, spec: CriteriaSpec, fact: Fact, criterion: Criterion) -> RunSpec:
        siblings = beside(fact, self.relations, self.model, criterion.siblings, spec.seed)
        asked = spec.model_copy(update={"ablation": criterion.ablation})
        return asked.asks_for(facts=(fact,), siblings=siblings, metric=criterion.metric)


def facts_for(spec: CriteriaSpec, relations: Relations, model: Model) -> tuple[Fact, ...]:
    """``n`` facts that the model puts first, the relations in turn, each with subjects enough beside it.

    Raises:
        FactError: there are not that many.
    """
    waiting = {
        name: list(known(model, split_facts(relations[name], spec.split, seed=spec.seed), rank=1))
        for name in spec.names
    }
    found: list[Fact] = []
    while len(found) < spec.n and any(waiting.values()):
        for facts in waiting.values():
            while facts:
                fact = facts.pop(0)
                if len(recalled_others(fact, relations, model, spec.seed)) >= max(spec.counts) + LEAST_ASKED:
                    found.append(fact)
                    break
    if len(found) < spec.n:
        raise FactError(
            f"expected {spec.n} facts with {max(spec.counts)} siblings and {LEAST_ASKED} more subjects that {model.name} knows, "
            f"got {len(found)}; ask for fewer, or for fewer siblings"
        )
    return tuple(found[: spec.n])


def _open(spec: CriteriaSpec, relations: Relations) -> Workbench:
    held = ExitStack()
    model = put_edit(load_model(spec.asks_for(facts=(Fact("s", "s", "o"),))), spec.with_edit, held)
    return Workbench(model, relations, facts_for(spec, relations, model), held=held)


def _cases(spec: CriteriaSpec, bench: Workbench) -> list[Case[tuple[Fact, Criterion]]]:
    metric, _, siblings = spec.criteria[0]
    ablations: dict[AblationKind, None] = {ablation: None for _, ablation, _ in spec.criteria}
    kinds: tuple[Circuits, ...] = ("whole model", "random")
    controls = [Criterion(kind, metric, ablation, siblings) for ablation in ablations for kind in kinds]
    asked = [*(Criterion("searched", *one) for one in spec.criteria), *controls]
    return [
        Case(f"{row:03} {fact.relation} {one.name}", (fact, one), fact.prompt)
        for row, fact in enumerate(bench.facts)
        for one in asked
    ]


def _run(spec: CriteriaSpec, case: Case[tuple[Fact, Criterion]], bench: Workbench, watch: Watch) -> CriterionRow:
    fact, criterion = case.asked
    asked = bench.run_spec(spec, fact, criterion)
    began = time.process_time()
    circuit = search(asked, bench.relations, bench.model)
    seconds = time.process_time() - began
    if criterion.circuits == "whole model":
        circuit = Circuit.full(circuit.graph, circuit.provenance)
    elif criterion.circuits == "random":
        (circuit,) = size_matched(circuit, draws=1, seed=spec.seed + 1, draw="connected")
    certificate = certifier(asked, bench.relations, bench.model, notice=watch.notice)(circuit)
    if certificate is None:
        raise MemoryError("too little memory for a certificate")
    return CriterionRow(
        fact.relation or "",
        fact.statement,
        criterion,
        circuit.n_edges,
        certificate,
        _in_other_words(spec, fact, criterion, circuit, bench) if criterion.circuits == "searched" else float("nan"),
        seconds if criterion.circuits == "searched" else 0.0,
    )


def _in_other_words(spec: CriteriaSpec, fact: Fact, criterion: Criterion, circuit: Circuit, bench: Workbench) -> float:
    """The Jaccard index of the circuit and of the one that the criterion finds in the first other words that the model knows."""
    relation = bench.relations[fact.relation or ""]
    others = [relation.fact(fact.subject, i) for i in range(len(relation.templates))]
    others = [other for other in others if other.prompt != fact.prompt]
    for other in known(bench.model, others, rank=1):
        try:
            asked = bench.run_spec(spec, other, criterion)
        except FactError:
            continue
        again = search(asked, bench.relations, bench.model)
        return jaccard({edge.name for edge in circuit.edges}, {edge.name for edge in again.edges})
    return float("nan")


CRITERIA: Study[CriteriaSpec, Workbench, tuple[Fact, Criterion], CriterionRow] = Study(
    "criteria", CriterionRow, _open, _cases, _run
)

"""On the embedded model the fast engine decides every edge as the reference does, whatever ablation and threshold."""

import numpy as np
import pytest
from agreement import ablation_of

from circuits.circuit import Provenance
from circuits.discovery.acdc import AcdcOptions, search
from circuits.discovery.traversal import Traversal
from circuits.editing import memoe_scoped
from circuits.engines.ablation import AblationKind
from circuits.engines.hook import HookEngine
from circuits.engines.sparse import SparseEngine
from circuits.facts import EditRequest, Relations
from circuits.graph import Node
from circuits.model import Model
from circuits.studies.bench import first_facts

HERE = Provenance("factlm", "")
RELATIONS = (
    "country_language",
    "country_capital_city",
    "company_headquarters",
    "person_native_language",
    "element_symbol",
    "adj_antonym",
    "verb_past_tense",
    "word_last_letter",
    "work_location",
    "animal_class",
    "name_religion",
    "occupation_age",
)


@pytest.fixture(scope="module")
def factlm() -> Model:
    return Model.default()


TAUS = (0.02, 0.07, 0.2)
# Every ablation meets 12 facts and 3 thresholds; zero ablation, the default, all 36 pairs.
CASES = [(turn, "zero", tau) for turn in range(12) for tau in TAUS]
CASES += [(turn, kind, TAUS[turn % 3]) for kind in ("mean", "resample") for turn in range(12)]
CLOSEST, DRAWN = 4, 4
"""Steps of each search that the reference takes again: those closest to tau, and some drawn at random."""


@pytest.mark.parametrize(("turn", "kind", "tau"), CASES)
def test_the_reference_takes_the_steps_of_the_fast_engines_search_as_it_took_them(
    turn: int, kind: AblationKind, tau: float, factlm: Model, relations: Relations
):
    relation = relations[RELATIONS[turn]]
    fact = relation.fact(relation.subjects[1])
    ablation = ablation_of(kind, fact, relations, factlm)
    fast = SparseEngine(factlm, (fact,), ablation=ablation, granularity="node")
    _, state = search(fast, AcdcOptions(tau), provenance=HERE)
    reference = HookEngine(factlm, (fact,), ablation=ablation, granularity="node")
    edges, graph = Traversal(fast.graph).edges, fast.graph
    tried = [i for i, score in enumerate(state.scores) if score is not None]
    closest = sorted(tried, key=lambda i: abs(float(state.scores[i] or 0) - tau))[:CLOSEST]
    drawn = np.random.default_rng(turn).choice(tried, DRAWN, replace=False).tolist()
    for step in {*closest, *drawn}:
        circuit = graph.legal.copy()
        for (writer, reader), kept in zip(edges[:step], state.kept[:step], strict=True):
            circuit[writer, reader] = kept
        without = circuit.copy()
        without[edges[step]] = False
        score = float(reference.nll(without)[0] - reference.nll(circuit)[0])
        assert state.scores[step] == pytest.approx(score, abs=1e-4), (fact, edges[step])
        # Only a step as close to tau as float32 rounds may fall either way.
        assert (score >= tau) == state.kept[step] or abs(score - tau) < fast.noise()
    # The control: this is no empty circuit.
    assert sum(state.kept) > 3


@pytest.mark.parametrize(("turn", "kind"), [(2, "zero"), (3, "mean"), (1, "resample")])
def test_the_fast_engine_keeps_exactly_the_edges_that_the_reference_keeps(
    turn: int, kind: AblationKind, factlm: Model, relations: Relations
):
    relation = relations[RELATIONS[turn]]
    fact = relation.fact(relation.subjects[1])
    ablation = ablation_of(kind, fact, relations, factlm)
    (_, fast), (_, slow) = (
        search(make(factlm, (fact,), ablation=ablation, granularity="node"), AcdcOptions(0.2), provenance=HERE)
        for make in (SparseEngine, HookEngine)
    )
    assert fast.kept == slow.kept
    assert sum(slow.kept) > 3


def test_the_facts_of_the_benchmark_are_of_different_relations(relations: Relations):
    facts = first_facts(relations, 12)
    assert len({fact.relation for fact in facts}) == 12


def test_an_edit_by_memoe_is_searched_as_the_reference_searches_it(factlm: Model, relations: Relations) -> None:
    relation = relations["country_capital_city"]
    request = EditRequest(relation.templates[0], "France", "Rome")
    edit = memoe_scoped(factlm, (request,), options=memoe_scoped.options(factlm, texts=1, steps=20))
    with edit.on(factlm) as edited:
        (_, fast), (_, slow) = (
            search(make(edited, (request.fact,), granularity="node"), AcdcOptions(0.3), provenance=HERE)
            for make in (SparseEngine, HookEngine)
        )
        assert fast.kept == slow.kept
        # The control: what was edited in is in the circuit.
        graph = edited.graph("node")
        bypass = graph.writer_index(Node(edit.layer, "bypass"))
        assert any(
            kept for (writer, _), kept in zip(Traversal(graph).edges, fast.kept, strict=True) if writer == bypass
        )

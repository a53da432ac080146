"""How stable a circuit is, against overlaps counted by hand and circuits whose ambiguity is known."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuits import cli, datasets
from circuits.circuit import Circuit, Provenance, jaccard
from circuits.discovery.acdc import AcdcOptions, search
from circuits.discovery.traversal import Traversal
from circuits.engines.hook import HookEngine
from circuits.engines.sparse import SparseEngine
from circuits.evaluation.baseline import random_circuit
from circuits.facts import Fact, FactError, Relation, Relations
from circuits.graph import Graph, Shape
from circuits.model import Model
from circuits.studies import stability
from circuits.studies.search import UnknownFactError
from circuits.studies.specs import StabilitySpec
from circuits.studies.stability import Skip, Survival, changes, components, known_facts, overlap
from circuits.studies.study import Watch
from circuits.studies.sweep import Folder
from tests.models import guessed_relation, plain_model, random_plain_model, word_fact, zero_weights

HERE = Provenance("by hand", "00", processing="raw", method="acdc")
GRAPH = Graph(Shape(2, 1))


def of_edges(text: str) -> Circuit:
    kept = np.zeros_like(GRAPH.legal)
    for name in text.split():
        kept[GRAPH.edge(name)] = True
    return Circuit(GRAPH, kept, HERE)


# ---- overlaps ------------------------------------------------------------------------------------------------------------


@given(st.frozensets(st.integers(0, 9)), st.frozensets(st.integers(0, 9)))
def test_the_jaccard_index_is_symmetric_and_1_only_for_equals(ours: frozenset[int], theirs: frozenset[int]):
    assert jaccard(ours, theirs) == jaccard(theirs, ours)
    assert (jaccard(ours, theirs) == 1) == (ours == theirs)
    assert 0 <= jaccard(ours, theirs) <= 1


def test_an_overlap_counts_edges_and_the_heads_and_mlps_that_they_touch():
    one = of_edges("input->m0 m0->logits input->m1 m1->logits")
    other = of_edges("input->m0 m0->logits input->a0.h0<v> a0.h0->m0 input->logits")
    measured = overlap(one, other, draws=5)
    assert (measured.edges_before, measured.edges_after) == (4, 5)
    assert measured.edges_survive == 2 / 4
    assert measured.edges == 2 / 7
    # m0 and m1 against m0 and a0.h0; input and logits are in every circuit and count in none.
    assert measured.nodes == 1 / 3
    assert {node.name for node in components(other)} == {"m0", "a0.h0"}


def test_a_circuit_survives_itself_whole_and_an_empty_one_shares_nothing_with_it():
    circuit, empty = of_edges("input->m0 m0->logits"), of_edges("")
    same = overlap(circuit, circuit, draws=2)
    assert (same.edges, same.nodes, same.edges_survive) == (1, 1, 1)
    none = overlap(circuit, empty, draws=2)
    assert (none.edges, none.nodes, none.edges_survive) == (0, 0, 0)
    assert overlap(empty, empty, draws=2).edges == 1


def test_the_random_level_is_that_of_independent_draws():
    # Two sets of n of N edges share n^2 / N on average; the index is about shared / (2 n - shared).
    graph = Graph(Shape(3, 3))
    n = graph.n_edges // 4
    one, other = (random_circuit(graph, n, seed=i, draw="uniform", provenance=HERE) for i in range(2))
    uniform, connected = overlap(one, other, draws=25).chance
    shared = n * n / graph.n_edges
    assert uniform.draw == "uniform"
    assert uniform.edges.mean == pytest.approx(shared / (2 * n - shared), abs=0.02)
    assert uniform.edges.low <= uniform.edges.mean <= uniform.edges.high
    # Circuits on paths share the edges near both ends, so that they are more alike than chance edges.
    small = [random_circuit(graph, 12, seed=i, draw="uniform", provenance=HERE) for i in range(2)]
    uniform, connected = overlap(*small, draws=25).chance
    assert connected.edges.mean > uniform.edges.mean
    assert overlap(one, other, draws=3, seed=1) == overlap(one, other, draws=3, seed=1)


def test_circuits_of_different_graphs_are_not_compared():
    other = Circuit.empty(Graph(Shape(2, 2)), HERE)
    with pytest.raises(ValueError, match="circuits of one graph"):
        overlap(of_edges(""), other)


# ---- the order of senders ------------------------------------------------------------------------------------------------
#
# Two MLPs look the same answer up, each strong enough alone: removing one costs little, removing both costs all. ACDC keeps
# the one that it tries last. Later senders are tried first, so that m0 stays; in reverse order m1 does.

WORDS = "a b c d p q r s"
PAIRS = tuple(zip("abcd", "pqrs", strict=True))


def either_lookup() -> Model:
    weights = zero_weights(n_layers=2, n_heads=1, d_model=8, d_head=1, d_mlp=4, d_vocab=8, n_ctx=3)
    weights["embed.W_E"][:4, :4] = torch.eye(4)
    for layer in range(2):
        weights[f"blocks.{layer}.mlp.W_in"][:4] = torch.eye(4)
        weights[f"blocks.{layer}.mlp.W_out"][:, 4:] = 9 * torch.eye(4)
    weights["unembed.W_U"][4:, 4:] = torch.eye(4)
    return plain_model(weights, WORDS)


MODEL = either_lookup()
FACTS = tuple(Fact(subject, subject, object_, "first") for subject, object_ in PAIRS)


def test_the_order_of_senders_decides_between_two_that_do_the_same():
    assert math.log(1 + 7 * math.exp(-9)) < 0.01
    for engine in (HookEngine(MODEL, FACTS), SparseEngine(MODEL, FACTS)):
        forward = search(engine, AcdcOptions(0.1), provenance=HERE)[0].above(0.1)
        backward = search(engine, AcdcOptions(0.1), provenance=HERE, walk=Traversal(GRAPH, True))[0].above(0.1)
        assert {edge.name for edge in forward} == {"input->m0", "m0->logits"}
        assert {edge.name for edge in backward} == {"input->m1", "m1->logits"}


def test_both_engines_find_one_circuit_in_reverse_order():
    model, facts = random_plain_model(0), (word_fact("1 2 3", "4"), word_fact("0 5 1", "2"))
    by_hooks, sparse = (
        search(engine, AcdcOptions(0.05), provenance=HERE, walk=Traversal(GRAPH, True))[0].above(0.05)
        for engine in (HookEngine(model, facts), SparseEngine(model, facts))
    )
    assert by_hooks == sparse
    assert by_hooks != search(HookEngine(model, facts), AcdcOptions(0.05), provenance=HERE)[0].above(0.05)


def test_a_reversed_traversal_keeps_the_receivers_order():
    forward, backward = Traversal(GRAPH), Traversal(GRAPH, reverse_senders=True)
    assert set(forward.edges) == set(backward.edges)
    assert [reader for _, reader in forward.edges] == [reader for _, reader in backward.edges]
    for _, first, end in forward.receivers():
        assert forward.edges[first:end] == backward.edges[first:end][::-1]


# ---- all changes ---------------------------------------------------------------------------------------------------------


def relation(name: str, templates: tuple[str, ...]) -> Relation:
    return Relation(
        name=name, title=name, kind="factual", domain="word", range="word", templates=templates, pairs=PAIRS
    )


# The second relation is the same words under another name: its circuits are the same, as the control must then say.
RELATIONS: Relations = {
    "first": relation("first", ("{}", "d {}", "a b {}")),
    "second": relation("second", ("c {}",)),
}


def made(spec: StabilitySpec, model: Model = MODEL) -> list[Survival | Skip]:
    return list(changes(spec.model_copy(update={"draws": 3}), RELATIONS, model))


def test_every_change_is_measured_against_the_circuit_asked_for():
    rows = made(StabilitySpec(facts=FACTS[:2], tau=0.1, engine="hook"))
    assert all(isinstance(row, Survival) for row in rows)
    assert [row.name for row in rows] == ["paraphrase"] * 2 + ["tau"] * 2 + ["order", "seed", "seed", "control"]
    overlaps = {(row.name, row.detail): row.overlap for row in rows if isinstance(row, Survival)}
    assert all(own.edges_before == 2 for (name, _), own in overlaps.items() if name != "seed")
    # Both templates end with the subject, and the lookup reads it alone: nothing changes but with the order.
    for (name, _), own in overlaps.items():
        if name in ("paraphrase", "tau", "control"):
            assert own.edges == own.nodes == 1
        if name == "order":
            assert own.edges == own.nodes == own.edges_survive == 0
    details = [detail for name, detail in overlaps if name == "tau"]
    assert "tau 0.05 instead of 0.1 nats" in details[0]
    assert "tau 0.2 instead of 0.1 nats" in details[1]


def test_a_change_that_is_kept_is_not_measured_again_and_each_search_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec, told = StabilitySpec(facts=FACTS[:2], tau=0.1, engine="hook", draws=3), []
    watch = Watch(progress=lambda done, total, state: told.append(state.split(":")[0]))
    first = list(changes(spec, RELATIONS, MODEL, watch=watch, store=Folder(tmp_path)))
    assert set(told) == {"paraphrase", "the circuit at each tau", "order", "seed 0", "seed 1", "control"}
    monkeypatch.setattr(stability, "search", lambda *_, **__: pytest.fail("searched again"))
    assert list(changes(spec, RELATIONS, MODEL, store=Folder(tmp_path))) == first
    with pytest.raises(pytest.fail.Exception, match="searched again"):
        list(changes(spec.model_copy(update={"seed": 1}), RELATIONS, MODEL, store=Folder(tmp_path)))


def test_the_seed_is_asked_about_under_the_ablation_in_use():
    rows = made(StabilitySpec(facts=FACTS[:2], tau=0.1, engine="hook", ablation="resample"))
    seeds = [row.detail for row in rows if row.name == "seed" and isinstance(row, Survival)]
    assert len(seeds) == 1
    assert "resample" in seeds[0]


def test_a_sentence_of_no_relation_has_no_paraphrase_and_no_other_subjects():
    rows = made(StabilitySpec(facts=(Fact("a", "a", "p"),), tau=0.1, engine="hook"))
    left_out = {row.name for row in rows if isinstance(row, Skip)}
    assert left_out == {"paraphrase", "seed"}
    assert {row.name for row in rows if isinstance(row, Survival)} == {"tau", "order", "control"}


def test_a_fact_that_the_model_does_not_know_has_no_circuit_to_ask_about():
    weights = dict(MODEL.network.weights)  # type: ignore[attr-defined]
    size = 20
    wide = {"unembed.W_U": torch.zeros(8, size), "unembed.b_U": torch.cat([torch.zeros(8), torch.full((12,), 30.0)])}
    embed = torch.cat([weights["embed.W_E"], torch.zeros(12, 8)])
    wide["unembed.W_U"][:, :8] = weights["unembed.W_U"]
    model = plain_model({**weights, **wide, "embed.W_E": embed}, f"{WORDS} " + " ".join(f"t{i}" for i in range(12)))
    with pytest.raises(UnknownFactError):
        made(StabilitySpec(facts=FACTS[:1], tau=0.1, engine="hook"), model)
    with pytest.raises(FactError, match="knows no fact of first"):
        known_facts(RELATIONS, "first", model, 3)
    assert len(known_facts(RELATIONS, "first", MODEL, 2)) == 2


def test_a_request_without_facts_or_threshold_is_refused():
    with pytest.raises(ValueError, match="at least one fact"):
        StabilitySpec(facts=())
    with pytest.raises(ValueError, match="above 0"):
        StabilitySpec(facts=FACTS, tau=0.0)


# ---- the command ---------------------------------------------------------------------------------------------------------


def test_the_command_reports_every_change_beside_the_random_level(
    model_folder: Callable[[str], Path],
    small_model: Callable[..., Model],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    names = ("first", "second")
    guessed = {name: guessed_relation(small_model("gpt2"), name) for name in names}
    monkeypatch.setattr(datasets, "relations_for", lambda *_: guessed)
    fact = guessed["first"].facts()[0]
    command = [
        "stability",
        "--model",
        str(model_folder("gpt2")),
        "--fact",
        fact.statement,
        "--tau",
        "1",
        "--draws",
        "2",
    ]
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--json"])
    assert not stop.value.code
    content = json.loads(capsys.readouterr().out)
    kinds = {row["change"] for row in content["changes"]} | {row["change"] for row in content["skipped"]}
    assert kinds == {"paraphrase", "tau", "order", "seed", "control"}
    for row in content["changes"]:
        assert 0 <= row["edges_jaccard"] <= 1
        assert 0 <= row["nodes_jaccard"] <= 1
        assert {"mean", "low", "high"} <= set(row["edges_random"])
        assert {"mean", "low", "high"} <= set(row["nodes_random_connected"])
    assert content["fact"] == fact.statement
    assert content["edges"] < content["edges_total"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --fact or --relation"),
        (["--relation", "country_language", "--subject", "France"], "belong to --fact"),
        (["--relation", "nothing_such"], "no relation called"),
        (["--fact", "The capital city of France is Paris", "--tau", "-1"], "tau"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        cli.main(["stability", *arguments])
    output = capsys.readouterr()
    assert stop.value.code == 1
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert message in output.err

"""Measures of circuits, against numbers worked out on paper and against laws that hold in any model."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.circuit import Circuit, Provenance, Scores
from circuits.engines.ablation import Ablation
from circuits.engines.hook import HookEngine
from circuits.engines.sparse import SparseEngine
from circuits.evaluation.answers import Answers
from circuits.evaluation.baseline import DRAWS, bootstrap, random_answers, random_circuit, size_matched
from circuits.evaluation.curves import MIB_SIZES, curve, curve_of
from circuits.evaluation.faithfulness import faithfulness, log_probability, logit_difference
from circuits.evaluation.knockouts import completeness, greedy_knockout, minimality
from circuits.facts import Fact
from circuits.graph import Edge, Granularity, Graph, Node, Reader, Shape
from circuits.model import Model
from tests.models import plain_model, random_plain_model, word_fact, zero_weights

HERE = Provenance("by hand", "00", processing="raw", method="by hand")


def nll(logit: float, others: int = 5) -> float:
    """-log of the softmax of ``logit`` beside ``others`` logits of 0."""
    return math.log(1 + others * math.exp(-logit))


# ---- the oracle: two MLPs that look the same answer up, each for itself --------------------------------------------------
#
# One word in (a, b, c), one out (p, q, r). Hidden unit i of either MLP is relu(identity i). m0 adds 3 to the answer's logit,
# m1 adds 2; neither reads the other. All six logits are 0 with every edge ablated. So NLL is nll(5) whole, nll(3) without
# m1, nll(2) without m0, and log 6 = nll(0) without both.

FACTS = tuple(Fact(word, word, answer) for word, answer in zip("abc", "pqr", strict=True))
FIRST, SECOND = ("input->m0", "m0->logits"), ("input->m1", "m1->logits")


def two_lookups(first: float = 3.0, second: float = 2.0) -> Model:
    weights = zero_weights(n_layers=2, n_heads=1, d_model=6, d_head=1, d_mlp=3, d_vocab=6, n_ctx=2)
    weights["embed.W_E"][:3, :3] = torch.eye(3)
    for layer, strength in enumerate((first, second)):
        weights[f"blocks.{layer}.mlp.W_in"][:3] = torch.eye(3)
        weights[f"blocks.{layer}.mlp.W_out"][:, 3:] = strength * torch.eye(3)
    weights["unembed.W_U"][3:, 3:] = torch.eye(3)
    return plain_model(weights, "a b c p q r")


MODEL = two_lookups()
ENGINE = HookEngine(MODEL, FACTS)
GRAPH = MODEL.graph()
RIGHT = log_probability(MODEL, FACTS)


def of_edges(names: Sequence[str], graph: Graph = GRAPH) -> Circuit:
    kept = np.zeros_like(graph.legal)
    for name in names:
        kept[graph.edge(name)] = True
    return Circuit(graph, kept, HERE)


def names(edges: Sequence[Edge]) -> set[str]:
    return {edge.name for edge in edges}


# ---- answers -------------------------------------------------------------------------------------------------------------


def test_the_mean_reciprocal_rank_and_hits_are_those_of_the_ranks():
    answers = Answers.of([(0.1, 1.0, 0.9), (1.0, 2.0, 0.4), (5.0, 11.0, 0.01)])
    assert answers.mrr.value == pytest.approx((1 + 1 / 2 + 1 / 11) / 3)
    assert answers.hit(1).value == pytest.approx(1 / 3)
    assert answers.hit(10).value == pytest.approx(2 / 3)


# ---- faithfulness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (FIRST + SECOND, 1.0),
        (FIRST, (nll(0) - nll(3)) / (nll(0) - nll(5))),
        (SECOND, (nll(0) - nll(2)) / (nll(0) - nll(5))),
        (("input->m0", "m1->logits"), 0.0),
        ((), 0.0),
    ],
)
def test_faithfulness_is_the_share_of_the_way_from_every_edge_ablated_to_the_model(
    kept: tuple[str, ...], expected: float
):
    assert faithfulness(ENGINE, of_edges(kept), RIGHT).value == pytest.approx(expected, abs=1e-6)


def test_faithfulness_in_logits_counts_what_each_lookup_adds():
    # The foil's logit is 0 throughout, so the difference is 5 whole, 3 for the first lookup alone.
    difference = logit_difference(MODEL, FACTS, (FACTS[1], FACTS[2], FACTS[0]))
    measured = faithfulness(ENGINE, of_edges(FIRST), difference)
    assert measured.value == pytest.approx(3 / 5)
    assert measured.circuit.unit == "logits"


def test_a_foil_with_the_facts_own_answer_is_refused():
    with pytest.raises(ValueError, match="foil whose answer begins otherwise"):
        logit_difference(MODEL, FACTS, FACTS)
    with pytest.raises(ValueError, match="one foil for each of 3 facts, got 1"):
        logit_difference(MODEL, FACTS, FACTS[:1])


def test_a_circuit_without_a_suppressor_is_more_than_faithful():
    model = two_lookups(3.0, -1.0)
    engine = HookEngine(model, FACTS)
    measured = faithfulness(engine, of_edges(FIRST), log_probability(model, FACTS))
    assert measured.value == pytest.approx((nll(0) - nll(3)) / (nll(0) - nll(2)), abs=1e-6)
    assert measured.value > 1


def test_faithfulness_has_no_value_where_the_model_does_no_better_than_nothing():
    engine = HookEngine(two_lookups(0.0, 0.0), FACTS)
    assert math.isnan(faithfulness(engine, of_edges(FIRST), RIGHT).value)


@settings(max_examples=4)
@given(seed=st.integers(0, 5), n=st.integers(0, 23))
def test_both_engines_give_one_faithfulness(seed: int, n: int):
    model = random_plain_model(seed, n_heads=1)
    facts = (word_fact("1 2 3", "4"), word_fact("0 5", "1 2"))
    circuit = random_circuit(model.graph(), n, seed=seed, draw="uniform", provenance=HERE)
    right = log_probability(model, facts)
    by_hooks, sparse = (
        faithfulness(engine, circuit, right) for engine in (HookEngine(model, facts), SparseEngine(model, facts))
    )
    assert by_hooks.circuit.value == pytest.approx(sparse.circuit.value, abs=1e-5)
    assert by_hooks.circuit.value == pytest.approx(-float(HookEngine(model, facts).nll(circuit.kept).mean()), abs=1e-9)


# ---- curves --------------------------------------------------------------------------------------------------------------


def ranked(*order: str) -> Scores:
    """Scores that rank the named edges first, in this order, by falling magnitude; a leading ``-`` makes one negative."""
    values = np.zeros(GRAPH.legal.shape)
    for place, name in enumerate(order):
        magnitude = len(order) - place
        values[GRAPH.edge(name.removeprefix("~"))] = -magnitude if name.startswith("~") else magnitude
    return Scores(GRAPH, values, HERE)


def test_the_curve_and_its_areas_are_those_worked_out_by_hand():
    n = GRAPH.n_edges
    assert n == 23
    sizes = (1 / n, 2 / n, 4 / n, 1.0)
    f = (0.0, (nll(0) - nll(3)) / (nll(0) - nll(5)), 1.0, 1.0)
    measured = curve(ENGINE, ranked(*FIRST, *SECOND), RIGHT, sizes=sizes)
    assert measured.edges == (1, 2, 4, 23)
    assert measured.faithfulness == pytest.approx(f, abs=1e-6)
    assert measured.cpr == pytest.approx((1 * (f[0] + f[1]) / 2 + 2 * (f[1] + 1) / 2 + 19) / n, abs=1e-6)
    assert measured.cmd == pytest.approx((1 * (1 + 1 - f[1]) / 2 + 2 * (1 - f[1]) / 2) / n, abs=1e-6)


def test_a_ranking_by_magnitude_takes_suppressive_edges_early_and_a_signed_one_takes_them_last():
    model = two_lookups(3.0, -1.0)
    engine, right = HookEngine(model, FACTS), log_probability(model, FACTS)
    scores = ranked("~input->m1", "~m1->logits", *FIRST)
    sizes = (2 / 23, 4 / 23, 21 / 23, 1.0)
    without, whole = (nll(0) - nll(3)) / (nll(0) - nll(2)), 1.0
    signed = curve(engine, scores, right, sizes=sizes)
    assert signed.faithfulness == pytest.approx((without, without, without, whole), abs=1e-6)
    absolute = curve(engine, scores, right, sizes=sizes, absolute=True)
    assert absolute.faithfulness[0] < 0
    assert absolute.faithfulness[1:] == pytest.approx((whole, whole, whole), abs=1e-6)
    # CPR rewards the circuit for beating the model, CMD does not.
    assert signed.cpr > absolute.cpr
    assert signed.cmd > 0


def test_the_benchmark_sizes_end_at_the_whole_graph_which_is_faithful():
    measured = curve_of(ENGINE, lambda n: ranked().top(n), RIGHT)
    assert measured.shares == MIB_SIZES
    assert measured.edges == (0, 0, 0, 0, 0, 1, 2, 4, 11, 23)
    assert measured.faithfulness[-1] == 1.0
    assert measured.faithfulness[0] == 0.0


@pytest.mark.parametrize("sizes", [(), (0.5, 0.1), (0.1, 0.1), (0.5, 1.5), (-0.1, 0.5)])
def test_sizes_that_do_not_rise_from_0_to_1_are_refused(sizes: tuple[float, ...]):
    with pytest.raises(ValueError, match="rising sizes between 0 and 1"):
        curve(ENGINE, ranked(), RIGHT, sizes=sizes)


# ---- minimality ----------------------------------------------------------------------------------------------------------


def test_an_edge_is_worth_what_the_finished_circuit_loses_with_it():
    measured = minimality(ENGINE, of_edges((*FIRST, *SECOND, "input->logits")))
    assert measured.nll == pytest.approx(nll(5), abs=1e-6)
    worth = {edge.name: value for edge, value in measured.ranked}
    expected = {
        **dict.fromkeys(FIRST, nll(2) - nll(5)),
        **dict.fromkeys(SECOND, nll(3) - nll(5)),
        "input->logits": 0.0,
    }
    assert worth == pytest.approx(expected, abs=1e-6)
    assert [edge.name for edge, _ in measured.ranked][-1] == "input->logits"
    assert names(measured.superfluous(1e-3)) == {"input->logits"}
    assert measured.share_minimal(1e-3) == pytest.approx(4 / 5)


def test_an_edge_is_worth_more_where_its_backup_is_gone():
    alone, together = minimality(ENGINE, of_edges(FIRST)), minimality(ENGINE, of_edges(FIRST + SECOND))
    edge = Edge(Node(0, "mlp"), Reader(Node(2, "logits")))
    assert alone.worth(edge) == pytest.approx(nll(0) - nll(3), abs=1e-6)
    assert alone.worth(edge) > together.worth(edge) + 0.1


@pytest.mark.parametrize("seed", range(2))
def test_minimality_agrees_with_taking_each_edge_out_by_hand(seed: int):
    model = random_plain_model(seed)
    facts = (word_fact("1 2 3", "4"), word_fact("0 5 2", "1"), word_fact("3 3", "0 2"))
    circuit = random_circuit(model.graph(), 25, seed=seed, draw="connected", provenance=HERE)
    by_hand = HookEngine(model, facts)
    measured = minimality(SparseEngine(model, facts), circuit)
    for writer, reader in np.argwhere(circuit.kept):
        without = circuit.kept.copy()
        without[writer, reader] = False
        expected = by_hand.nll(without).mean() - by_hand.nll(circuit.kept).mean()
        assert measured.circuit.scores is not None
        assert measured.circuit.scores[writer, reader] == pytest.approx(float(expected), abs=1e-5)


def test_an_empty_circuit_has_no_edge_to_weigh():
    measured = minimality(ENGINE, of_edges(()))
    assert measured.ranked == ()
    assert measured.nll == pytest.approx(math.log(6), abs=1e-6)
    assert math.isnan(measured.share_minimal(0.01))


# ---- completeness --------------------------------------------------------------------------------------------------------


def test_a_circuit_without_the_backup_agrees_until_the_first_lookup_is_knocked_out():
    measured = completeness(MODEL, ENGINE, of_edges(FIRST), FACTS, shares=(1.0,), draws=1, steps=3)
    assert measured.intact.gap.value == pytest.approx(nll(3) - nll(5), abs=1e-6)
    # Without either edge the circuit knows nothing, and the model still has its second lookup.
    assert measured.random[0].gap.value == pytest.approx(nll(0) - nll(2), abs=1e-6)
    assert len(measured.greedy) == 1
    assert measured.worst.gap.value == pytest.approx(nll(0) - nll(2), abs=1e-6)
    assert measured.worst.gap.value > 5 * measured.intact.gap.value
    # Six words: the answer is always among the first ten, so that agreement looks at the first alone.
    assert measured.greedy[0].agreement(10).value == 1
    assert measured.intact.agreement(1).value == 1


def test_agreement_counts_the_facts_that_only_one_of_the_two_answers():
    # Without the first lookup's output the circuit's logits are all equal, rank 1 by ties; with a distractor it is not.
    weights = dict(MODEL.network.weights)  # type: ignore[attr-defined]
    weights["unembed.b_U"] = torch.tensor([1.0, 0, 0, 0, 0, 0])
    model = plain_model(weights, "a b c p q r")
    engine = HookEngine(model, FACTS)
    measured = completeness(model, engine, of_edges(FIRST), FACTS, shares=(1.0,), draws=1, steps=1)
    assert measured.intact.agreement(1).value == 1
    assert measured.random[0].agreement(1).value == 0


def test_the_whole_graph_is_complete_under_every_knockout():
    model = random_plain_model(1)
    facts = (word_fact("1 2 3", "4"), word_fact("0 5 2", "1"))
    measured = completeness(model, HookEngine(model, facts), Circuit.full(model.graph(), HERE), facts, draws=2, steps=2)
    assert measured.greedy == ()
    assert all(knockout.gap.value == 0 for knockout in measured.random)
    assert measured.random_agreement == 1


def test_greedy_knockouts_begin_with_the_worst_edge_and_only_ever_widen_the_gap():
    model = random_plain_model(2)
    facts = (word_fact("1 2 3", "4"), word_fact("0 5 2", "1"))
    engine = HookEngine(model, facts)
    circuit = random_circuit(model.graph(), 15, seed=1, draw="connected", provenance=HERE)

    def gap(cuts: Sequence[tuple[int, int]]) -> float:
        ours, theirs = circuit.kept.copy(), model.graph().legal.copy()
        for cut in cuts:
            ours[cut] = theirs[cut] = False
        return float(np.abs(engine.nll(ours) - engine.nll(theirs)).mean())

    chosen = greedy_knockout(SparseEngine(model, facts), circuit, 3)
    singles = {tuple(map(int, cut)): gap([tuple(cut)]) for cut in np.argwhere(circuit.kept)}
    assert singles[chosen[0]] == pytest.approx(max(singles.values()), abs=1e-5)
    gaps = [gap(chosen[:i]) for i in range(len(chosen) + 1)]
    assert gaps == sorted(gaps)
    assert len(set(chosen)) == len(chosen)


def test_knockouts_are_the_same_for_the_same_seed_and_take_the_share_asked_for():
    model = random_plain_model(3)
    facts = (word_fact("1 2 3", "4"),)
    circuit = random_circuit(model.graph(), 20, seed=0, draw="uniform", provenance=HERE)
    one, same, other = (
        completeness(model, HookEngine(model, facts), circuit, facts, shares=(0.1, 0.5), draws=2, steps=0, seed=seed)
        for seed in (0, 0, 1)
    )
    assert one == same
    assert one != other
    assert [len(knockout.edges) for knockout in one.random] == [2, 2, 10, 10]
    assert all(edge in circuit for knockout in one.random for edge in knockout.edges)
    with pytest.raises(ValueError, match="shares above 0"):
        completeness(model, HookEngine(model, facts), circuit, facts, shares=(0.0,))


# ---- random circuits -----------------------------------------------------------------------------------------------------

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.booleans())


@given(shape=SHAPES, data=st.data(), draw=st.sampled_from(DRAWS), seed=st.integers(0, 2**31))
def test_a_random_circuit_has_exactly_the_edges_asked_for(
    shape: tuple[int, int, bool], data: st.DataObject, draw: str, seed: int
):
    graph = Graph(Shape(*shape))
    n = data.draw(st.integers(0, graph.n_edges))
    circuit = random_circuit(graph, n, seed=seed, draw=draw, provenance=HERE)  # type: ignore[arg-type]
    assert circuit.n_edges == n
    assert circuit == random_circuit(graph, n, seed=seed, draw=draw, provenance=HERE)  # type: ignore[arg-type]


@given(shape=SHAPES, share=st.floats(0.05, 1), seed=st.integers(0, 2**31))
def test_every_edge_of_a_connected_random_circuit_is_live(shape: tuple[int, int, bool], share: float, seed: int):
    """All but one edge where none fits alone: every two nodes of the circuit are joined already, and a new one takes two."""
    graph = Graph(Shape(*shape))
    circuit = random_circuit(graph, round(share * graph.n_edges), seed=seed, draw="connected", provenance=HERE)
    assert circuit.n_edges - circuit.pruned().n_edges <= 1
    if circuit.pruned() != circuit:
        nodes = {node.name for node in circuit.pruned().nodes}
        assert all(
            circuit.kept[i, j]
            for i, j in np.argwhere(graph.legal)
            if {graph.writers[i].name, graph.readers[j].node.name} <= nodes
        )


# ---- live edges: what takes away nothing -------------------------------------------------------------------------------


def without_biases(seed: int, n_layers: int = 2) -> Model:
    """A random model in which a node that reads nothing writes nothing."""
    weights = dict(random_plain_model(seed, n_layers=n_layers).network.weights)  # type: ignore[attr-defined]
    weights = {name: value for name, value in weights.items() if ".b_" not in name}
    return plain_model(weights, "w0 w1 w2 w3 w4 w5")


ASKED = tuple(word_fact(prompt, answer) for prompt, answer in (("1 2 3", "4"), ("3 1 5", "2")))


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), share=st.floats(0.1, 0.9), granularity=st.sampled_from(["qkv", "node"]))
def test_under_zero_ablation_a_circuit_has_the_logits_of_its_live_edges(
    seed: int, share: float, granularity: Granularity
):
    """In a model without biases in values, attention outputs and MLPs."""
    model = without_biases(seed % 5)
    graph = model.graph(granularity)
    circuit = random_circuit(graph, round(share * graph.n_edges), seed=seed, draw="uniform", provenance=HERE)
    engine = HookEngine(model, ASKED, granularity=granularity)
    for whole, alive in zip(
        engine.answer_logits(circuit.kept), engine.answer_logits(circuit.pruned().kept), strict=True
    ):
        torch.testing.assert_close(whole, alive, rtol=0, atol=1e-6)


def test_a_head_without_v_writes_nothing_under_zero_ablation_and_something_where_values_are_replaced():
    """The controls: with its v the head writes; with biases a dead head writes a constant; resampled values differ by position."""
    names = ("input->a0.h0<q>", "input->a0.h0<k>", "a0.h0->logits", "input->logits")
    model, dead = without_biases(1), of_edges(names, Graph(Shape(2, 2)))
    assert {edge.name for edge in dead.pruned()} == {"input->logits"}

    def moved(engine: HookEngine, circuit: Circuit) -> float:
        pairs = zip(engine.answer_logits(circuit.kept), engine.answer_logits(dead.pruned().kept), strict=True)
        return max(float((one - other).abs().max()) for one, other in pairs)

    assert moved(HookEngine(model, ASKED), dead) < 1e-6
    assert moved(HookEngine(model, ASKED), of_edges((*names, "input->a0.h0<v>"), dead.graph)) > 1e-3
    biased = random_plain_model(1)
    assert moved(HookEngine(biased, ASKED), dead) > 1e-3
    # Of the prompt that constant says nothing: without q and k it is the same.
    alone = of_edges(("a0.h0->logits", "input->logits"), dead.graph)
    pairs = zip(*(HookEngine(biased, ASKED).answer_logits(c.kept) for c in (dead, alone)), strict=True)
    assert max(float((one - other).abs().max()) for one, other in pairs) < 1e-5
    donors = tuple(word_fact(prompt, "1") for prompt in ("5 0 4", "0 4 2"))
    replaced = HookEngine(model, ASKED, ablation=Ablation("resample", corrupted=donors))
    pairs = zip(*(replaced.answer_logits(c.kept) for c in (dead, alone)), strict=True)
    assert max(float((one - other).abs().max()) for one, other in pairs) > 1e-3


def test_a_uniform_circuit_takes_every_edge_equally_often_and_hardly_ever_joins_input_and_logits():
    graph, draws = Graph(Shape(3, 2)), 500
    drawn = [random_circuit(graph, 5, seed=(7, i), draw="uniform", provenance=HERE) for i in range(draws)]
    counts = np.sum([circuit.kept for circuit in drawn], axis=0)[graph.legal]
    expected = draws * 5 / graph.n_edges
    assert abs(counts - expected).max() < 5 * math.sqrt(expected)
    # One draw in ten has input->logits itself or a longer way; the connected draw always has one.
    assert np.mean([circuit.pruned().n_edges > 0 for circuit in drawn]) < 0.2
    joined = [random_circuit(graph, 5, seed=(7, i), draw="connected", provenance=HERE) for i in range(50)]
    assert np.mean([circuit.pruned().n_edges > 0 for circuit in joined]) > 0.9


def test_size_matched_circuits_differ_from_draw_to_draw_and_say_what_they_are():
    circuit = of_edges(FIRST)
    drawn = size_matched(circuit, draws=5, seed=3)
    assert [other.n_edges for other in drawn] == [2] * 5
    assert len(set(drawn)) > 1
    assert drawn == size_matched(circuit, draws=5, seed=3)
    assert drawn != size_matched(circuit, draws=5, seed=4)
    assert {other.provenance.method for other in drawn} == {"random-uniform"}
    assert {other.provenance.seed for other in drawn} == {3}


def test_random_circuits_answer_worse_than_the_circuit_they_match():
    answers = random_answers(MODEL, ENGINE, of_edges(FIRST), FACTS, draws=20)
    assert np.mean([own.nll.value for own in answers]) > nll(3) + 0.5
    assert min(own.nll.value for own in answers) >= nll(5) - 1e-6


def test_more_edges_than_the_graph_has_are_refused():
    with pytest.raises(ValueError, match="expected 0 to 23 edges, got 24"):
        random_circuit(GRAPH, 24, seed=0, draw="uniform", provenance=HERE)


def test_the_bootstrap_interval_is_the_normal_one_for_many_values():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    interval = bootstrap(values.tolist())
    half_width = 1.96 * values.std() / math.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.02)
    assert (interval.least, interval.most) == (values.min(), values.max())


def test_the_bootstrap_interval_of_equal_values_has_no_width_and_of_none_there_is_none():
    assert bootstrap([0.1] * 10).low == bootstrap([0.1] * 10).high == bootstrap([0.1] * 10).mean
    assert bootstrap([0.0, 1.0], seed=2) == bootstrap([0.0, 1.0], seed=2)
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap([])

"""Every discovery method scores the same edges behind one signature; the plain ones are held to their definitions."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuits.circuit import Provenance, Scores
from circuits.discovery import METHODS, MethodError, find_method
from circuits.discovery.acdc import AcdcOptions, acdc, search
from circuits.discovery.averages import diluted, mean
from circuits.discovery.chance import ChanceOptions, chance
from circuits.discovery.exact import exact
from circuits.discovery.ifr import ifr, proximity
from circuits.discovery.method import NoOptions
from circuits.discovery.problem import Problem, Progress
from circuits.discovery.traversal import Traversal
from circuits.engines import Ablation, HookEngine, SparseEngine
from circuits.graph import Granularity, Graph, Shape
from circuits.model import Model
from circuits.model.network import ComponentNetwork
from tests.models import plain_model, random_plain_model, word_fact, zero_weights

LoadModel = Callable[..., Model]

FACTS = (word_fact("3 1 4", "2"), word_fact("5 8", "7 1"))
CORRUPTED = (word_fact("9 1 4", "0"), word_fact("1 8", "0"))
RESAMPLE = Ablation("resample", corrupted=CORRUPTED)
HERE = Provenance("by hand", "00")
SMALL = (word_fact("1 2 0", "3"), word_fact("4 2", "5"))
"""Facts for `random_plain_model`."""


# ---- one signature -----------------------------------------------------------------------------------------------------


def test_a_method_goes_by_its_own_name() -> None:
    assert {name: method.name for name, method in METHODS.items()} == {name: name for name in METHODS}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("granularity", ["qkv", "node"])
def test_every_method_scores_every_edge_the_same_way_twice(name: str, granularity: Granularity) -> None:
    model, method = random_plain_model(0), METHODS[name]
    one, two = (method(Problem(model, SMALL, granularity=granularity)) for _ in range(2))
    assert one == two
    assert one.graph == model.graph(granularity)
    assert one.provenance.method == name
    assert one.provenance.weights == model.weights
    assert one.provenance.facts == tuple(str(fact) for fact in SMALL)
    scored = ~np.isnan(one.values)
    # ACDC leaves edges into nodes that nothing reads untested.
    assert scored.sum() > 10 if name == "acdc" else (scored == one.graph.legal).all()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("layout", ["llama", "neox"])
def test_every_method_takes_grouped_queries_and_parallel_blocks(small_model: LoadModel, name: str, layout: str) -> None:
    method = METHODS[name]
    few = method.options(**{"steps": 2} if "steps" in method.option_names else {})
    found = method(Problem(small_model(layout), FACTS, RESAMPLE, "node"), few)
    assert (~np.isnan(found.values)).sum() > 10
    assert np.nanmax(np.abs(found.values)) > 1e-3


def test_a_network_of_components_is_taken_too(small_model: LoadModel) -> None:
    whole = small_model("gpt2")
    parts = ComponentNetwork(whole.network.components(8), 8)  # type: ignore[attr-defined]
    model = Model(parts, whole.vocabulary, name="parts", weights=whole.weights, processing="compatibility")
    for name in ("eap", "ifr", "eap-ig-activations"):
        one, other = (METHODS[name](Problem(each, FACTS)) for each in (model, whole))
        np.testing.assert_allclose(one.values, other.values, atol=1e-5)


OTHERS = {"tau": 0.5, "absolute": True, "compat": "kc", "steps": 1, "seed": 1}


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_heeds_changes_its_result_and_what_it_does_not_heed_is_refused(name: str) -> None:
    problem, method = Problem(random_plain_model(4), SMALL), METHODS[name]
    plain = method(problem)
    assert set(method.option_names) <= OTHERS.keys()
    for option, value in OTHERS.items():
        if option in method.option_names:
            found = method(problem, method.options(**{option: value}))
            assert not np.array_equal(found.values, plain.values, equal_nan=True)
            assert value in (*found.provenance.settings.values(), found.provenance.seed)
        else:
            heeded = ", ".join(method.option_names) or "no options"
            with pytest.raises(MethodError, match=f"method {name} heeds {heeded}, got {option}={value}"):
                method.options(**{option: value})


@pytest.mark.parametrize("name", METHODS)
def test_ablation_matters_to_all_but_those_that_ablate_nothing(name: str) -> None:
    model, mean = random_plain_model(4), Ablation("mean", reference=(word_fact("5 5 1", "0"), word_fact("3 1", "2")))
    zero, other = (METHODS[name](Problem(model, SMALL, ablation)).values for ablation in (Ablation(), mean))
    assert np.array_equal(zero, other, equal_nan=True) == (name in ("ifr", "random"))


def test_options_are_read_from_words_and_those_of_no_sense_or_of_another_method_are_refused() -> None:
    assert METHODS["acdc"].options(tau="0.5", absolute="true") == AcdcOptions(0.5, True)
    with pytest.raises(MethodError, match=r"method acdc: .* number.*, got tau=much"):
        METHODS["acdc"].options(tau="much")
    with pytest.raises(MethodError, match="method eap-ig: integrated gradients need at least one step, got 0"):
        METHODS["eap-ig"].options(steps=0)
    with pytest.raises(MethodError, match="method ifr heeds NoOptions, got AcdcOptions"):
        METHODS["ifr"](Problem(random_plain_model(0), SMALL), AcdcOptions())


def test_a_given_engine_is_used_and_must_fit_the_problem() -> None:
    model = random_plain_model(0)
    engine = HookEngine(model, SMALL)
    exact(Problem(model, SMALL, given=engine), NoOptions())
    assert engine.evaluations == 1 + engine.graph.n_edges
    with pytest.raises(MethodError, match="expected an engine on"):
        Problem(model, SMALL, granularity="node", given=engine)
    with pytest.raises(MethodError, match=r"for 1 fact, got one on .* for 2 facts"):
        Problem(model, SMALL[:1], given=engine)
    with pytest.raises(MethodError, match="at least one fact"):
        Problem(model, ())


def test_an_unknown_method_is_refused_with_a_list_of_the_known_ones() -> None:
    with pytest.raises(MethodError, match=r"expected a method of acdc, eap, .*, got 'magic'"):
        find_method("magic")
    assert find_method("eap").name == "eap"


def test_naming_the_methods_loads_none_of_them() -> None:
    code = "import sys; from circuits.discovery import METHODS; print(*METHODS); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*METHODS, "False"]


def test_acdc_in_the_table_is_its_search_and_its_sweep_that_at_each_threshold_among_the_candidates() -> None:
    problem = Problem(random_plain_model(0), SMALL)
    engine, allowed = SparseEngine(problem.model, SMALL), problem.graph.legal.copy()
    allowed[0] = False
    for options in (AcdcOptions(0.05, absolute=True), AcdcOptions(0.05, compat="kc")):
        average = diluted([3, 2], [1, 1]) if options.compat else mean
        expected, _ = search(engine, options, per_token=average, provenance=HERE)
        assert acdc(problem, options, provenance=HERE) == expected
        assert acdc.sweep is not None
        found = acdc.sweep(problem, options, (0.5, 0.05), provenance=lambda _: HERE, candidates=allowed)
        for (tau, scores, _), at in zip(found, (0.05, 0.5), strict=True):
            few = replace(options, tau=at)
            walk = Traversal(problem.graph, candidates=allowed)
            assert tau == at
            alone, _ = search(engine, few, per_token=average, provenance=HERE, walk=walk)
            np.testing.assert_allclose(scores.values, alone.values, atol=1e-5)
            assert np.isnan(scores.values[0]).all()
    assert [name for name, method in METHODS.items() if method.has_threshold] == ["acdc"]


# ---- exact -------------------------------------------------------------------------------------------------------------


def one_by_one(engine: HookEngine) -> np.ndarray:
    """The definition: a run of the whole model without each edge."""
    legal = engine.graph.legal
    whole, values = engine.nll(legal).mean(), np.full(legal.shape, np.nan)
    for edge in np.argwhere(legal):
        kept = legal.copy()
        kept[tuple(edge)] = False
        values[tuple(edge)] = engine.nll(kept).mean() - whole
    return values


@pytest.mark.parametrize(
    ("layout", "granularity", "ablation"),
    [("gpt2", "node", RESAMPLE), ("llama", "node", Ablation()), ("neox", "node", Ablation("mean", CORRUPTED))],
)
def test_exact_is_the_reference_engine_edge_by_edge(
    small_model: LoadModel, layout: str, granularity: Granularity, ablation: Ablation
) -> None:
    model = small_model(layout)
    expected = one_by_one(HookEngine(model, FACTS, ablation=ablation, granularity=granularity))
    fast = exact(Problem(model, FACTS, ablation, granularity))
    np.testing.assert_allclose(fast.values, expected, rtol=0, atol=1e-4)
    assert np.nanmax(np.abs(expected)) > 0.05


def test_exact_of_split_slots_is_the_same_on_either_engine_and_at_any_width() -> None:
    model = random_plain_model(5)
    expected = one_by_one(HookEngine(model, SMALL))
    for engine in (HookEngine(model, SMALL), SparseEngine(model, SMALL), SparseEngine(model, SMALL, width=3)):
        np.testing.assert_allclose(exact(Problem(model, SMALL, given=engine)).values, expected, rtol=0, atol=1e-5)


def test_exact_tells_how_far_it_is() -> None:
    seen: list[Progress] = []
    model = random_plain_model(5)
    scores = exact(Problem(model, SMALL, given=SparseEngine(model, SMALL, width=4)), report=seen.append)
    assert [p.done for p in seen] == sorted({p.done for p in seen})
    assert len(seen) > 5
    assert seen[-1].done == seen[-1].total == scores.graph.n_edges


# ---- information flow routes -------------------------------------------------------------------------------------------


def test_proximity_by_hand() -> None:
    # y = (3, -1) is the sum of (4, 0), (-1, 0), (0, -1) and (0, 0). |y| = 4.
    #   without (4, 0):  (-1, -1), 2 left: 2 nearer;  without (-1, 0): (4, -1), 5 left: not nearer;
    #   without (0, -1): (3, 0), 3 left: 1 nearer;    without nothing: 0.
    parts = torch.tensor([[4.0, 0], [-1, 0], [0, -1], [0, 0]])
    assert proximity(parts, parts.sum(0)).tolist() == [2, 0, 1, 0]


def test_shares_of_what_each_reader_reads_by_hand() -> None:
    # One layer, one head, no attention bias. Positions 0 and 1 hold the words a and b; the head's queries and keys are
    # zero, so it looks at all positions it sees alike. It moves direction 0 (a) to direction 1.
    #   input writes a = (2, 0, 0), b = (0, 1, 0). The head at 0: mean of (2) = 2 -> (0, 2, 0); at 1: (2 + 0) / 2 -> (0, 1, 0).
    #   m0 writes its bias (0, 0, 3).
    weights = zero_weights(n_layers=1, n_heads=1, d_model=3, d_head=1, d_mlp=1, d_vocab=2, n_ctx=2)
    weights["embed.W_E"][0, 0], weights["embed.W_E"][1, 1] = 2, 1
    weights["blocks.0.attn.W_V"][0, 0, 0] = 1
    weights["blocks.0.attn.W_O"][0, 0, 1] = 1
    weights["blocks.0.mlp.b_out"] = torch.tensor([0.0, 0, 3])
    model = plain_model(weights, "w0 w1")
    found = ifr(Problem(model, (word_fact("0 1", "0"),)))

    def score(edge: str) -> float:
        return float(found.values[found.graph.edge(edge)])

    # The head's slots read the input alone.
    assert [score(f"input->a0.h0<{slot}>") for slot in "qkv"] == [1, 1, 1]
    # m0 reads (2, 2, 0) at 0: two from each; and (0, 2, 0) at 1: one from each.
    assert score("input->m0") == score("a0.h0->m0") == pytest.approx(0.5)
    # Only the last position's logits are asked for: (0, 2, 3), of which input and head wrote 1 each, m0 wrote 3.
    assert score("input->logits") == score("a0.h0->logits") == pytest.approx(1 / 5)
    assert score("m0->logits") == pytest.approx(3 / 5)


@pytest.mark.parametrize("layout", ["gpt2", "llama", "neox"])
def test_shares_into_a_reader_add_up_to_one_and_slots_of_a_layer_read_alike(
    small_model: LoadModel, layout: str
) -> None:
    model = small_model(layout)
    found = ifr(Problem(model, FACTS))
    np.testing.assert_allclose(np.nansum(found.values, 0), 1, atol=1e-6)
    for column, reader in enumerate(found.graph.readers):
        first = next(i for i, other in enumerate(found.graph.readers) if other.node.layer == reader.node.layer)
        if reader.node.kind == "head":
            np.testing.assert_array_equal(found.values[:, column], found.values[:, first])
    assert np.nanmax(np.abs(found.values[:, 0] - found.values[:, -1])) > 0.1
    merged = ifr(Problem(model, FACTS, granularity="node"))
    np.testing.assert_array_equal(merged.values[:, -1], found.values[:, -1])


def test_flow_is_averaged_over_facts() -> None:
    model = random_plain_model(0)
    both = ifr(Problem(model, SMALL)).values
    each = [ifr(Problem(model, (fact,))).values for fact in SMALL]
    np.testing.assert_allclose(both, np.mean(each, 0), atol=1e-12)
    assert not np.array_equal(each[0], each[1], equal_nan=True)


# ---- chance ------------------------------------------------------------------------------------------------------------


def test_random_scores_are_uniform_and_their_seeds() -> None:
    problem = Problem(random_plain_model(0, n_layers=6, n_heads=8), SMALL)
    one, same, other = (chance(problem, ChanceOptions(seed)) for seed in (0, 0, 1))
    assert one == same
    graph = one.graph
    values = one.values[graph.legal]
    assert abs(np.corrcoef(values, other.values[graph.legal])[0, 1]) < 0.05
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 0.02


# ---- from scores to a circuit ------------------------------------------------------------------------------------------


def scores_of(seed: int, graph: Graph) -> Scores:
    return Scores(graph, np.random.default_rng(seed).normal(size=graph.legal.shape).round(1), HERE)


@given(seed=st.integers(0, 10_000), n=st.integers(0, 46), absolute=st.booleans())
def test_a_connected_circuit_is_the_largest_one_of_the_best_edges(seed: int, n: int, absolute: bool) -> None:
    scores = scores_of(seed, Graph(Shape(2, 2)))
    found = scores.connected(n, absolute=absolute)
    assert found.n_edges <= n
    assert found.pruned() == found
    possible = [scores.top(k, absolute=absolute).pruned() for k in range(scores.graph.n_edges + 1)]
    assert found in possible
    assert found.n_edges == max(circuit.n_edges for circuit in possible if circuit.n_edges <= n)


def test_all_edges_are_connected_and_more_are_refused() -> None:
    scores = scores_of(0, Graph(Shape(2, 2), "node"))
    assert scores.connected(scores.graph.n_edges).n_edges == scores.graph.n_edges
    with pytest.raises(ValueError, match="expected 0 to"):
        scores.connected(scores.graph.n_edges + 1)


def test_where_the_best_edges_form_no_path_the_circuit_is_empty() -> None:
    graph = Graph(Shape(1, 1), "node")
    values = np.zeros(graph.legal.shape)
    # The only path that the three best edges form has three edges.
    for edge, value in {"input->a0.h0": 3, "a0.h0->m0": 2, "m0->logits": 1}.items():
        values[graph.edge(edge)] = value
    scores = Scores(graph, values, HERE)
    assert scores.connected(2).n_edges == 0
    assert {edge.name for edge in scores.connected(3)} == {"input->a0.h0", "a0.h0->m0", "m0->logits"}

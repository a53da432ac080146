"""SparseEngine gives HookEngine's numbers and finds its circuits, whatever the model, the ablation and the batch."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.circuit import Provenance
from circuits.discovery.acdc import AcdcOptions, search, sweep
from circuits.discovery.problem import Progress
from circuits.discovery.speculation import cuts, expected_path, measured_shifts, nll_of
from circuits.discovery.state import Interrupted, State
from circuits.engines import EngineMismatch, make_engine
from circuits.engines.ablation import Ablation
from circuits.engines.engine import Engine, WideEngine
from circuits.engines.hook import HookEngine
from circuits.engines.layout import Layout
from circuits.engines.positions import DEAD, FULL, TAIL, needs
from circuits.engines.sparse import SparseEngine, nll
from circuits.graph import Granularity, Graph, Shape
from circuits.metrics import log_odds, match_nll
from circuits.model import Batch, Model, WordVocabulary
from circuits.model.network import Network
from circuits.model.transformer import UnsupportedArchitecture
from circuits.studies.runs import run
from circuits.studies.specs import RunSpec
from circuits.studies.study import Watch
from tests.models import END, N_WORDS, random_plain_model, word_fact

LoadModel = Callable[..., Model]

WORDS = WordVocabulary((END, *(f"w{i}" for i in range(N_WORDS))), bos=0)

ARCHITECTURES = ["gpt2", "llama", "qwen2", "qwen3", "mistral", "neox", "gptj", "neo"]
FACTS = (word_fact("3 1 4 1 5 9", "2"), word_fact("6 5 3 5 8 9", "7"), word_fact("2 7 1 8", "2 8"))
CORRUPTED = (word_fact("9 1 4 1 5 9", "2"), word_fact("1 5 3 5 8 9", "7"), word_fact("4 7 1 8", "2 8"))
ABLATIONS = {
    "zero": Ablation(),
    "mean": Ablation("mean", reference=CORRUPTED),
    "resample": Ablation("resample", corrupted=CORRUPTED),
}
HERE = Provenance("by hand", "00", processing="raw", method="acdc")


def load(small_model: LoadModel, name: str) -> Model:
    """The model with a vocabulary of plain words: some architectures bring a tokenizer of their own."""
    model = small_model(name)
    return Model(model.network, WORDS, name=name, weights=model.weights, processing=model.processing)


class Sequential:
    """The same engine seen as a plain one: ACDC asks it one edge at a time."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.graph, self.name, self.width, self.evaluations = engine, engine.graph, "sequential", 1, 0
        self.facts, self.precision, self.noise = engine.facts, engine.precision, engine.noise

    def answer_logits(self, kept: np.ndarray) -> tuple[torch.Tensor, ...]:
        return self.engine.answer_logits(kept)

    def nll(self, kept: np.ndarray) -> np.ndarray:
        return self.engine.nll(kept)

    def nll_without(self, kept: np.ndarray, reader: int, removals: Sequence[Sequence[int]]) -> np.ndarray:
        return self.engine.nll_without(kept, reader, removals)


def random_circuit(graph: Graph, rng: np.random.Generator, share: float) -> np.ndarray:
    return graph.legal & (rng.random(graph.legal.shape) < share)


def furthest(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> float:
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(left, right, strict=True))


# ---- the same numbers ----------------------------------------------------------------------------------------------------


CASES = [("qkv", "zero"), ("node", "mean"), ("qkv", "resample")]


@pytest.mark.parametrize(
    ("name", "granularity", "ablation"),
    [(name, *case) for name in ARCHITECTURES for case in CASES]
    + [("neox", "qkv", "mean"), ("neox", "node", "zero"), ("gpt2", "node", "resample")],
)
def test_random_circuits_have_the_same_logits_and_nll(
    small_model: LoadModel, name: str, granularity: Granularity, ablation: str
) -> None:
    model, rng = load(small_model, name), np.random.default_rng(0)
    hook = HookEngine(model, FACTS, ablation=ABLATIONS[ablation], granularity=granularity)
    sparse = SparseEngine(model, FACTS, ablation=ABLATIONS[ablation], granularity=granularity)
    # Down and up again: each circuit follows from the one before by lost edges, or by edges that come back.
    for share in (1.0, 0.5, 0.9):
        kept = random_circuit(sparse.graph, rng, share)
        expected = hook.answer_logits(kept)
        assert furthest(sparse.answer_logits(kept), expected) < 1e-4, share
        losses = [float(match_nll(e[None], answer_of(model, i))) for i, e in enumerate(expected)]
        assert sparse.nll(kept) == pytest.approx(losses, abs=1e-4), share


def answer_of(model: Model, fact: int) -> torch.Tensor:
    return torch.tensor([model.tokens(FACTS[fact]).answer])


@pytest.mark.parametrize("name", ["gpt2", "llama", "neo"])
def test_raw_weights_have_the_same_logits(small_model: LoadModel, name: str) -> None:
    model, rng = small_model(name, "raw"), np.random.default_rng(1)
    hook, sparse = HookEngine(model, FACTS), SparseEngine(model, FACTS)
    for share in (0.8, 0.4):
        kept = random_circuit(sparse.graph, rng, share)
        assert furthest(sparse.answer_logits(kept), hook.answer_logits(kept)) < 1e-4


@settings(max_examples=15)
@given(data=st.data())
def test_any_shape_any_circuit_any_removals(data: st.DataObject) -> None:
    n_layers, n_heads = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    model = random_plain_model(data.draw(st.integers(0, 99)), n_layers=n_layers, n_heads=n_heads)
    words = st.lists(st.integers(0, 5).map(str), min_size=1, max_size=4).map(" ".join)
    facts = data.draw(st.lists(st.builds(word_fact, words, words), min_size=1, max_size=3))
    granularity: Granularity = data.draw(st.sampled_from(["qkv", "node"]))
    hook = HookEngine(model, facts, granularity=granularity)
    sparse = SparseEngine(model, facts, granularity=granularity, width=data.draw(st.integers(1, 5)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    kept = random_circuit(sparse.graph, rng, data.draw(st.sampled_from([1.0, 0.8, 0.4])))
    reader = data.draw(st.integers(0, len(sparse.graph.readers) - 1))
    writer = st.integers(0, sparse.graph.upstream[reader] - 1)
    removals = data.draw(st.lists(st.lists(writer, max_size=4), min_size=1, max_size=6))
    assert sparse.nll_without(kept, reader, removals) == pytest.approx(
        hook.nll_without(kept, reader, removals), abs=1e-4
    )
    # And from there on: the last variant becomes the circuit.
    kept[removals[-1], reader] = False
    assert sparse.nll(kept) == pytest.approx(hook.nll(kept), abs=1e-4)


def test_removals_at_readers_of_different_depth_are_run_one_by_one(small_model: LoadModel) -> None:
    model = small_model("gpt2")
    hook, sparse = HookEngine(model, FACTS), SparseEngine(model, FACTS)
    edges = [(0, 0), (3, 20), (5, len(sparse.graph.readers) - 1)]
    cut = np.array([[1, 1, 0], [0, 1, 1]], dtype=bool)
    for row, nlls in zip(cut, sparse.nll_cutting(sparse.graph.legal, edges, cut), strict=True):
        kept = sparse.graph.legal.copy()
        for (writer, reader), gone in zip(edges, row, strict=True):
            kept[writer, reader] &= not gone
        assert nlls == pytest.approx(hook.nll(kept), abs=1e-4)


def test_its_nll_is_match_nll() -> None:
    logits = 20 * torch.randn(3, 2, 4, 11, generator=torch.Generator().manual_seed(0))
    answer = torch.randint(0, 11, (2, 4), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(nll(logits.clone(), answer), match_nll(logits, answer), atol=1e-6)
    # Relative to the NLL and not to the logits: an answer that is nearly certain keeps its digits.
    sure = torch.tensor([[[[0.0, 1000.0, 988.0]]]])
    assert float(nll(sure, torch.tensor([[1]]))) == pytest.approx(np.log1p(np.exp(-12)), rel=1e-2)


# ---- the same circuits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tau", "ablation"), [(0.003, "zero"), (0.03, "zero"), (0.3, "zero"), (0.03, "mean"), (0.03, "resample")]
)
def test_acdc_keeps_exactly_the_same_edges(small_model: LoadModel, tau: float, ablation: str) -> None:
    model = small_model("gpt2")
    expected, reference = search(
        HookEngine(model, FACTS, ablation=ABLATIONS[ablation]), AcdcOptions(tau), provenance=HERE
    )
    got, state = search(SparseEngine(model, FACTS, ablation=ABLATIONS[ablation]), AcdcOptions(tau), provenance=HERE)
    assert state.kept == reference.kept
    assert (state.decided, state.evaluations) == (reference.decided, reference.evaluations)
    assert np.allclose(got.values, expected.values, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize(
    ("name", "granularity", "absolute"), [("llama", "qkv", True), ("neox", "qkv", False), ("gptj", "node", True)]
)
def test_acdc_agrees_on_other_layouts(
    small_model: LoadModel, name: str, granularity: Granularity, absolute: bool
) -> None:
    for fact in FACTS[1:]:
        hook, sparse = (
            make(small_model(name), (fact,), granularity=granularity) for make in (HookEngine, SparseEngine)
        )
        _, reference = search(hook, AcdcOptions(0.05, absolute=absolute), provenance=HERE)
        _, state = search(sparse, AcdcOptions(0.05, absolute=absolute), provenance=HERE)
        assert state.kept == reference.kept


TAUS = (0.05, 0.2, 1.0)
TWELVE = tuple(word_fact(f"{3 + i} {1 + 5 * i % 7} {4 + i * i % 11}", str(2 + 3 * i % 50)) for i in range(12))
OTHERS = tuple(word_fact(f"{30 - i} {1 + 5 * i % 7} {4 + i * i % 11}", str(2 + 3 * i % 50)) for i in range(12))


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_twelve_facts_three_thresholds_every_ablation_and_architecture(
    small_model: LoadModel, name: str, kind: str
) -> None:
    """Merged edges, one circuit for the twelve. `benchmarks/run.py equality` takes them one by one, on factlm."""
    model = load(small_model, name)
    ablation = {
        "zero": Ablation(),
        "mean": Ablation("mean", reference=OTHERS),
        "resample": Ablation("resample", corrupted=OTHERS),
    }[kind]
    hook, sparse = (make(model, TWELVE, ablation=ablation, granularity="node") for make in (HookEngine, SparseEngine))
    for tau in TAUS:
        (_, slow), (_, fast) = (search(engine, AcdcOptions(tau), provenance=HERE) for engine in (hook, sparse))
        assert fast.kept == slow.kept, tau
        assert fast.evaluations == slow.evaluations


def test_in_bfloat16_it_computes_what_the_model_computes_in_bfloat16(
    small_model: LoadModel, model_folder: Callable[[str], Path]
) -> None:
    """To that type's three digits; and at once from a float32 model, on request."""
    for name in ("gpt2", "llama"):
        exact = small_model(name)
        rough = Model.load(model_folder(name), dtype=torch.bfloat16)
        kept = random_circuit(exact.graph(), np.random.default_rng(2), 0.8)
        expected = HookEngine(exact, FACTS).answer_logits(kept)
        for engine in (SparseEngine(rough, FACTS), SparseEngine(exact, FACTS, dtype=torch.bfloat16)):
            got = engine.answer_logits(kept)
            assert all(logits.dtype == torch.bfloat16 for logits in got)
            assert 1e-5 < furthest([logits.float() for logits in got], expected) < 0.1, name


@settings(max_examples=8)
@given(
    seed=st.integers(0, 99),
    width=st.integers(1, 40),
    tau=st.sampled_from([0.001, 0.01, 0.1]),
    absolute=st.booleans(),
    n_facts=st.integers(1, 3),
)
def test_the_circuit_depends_on_neither_width_nor_guesses(
    seed: int, width: int, tau: float, absolute: bool, n_facts: int
) -> None:
    model = random_plain_model(seed, n_layers=2, n_heads=3)
    facts = (word_fact("1 2 3", "4"), word_fact("0 5 1 2", "3"), word_fact("2 2 1", "0"))[:n_facts]
    _, expected = search(Sequential(SparseEngine(model, facts)), AcdcOptions(tau, absolute=absolute), provenance=HERE)
    engine = SparseEngine(model, facts, width=width)
    _, state = search(engine, AcdcOptions(tau, absolute=absolute), provenance=HERE)
    if not expected.near_ties:
        assert state.kept == expected.kept
    assert engine.width <= width

    class Misleading(SparseEngine):
        def forecast(self, kept: np.ndarray, edges: Sequence[tuple[int, int]]) -> np.ndarray:
            return np.random.default_rng(seed).normal(size=(len(edges), len(self.facts)))

    _, misled = search(Misleading(model, facts, width=2), AcdcOptions(tau, absolute=absolute), provenance=HERE)
    if not expected.near_ties:
        assert misled.kept == expected.kept


def test_a_batch_gives_the_numbers_that_its_members_give_alone(small_model: LoadModel) -> None:
    model, rng = small_model("llama"), np.random.default_rng(3)
    kept = random_circuit(model.graph(), rng, 0.6)
    together = SparseEngine(model, FACTS).nll(kept)
    alone = [SparseEngine(model, (fact,)).nll(kept)[0] for fact in FACTS]
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_stopped_search_continues_to_the_same_circuit(
    small_model: LoadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("circuits.discovery.decisions"), "BATCHES", 1)
    model = small_model("gpt2")
    _, whole = search(SparseEngine(model, FACTS), AcdcOptions(0.03), provenance=HERE)
    stopped: State | None = None

    def stop(progress: Progress) -> None:
        if progress.done > 40:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        search(SparseEngine(model, FACTS, width=3), AcdcOptions(0.03), provenance=HERE, progress=stop)
    stopped = caught.value.state
    assert 40 < stopped.decided < len(stopped.kept)
    _, continued = search(SparseEngine(model, FACTS), AcdcOptions(0.03), provenance=HERE, state=stopped)
    assert continued.kept == whole.kept
    assert continued.evaluations == whole.evaluations


def test_a_sweep_finds_what_single_searches_find(small_model: LoadModel) -> None:
    engine = SparseEngine(small_model("gpt2"), FACTS)
    taus = [0.1, 0.003, 0.03]
    found = list(sweep(engine, taus, provenance=lambda tau: HERE))
    assert [tau for tau, _, _ in found] == sorted(taus)
    for tau, scores, state in found:
        expected, alone = search(SparseEngine(small_model("gpt2"), FACTS), AcdcOptions(tau), provenance=HERE)
        assert state.kept == alone.kept
        assert (state.evaluations, state.near_ties) == (alone.evaluations, alone.near_ties)
        assert np.allclose(scores.values, expected.values, atol=1e-5, equal_nan=True)


def test_near_ties_are_counted(small_model: LoadModel) -> None:
    # The first edge is tried from the whole model, whatever tau is.
    engine = SparseEngine(small_model("gpt2"), FACTS)
    scores, before = search(engine, AcdcOptions(0.3, absolute=True), provenance=HERE)
    first = abs(float(scores.values[-1, -1]))
    _, state = search(engine, AcdcOptions(first, absolute=True), provenance=HERE)
    assert not before.near_ties
    assert "m1->logits" in state.near_ties


def test_it_does_less_than_one_call_an_edge(small_model: LoadModel) -> None:
    calls = []

    class Counting(SparseEngine):
        def nll_cutting(self, kept: np.ndarray, edges: Sequence[tuple[int, int]], cut: np.ndarray) -> np.ndarray:
            calls.append(len(cut))
            return super().nll_cutting(kept, edges, cut)

    engine = Counting(small_model("gpt2"), FACTS)
    assert isinstance(engine, WideEngine)
    _, state = search(engine, AcdcOptions(0.3), provenance=HERE)
    assert len(calls) < state.evaluations / 2


# ---- which positions matter ----------------------------------------------------------------------------------------------


def test_a_head_read_by_logits_matters_at_the_answer_and_what_its_keys_read_matters_everywhere() -> None:
    graph = Graph(Shape(2, 2))
    kept = np.zeros_like(graph.legal)
    for name in ("a1.h0->logits", "m0->a1.h0<k>", "a0.h1->a1.h0<q>", "input->m0", "input->a0.h0<v>"):
        kept[graph.edge(name)] = True
    need = dict(zip((node.name for node in graph.writers), needs(Layout(graph), kept).tolist(), strict=True))
    assert need == {"input": FULL, "a0.h0": DEAD, "a0.h1": TAIL, "m0": FULL, "a1.h0": TAIL, "a1.h1": DEAD, "m1": DEAD}


# ---- guesses -------------------------------------------------------------------------------------------------------------


def test_a_variant_lacks_its_own_edge_and_the_earlier_ones_that_go() -> None:
    assert cuts(np.array([True, False, True])).tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]


def test_the_expected_path_keeps_what_would_cost_too_much() -> None:
    # From p = 0.9: -1 in log-odds costs 0.15 nats, and the second -1, on top of it, 0.28.
    start = np.array([-np.log(0.9)])
    shifts = np.array([[-1.0], [0.5], [-1.0], [-0.1]])
    goes = expected_path(shifts, start, lambda nll: float(nll.mean()), lambda score: score >= 0.16)
    assert goes.tolist() == [True, True, False, True]


def test_measured_shifts_are_those_that_made_the_measurements() -> None:
    start, shifts = np.array([0.3, 0.02]), np.array([[-1.0, 0.2], [0.4, -2.0], [-0.3, -0.1]])
    goes = np.array([True, False, True])
    odds = log_odds(start)
    nlls = np.stack(
        [nll_of(odds + shifts[0]), nll_of(odds + shifts[0] + shifts[1]), nll_of(odds + shifts[0] + shifts[2])]
    )
    assert measured_shifts(nlls, goes, start) == pytest.approx(shifts)


def test_the_forecast_is_the_slope_of_the_score(small_model: LoadModel) -> None:
    # Half an edge costs half the slope and a quarter of the curvature: seen by scaling what the edge carries.
    model = small_model("gpt2")
    engine = SparseEngine(model, FACTS[:2])
    edges = [(writer, reader) for reader in (len(engine.graph.readers) - 1, 20) for writer in (0, 2, 5)]
    guess = engine.forecast(engine.graph.legal, edges)
    exact = np.array([engine.nll_without(engine.graph.legal, r, [[w]])[0] for w, r in edges])
    exact -= engine.nll(engine.graph.legal)
    assert np.corrcoef(guess.ravel(), exact.ravel())[0, 1] > 0.5


# ---- refusing ------------------------------------------------------------------------------------------------------------


def test_a_model_whose_weights_are_not_shown_is_run_by_hooks_and_said_so() -> None:
    model, lines = random_plain_model(0), []

    closed = Model.by_hand(_Shut(model.network), model.vocabulary)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UnsupportedArchitecture, match="does not show its weights"):
        SparseEngine(closed, (word_fact("1 2", "3"),))
    engine = make_engine("sparse", closed, (word_fact("1 2", "3"),), notice=lines.append)
    assert engine.name == "hook"
    assert len(lines) == 1


def test_a_run_in_python_warns_of_the_slow_engine(small_model: LoadModel) -> None:
    model = load(small_model, "gpt2")
    hidden = Model(_Shut(model.network), WORDS, name="shut", weights="", processing="raw")  # pyright: ignore[reportArgumentType]
    spec = RunSpec(model="shut", facts=(FACTS[0],), tau=3.0, granularity="node", force=True)
    with pytest.warns(RuntimeWarning, match="engine hook does, slowly: .* does not show its weights"):
        done = run(spec, {}, model=hidden)
    assert done.engine == "hook"
    lines: list[str] = []
    run(spec, {}, model=hidden, watch=Watch(lines.append))
    assert len(lines) == 1


class _Shut:
    """A network that runs as another does, and does not show its weights."""

    def __init__(self, network: Network) -> None:
        for name in ("shape", "d_model", "d_vocab", "n_ctx", "biases", "run", "readout"):
            setattr(self, name, getattr(network, name))


def test_an_own_forward_pass_that_differs_is_not_trusted() -> None:
    model = random_plain_model(0)
    network = model.network

    class Other:
        def __getattr__(self, name: str) -> object:
            return getattr(network, name)

        def run(self, batch: Batch, taps: object = None) -> torch.Tensor:
            return network.run(batch) * 1.01

        def components(self, n_pos: int) -> object:
            return network.components(n_pos)  # pyright: ignore[reportAttributeAccessIssue]

    other = Model(Other(), model.vocabulary, name="other", weights="", processing="raw")  # pyright: ignore[reportArgumentType]
    with pytest.raises(EngineMismatch, match="gives other logits than other"):
        SparseEngine(other, (word_fact("1 2", "3"),))

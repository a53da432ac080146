"""Attribution patching is the derivative that it says it is, adds up to what it says, and agrees with TransformerLens."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circuits.circuit import Scores
from circuits.discovery import slopes
from circuits.discovery.eap import IntegrationOptions, eap, eap_ig, eap_ig_activations
from circuits.discovery.exact import exact
from circuits.discovery.method import DiscoveryMethod
from circuits.discovery.problem import Problem
from circuits.discovery.slopes import through_norm
from circuits.engines.ablation import Ablation
from circuits.engines.hook import HookEngine
from circuits.facts import Fact
from circuits.graph import Graph, Node, Reader, Slot
from circuits.metrics import SQUARED_ERROR, match_nll
from circuits.model import Batch, Model
from circuits.model.bypassed import BypassedNetwork
from circuits.model.norm import Norm
from circuits.model.taps import ReaderKind, Taps, WriterKind
from tests.models import plain_model, random_plain_model, word_fact, zero_weights

LoadModel = Callable[..., Model]

FACTS = (word_fact("3 1 4 1 5", "2"), word_fact("5 3 5 8 9", "7"), word_fact("2 7 1", "2 4"))
CORRUPTED = (word_fact("9 1 4 1 5", "0"), word_fact("1 3 5 8 9", "0"), word_fact("4 7 1", "0"))
ABLATIONS = {
    "zero": Ablation(),
    "mean": Ablation("mean", reference=CORRUPTED),
    "resample": Ablation("resample", corrupted=CORRUPTED),
}
ARCHITECTURES = ["gpt2", "llama", "qwen3", "neox", "gptj", "mistral"]
"""Learnt positions, grouped queries, query norms, parallel blocks twice, a sliding window."""


def assert_same(left: Scores, right: np.ndarray, tolerance: float = 1e-4) -> None:
    """Equal up to a part of the largest score; and not all of them zero."""
    legal = left.graph.legal
    scale = np.abs(right[legal]).max()
    assert scale > 1e-4
    np.testing.assert_allclose(left.values[legal], right[legal], rtol=0, atol=tolerance * scale)


# ---- the derivative, word for word -------------------------------------------------------------------------------------


class Masked(Taps):
    """Every read is the sum over its senders of (1 - mask) times what each writes and mask times what it would carry."""

    def __init__(self, graph: Graph, mask: Tensor, carried: Tensor, biases: Tensor) -> None:
        self.graph, self.mask, self.carried, self.biases = graph, mask, carried, biases
        self.writes: list[Tensor] = []

    def write(self, kind: WriterKind, layer: int, value: Tensor) -> None:
        self.writes += [*value.unbind(2)] if kind == "head" else [value]

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        heads = range(self.graph.shape.n_heads if kind == "head" else 1)
        slot = slot if self.graph.granularity == "qkv" else None
        after_attention = kind in ("mlp", "bypass") and not self.graph.shape.parallel
        rows = []
        for head in heads:
            reader = self.graph.reader_index(Reader(Node(layer, kind, head), slot))
            total = self.biases[: layer + after_attention].sum(0)
            for writer in range(self.graph.upstream[reader]):
                gone = self.mask[writer, reader]
                total = total + (1 - gone) * self.writes[writer] + gone * self.carried[writer]
            rows.append(total)
        return torch.stack(rows, 2) if kind == "head" else rows[0]


def mask_gradient(model: Model, facts: tuple[Fact, ...], ablation: Ablation, graph: Graph) -> np.ndarray:
    """d (mean NLL) / d mask where the mask is 0: the clean run."""
    mask = torch.zeros(graph.legal.shape, requires_grad=True)
    groups = model.batches(facts)
    total = torch.zeros(())
    for group, carried in zip(groups, ablation.values(model, facts, groups), strict=True):
        masked = Masked(graph, mask, carried, model.biases)
        logits = model.run_differentiably(group, masked)[:, -group.n_answer :]
        total = total + match_nll(logits, group.answer).sum()
    (gradient,) = torch.autograd.grad(total / len(facts), mask)
    return gradient.double().numpy()


@pytest.mark.parametrize(("name", "kind"), [("gpt2", "zero"), ("llama", "mean"), ("neox", "resample")])
def test_eap_is_the_gradient_of_an_edge_mask_at_the_clean_run(small_model: LoadModel, name: str, kind: str) -> None:
    model = small_model(name)
    found = eap(Problem(model, FACTS, ABLATIONS[kind]))
    assert_same(found, mask_gradient(model, FACTS, ABLATIONS[kind], model.graph()))


def test_eap_of_merged_slots_is_the_gradient_of_a_mask_on_merged_edges(small_model: LoadModel) -> None:
    model = small_model("gpt2")
    found = eap(Problem(model, FACTS, ABLATIONS["resample"], "node"))
    assert_same(found, mask_gradient(model, FACTS, ABLATIONS["resample"], model.graph("node")))


@settings(max_examples=3)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(sorted(ABLATIONS)))
def test_eap_is_that_gradient_on_models_made_by_hand(seed: int, kind: str) -> None:
    model = random_plain_model(seed)
    facts = (word_fact("1 2 0", "3"), word_fact("4 2", "5 1"))
    others = (word_fact("5 2 0", "3"), word_fact("3 2", "5"))
    ablation = {
        "zero": Ablation(),
        "mean": Ablation("mean", reference=others),
        "resample": Ablation("resample", corrupted=others),
    }[kind]
    found = eap(Problem(model, facts, ablation))
    assert_same(found, mask_gradient(model, facts, ablation, model.graph()))


@dataclass(frozen=True)
class Beside:
    """A bypass that writes a matrix times what it reads."""

    matrix: Tensor

    def __call__(self, residual: Tensor, batch: Batch) -> Tensor:
        return residual @ self.matrix


def test_eap_scores_the_edges_of_a_bypass_too() -> None:
    model = random_plain_model(3)
    matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)) / 3
    edited = model.with_network(BypassedNetwork.around(model.network, 0, Beside(matrix)), "edited")
    facts = (word_fact("1 2 0", "3"),)
    assert "x0" in {node.name for node in edited.graph().writers}
    found = eap(Problem(edited, facts))
    assert_same(found, mask_gradient(edited, facts, Ablation(), edited.graph()))


# ---- two ways to the slopes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("method", [eap, eap_ig, eap_ig_activations])
def test_slopes_from_the_weights_and_from_the_hooks_agree(
    small_model: LoadModel, monkeypatch: pytest.MonkeyPatch, name: str, method: DiscoveryMethod[Any]
) -> None:
    model = small_model(name)
    ablation = ABLATIONS["resample" if name == "llama" else "mean"]
    problem = Problem(model, FACTS[1:], _for(ablation))
    options = None if method is eap else IntegrationOptions(2)
    with monkeypatch.context() as patch:
        patch.setattr(slopes, "HookSlopes", None)
        fast = method(problem, options)
    monkeypatch.setattr(slopes, "_parts", lambda model, n_pos: None)
    assert_same(fast, method(problem, options).values)


def _for(ablation: Ablation) -> Ablation:
    """The ablation for all facts but the first."""
    return Ablation(ablation.kind, reference=ablation.reference, corrupted=ablation.corrupted[1:])


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["none", "layer", "rms"]), weighted=st.booleans())
def test_the_gradient_through_a_norm_is_autograds(seed: int, kind: str, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(2, 7, generator=generator).double()
    norm = Norm(kind, weight if weighted else None, bias if weighted and kind == "layer" else None, 1e-2)  # type: ignore[arg-type]
    x = torch.randn(2, 3, 7, generator=generator).double()
    gradients = torch.randn(4, 2, 3, 7, generator=generator).double()
    leaf = x.clone().requires_grad_()
    expected = [torch.autograd.grad(norm(leaf), leaf, gradient)[0] for gradient in gradients]
    torch.testing.assert_close(through_norm(norm, x, gradients), torch.stack(expected))


def test_neither_batches_nor_their_size_change_the_scores(
    small_model: LoadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model("gpt2")
    ablation = ABLATIONS["resample"]
    whole = eap_ig(Problem(model, FACTS, ablation), IntegrationOptions(5))
    alone = [
        eap_ig(Problem(model, (fact,), Ablation("resample", corrupted=(other,))), IntegrationOptions(5)).values
        for fact, other in zip(FACTS, CORRUPTED, strict=True)
    ]
    assert_same(whole, np.mean(alone, 0))
    monkeypatch.setattr(slopes, "BYTES", 1)
    assert_same(whole, eap_ig(Problem(model, FACTS, ablation), IntegrationOptions(5)).values)


# ---- a linear model ----------------------------------------------------------------------------------------------------


def linear_model() -> Model:
    """Two layers of two heads that attend to all positions alike; MLPs whose units are all on; and an answer so unlikely
    that its NLL is its logit's distance from the other one's, to 1e-9: everything is linear in what is written."""
    generator = torch.Generator().manual_seed(0)
    weights = zero_weights(n_layers=2, n_heads=2, d_model=6, d_head=3, d_mlp=5, d_vocab=2, n_ctx=4)
    for name, value in weights.items():
        if not name.endswith(("W_Q", "W_K")):
            value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    for layer in range(2):
        weights[f"blocks.{layer}.mlp.b_in"] = torch.full((5,), 10.0)
    weights["unembed.b_U"] = torch.tensor([-40.0, 40.0])
    return plain_model(weights, "w0 w1")


LINEAR_FACTS = (word_fact("1 0 1", "0"), word_fact("0 1", "0"))
LINEAR = {
    "zero": Ablation(),
    "mean": Ablation("mean", reference=(word_fact("0 1 1", "0"), word_fact("0", "0"))),
    "resample": Ablation("resample", corrupted=(word_fact("0 0 1", "0"), word_fact("1 1", "0"))),
}


@pytest.mark.parametrize("kind", LINEAR)
def test_on_a_linear_model_eap_and_its_integrals_are_exact(kind: str) -> None:
    model, ablation = linear_model(), LINEAR[kind]
    problem = Problem(model, LINEAR_FACTS, ablation)
    expected = exact(replace(problem, given=HookEngine(model, LINEAR_FACTS, ablation=ablation)))
    for method in (eap, eap_ig, eap_ig_activations):
        assert_same(method(problem), expected.values, 1e-3)


def test_on_a_model_that_is_not_linear_eap_is_not_exact() -> None:
    model, facts = random_plain_model(1), (word_fact("1 2 0", "3"),)
    expected = exact(Problem(model, facts, given=HookEngine(model, facts))).values
    found = eap(Problem(model, facts))
    assert np.nanmax(np.abs(found.values - expected)) > 0.05 * np.nanmax(np.abs(expected))


# ---- completeness ------------------------------------------------------------------------------------------------------


def sublayers(graph: Graph) -> list[list[int]]:
    runs: dict[tuple[int, str], list[int]] = {}
    for i, node in enumerate(graph.writers):
        runs.setdefault((node.layer, node.kind), []).append(i)
    return list(runs.values())


def rise_without(model: Model, ablation: Ablation, senders: list[int]) -> float:
    """NLL with every edge out of these senders ablated, less the whole model's."""
    engine = HookEngine(model, FACTS, ablation=ablation)
    kept = engine.graph.legal.copy()
    kept[senders] = False
    return float((engine.nll(kept) - engine.nll(engine.graph.legal)).mean())


@pytest.mark.parametrize(("name", "kind"), [("gpt2", "resample"), ("llama", "mean"), ("neox", "resample")])
def test_scores_out_of_the_input_add_up_to_its_whole_effect_as_steps_grow(
    small_model: LoadModel, name: str, kind: str
) -> None:
    model, ablation = small_model(name), ABLATIONS[kind]
    expected = rise_without(model, ablation, [0])

    def error(steps: int) -> float:
        found = eap_ig(Problem(model, FACTS, ablation), IntegrationOptions(steps))
        return abs(float(np.nansum(found.values[0])) - expected)

    coarse, fine = error(3), error(60)
    assert fine < 0.02 * abs(expected)
    assert fine < coarse
    # The control: the slope at the clean run alone does not know what the whole way is worth.
    first_order = float(np.nansum(eap(Problem(model, FACTS, ablation)).values[0]))
    assert abs(first_order - expected) > 0.1 * abs(expected)


@pytest.mark.parametrize(("name", "kind"), [("gpt2", "mean"), ("llama", "zero"), ("neox", "resample")])
def test_scores_out_of_each_sublayer_add_up_to_its_whole_effect_as_steps_grow(
    small_model: LoadModel, name: str, kind: str
) -> None:
    model, ablation = small_model(name), ABLATIONS[kind]
    found = eap_ig_activations(Problem(model, FACTS, ablation), IntegrationOptions(40))
    first_order = eap(Problem(model, FACTS, ablation))
    off, off_at_first_order, scale = [], [], []
    # Under zero ablation the input's way ends where the norm divides by zero: see `eap_ig`.
    for senders in sublayers(found.graph)[1 if kind == "zero" else 0 :]:
        expected = rise_without(model, ablation, senders)
        scale.append(abs(expected))
        off.append(abs(float(np.nansum(found.values[senders])) - expected))
        off_at_first_order.append(abs(float(np.nansum(first_order.values[senders])) - expected))
    assert max(off) < 0.03 * max(scale)
    assert max(off_at_first_order) > 0.1 * max(scale)


def test_a_path_of_no_steps_is_refused(small_model: LoadModel) -> None:
    with pytest.raises(ValueError, match="at least one step, got 0"):
        eap_ig(Problem(small_model("gpt2"), FACTS), IntegrationOptions(0))


def test_another_metric_can_be_differentiated(small_model: LoadModel) -> None:
    model, facts = random_plain_model(2), (word_fact("1 2 0", "3"),)
    squared = eap(Problem(model, facts, metric=SQUARED_ERROR))
    engine = HookEngine(model, facts, metric=SQUARED_ERROR)
    whole = engine.nll(engine.graph.legal)[0]
    assert whole != pytest.approx(HookEngine(model, facts).nll(engine.graph.legal)[0])
    small = scaled(model, facts, 1e-3)
    assert np.nansum(squared.values[0]) == pytest.approx((small - whole) / 1e-3, rel=0.05)


def scaled(model: Model, facts: tuple[Fact, ...], share: float) -> float:
    """Squared error with that share of what ``input`` writes taken away."""
    (group,) = model.batches(facts)
    mask = torch.zeros(model.graph().legal.shape)
    mask[0] = share
    masked = Masked(model.graph(), mask, torch.zeros(len(model.graph().writers), 1, 1, 6), model.biases)
    logits = model.run(group, masked)[:, -group.n_answer :]
    return float(SQUARED_ERROR.of(logits, group.answer)[0])


# ---- TransformerLens ---------------------------------------------------------------------------------------------------

KINDS = {"embed": "input", "attn_head_out": "head", "mlp_out": "mlp", "mlp_in": "mlp", "logits": "logits"}


def by_transformer_lens(model: Model) -> np.ndarray:
    """Its attribution patching of edges, each fact beside its corrupted prompt, in this project's graph and sign.

    It takes gradients at its "corrupt" run and points towards its "clean" one; edges here are ablated, so that ours are
    its other way round.
    """
    from transformer_lens.tools.analysis import EdgeAttributionConfig, attribution_patch

    graph = model.graph()
    total = np.zeros(graph.legal.shape)
    for fact, other in zip(FACTS, CORRUPTED, strict=True):
        tokens, donor = model.tokens(fact), model.tokens(other)
        answer = torch.tensor([tokens.answer])
        found = attribution_patch(
            model.network._bridge,  # type: ignore[attr-defined]
            torch.tensor([donor.prompt + tokens.answer[:-1]]),
            torch.tensor([tokens.forced]),
            lambda logits, answer=answer: match_nll(logits[:, -answer.shape[1] :], answer)[0],
            EdgeAttributionConfig(granularity="edge"),
        )
        assert found.edge_scores is not None
        for (sender, receiver), score in found.edge_scores.items():
            layer = -1 if sender.kind == "embed" else sender.layer
            writer = graph.writer_index(Node(layer or 0, KINDS[sender.kind], sender.head or 0))  # type: ignore[arg-type]
            if receiver.kind in ("q_input", "k_input", "v_input"):
                reader = Reader(Node(receiver.layer or 0, "head", receiver.head or 0), receiver.kind[0])  # type: ignore[arg-type]
            elif receiver.kind == "logits":
                reader = Reader(Node(graph.shape.n_layers, "logits"))
            else:
                reader = Reader(Node(receiver.layer or 0, "mlp"))
            total[writer, graph.reader_index(reader)] += score / len(FACTS)
    return total


@pytest.mark.parametrize("name", ["gpt2", "neox"])
def test_transformer_lens_gives_every_edge_the_same_score(small_model: LoadModel, name: str) -> None:
    model = small_model(name)
    found = eap(Problem(model, FACTS, ABLATIONS["resample"]))
    assert_same(found, by_transformer_lens(model))


def test_edges_out_of_a_node_add_up_to_transformer_lens_score_of_the_node(small_model: LoadModel) -> None:
    from transformer_lens.tools.analysis import EdgeAttributionConfig, attribution_patch

    model, fact, other = small_model("gpt2"), FACTS[0], CORRUPTED[0]
    tokens, donor = model.tokens(fact), model.tokens(other)
    nodes = attribution_patch(
        model.network._bridge,  # type: ignore[attr-defined]
        torch.tensor([donor.forced]),
        torch.tensor([tokens.forced]),
        lambda logits: match_nll(logits[:, -1:], torch.tensor([tokens.answer]))[0],
        EdgeAttributionConfig(granularity="node"),
    ).node_scores
    found = eap(Problem(model, (fact,), Ablation("resample", corrupted=(other,))))
    for row, node in enumerate(found.graph.writers):
        kind = {"input": "embed", "head": "attn_head_out", "mlp": "mlp_out"}[node.kind]
        own = [
            score
            for theirs, score in nodes.items()
            if theirs.kind == kind
            and (kind == "embed" or theirs.layer == node.layer)
            and (theirs.head or 0) == node.head
        ]
        assert len(own) == len(tokens.forced)
        assert np.nansum(found.values[row]) == pytest.approx(sum(own), abs=1e-4)

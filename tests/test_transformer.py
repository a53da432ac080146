"""The forward pass over shown weights, and what may watch it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from circuits.model import Batch, Model
from circuits.model.attention import attend, attend_beside
from circuits.model.bypassed import shown
from circuits.model.network import PlainNetwork
from circuits.model.taps import Recorder, Taps
from tests.models import random_plain_model
from tests.oracle import run_by_hand

IDS = torch.tensor([[0, 3, 1, 4, 1], [0, 5, 9, 2, 6]])


class Together(Recorder):
    heads_apart = False


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox"])
def test_a_pass_that_is_broken_off_and_taken_up_again_is_the_whole_pass(
    name: str, small_model: Callable[..., Model]
) -> None:
    model = small_model(name)
    parts = shown(model.network).components(IDS.shape[1])
    embedded = parts.embed(IDS)
    whole = parts.forward(embedded)
    torch.testing.assert_close(parts.readout(whole), model.logits(Batch.of_prompts(IDS)), rtol=1e-3, atol=1e-4)
    step = 2 if parts.shape.parallel else 1
    for point in range(0, 2 * parts.shape.n_layers + 1, step):
        before = parts.forward(embedded, stop=point)
        torch.testing.assert_close(parts.forward(before, start=point), whole, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(parts.forward(embedded, start=2), whole, atol=1e-3), (
        "the control: without the first layer"
    )


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox"])
def test_heads_that_read_together_write_what_they_write_apart(name: str, small_model: Callable[..., Model]) -> None:
    parts = shown(small_model(name).network).components(IDS.shape[1])
    apart, together, embedded = Recorder(), Together(), parts.embed(IDS)
    final = parts.forward(embedded, apart)
    torch.testing.assert_close(parts.forward(embedded, together), final, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together.outputs, apart.outputs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(embedded + apart.outputs.sum(0) + parts.b_O.sum(0), final, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_patterns_times_values_are_what_the_heads_write(name: str, small_model: Callable[..., Model]) -> None:
    class Mixing(Taps):
        def compared(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
            self.values = value

        def pattern(self, layer: int, value: torch.Tensor) -> None:
            assert torch.allclose(value.sum(-1), torch.ones(()))
            assert not value.triu(1).any(), "nobody sees what comes later"
            self.mixed = value @ self.values

        def write(self, kind: str, layer: int, value: torch.Tensor) -> None:
            if kind == "head":
                by_hand = torch.einsum("bhpe,hed->bphd", self.mixed, parts.blocks[layer].attention.W_O)
                torch.testing.assert_close(value, by_hand)
                seen.append(layer)

    seen: list[int] = []
    parts = shown(small_model(name).network).components(IDS.shape[1])
    parts.forward(parts.embed(IDS), Mixing())
    assert seen == list(range(parts.shape.n_layers))


@pytest.mark.parametrize(("seed", "scale", "causal"), [(0, 1.0, True), (1, 2.0, True), (2, 1.0, False)])
def test_the_pass_is_the_one_that_is_written_out_by_hand(seed: int, scale: float, causal: bool) -> None:
    network = random_plain_model(seed, n_layers=3).network
    assert isinstance(network, PlainNetwork)
    own, ids = replace(network, attention_scale=scale, causal=causal), IDS.remainder(6)
    logits, writes = run_by_hand(own.weights, ids, attention_scale=scale, causal=causal)
    record = Recorder()
    torch.testing.assert_close(own.run(Batch.of_prompts(ids), record), logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(record.outputs, writes, rtol=1e-4, atol=1e-5)
    other, _ = run_by_hand(own.weights, ids, attention_scale=scale, causal=not causal)
    assert not torch.allclose(other, logits, atol=1e-3), "the control: what positions see matters"


@pytest.mark.parametrize("window", [None, 2])
def test_attention_beside_shared_keys_is_attention_over_all_of_them(window: int | None) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 5, 2, 4, 3)
    keys, values = torch.randn(2, 2, 4, 6, 3)
    visible = torch.arange(7) >= (0 if window is None else 7 - window)
    beside = attend_beside((q, k, v), keys, values, visible, scale=0.7)
    for one in range(5):
        all_keys, all_values = (torch.cat((old, new[one][:, :, None]), 2) for old, new in ((keys, k), (values, v)))
        whole = attend(q[one][:, :, None], all_keys, all_values, visible[None], scale=0.7)
        torch.testing.assert_close(beside[one], whole[:, :, 0])

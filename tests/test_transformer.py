"""The forward pass over shown weights, and what may watch it."""

from collections.abc import Callable

import pytest
import torch

from circuits.model import Batch, Model
from circuits.model.network import shown
from circuits.model.taps import Record, Taps

IDS = torch.tensor([[0, 3, 1, 4, 1], [0, 5, 9, 2, 6]])


class Together(Record):
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
    apart, together, embedded = Record(), Together(), parts.embed(IDS)
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

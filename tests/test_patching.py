"""States put elsewhere, against whole runs with the state put in by hand, and against what must not change."""

from collections.abc import Callable, Sequence

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.analysis.patching import (
    PatchMismatch,
    gives,
    opened,
    patched,
    patched_by_running,
    require_agreement,
    residual_stream,
)
from circuits.model import Batch, Model
from circuits.model.bypassed import BypassedNetwork
from circuits.model.network import Network
from circuits.model.transformer import UnsupportedArchitecture
from tests.models import random_plain_model
from tests.test_past import LAYOUTS

LoadModel = Callable[..., Model]

ROUNDING = 1e-4
BATCH = Batch.of_prompts(torch.tensor([[0, 5, 9, 5, 17, 3]]))
AT = 3


def from_elsewhere(network: Network, seed: int = 0) -> list[Float[Tensor, "_ d_model"]]:
    """For each point, states of all points at another position of another row; at the first point, two of noise beside them."""
    other = residual_stream(network, Batch.of_prompts(torch.tensor([[0, 7, 8, 11]])))[:, -1]
    noise = torch.randn(2, network.d_model, generator=torch.Generator().manual_seed(seed))
    return [torch.cat((other, noise)), *(other[point:] for point in range(1, network.shape.n_layers))]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("at", [0, AT, 5])
def test_patches_made_together_give_what_a_run_of_each_gives(layout: str, at: int, small_model: LoadModel) -> None:
    network = opened(small_model(layout))
    states = from_elsewhere(network)
    together, alone = patched(network, BATCH, at, states), patched_by_running(network, BATCH, at, states)
    assert together.shape == (sum(map(len, states)), 6 - at, network.d_model)
    torch.testing.assert_close(together, alone, rtol=ROUNDING, atol=ROUNDING)
    # The control: patches differ from each other, and from no patch.
    own = residual_stream(network, BATCH)[-1, at:]
    assert all(float((each[0] - own[0]).norm()) > 0.1 for each in together)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_state_put_where_it_was_changes_nothing(layout: str, small_model: LoadModel) -> None:
    network = opened(small_model(layout))
    own = residual_stream(network, BATCH)
    for found in patched(network, BATCH, AT, list(own[:-1, AT, None])):
        torch.testing.assert_close(found, own[-1, AT:], rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_state_after_the_last_layer_is_what_the_model_reads_its_logits_off(
    layout: str, small_model: LoadModel
) -> None:
    model = small_model(layout)
    network = opened(model)
    stream = residual_stream(network, BATCH)
    assert stream.shape == (model.shape.n_layers + 1, 6, network.d_model)
    torch.testing.assert_close(network.readout(stream[-1]), model.logits(BATCH)[0], rtol=ROUNDING, atol=ROUNDING)
    require_agreement(model, network, BATCH)


def test_a_network_with_bypasses_is_patched_by_running_it(small_model: LoadModel) -> None:
    model = small_model("gpt2")

    def bypass(residual: Float[Tensor, "batch pos d_model"], batch: Batch) -> Float[Tensor, "batch pos d_model"]:
        return 0.5 * residual.roll(1, -1)

    edited = model.with_network(BypassedNetwork.around(model.network, 0, bypass), "an edit")
    network = opened(edited)
    own = residual_stream(network, BATCH)
    torch.testing.assert_close(network.readout(own[-1]), edited.logits(BATCH)[0], rtol=ROUNDING, atol=ROUNDING)
    for found in patched(network, BATCH, AT, list(own[:-1, AT, None])):
        torch.testing.assert_close(found, own[-1, AT:], rtol=ROUNDING, atol=ROUNDING)
    # The control: the bypass does something to a patch.
    states = from_elsewhere(network)
    without = patched(opened(model), BATCH, AT, states)
    assert float((patched(network, BATCH, AT, states) - without).norm()) > 0.1


def test_a_patch_gives_the_answer_if_every_token_of_it_is_the_likeliest(small_model: LoadModel) -> None:
    network = opened(small_model("gpt2"))
    final = patched(network, BATCH, AT, from_elsewhere(network))
    likeliest = network.readout(final[:, -2:]).argmax(-1)
    found = gives(network, final, likeliest[1])
    assert found.tolist() == [bool((each == likeliest[1]).all()) for each in likeliest]
    assert found[1]
    wrong = likeliest[1].clone()
    wrong[0] = (wrong[0] + 1) % network.d_vocab
    assert not gives(network, final, wrong)[1]
    assert gives(network, final[:0], wrong).shape == (0,)


@pytest.mark.parametrize(
    ("batch", "at", "n"),
    [(Batch.of_prompts(BATCH.ids.repeat(2, 1)), AT, 2), (BATCH, 6, 2), (BATCH, -1, 2), (BATCH, AT, 3)],
)
def test_what_cannot_be_patched_is_refused(batch: Batch, at: int, n: int) -> None:
    network = opened(random_plain_model(0))
    states: Sequence[Tensor] = [torch.zeros(1, network.d_model)] * n
    with pytest.raises(ValueError, match="expected one row, a position of its 6 and states for each of 2 layers, got"):
        patched(network, batch, at, states)


def test_weights_that_are_not_the_models_and_weights_not_shown_are_refused() -> None:
    model, other = random_plain_model(0), random_plain_model(1)
    batch = Batch.of_prompts(torch.tensor([[0, 1, 2]]))
    with pytest.raises(PatchMismatch, match=r"by hand cannot be patched: .* give other logits: off by"):
        require_agreement(model, opened(other), batch)

    class Closed:
        """A network of which nothing but what `Network` asks for is seen."""

        shape, d_model, d_vocab, n_ctx = model.shape, model.network.d_model, model.network.d_vocab, model.n_ctx
        biases = model.network.biases
        run, readout = model.network.run, model.network.readout

    with pytest.raises(UnsupportedArchitecture, match="no state of by hand can be put elsewhere: Closed does not show"):
        opened(model.with_network(Closed(), "closed"))

"""A row read in parts, what was read kept, gives what it gives when it is read whole."""

from collections.abc import Callable

import pytest
import torch

from circuits.evaluation.edits.generation import most_likely, sample
from circuits.model import Batch, Model
from circuits.model.network import ComponentNetwork, OpenNetwork
from circuits.model.past import GROWTH, Past

LAYOUTS = ("gpt2", "llama", "qwen2", "qwen3", "neox", "mistral", "gptj", "neo")
"""Learnt positions; rotated, grouped queries; biases and no BOS; query norms; parallel blocks; windows of 4 tokens."""


def opened(model: Model) -> ComponentNetwork:
    assert isinstance(model.network, OpenNetwork)
    return ComponentNetwork(model.network.components(model.n_ctx), model.n_ctx)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_read_in_parts_gives_the_logits_of_the_row_read_whole(
    layout: str, small_model: Callable[..., Model]
) -> None:
    """Parts of several tokens and of one, past every window; the control forgets one part."""
    network = opened(small_model(layout))
    ids = torch.randint(1, network.d_vocab, (3, 17), generator=torch.Generator().manual_seed(0))
    whole = network.run(Batch.of_prompts(ids))
    past, forgetful = Past(), Past()
    for start, stop in ((0, 6), (6, 7), (7, 8), (8, 13), (13, 17)):
        read = network.read_on(ids[:, start:stop], past, n=stop - start)
        assert past.length == stop
        assert torch.allclose(read, whole[:, start:stop], atol=1e-4)
    for start, stop in ((0, 6), (13, 17)):
        read = network.read_on(ids[:, start:stop], forgetful)
    assert not torch.allclose(read[:, -1], whole[:, -1], atol=1e-2)


def test_rows_of_a_past_are_read_on_alone_or_several_times(small_model: Callable[..., Model]) -> None:
    network = opened(small_model("llama"))
    ids = torch.randint(1, network.d_vocab, (3, 9), generator=torch.Generator().manual_seed(1))
    whole, past = network.run(Batch.of_prompts(ids))[:, -1], Past()
    network.read_on(ids[:, :5], past)
    order = [2, 0, 2]
    some = past.rows(order)
    assert torch.allclose(network.read_on(ids[order, 5:], some)[:, -1], whole[order], atol=1e-4)
    assert (past.length, some.length) == (5, 9)


def test_room_grows_and_keeps_what_was_there() -> None:
    generator, past, parts = torch.Generator().manual_seed(0), Past(), []
    for n in (3, GROWTH, 1, GROWTH + 1):
        parts.append(torch.randn(2, 3, n, 4, generator=generator))
        key, value = past.extend(0, parts[-1], 2 * parts[-1])
        past.advance(n)
        assert torch.equal(key, torch.cat(parts, 2))
        assert torch.equal(value, 2 * key)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_written_with_a_past_is_what_is_written_without_one_token_by_token(
    layout: str, small_model: Callable[..., Model]
) -> None:
    """Greedily, rows ending at different steps and more of them than are written side by side; the oracle reads whole rows."""
    model = small_model(layout)
    network = opened(model)
    prompts = [(1 + i, 2 + i, 3 + i % 5) for i in range(20)] + [(4, 5)]
    lengths = [1 + i % 7 for i in range(len(prompts))]
    for prompt, length, found in zip(prompts, lengths, most_likely(model, prompts, lengths), strict=True):
        ids = list(prompt)
        for _ in range(length):
            ids.append(int(network.run(Batch.of_prompts(torch.tensor([ids])))[0, -1].argmax()))
        assert tuple(ids[len(prompt) :]) == found
    alone = [sample(model, [prompt], 8, seed=3)[0] for prompt in prompts]
    assert list(sample(model, prompts, 8, seed=3)) == alone


@pytest.mark.parametrize(("layout", "shares"), [("llama", 2), ("qwen3", 2), ("gpt2", 1)])
def test_what_heads_share_is_kept_once_and_gives_the_same_logits(
    layout: str, shares: int, small_model: Callable[..., Model]
) -> None:
    own = opened(small_model(layout))
    shared = ComponentNetwork(own.parts.shared(), own.n_ctx)
    ids = torch.randint(1, own.d_vocab, (3, 9), generator=torch.Generator().manual_seed(0))
    pasts = [Past(), Past()]
    for start, stop in ((0, 5), (5, 6), (6, 9)):
        logits, others = (
            network.read_on(ids[:, start:stop], past, n=stop - start)
            for network, past in zip((own, shared), pasts, strict=True)
        )
        assert torch.allclose(logits, others, atol=1e-5)
    kept = [past._kept[0][0].shape[1] for past in pasts]
    assert kept == [own.shape.n_heads, own.shape.n_heads // shares]
    # With another key in one head, they share no more: nothing stale is read.
    name = "blocks.0.attn.W_K"
    changed = own.weight(name).clone()
    changed[0] += torch.randn(changed[0].shape, generator=torch.Generator().manual_seed(1))
    one, other = own.with_weights({name: changed}), shared.with_weights({name: changed})
    assert torch.equal(one.read_on(ids, Past()), other.read_on(ids, Past()))
    assert not torch.allclose(one.read_on(ids, Past()), own.read_on(ids, Past()), atol=1e-2)
    assert one.parts.shared().blocks[0].attention.distinct is None

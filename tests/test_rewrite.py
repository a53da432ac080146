"""A model loads if every block is the sum of its heads, bias and MLP, at every position, however large the stream is."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from circuits.graph import Shape
from circuits.model import Batch, Model, ModelError
from circuits.model.rewrite import BlockTrace, require_residual_rewrite
from tests.models import save_model

N_POS, N_HEADS, D_MODEL = 6, 3, 8
MASSIVE = 25_000.0
"""The norm that real models keep at the first position."""


def block(*, parallel: bool = False, write: float = 1.0, seed: int = 0) -> BlockTrace:
    """An exact block whose stream has norm 25,000 at the first position and norm 1 at the others."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        vectors = torch.randn(*shape, D_MODEL, generator=generator, dtype=torch.float64)
        return vectors / vectors.norm(dim=-1, keepdim=True)

    before, heads, bias, mlp = random(N_POS), write * random(N_POS, N_HEADS), write * random(), random(N_POS)
    before[0] *= MASSIVE
    attention = heads.sum(1) + bias
    read = before if parallel else before + attention
    after = before + attention + mlp
    return BlockTrace(before, heads, bias, attention, read, mlp, after, torch.finfo(torch.float32).eps)


def check(*blocks: BlockTrace, parallel: bool = False) -> None:
    require_residual_rewrite(blocks, parallel, "a model", "SomeForCausalLM")


def norm_of_all(vectors: torch.Tensor) -> float:
    return float(vectors.norm())


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("write", [1e-2, 1.0, 100.0])
def test_an_exact_block_passes_beside_a_massive_first_position(parallel: bool, write: float) -> None:
    check(block(parallel=parallel, write=write), parallel=parallel)


def test_a_small_norm_after_attention_is_refused_though_it_is_nothing_beside_the_stream() -> None:
    exact = block()
    normed = 0.1 * exact.attention / exact.attention.norm(dim=-1, keepdim=True)
    shown = replace(exact, attention=normed, mlp_in=exact.before + normed, after=exact.before + normed + exact.mlp)
    with pytest.raises(
        ModelError, match=r"a model has no exact residual rewrite over heads: in layer 1, position 0.*norm"
    ):
        check(exact, shown)
    hidden = replace(shown, attention=exact.attention)
    with pytest.raises(ModelError, match=r"what the block adds to the residual stream is not .*SomeForCausalLM"):
        check(hidden)
    # The control: over all positions at once, the stream is the sum of its writes to one part in ten thousand.
    off = norm_of_all(hidden.before + hidden.attention + hidden.mlp - hidden.after)
    assert off < 1e-3 * norm_of_all(hidden.after)


def test_what_the_mlp_reads_is_judged_by_attentions_write_and_not_by_the_stream() -> None:
    sequential = block()
    # The control: beside the stream, attention's write does not show, so that the block looks parallel.
    assert norm_of_all(sequential.mlp_in - sequential.before) < 1e-3 * norm_of_all(sequential.before)
    with pytest.raises(
        ModelError, match=r"is parallel by its config, but in layer 0 the MLP reads .* after attention's"
    ):
        check(sequential, parallel=True)
    with pytest.raises(
        ModelError, match=r"is sequential by its config, but in layer 1 the MLP reads .* before attention's"
    ):
        check(block(write=0.0), block(parallel=True))
    with pytest.raises(ModelError, match="mixes parallel and sequential blocks"):
        check(block(), block(parallel=True))
    with pytest.raises(ModelError, match="reads neither the residual stream before attention nor the one after it"):
        check(replace(sequential, mlp_in=sequential.before + 0.5 * sequential.attention))


def test_a_block_whose_attention_writes_nothing_is_what_the_config_says() -> None:
    for parallel in (False, True):
        check(block(write=0.0), parallel=parallel)


@pytest.mark.parametrize("position", range(N_POS))
def test_one_wrong_position_is_enough(position: int) -> None:
    exact = block()
    attention = exact.attention.clone()
    attention[position] *= 1.01
    with pytest.raises(ModelError, match=f"layer 0, position {position}"):
        check(replace(exact, attention=attention))


def massive_first(folder: Path, name: str) -> Path:
    """A small model whose first two tokens have embeddings of norm 25,000."""
    weights = load_file(save_model(name, folder) / "model.safetensors")
    key = next(key for key in weights if key.endswith(("embed_tokens.weight", "embed_in.weight")))
    weights[key][:2] *= MASSIVE / weights[key][:2].norm(dim=-1, keepdim=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(("name", "parallel"), [("llama", False), ("neox", True)])
def test_a_model_with_massive_tokens_loads_as_what_it_is(tmp_path: Path, name: str, parallel: bool) -> None:
    model = Model.load(massive_first(tmp_path, name))
    assert model.shape == Shape(2, 4, parallel=parallel)
    assert model.node_outputs(Batch.of_prompts(torch.tensor([[0, 5, 9]])))[0, 0, 0].norm() > 0.9 * MASSIVE


def test_a_post_norm_scaled_small_is_refused(tmp_path: Path) -> None:
    save_model("gemma2", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for key in weights:
        if "post_attention_layernorm" in key:
            weights[key] = torch.full_like(weights[key], -1 + 1e-4)  # Gemma's norms multiply by one plus their weight
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="has no exact residual rewrite over heads: in layer 0, position 0"):
        Model.load(tmp_path)

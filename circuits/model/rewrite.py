"""Whether a model is the sum that its graph says it is: every head, MLP and bias adds its own vector to the residual stream.

    after[p] = before[p] + sum_h head_h[p] + bias + mlp[p]

Checked at every position and sub-layer against the size of that sub-layer's own write. A norm over positions or over the
stream would hide it: real models keep a vector of norm 25,000 at the first position, beside writes of norm 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float64
from torch import Tensor

from circuits.model.errors import ModelError

ROUNDINGS = 8
"""How many roundings of the stream the difference of two of its states may hold, each at most eps |stream|."""
DECIDES = 4
"""How many times its own allowed error attention's write must be, before a position says which stream the MLP read."""


@dataclass(frozen=True, slots=True)
class BlockTrace:
    """What one block read and wrote on one text, in double precision, so that the check itself rounds nothing."""

    before: Float64[Tensor, "pos d_model"]
    """The residual stream before the block."""
    heads: Float64[Tensor, "pos head d_model"]
    bias: Float64[Tensor, " d_model"]
    """Attention's output bias, which belongs to no head."""
    attention: Float64[Tensor, "pos d_model"]
    """What attention adds to the stream."""
    mlp_in: Float64[Tensor, "pos d_model"]
    """The stream as the MLP's norm gets it."""
    mlp: Float64[Tensor, "pos d_model"]
    after: Float64[Tensor, "pos d_model"]
    eps: float
    """The relative rounding of the type that the model ran in."""

    def allowed(self, size: Float64[Tensor, " pos"]) -> Float64[Tensor, " pos"]:
        """What a write of this size may be off by; where it is read off the stream, the stream's own rounding is added."""
        return max(1e-3, 16 * self.eps) * size

    @property
    def rounding(self) -> Float64[Tensor, " pos"]:
        return ROUNDINGS * self.eps * (_norm(self.before) + _norm(self.after))


def require_residual_rewrite(blocks: Sequence[BlockTrace], parallel: bool, name: str, architecture: str) -> None:
    """Check that every block is the sum of its heads, bias and MLP, and that its MLP reads what ``parallel`` says.

    ``parallel`` (the model's config): the MLP reads the stream without its own block's attention. A position decides about
    that only where attention's write stands out of the stream's rounding; a block may have none.

    Raises:
        ModelError: in some layer and position it is not so.
    """
    try:
        _require_residual_rewrite(blocks, parallel)
    except ModelError as error:
        raise ModelError(f"{name} {error} ({architecture})") from None


def _require_residual_rewrite(blocks: Sequence[BlockTrace], parallel: bool) -> None:
    for layer, block in enumerate(blocks):
        _require_sum_of_heads(block, layer)
        _require_sum_of_sublayers(block, layer)
    seen = [_mlp_skips_attention(block, layer) for layer, block in enumerate(blocks)]
    if len({skips for skips in seen if skips is not None}) > 1:
        raise ModelError("mixes parallel and sequential blocks, which no graph here describes")
    if (not parallel) in seen:
        layer = seen.index(not parallel)
        raise ModelError(
            f"is {'parallel' if parallel else 'sequential'} by its config, but in layer {layer} the MLP reads the residual stream "
            f"{'after' if parallel else 'before'} attention's write"
        )


def _require_sum_of_heads(block: BlockTrace, layer: int) -> None:
    size = _norm(block.heads).sum(-1) + _norm(block.bias)
    error = _norm(block.heads.sum(1) + block.bias - block.attention)
    if bad := _first(error > block.allowed(size)):
        raise ModelError(
            f"has no exact residual rewrite over heads: in layer {layer}, position {bad[0]}, what attention adds to "
            f"the residual stream is not the sum of its heads' results (off by {error[bad]:.2g}, where they write "
            f"{size[bad]:.2g}): it puts an operation, such as a norm, after them"
        )


def _require_sum_of_sublayers(block: BlockTrace, layer: int) -> None:
    size = _norm(block.attention) + _norm(block.mlp)
    error = _norm(block.after - block.before - block.attention - block.mlp)
    if bad := _first(error > block.allowed(size) + block.rounding):
        raise ModelError(
            f"has no exact residual rewrite: in layer {layer}, position {bad[0]}, what the block adds to the residual "
            f"stream is not what attention and MLP write (off by {error[bad]:.2g}, where they write {size[bad]:.2g})"
        )


def _mlp_skips_attention(block: BlockTrace, layer: int) -> bool | None:
    """Whether the MLP reads the stream as it was before attention; None where attention writes too little to say.

    Raises:
        ModelError: it reads neither that nor the stream after attention.
    """
    size = _norm(block.attention)
    allowed = block.allowed(size) + block.rounding
    decides = size > DECIDES * allowed
    if not decides.any():
        return None
    read = block.mlp_in - block.before
    for skips, off in ((True, _norm(read)), (False, _norm(read - block.attention))):
        if (off <= allowed)[decides].all():
            return skips
    raise ModelError(
        f"has no exact residual rewrite: in layer {layer} the MLP reads neither the residual stream before "
        "attention nor the one after it"
    )


def _norm(vectors: Float64[Tensor, "*rest d_model"]) -> Float64[Tensor, "*rest"]:
    return vectors.norm(dim=-1)


def _first(true: Bool[Tensor, " pos"]) -> tuple[int, ...] | None:
    """The first position where it is so; a tuple, so that position 0 is one too."""
    return (int(true.int().argmax()),) if bool(true.any()) else None

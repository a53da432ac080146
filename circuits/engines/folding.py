"""A layer's weights in the shape in which many variants of a circuit are run through it.

Two exact rewrites, made once:

* The norm's weight and bias go into the matrices that follow it, so that a reader computes ``rstd(x) * (x W') + b'``:
  the normalised input is never written to memory.
* Where every reader is a layer norm, only the centred part of a write is ever read. Writes are centred at their source,
  after which a layer norm is an RMS norm. A bypass may read anything, so beside one writes stay as they are: the centring
  goes into the matrices, and into the norm's scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.model.attention import Attention
from circuits.model.norm import Norm, NormKind
from circuits.model.products import times
from circuits.model.transformer import ACTIVATIONS, Components, Mlp, UnsupportedArchitecture


@dataclass(frozen=True)
class FoldedLayer:
    """Slots are stacked slot-major: row ``slot * n_heads + head``, slots in the order q, k, v."""

    attention: Attention
    """Rotary table, query and key norms, window; its matrices are not used."""
    W_slots: Float[Tensor, "slot_head d_model d_head"]
    b_slots: Float[Tensor, "slot_head 1 d_head"]
    W_O: Float[Tensor, "head d_head d_model"]
    W_in: Float[Tensor, "d_model d_into"]
    """With a gate: the gate's columns, then the others."""
    b_in: Float[Tensor, "d_into"]
    W_out: Float[Tensor, "d_mlp d_model"]
    b_out: Float[Tensor, "d_model"]
    activation: str
    eps: tuple[Float[Tensor, ""], Float[Tensor, ""]]
    """Of the attention's norm and of the MLP's."""

    def hidden(
        self, into: Float[Tensor, "*rest d_into"], rstd: Float[Tensor, "*rest 1"] | None
    ) -> Float[Tensor, "*rest d_mlp"]:
        """The MLP's hidden units of x W_in; times ``W_out``, plus ``b_out``, they are what it writes."""
        into = into + self.b_in if rstd is None else torch.addcmul(self.b_in, into, rstd)
        if into.shape[-1] == len(self.W_out):
            return ACTIVATIONS[self.activation](into)
        gate, hidden = into.chunk(2, -1)
        return ACTIVATIONS[self.activation](gate) * hidden


@dataclass(frozen=True)
class Folded:
    """All layers, and the unembedding, of a model whose writers are centred if ``centred``.

    ``norm`` is what every reader of it does: nothing, RMS norm, or the layer norm.
    """

    layers: tuple[FoldedLayer, ...]
    W_U: Float[Tensor, "d_model d_vocab"]
    b_U: Float[Tensor, "d_vocab"]
    final_eps: Float[Tensor, ""]
    norm: NormKind
    centred: bool

    def centre(self, writes: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest d_model"]:
        return writes - writes.mean(-1, keepdim=True) if self.centred else writes

    def rstd(self, x: Float[Tensor, "*rest d_model"], eps: Float[Tensor, ""]) -> Float[Tensor, "*rest 1"] | None:
        """1 / sqrt(mean(x^2) + eps), in float32 whatever the type of x; of x - mean(x) in a layer norm."""
        if self.norm == "none":
            return None
        if x.dtype in (torch.bfloat16, torch.float16):
            x = x.float()
        if self.norm == "layer" and not self.centred:
            x = x - x.mean(-1, keepdim=True)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return torch.addcmul(eps, norm, norm, value=1 / x.shape[-1]).rsqrt().to(self.W_U.dtype)

    def product_out(self, x: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_vocab"]:
        """x W_U."""
        return times(x, self.W_U)

    def readout(
        self, x: Float[Tensor, "*rest d_model"], product: Float[Tensor, "*rest d_vocab"]
    ) -> Float[Tensor, "*rest d_vocab"]:
        """The logits of x and x W_U."""
        rstd = self.rstd(x, self.final_eps)
        return product + self.b_U if rstd is None else torch.addcmul(self.b_U, product, rstd)


def fold(parts: Components, *, centred: bool = True) -> Folded:
    """The model's weights, norms folded in; with layer norms, writes centred if ``centred``.

    Raises:
        UnsupportedArchitecture: readers do not all have the same kind of norm.
    """
    norms = [norm for block in parts.blocks for norm in (block.attention.norm, block.mlp.norm)] + [parts.final]
    kinds = {norm.kind for norm in norms}
    if len(kinds) > 1:
        raise UnsupportedArchitecture(f"readers have different norms: {', '.join(sorted(kinds))}")
    kind = norms[0].kind
    centred &= kind == "layer"

    def centre(writes: Tensor) -> Tensor:
        return writes - writes.mean(-1, keepdim=True) if centred else writes

    layers = [
        _fold_layer(
            block.attention,
            block.mlp,
            centre(block.attention.W_O),
            centre(block.mlp.W_out),
            centre(block.mlp.b_out),
            centred=centred,
        )
        for block in parts.blocks
    ]
    W_U, b_U = _into(parts.final, parts.W_U, parts.b_U, centred)
    return Folded(
        layers=tuple(layers),
        W_U=W_U.contiguous(),
        b_U=b_U,
        final_eps=_eps(parts.final, W_U),
        norm=kind,
        centred=centred,
    )


def _fold_layer(
    attention: Attention, mlp: Mlp, W_O: Tensor, W_out: Tensor, b_out: Tensor, *, centred: bool
) -> FoldedLayer:
    slots = [
        _into(attention.norm, weight, bias, centred)
        for weight, bias in (
            (attention.W_Q, attention.b_Q),
            (attention.W_K, attention.b_K),
            (attention.W_V, attention.b_V),
        )
    ]
    W_in, b_in = _into(mlp.norm, mlp.W_in, mlp.b_in, centred)
    if mlp.W_gate is not None:
        zero = mlp.b_in.new_zeros(mlp.W_gate.shape[-1])
        W_gate, b_gate = _into(mlp.norm, mlp.W_gate, zero if mlp.b_gate is None else mlp.b_gate, centred)
        W_in, b_in = torch.cat((W_gate, W_in), 1), torch.cat((b_gate, b_in))
    return FoldedLayer(
        attention=attention,
        W_slots=_stacked([weight for weight, _ in slots]),
        b_slots=_stacked([bias for _, bias in slots])[:, None],
        W_O=W_O.contiguous(),
        W_in=W_in.contiguous(),
        b_in=b_in,
        W_out=W_out.contiguous(),
        b_out=b_out,
        activation=mlp.activation,
        eps=(_eps(attention.norm, W_in), _eps(mlp.norm, W_in)),
    )


def _eps(norm: Norm, like: Tensor) -> Float[Tensor, ""]:
    """As the norm adds it: in float32 at least."""
    return torch.tensor(norm.eps, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    widths = {tensor.shape[-1] for tensor in tensors}
    if len(widths) > 1:
        raise UnsupportedArchitecture(f"queries and values differ in width: {sorted(widths)}")
    return torch.cat(tuple(tensors)).contiguous()


def _into(norm: Norm, weight: Tensor, bias: Tensor, centred: bool) -> tuple[Tensor, Tensor]:
    """(W', b') with norm(x) W + b = rstd(x) * (x W') + b', for every x that is ``centred``."""
    if norm.bias is not None:
        bias = bias + (norm.bias @ weight)
    if norm.weight is not None:
        weight = norm.weight[:, None] * weight
    if norm.kind == "layer" and not centred:
        weight = weight - weight.mean(-2, keepdim=True)
    return weight, bias

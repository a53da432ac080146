"""What a model must be able to do for circuits to be found in it, and the plainest transformer that does.

A Network runs a prompt while telling its `Intervention` of every write to the residual stream, and letting it replace
every read from it. One implementation wraps TransformerLens (`circuits.model`); `PlainNetwork` is written out here, for
transformers made by hand, whose circuit is known from their weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.graph import Shape, Slot

Ids = Int[Tensor, "batch pos"]


class Intervention(Protocol):
    """Told of every write, asked at every read, in the order of the forward pass.

    ``write`` gets the values of ``input`` (layer -1; batch pos d_model), of a layer's heads (batch pos head d_model) or
    of its MLP (batch pos d_model). ``read`` gets what would be read and returns what shall be: for a head slot
    (batch pos head d_model), for the MLP and for ``logits`` (batch pos d_model).
    """

    def write(self, kind: Literal["input", "head", "mlp"], layer: int, value: Tensor) -> None: ...

    def read(self, kind: Literal["head", "mlp", "logits"], layer: int, slot: Slot | None, value: Tensor) -> Tensor: ...


class Network(Protocol):
    """The mathematics of one model. Residual stream before ``logits`` = sum of all writes + sum of ``biases``."""

    shape: Shape
    d_model: int
    d_vocab: int
    n_ctx: int
    biases: Float[Tensor, "layer d_model"]
    """Attention output biases: they belong to no head and are never ablated."""

    def run(self, ids: Ids, intervention: Intervention | None = None) -> Float[Tensor, "batch pos d_vocab"]: ...

    def readout(self, vectors: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest d_vocab"]:
        """W_U LN(v): residual-stream vectors through the model's own final norm and unembedding."""
        ...


@dataclass(frozen=True)
class PlainNetwork:
    """A transformer without layer norm, from plain weights in TransformerLens' names and layout.

    ``embed.W_E`` [d_vocab, d_model], ``pos_embed.W_pos`` [n_ctx, d_model], ``unembed.W_U`` [d_model, d_vocab], and per
    layer l ``blocks.l.attn.W_Q/W_K/W_V`` [head, d_model, d_head], ``W_O`` [head, d_head, d_model] and
    ``blocks.l.mlp.W_in`` [d_model, d_mlp], ``W_out`` [d_mlp, d_model]. Biases (``b_Q`` ... ``b_out``, ``unembed.b_U``) are zero
    where absent. Attention scores are divided by ``attention_scale``; the MLP's nonlinearity is relu.
    """

    weights: Mapping[str, Float[Tensor, "..."]]
    attention_scale: float = 1.0
    causal: bool = True

    @property
    def shape(self) -> Shape:
        layers = {int(name.split(".")[1]) for name in self.weights if name.startswith("blocks.")}
        return Shape(len(layers), self.weights["blocks.0.attn.W_Q"].shape[0])

    @property
    def d_model(self) -> int:
        return self.weights["embed.W_E"].shape[1]

    @property
    def d_vocab(self) -> int:
        return self.weights["unembed.W_U"].shape[1]

    @property
    def n_ctx(self) -> int:
        return self.weights["pos_embed.W_pos"].shape[0]

    @property
    def biases(self) -> Float[Tensor, "layer d_model"]:
        rows = [self._bias(f"blocks.{layer}.attn.b_O", self.d_model) for layer in range(self.shape.n_layers)]
        return torch.stack(rows)

    def _bias(self, name: str, *shape: int) -> Tensor:
        return self.weights.get(name, torch.zeros(shape))

    def run(self, ids: Ids, intervention: Intervention | None = None) -> Float[Tensor, "batch pos d_vocab"]:
        hooks = intervention or _Watch()
        n_heads, n_pos = self.shape.n_heads, ids.shape[1]
        future = torch.ones(n_pos, n_pos, dtype=torch.bool).triu(1) if self.causal else None
        residual = self.weights["embed.W_E"][ids] + self.weights["pos_embed.W_pos"][:n_pos]
        hooks.write("input", -1, residual)
        for layer in range(self.shape.n_layers):
            w = f"blocks.{layer}.attn."
            read = residual.unsqueeze(2).expand(-1, -1, n_heads, -1)
            projected = {}
            for slot in ("q", "k", "v"):
                matrix = self.weights[f"{w}W_{slot.upper()}"]
                bias = self._bias(f"{w}b_{slot.upper()}", n_heads, matrix.shape[2])
                projected[slot] = (
                    torch.einsum("bphd,hde->bphe", hooks.read("head", layer, slot, read), matrix) + bias
                )
            scores = torch.einsum("bqhe,bkhe->bhqk", projected["q"], projected["k"]) / self.attention_scale
            if future is not None:
                scores = scores.masked_fill(future, -torch.inf)
            mixed = torch.einsum("bhqk,bkhe->bqhe", scores.softmax(-1), projected["v"])
            heads = torch.einsum("bqhe,hed->bqhd", mixed, self.weights[f"{w}W_O"])
            hooks.write("head", layer, heads)
            residual = residual + heads.sum(2) + self._bias(f"{w}b_O", self.d_model)
            m = f"blocks.{layer}.mlp."
            hidden = hooks.read("mlp", layer, None, residual) @ self.weights[f"{m}W_in"]
            hidden = (hidden + self._bias(f"{m}b_in", hidden.shape[-1])).relu()
            mlp = hidden @ self.weights[f"{m}W_out"] + self._bias(f"{m}b_out", self.d_model)
            hooks.write("mlp", layer, mlp)
            residual = residual + mlp
        return self.readout(hooks.read("logits", self.shape.n_layers, None, residual))

    def readout(self, vectors: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest d_vocab"]:
        return vectors @ self.weights["unembed.W_U"] + self._bias("unembed.b_U", self.d_vocab)


class _Watch:
    """The intervention that changes nothing."""

    def write(self, kind: str, layer: int, value: Tensor) -> None:
        pass

    def read(self, kind: str, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        return value


class Record(_Watch):
    """The intervention that changes nothing and keeps every node's write: ``outputs`` [writer, batch, pos, d_model]."""

    def __init__(self) -> None:
        self._writes: list[Tensor] = []

    def write(self, kind: str, layer: int, value: Tensor) -> None:
        self._writes += [*value.unbind(2)] if kind == "head" else [value]

    @property
    def outputs(self) -> Float[Tensor, "writer batch pos d_model"]:
        return torch.stack(self._writes)

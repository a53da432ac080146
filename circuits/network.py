"""What a model must be able to do for circuits to be found in it, and the plainest transformer that does.

A Network runs a prompt while telling its `Intervention` of every write to the residual stream, and letting it replace
every read from it. One implementation wraps TransformerLens (`circuits.model`); `PlainNetwork` is written out here, for
transformers made by hand, whose circuit is known from their weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.components import Attention, Block, Components, Mlp, Norm, attend
from circuits.graph import Shape, Slot

Ids = Int[Tensor, "batch pos"]


@runtime_checkable
class Intervention(Protocol):
    """Told of every write, asked at every read, in the order of the forward pass.

    ``write`` gets the values of ``input`` (layer -1; batch pos d_model), of a layer's heads (batch pos head d_model) or
    of its MLP (batch pos d_model). ``read`` gets what would be read and returns what shall be: for a head slot
    (batch pos head d_model), for the MLP and for ``logits`` (batch pos d_model).
    """

    def write(self, kind: Literal["input", "head", "mlp"], layer: int, value: Tensor) -> None: ...

    def read(self, kind: Literal["head", "mlp", "logits"], layer: int, slot: Slot | None, value: Tensor) -> Tensor: ...


@runtime_checkable
class Network(Protocol):
    """The mathematics of one model. Residual stream before ``logits`` = sum of all writes + sum of ``biases``."""

    @property
    def shape(self) -> Shape: ...

    @property
    def d_model(self) -> int: ...

    @property
    def d_vocab(self) -> int: ...

    @property
    def n_ctx(self) -> int: ...

    @property
    def biases(self) -> Float[Tensor, "layer d_model"]:
        """Attention output biases: they belong to no head and are never ablated."""
        ...

    def run(self, ids: Ids, intervention: Intervention | None = None) -> Float[Tensor, "batch pos d_vocab"]: ...

    def readout(self, vectors: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest d_vocab"]:
        """W_U LN(v): residual-stream vectors through the model's own final norm and unembedding."""
        ...


@runtime_checkable
class OpenNetwork(Network, Protocol):
    """A Network that also shows its weights, so that one node can be computed without running the others."""

    def components(self, n_pos: int) -> Components:
        """The weights as they are now (not a live view of them), good for prompts of up to ``n_pos`` tokens.

        Raises:
            UnsupportedArchitecture: some part of the model has no description.
        """
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
                projected[slot] = torch.einsum("bphd,hde->bphe", hooks.read("head", layer, slot, read), matrix) + bias
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

    def components(self, n_pos: int) -> Components:
        return Components(
            shape=self.shape,
            W_E=self.weights["embed.W_E"],
            W_pos=self.weights["pos_embed.W_pos"],
            blocks=tuple(self._block(layer) for layer in range(self.shape.n_layers)),
            b_O=self.biases,
            final=Norm(),
            W_U=self.weights["unembed.W_U"],
            b_U=self._bias("unembed.b_U", self.d_vocab),
        )

    def _block(self, layer: int) -> Block:
        a, m = f"blocks.{layer}.attn.", f"blocks.{layer}.mlp."
        n_heads, _, d_head = self.weights[f"{a}W_Q"].shape
        d_value = self.weights[f"{a}W_V"].shape[2]
        attention = Attention(
            norm=Norm(),
            W_Q=self.weights[f"{a}W_Q"],
            W_K=self.weights[f"{a}W_K"],
            W_V=self.weights[f"{a}W_V"],
            W_O=self.weights[f"{a}W_O"],
            b_Q=self._bias(f"{a}b_Q", n_heads, d_head),
            b_K=self._bias(f"{a}b_K", n_heads, d_head),
            b_V=self._bias(f"{a}b_V", n_heads, d_value),
            scale=1 / self.attention_scale,
            causal=self.causal,
        )
        mlp = Mlp(
            norm=Norm(),
            W_in=self.weights[f"{m}W_in"],
            b_in=self._bias(f"{m}b_in", self.weights[f"{m}W_in"].shape[1]),
            W_out=self.weights[f"{m}W_out"],
            b_out=self._bias(f"{m}b_out", self.d_model),
            activation="relu",
        )
        return Block(attention, mlp)


@dataclass(frozen=True)
class ComponentNetwork:
    """A Network run from its `Components` alone."""

    parts: Components
    n_ctx: int

    @property
    def shape(self) -> Shape:
        return self.parts.shape

    @property
    def d_model(self) -> int:
        return self.parts.d_model

    @property
    def d_vocab(self) -> int:
        return self.parts.d_vocab

    @property
    def biases(self) -> Float[Tensor, "layer d_model"]:
        return self.parts.b_O

    def components(self, n_pos: int) -> Components:
        return self.parts

    def run(self, ids: Ids, intervention: Intervention | None = None) -> Float[Tensor, "batch pos d_vocab"]:
        hooks = intervention or _Watch()
        residual = self.parts.embed(ids)
        n_pos = ids.shape[1]
        hooks.write("input", -1, residual)
        for layer, block in enumerate(self.parts.blocks):
            attention = block.attention
            before = residual
            read = before.unsqueeze(2).expand(-1, -1, self.shape.n_heads, -1)
            projected: dict[Slot, Tensor] = {}
            slots: tuple[tuple[Slot, Tensor, Tensor], ...] = (
                ("q", attention.W_Q, attention.b_Q),
                ("k", attention.W_K, attention.b_K),
                ("v", attention.W_V, attention.b_V),
            )
            for slot, weight, bias in slots:
                normed = attention.norm(hooks.read("head", layer, slot, read))
                projected[slot] = torch.einsum("bphd,hde->bhpe", normed, weight) + bias[:, None]
            mixed = attend(
                attention.query(projected["q"]),
                attention.key(projected["k"]),
                projected["v"],
                attention.visible(n_pos, n_pos, residual.device),
                attention.scale,
            )
            heads = torch.einsum("bhpe,hed->bphd", mixed, attention.W_O)
            hooks.write("head", layer, heads)
            residual = residual + heads.sum(2) + self.parts.b_O[layer]
            mlp = block.mlp(hooks.read("mlp", layer, None, before if self.shape.parallel else residual))
            hooks.write("mlp", layer, mlp)
            residual = residual + mlp
        return self.readout(hooks.read("logits", self.shape.n_layers, None, residual))

    def readout(self, vectors: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest d_vocab"]:
        return self.parts.readout(vectors)


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

"""What a model must be able to do for circuits to be found in it, and the plainest transformer that does.

A Network runs a prompt while telling its taps (`circuits.model.taps`) of every write to the residual stream, and letting them
replace every read from it. One implementation wraps TransformerLens (`circuits.model.hub`); `ComponentNetwork` runs weights
(`circuits.model.transformer`), and `PlainNetwork` is one for transformers made by hand, whose circuit is known from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.graph import Shape
from circuits.model.attention import Attention
from circuits.model.batch import Batch
from circuits.model.errors import UnknownWeight
from circuits.model.norm import Norm
from circuits.model.past import Past
from circuits.model.taps import Taps
from circuits.model.transformer import Block, Components, Mlp
from circuits.model.weights import named_weight, with_named_weights


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

    def run(self, batch: Batch, taps: Taps | None = None) -> Float[Tensor, "batch pos d_vocab"]: ...

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


@runtime_checkable
class EditableNetwork(Network, Protocol):
    """A Network of which variants with other weights can be made."""

    def weight(self, name: str) -> Float[Tensor, "..."]:
        """The weight of that name (`circuits.model.weights`) as it is now. A value matrix has one row a hidden unit: an MLP
        writes ``hidden @ weight + bias``.

        Raises:
            UnknownWeight: it cannot be edited.
        """
        ...

    def with_weights(self, weights: Mapping[str, Float[Tensor, "..."]]) -> "EditableNetwork":
        """The same network with these weights in the place of its own; this one stays as it is."""
        ...


def value_matrix(layer: int) -> str:
    """The name of the matrix that maps the hidden units of that layer's MLP to what it writes."""
    return f"blocks.{layer}.mlp.W_out"


def is_value_matrix(name: str, n_layers: int) -> bool:
    return any(name == value_matrix(layer) for layer in range(n_layers))


def layer_of(name: str, n_layers: int) -> int:
    """The layer of a value matrix, from its name.

    Raises:
        UnknownWeight: no layer of such a model has it.
    """
    for layer in range(n_layers):
        if name == value_matrix(layer):
            return layer
    raise UnknownWeight(f"expected a value matrix, {value_matrix(0)} to {value_matrix(n_layers - 1)}, got {name!r}")


def require_shape(name: str, got: Tensor, expected: Tensor) -> None:
    if got.shape != expected.shape:
        raise UnknownWeight(f"expected {name} of shape {tuple(expected.shape)}, got {tuple(got.shape)}")


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

    def run(self, batch: Batch, taps: Taps | None = None) -> Float[Tensor, "batch pos d_vocab"]:
        return ComponentNetwork(self.components(batch.ids.shape[1]), self.n_ctx).run(batch, taps)

    def readout(self, vectors: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest d_vocab"]:
        return vectors @ self.weights["unembed.W_U"] + self._bias("unembed.b_U", self.d_vocab)

    def weight(self, name: str) -> Float[Tensor, "..."]:
        return named_weight(self.components(self.n_ctx), name)

    def with_weights(self, weights: Mapping[str, Float[Tensor, "..."]]) -> "PlainNetwork":
        for name, tensor in weights.items():
            require_shape(name, tensor, self.weight(name))
        return replace(self, weights={**self.weights, **weights})

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

    def weight(self, name: str) -> Float[Tensor, "..."]:
        return named_weight(self.parts, name)

    def with_weights(self, weights: Mapping[str, Float[Tensor, "..."]]) -> "ComponentNetwork":
        return replace(self, parts=with_named_weights(self.parts, weights))

    def run(self, batch: Batch, taps: Taps | None = None) -> Float[Tensor, "batch pos d_vocab"]:
        taps = taps or Taps()
        embedded = self.parts.embed(batch.ids)
        taps.write("input", -1, embedded)
        # With taps even where they change nothing, so that a run that is only watched gives the same bits.
        final = self.parts.forward(embedded, taps)
        return self.readout(taps.read("logits", self.shape.n_layers, None, final))

    def resume(
        self,
        residual: Float[Tensor, "batch pos d_model"],
        first: int,
        taps: Taps | None = None,
        *,
        stop: int | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream before layer ``stop`` (by default after the last), from what it is before layer ``first``."""
        return self.parts.forward(residual, taps, start=2 * first, stop=None if stop is None else 2 * stop)

    @torch.no_grad()
    def read_on(self, ids: Int[Tensor, "batch pos"], past: Past, n: int = 1) -> Float[Tensor, "batch n d_vocab"]:
        """The logits after the last ``n`` ids, which follow what ``past`` has read; it then has read them too."""
        final = self.parts.forward(self.parts.embed(ids, past.length), past=past)
        # A product of a slice with strides would copy W_U once a row.
        return self.readout(final[:, -n:].contiguous())

    def readout(self, vectors: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest d_vocab"]:
        return self.parts.readout(vectors)

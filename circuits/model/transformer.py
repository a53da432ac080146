"""A transformer's mathematics as data: its weights, and the few ways in which decoder architectures differ.

Norm, rotary table, attention window, score scale and activation are fields of frozen values, so GPT-2, GPT-Neo, GPT-J,
GPT-NeoX, Llama, Mistral, Qwen2 and Qwen3 are descriptions that one forward pass reads, and no subclasses.

Everything here is tensors in and tensors out. Weights are in TransformerLens' layout: ``W_Q`` [head, d_model, d_head].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from circuits.graph import SLOTS, Shape
from circuits.model.attention import Attention, attend, attention_pattern, to_heads
from circuits.model.norm import Norm
from circuits.model.past import Past
from circuits.model.products import times
from circuits.model.taps import Taps

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: Mapping[str, Activation] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_fast": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "swish": F.silu,
}
"""By HuggingFace's names."""


class UnsupportedArchitecture(ValueError):
    """A model whose mathematics this file cannot describe; the message says which part."""


@dataclass(frozen=True)
class Mlp:
    """act(x W_in + b_in) W_out + b_out; with a gate, act(x W_gate + b_gate) * (x W_in + b_in) in its place."""

    norm: Norm
    W_in: Float[Tensor, "d_model d_mlp"]
    b_in: Float[Tensor, "d_mlp"]
    W_out: Float[Tensor, "d_mlp d_model"]
    b_out: Float[Tensor, "d_model"]
    activation: str
    W_gate: Float[Tensor, "d_model d_mlp"] | None = None
    b_gate: Float[Tensor, "d_mlp"] | None = None

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UnsupportedArchitecture(f"no activation {self.activation!r} here; known: {', '.join(ACTIVATIONS)}")

    def __call__(self, x: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest d_model"]:
        return times(self.hidden(x), self.W_out) + self.b_out

    def hidden(self, x: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest d_mlp"]:
        """The hidden units: what ``W_out`` reads."""
        x = self.norm(x)
        hidden = times(x, self.W_in) + self.b_in
        act = ACTIVATIONS[self.activation]
        if self.W_gate is None:
            return act(hidden)
        gate = times(x, self.W_gate)
        return act(gate if self.b_gate is None else gate + self.b_gate) * hidden


@dataclass(frozen=True)
class Block:
    attention: Attention
    mlp: Mlp


@dataclass(frozen=True)
class Components:
    """A whole decoder: what every node of the graph computes from what it reads."""

    shape: Shape
    W_E: Float[Tensor, "d_vocab_in d_model"]
    W_pos: Float[Tensor, "n_ctx d_model"] | None
    """None where positions are not embedded but rotated."""
    blocks: tuple[Block, ...]
    b_O: Float[Tensor, "layer d_model"]
    """Attention output biases: they belong to no head."""
    final: Norm
    W_U: Float[Tensor, "d_model d_vocab"]
    b_U: Float[Tensor, "d_vocab"]

    @property
    def d_model(self) -> int:
        return self.W_U.shape[0]

    @property
    def d_vocab(self) -> int:
        return self.W_U.shape[1]

    def to(self, dtype: torch.dtype) -> "Components":
        """The same weights in another precision."""
        return map_tensors(self, lambda tensor: tensor.to(dtype))

    def shared(self) -> "Components":
        """The same, with the keys and values that heads share found: what no tap watches is then computed and kept once each."""
        return replace(self, blocks=tuple(replace(block, attention=block.attention.shared()) for block in self.blocks))

    def embed(self, ids: Tensor, first: int = 0) -> Float[Tensor, "batch pos d_model"]:
        """What the node ``input`` writes; ``first`` is the position of ``ids[:, 0]``."""
        ids = ids.to(self.W_E.device)
        embedded = self.W_E[ids]
        return embedded if self.W_pos is None else embedded + self.W_pos[first : first + ids.shape[1]]

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        taps: Taps | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
        past: Past | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream at point ``stop`` (by default after the last layer), from what it is at point ``start``.

        A *point* is a place between the sub-layers: 2 l before the attention of layer l, 2 l + 1 before its MLP. In a
        parallel block the MLP reads at 2 l too, and no pass starts at 2 l + 1.

        With a ``past``, ``x`` is at the positions after it, and it then holds these too.
        """
        stop = 2 * len(self.blocks) if stop is None else stop
        for layer in range(start // 2, (stop + 1) // 2):
            before, mlp = x, self.blocks[layer].mlp
            if start <= 2 * layer:
                x = x + self._attention(layer, before, taps, past) + self.b_O[layer]
            if stop > 2 * layer + 1:
                read = before if self.shape.parallel else x
                written = mlp(taps.read("mlp", layer, None, read) if taps else read)
                if taps:
                    taps.write("mlp", layer, written)
                x = x + written
        if past is not None:
            past.advance(x.shape[1])
        return x

    def _attention(
        self, layer: int, x: Float[Tensor, "batch pos d_model"], taps: Taps | None, past: Past | None
    ) -> Float[Tensor, "batch pos d_model"]:
        """What a layer's heads write together."""
        return self._unwatched(layer, x, past) if taps is None else self._watched(layer, x, taps, past)

    def _unwatched(
        self, layer: int, x: Float[Tensor, "batch pos d_model"], past: Past | None
    ) -> Float[Tensor, "batch pos d_model"]:
        attention, n_pos, first = self.blocks[layer].attention, x.shape[1], 0 if past is None else past.length
        q, k, v = attention.projected(x, first)
        if past is not None:
            k, v = _with_past(layer, attention, k, v, past)
        # The queries of heads that share a key stand below each other.
        below = q.unflatten(1, (k.shape[1], -1)).flatten(2, 3)
        visible = attention.visible(n_pos, first + n_pos, x.device).repeat(below.shape[2] // n_pos, 1)
        return attention.write(attend(below, k, v, visible, attention.scale).unflatten(2, (-1, n_pos)).flatten(1, 2))

    def _watched(
        self, layer: int, x: Float[Tensor, "batch pos d_model"], taps: Taps, past: Past | None
    ) -> Float[Tensor, "batch pos d_model"]:
        attention, n_pos = self.blocks[layer].attention, x.shape[1]
        weights = ((attention.W_Q, attention.b_Q), (attention.W_K, attention.b_K), (attention.W_V, attention.b_V))
        taps.before(layer, x)
        if taps.heads_apart:
            heads = x.unsqueeze(2).expand(-1, -1, self.shape.n_heads, -1)
            normed = [attention.norm(taps.read("head", layer, slot, heads)) for slot in SLOTS]
            q, k, v = (
                torch.einsum("bphd,hde->bhpe", own, weight) + bias[:, None]
                for own, (weight, bias) in zip(normed, weights, strict=True)
            )
        else:
            shared = attention.norm(x)
            q, k, v = (to_heads(shared, weight) + bias[:, None] for weight, bias in weights)
        q, k, v = taps.projected(layer, (q, k, v))
        first = 0 if past is None else past.length
        q, k = attention.query(q, first), attention.key(k, first)
        if past is not None:
            k, v = _with_past(layer, attention, k, v, past)
        pattern = attention_pattern(q, k, attention.visible(n_pos, first + n_pos, x.device), attention.scale)
        mixed = pattern.to(v.dtype) @ v
        taps.compared(layer, k, v)
        taps.pattern(layer, pattern)
        written = torch.einsum("bhpe,hed->bphd", mixed, attention.W_O)
        taps.write("head", layer, written)
        return written.sum(2)

    def readout(self, x: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest d_vocab"]:
        return times(self.final(x), self.W_U) + self.b_U


def _with_past(layer: int, attention: Attention, k: Tensor, v: Tensor, past: Past) -> tuple[Tensor, Tensor]:
    if not attention.causal:
        raise UnsupportedArchitecture("tokens that see those after them cannot be read in parts")
    return past.extend(layer, k, v)


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy of nested frozen values, with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(map_tensors(item, change) for item in value)
    if is_dataclass(value) and not isinstance(value, type) and not isinstance(value, Shape):
        return replace(
            value, **{field.name: map_tensors(getattr(value, field.name), change) for field in fields(value)}
        )
    return value

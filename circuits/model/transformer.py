"""A transformer's mathematics as data: its weights, and the few ways in which decoder architectures differ.

Norm, rotary table, attention window, score scale and activation are fields of frozen values, so GPT-2, GPT-Neo, GPT-J,
GPT-NeoX, Llama, Mistral, Qwen2 and Qwen3 are descriptions that one forward pass reads, and no subclasses.

Everything here is tensors in and tensors out. Weights are in TransformerLens' layout: ``W_Q`` [head, d_model, d_head].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache, partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.graph import SLOTS, Shape
from circuits.model.past import Past
from circuits.model.products import times
from circuits.model.taps import Taps

NormKind = Literal["none", "layer", "rms"]
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
class Norm:
    """What a reader does to its input first: nothing, layer norm, or RMS norm; then times ``weight``, plus ``bias``."""

    kind: NormKind = "none"
    weight: Float[Tensor, "d"] | None = None
    bias: Float[Tensor, "d"] | None = None
    eps: float = 0.0

    def __call__(self, x: Float[Tensor, "*rest d"]) -> Float[Tensor, "*rest d"]:
        if self.kind == "none":
            return x
        # In float32 whatever the model's type is, as HuggingFace does.
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        if self.kind == "layer":
            wide = wide - wide.mean(-1, keepdim=True)
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        if self.weight is not None:
            wide = wide * self.weight
        if self.bias is not None:
            wide = wide + self.bias
        return wide.to(x.dtype)

    def share(self, part: Float[Tensor, "*#rest d"], whole: Float[Tensor, "*#rest d"]) -> Float[Tensor, "*_ d"]:
        """What ``part`` becomes in the norm of ``whole``, whose scale is held: linear in ``part``.

        Law: the shares of parts that add up to ``whole`` add up to ``self(whole) - bias``.
        """
        if self.kind == "none":
            return part
        if self.kind == "layer":
            part, whole = part - part.mean(-1, keepdim=True), whole - whole.mean(-1, keepdim=True)
        share = part * torch.rsqrt(whole.square().mean(-1, keepdim=True) + self.eps)
        return share if self.weight is None else share * self.weight


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding of the first ``d_rotary`` dimensions of queries and keys (Su et al. 2021).

    ``halves`` turns dimension i with i + d_rotary/2 (Llama, GPT-NeoX), ``pairs`` dimension 2i with 2i + 1 (GPT-J).
    """

    cos: Float[Tensor, "pos d_rotary"]
    sin: Float[Tensor, "pos d_rotary"]
    pairing: Literal["halves", "pairs"] = "halves"

    def __call__(self, x: Float[Tensor, "*rest pos d_head"], first: int = 0) -> Float[Tensor, "*rest pos d_head"]:
        """Rotate; ``first`` is the position of ``x[..., 0, :]``."""
        width, end = self.cos.shape[-1], first + x.shape[-2]
        turned, passed = x[..., :width], x[..., width:]
        if self.pairing == "halves":
            low, high = turned.chunk(2, -1)
            partner = torch.cat((-high, low), -1)
        else:
            partner = torch.stack((-turned[..., 1::2], turned[..., ::2]), -1).flatten(-2)
        turned = turned * self.cos[first:end] + partner * self.sin[first:end]
        return torch.cat((turned, passed), -1) if passed.shape[-1] else turned


@dataclass(frozen=True)
class KeysValues:
    """The keys and values that heads share (grouped queries, Ainslie et al. 2023): one after another as many heads each."""

    W_K: Float[Tensor, "key_head d_model d_head"]
    W_V: Float[Tensor, "key_head d_model d_value"]
    b_K: Float[Tensor, "key_head d_head"]
    b_V: Float[Tensor, "key_head d_value"]


@dataclass(frozen=True)
class Attention:
    """One layer's heads. A query sees the keys up to its own position, at most ``window`` of them."""

    norm: Norm
    W_Q: Float[Tensor, "head d_model d_head"]
    W_K: Float[Tensor, "head d_model d_head"]
    W_V: Float[Tensor, "head d_model d_head"]
    W_O: Float[Tensor, "head d_head d_model"]
    b_Q: Float[Tensor, "head d_head"]
    b_K: Float[Tensor, "head d_head"]
    b_V: Float[Tensor, "head d_head"]
    scale: float
    """What query-key products are multiplied by."""
    rotary: Rotary | None = None
    q_norm: Norm = Norm()
    k_norm: Norm = Norm()
    window: int | None = None
    causal: bool = True
    distinct: "KeysValues | None" = None
    """The keys and values of heads that share them, each once; None where that was not looked for (`Components.shared`)."""

    @property
    def acts_on_queries(self) -> bool:
        """Whether `query` or `key` does anything."""
        return self.rotary is not None or self.q_norm.kind != "none" or self.k_norm.kind != "none"

    @property
    def keys_values(self) -> KeysValues:
        """Every head's own; or those that are distinct, where that is known."""
        return self.distinct or KeysValues(self.W_K, self.W_V, self.b_K, self.b_V)

    def shared(self) -> "Attention":
        """The same, with what heads share found: by comparing, so that nothing is taken to be shared that is not."""
        every = self.W_K, self.W_V, self.b_K, self.b_V
        n_heads = len(self.W_K)
        for times_each in (n for n in range(n_heads, 1, -1) if n_heads % n == 0):
            grouped = [tensor.unflatten(0, (-1, times_each)) for tensor in every]
            if all(torch.equal(own, own[:, :1].expand_as(own)) for own in grouped):
                # In memory as the weights of one product.
                W_K, W_V, b_K, b_V = (own[:, 0].transpose(0, 1).contiguous().transpose(0, 1) for own in grouped)
                return replace(self, distinct=KeysValues(W_K, W_V, b_K, b_V))
        return self

    def visible(self, n_queries: int, n_keys: int, device: torch.device) -> Bool[Tensor, "query key"]:
        """Which keys each of the *last* ``n_queries`` positions sees."""
        return _visible(self.causal, self.window, n_queries, n_keys, device)

    def query(self, projected: Float[Tensor, "*rest pos d_head"], first: int = 0) -> Tensor:
        """From x W_Q + b_Q to what is compared with keys."""
        normed = self.q_norm(projected)
        return self.rotary(normed, first) if self.rotary else normed

    def key(self, projected: Float[Tensor, "*rest pos d_head"], first: int = 0) -> Tensor:
        normed = self.k_norm(projected)
        return self.rotary(normed, first) if self.rotary else normed

    def projected(self, x: Float[Tensor, "batch pos d_model"], first: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """(q, k, v) at ``x``, normed and rotated, of shape [batch, head, pos, d_head]; ``first`` is the position of ``x[:, 0]``.

        Keys and values are those of `keys_values`.
        """
        read, own = self.norm(x), self.keys_values
        q = self.query(_to_heads(read, self.W_Q) + self.b_Q[:, None], first)
        k = self.key(_to_heads(read, own.W_K) + own.b_K[:, None], first)
        return q, k, _to_heads(read, own.W_V) + own.b_V[:, None]

    def write(self, mixed: Float[Tensor, "batch head pos d_head"]) -> Float[Tensor, "batch pos d_model"]:
        """What the heads write together of what their patterns mix."""
        return times(mixed.transpose(1, 2).flatten(2), self.W_O.flatten(0, 1))


@lru_cache(maxsize=64)
def _visible(causal: bool, window: int | None, n_queries: int, n_keys: int, device: torch.device) -> Tensor:
    """Kept, since engines ask thousands of times for the same few; never written to."""
    keys = torch.arange(n_keys, device=device)
    distance = keys[n_keys - n_queries :, None] - keys[None, :]
    seen = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    return seen & (distance < window) if window is not None else seen


def attention_pattern(
    q: Float[Tensor, "*#rest query d_head"],
    k: Float[Tensor, "*#rest key d_head"],
    visible: Bool[Tensor, "query key"],
    scale: float,
) -> Float[Tensor, "*broadcast query key"]:
    """softmax(q k^T scale) over the visible keys."""
    scores = (q @ k.transpose(-1, -2)).mul(scale).masked_fill(~visible, -torch.inf)
    # In float32 whatever the model's type is, as HuggingFace does.
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def attend(
    q: Float[Tensor, "*#rest query d_head"],
    k: Float[Tensor, "*#rest key d_head"],
    v: Float[Tensor, "*#rest key d_head"],
    visible: Bool[Tensor, "query key"],
    scale: float,
) -> Float[Tensor, "*broadcast query d_head"]:
    """softmax(q k^T scale) v over the visible keys."""
    return attention_pattern(q, k, visible, scale).to(v.dtype) @ v


def attend_beside(
    own: tuple[
        Float[Tensor, "variant batch head d_head"],
        Float[Tensor, "variant batch head d_head"],
        Float[Tensor, "variant batch head d_value"],
    ],
    keys: Float[Tensor, "batch head earlier d_head"],
    values: Float[Tensor, "batch head earlier d_value"],
    visible: Bool[Tensor, "key"],
    scale: float,
) -> Float[Tensor, "variant batch head d_value"]:
    """`attend` at one position, of which there are many variants with q, k and v of their ``own``: what comes earlier they share,
    and it is not copied for each."""
    q, k, v = own
    scores = torch.cat((torch.einsum("vbhe,bhpe->vbhp", q, keys), (q * k).sum(-1, keepdim=True)), -1)
    scores = scores.mul(scale).masked_fill(~visible, -torch.inf)
    pattern = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype)
    return torch.einsum("vbhp,bhpe->vbhe", pattern[..., :-1], values) + pattern[..., -1:] * v


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
            q, k, v = (_to_heads(shared, weight) + bias[:, None] for weight, bias in weights)
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


def _to_heads(
    x: Float[Tensor, "batch pos d_model"], weight: Float[Tensor, "head d_model d_head"]
) -> Float[Tensor, "batch head pos d_head"]:
    """x W of every head, as one product."""
    return times(x, weight.transpose(0, 1).flatten(1)).unflatten(-1, (len(weight), -1)).transpose(1, 2)


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

"""One layer's heads as data, and what they do: all attention of this project but TransformerLens' own is computed here.

Weights are in TransformerLens' layout: ``W_Q`` [head, d_model, d_head].
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.model.norm import NO_NORM, Norm
from circuits.model.products import times


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
    q_norm: Norm = NO_NORM
    k_norm: Norm = NO_NORM
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
        q = self.query(to_heads(read, self.W_Q) + self.b_Q[:, None], first)
        k = self.key(to_heads(read, own.W_K) + own.b_K[:, None], first)
        return q, k, to_heads(read, own.W_V) + own.b_V[:, None]

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


def to_heads(
    x: Float[Tensor, "batch pos d_model"], weight: Float[Tensor, "head d_model d_head"]
) -> Float[Tensor, "batch head pos d_head"]:
    """x W of every head, as one product."""
    return times(x, weight.transpose(0, 1).flatten(1)).unflatten(-1, (len(weight), -1)).transpose(1, 2)

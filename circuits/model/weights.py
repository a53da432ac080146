"""A model's weights by name, as TransformerLens names and lays them out: what an edit may add to.

``embed.W_E``, ``pos_embed.W_pos``, ``unembed.W_U``, ``unembed.b_U``, and in layer l ``blocks.l.attn.`` W_Q, W_K, W_V, W_O, b_Q, b_K,
b_V (a head each along their first axis) and ``blocks.l.mlp.`` W_in, W_gate, W_out, b_in, b_gate, b_out.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from circuits.graph import Node, Shape
from circuits.model.errors import UnknownWeight
from circuits.model.transformer import Components

_TOP = {"embed.W_E": "W_E", "pos_embed.W_pos": "W_pos", "unembed.W_U": "W_U", "unembed.b_U": "b_U"}
_BLOCK = re.compile(r"blocks\.(\d+)\.(?:attn\.([Wb]_[QKV]|W_O)|mlp\.([Wb]_(?:in|gate|out)))")


def _place(name: str, n_layers: int) -> tuple[int | None, str, str]:
    """(layer, part of the block, field); no layer for what stands outside the blocks.

    Raises:
        UnknownWeight: no such weight.
    """
    if name in _TOP:
        return None, "", _TOP[name]
    match = _BLOCK.fullmatch(name)
    if match is None or int(match[1]) >= n_layers:
        raise UnknownWeight(
            f"expected the name of a weight, such as blocks.0.mlp.W_out or blocks.{n_layers - 1}.attn.W_V, got {name!r}"
        )
    return int(match[1]), "attention" if match[2] else "mlp", match[2] or match[3]


def named_weight(parts: Components, name: str) -> Float[Tensor, "..."]:
    """Raises:
    UnknownWeight: no such weight, or not in this model, whose MLPs may have no gate and positions no embedding.
    """
    layer, part, field = _place(name, len(parts.blocks))
    weight = getattr(parts if layer is None else getattr(parts.blocks[layer], part), field)
    if weight is None:
        raise UnknownWeight(f"this model has no {name}")
    return weight


def with_named_weights(parts: Components, weights: Mapping[str, Float[Tensor, "..."]]) -> Components:
    """The same components with these weights in the place of their own.

    Raises:
        UnknownWeight: no such weight, or one of another shape.
    """
    for name, weight in weights.items():
        own = named_weight(parts, name)
        if own.shape != weight.shape:
            raise UnknownWeight(f"expected {name} of shape {tuple(own.shape)}, got {tuple(weight.shape)}")
        layer, part, field = _place(name, len(parts.blocks))
        change: dict[str, Any] = {field: weight}
        if layer is not None:
            block = parts.blocks[layer]
            if part == "attention":
                # Heads that shared their keys may do so no longer.
                change["distinct"] = None
            block = replace(block, **{part: replace(getattr(block, part), **change)})
            change = {"blocks": (*parts.blocks[:layer], block, *parts.blocks[layer + 1 :])}
        parts = replace(parts, **change)
    return parts


def nodes_of(name: str, change: Float[Tensor, "..."], shape: Shape) -> tuple[Node, ...]:
    """The nodes of the graph that compute something else once ``change`` is added to the weight: of attention, the heads in
    which it is not zero.

    Raises:
        UnknownWeight: no such weight.
    """
    layer, part, field = _place(name, shape.n_layers)
    if layer is None:
        return (Node(-1, "input"),) if field in ("W_E", "W_pos") else (Node(shape.n_layers, "logits"),)
    if part == "mlp":
        return (Node(layer, "mlp"),)
    changed = change.flatten(1).any(1).nonzero().flatten().tolist()
    return tuple(Node(layer, "head", head) for head in changed)

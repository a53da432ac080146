"""Keys and states that edits store values at: one position of each row, read some rows at a time, so that memory is bounded."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.editing.forward import at_rows, before_layer, hidden_units
from circuits.model.network import ComponentNetwork

TOKENS_AT_ONCE = 8192
"""Tokens, padding included, of the rows that run together; one row always does."""


def row_chunks(n_rows: int, n_pos: int) -> Iterator[slice]:
    """Slices of ``n_rows`` rows, each of as many as fit."""
    size = max(1, TOKENS_AT_ONCE // max(n_pos, 1))
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


def keys_at(
    network: ComponentNetwork, ids: Int[Tensor, "row pos"], layer: int, positions: Int[Tensor, "row"]
) -> Float[Tensor, "row d_mlp"]:
    """The hidden units of that layer's MLP at one position of each row."""
    return torch.cat(
        [at_rows(hidden_units(network, ids[rows], (layer,))[layer], positions[rows]) for rows in row_chunks(*ids.shape)]
    )


def states_at(
    network: ComponentNetwork, ids: Int[Tensor, "row pos"], layer: int, positions: Int[Tensor, "row"]
) -> Float[Tensor, "row d_model"]:
    """The residual stream behind that layer at one position of each row."""
    return torch.cat(
        [at_rows(before_layer(network, ids[rows], layer + 1), positions[rows]) for rows in row_chunks(*ids.shape)]
    )

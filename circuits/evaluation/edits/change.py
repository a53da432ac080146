"""What an edit changed in a value matrix, and what the change says (paper 0, section 5.1).

A *column* of paper 0's value matrix is what one hidden unit writes: its value vector. Here value matrices have one row a
hidden unit, so its columns are our rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.editing.delta import Delta, WeightEdit
from circuits.editing.edit import EditError
from circuits.editing.prune import factored_svd
from circuits.metrics import rank
from circuits.model import Model
from circuits.model.bypassed import shown

MAP_SIZE = 128
"""Cells of a heatmap along each side, at most."""
TOP_COLUMNS = 5
"""Value vectors read, as in paper 0."""


# ---- Figure 6: where the change is -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heatmap:
    """|delta W| of one matrix, each cell the largest of a block (paper 0, Figure 6), and how concentrated it is."""

    matrix: str
    cells: Float[Tensor, "unit_block d_model_block"]
    shape: tuple[int, int]
    """Hidden units and dimensions of the residual stream."""
    columns: Float[Tensor, "d_mlp"]
    """Sum of |delta W| over each hidden unit's value vector."""

    def top_share(self, n: int) -> float:
        """The share of the total |delta W| that the n hidden units with most of it hold; 0 for an empty change."""
        total = self.columns.sum()
        return float(self.columns.topk(min(n, len(self.columns))).values.sum() / total) if total else 0.0

    @property
    def gini(self) -> float:
        """Gini coefficient over hidden units: 0 if all changed alike, 1 - 1/d_mlp if one took all."""
        return gini(self.columns)


@torch.no_grad()
def heatmap(matrix: str, delta: Delta, size: int = MAP_SIZE) -> Heatmap:
    """|delta W| pooled to at most ``size`` by ``size`` cells; a delta of low rank is laid out block by block."""
    n_units, d_model = delta.shape
    unit_edges, model_edges = _edges(n_units, size), _edges(d_model, size)
    rows, columns = [], []
    for start, stop in unit_edges:
        block = delta.rows(start, stop).abs()
        columns.append(block.sum(1))
        across = block.amax(0)
        rows.append(torch.stack([across[a:b].amax() for a, b in model_edges]))
    return Heatmap(matrix, torch.stack(rows), (n_units, d_model), torch.cat(columns))


def heatmaps(edit: WeightEdit, size: int = MAP_SIZE) -> tuple[Heatmap, ...]:
    """One for each edited value matrix, by name."""
    return tuple(heatmap(name, delta, size) for name, delta in edit.of_value_matrices.items())


def gini(values: Float[Tensor, "n"]) -> float:
    """Gini coefficient of values >= 0: half the mean difference between two of them, relative to their mean."""
    total = values.sum()
    if not total:
        return 0.0
    n = len(values)
    places = torch.arange(1, n + 1, dtype=values.dtype)
    return float((2 * places - n - 1) @ values.sort().values / (n * total))


def _edges(n: int, size: int) -> list[tuple[int, int]]:
    """``n`` cut into at most ``size`` consecutive pieces of sizes that differ by one at most."""
    pieces = min(n, size)
    cuts = [i * n // pieces for i in range(pieces + 1)]
    return list(pairwise(cuts))


# ---- Figure 7: what the change says ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VectorReading:
    """A vector through the unembedding: the ranks of the asked tokens among all, and the likeliest tokens."""

    name: str
    ranks: tuple[int, ...]
    promoted: tuple[str, ...]

    def hit(self, k: int) -> bool:
        """Whether any of the asked tokens is among the first k."""
        return min(self.ranks) <= k


@dataclass(frozen=True, slots=True)
class UnembeddedChange:
    """One matrix of an edit read through the unembedding (paper 0, Figure 7; Dar et al. 2023).

    ``before`` and ``after`` are the value vectors, of W and of W', of the hidden units whose value vectors changed
    most. ``directions`` are the right singular vectors of delta W, strongest first: of a rank-one edit all changed value
    vectors are parallel to one, in which what the edit wrote shows undiluted.
    """

    matrix: str
    before: tuple[VectorReading, ...]
    after: tuple[VectorReading, ...]
    directions: tuple[VectorReading, ...]

    def hits(self, which: Literal["before", "after", "directions"], k: int) -> tuple[float, bool]:
        """(share of the vectors with a hit at k, whether any has one): paper 0 does not say which its Hit@k is."""
        found = [reading.hit(k) for reading in getattr(self, which)]
        return sum(found) / len(found), any(found)


@torch.no_grad()
def read_change(
    edit: WeightEdit, model: Model, targets: Sequence[str], *, top: int = TOP_COLUMNS, promoted: int = 5
) -> tuple[UnembeddedChange, ...]:
    """Read each edited matrix for the first token of each of ``targets``, said after a space.

    Logits are W_U times the vector, without the final norm and without bias (Dar et al. 2023).

    Raises:
        EditError: no targets.
        UnsupportedArchitecture: the model does not show its unembedding.
    """
    if not targets:
        raise EditError("expected at least one target to look for, got none")
    W_U = shown(model.network).components(1).W_U
    tokens = torch.tensor([model.vocabulary.encode(" " + target)[0] for target in targets])
    reader = _Reader(model, W_U, tokens, promoted)
    edited = edit.edited_weights(model)
    return tuple(
        _read_matrix(name, delta, model.weight(name), edited[name], reader, top)
        for name, delta in edit.of_value_matrices.items()
    )


@dataclass(frozen=True)
class _Reader:
    """The unembedding, and the tokens that are looked for."""

    model: Model
    W_U: Float[Tensor, "d_model d_vocab"]
    tokens: Int[Tensor, "target"]
    promoted: int

    def read(self, name: str, vector: Float[Tensor, "d_model"]) -> VectorReading:
        logits = vector.to(self.W_U) @ self.W_U
        ranks = rank(logits.expand(len(self.tokens), -1), self.tokens.to(logits.device))
        best = logits.topk(min(self.promoted, len(logits))).indices.tolist()
        return VectorReading(name, tuple(ranks.tolist()), tuple(self.model.token_text(token) for token in best))

    def either_way(self, name: str, vector: Float[Tensor, "d_model"]) -> VectorReading:
        """Of a direction, which has no sign of its own: the way that brings a target nearer."""
        ways = (self.read(f"{name}+", vector), self.read(f"{name}-", -vector))
        return min(ways, key=lambda reading: min(reading.ranks))


def _read_matrix(
    name: str,
    delta: Delta,
    original: Float[Tensor, "d_mlp d_model"],
    edited: Float[Tensor, "d_mlp d_model"],
    reader: _Reader,
    top: int,
) -> UnembeddedChange:
    changed = torch.cat([delta.rows(a, b).norm(dim=1) for a, b in _edges(delta.shape[0], MAP_SIZE)])
    units = changed.topk(min(top, len(changed))).indices.tolist()
    parts = factored_svd(delta)
    live = max(1, int((parts.values > parts.values[0] * 1e-9).sum()))
    return UnembeddedChange(
        name,
        tuple(reader.read(f"unit {unit}", original[unit]) for unit in units),
        tuple(reader.read(f"unit {unit}", edited[unit]) for unit in units),
        tuple(reader.either_way(f"direction {i + 1}", parts.Vt[i]) for i in range(min(top, live))),
    )

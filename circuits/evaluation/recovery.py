"""How well scores of edges tell true edges from others: precision and recall of a cut, AUROC of the ranking."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from circuits.circuit import Circuit

NOISE = 1e-6
"""Scores smaller than this are rounding, and count as 0: what rounding puts first is no ranking."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """One method on one circuit under one ablation. Means, where the method depends on chance and ran several times."""

    circuit: str
    ablation: str
    method: str
    n_true: int
    n_found: float
    precision: float
    """Share of the edges found that are true; NaN if none was found."""
    recall: float
    """Share of the true edges that were found."""
    auroc: float
    """The chance that a true edge scores higher than another; ties count half. NaN if there is only one kind."""
    missed: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        return self.precision == self.recall == 1.0


def precision_recall(found: Circuit, truth: Circuit) -> tuple[float, float]:
    """(precision, recall) over edges; NaN where the denominator is 0."""
    hits = (found & truth).n_edges
    return (
        hits / found.n_edges if found.n_edges else math.nan,
        hits / truth.n_edges if truth.n_edges else math.nan,
    )


def auroc(
    values: Float[np.ndarray, "writer reader"],
    true: Bool[np.ndarray, "writer reader"],
    legal: Bool[np.ndarray, "writer reader"],
) -> float:
    """Area under the receiver operating characteristic over the legal edges: the Mann-Whitney statistic.

    U / (n_true n_other), U = (sum of the ranks of the true edges) - n_true (n_true + 1) / 2, ties at their mean rank. An edge
    without a score (NaN: ACDC never tried it, since nothing reads its receiver) ranks below all others.
    """
    scores = np.where(np.abs(values) < NOISE, 0.0, values)[legal]
    labels = true[legal]
    n_true, n_other = int(labels.sum()), int((~labels).sum())
    if not n_true or not n_other:
        return math.nan
    _, place, count = np.unique(np.where(np.isnan(scores), -np.inf, scores), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    return float((ranks[labels].sum() - n_true * (n_true + 1) / 2) / (n_true * n_other))

"""Branch prediction for ACDC: try many edges at once along the path that the search is expected to take.

ACDC's next step depends on the last decision, so a batch of steps must guess the decisions inside it. Variant j of a
batch lacks edge j and those before it that are expected to go; its measured step is ACDC's own as long as every
earlier guess was right. The first wrong one ends the batch, and its own decision still stands. So guesses decide how
many edges a batch settles, and never what is decided.

Guesses live in log-odds, d = log p / (1 - p) with NLL = log(1 + exp(-d)): where the model is sure of its answer, the
NLL hardly moves for one edge and then all at once, while the edges' effects on d add up.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from circuits.metrics import LEAST_NLL, log_odds


def nll_of(log_odds: Float[np.ndarray, "*rest"]) -> Float[np.ndarray, "*rest"]:
    return np.logaddexp(0.0, -log_odds)


def shift_of(score: Float[np.ndarray, "edge fact"], nll: Float[np.ndarray, "fact"]) -> Float[np.ndarray, "edge fact"]:
    """First-order scores in nats to shifts of the log-odds: d(log-odds) = -d(NLL) / (1 - exp(-NLL))."""
    return score / np.expm1(-np.maximum(nll, LEAST_NLL))


def expected_path(
    shifts: Float[np.ndarray, "edge fact"],
    nll: Float[np.ndarray, "fact"],
    metric: Callable[[Float[np.ndarray, "fact"]], float],
    stays: Callable[[float], bool],
) -> Bool[np.ndarray, "edge"]:
    """Which edges are expected to go, in order, if each shifts the facts' log-odds as given.

    ``metric`` and ``stays`` are the search's own: facts' NLL to one number, and the rule for its change.
    """
    odds, now = log_odds(nll), metric(nll)
    goes = np.ones(len(shifts), dtype=bool)
    start = 0
    while start < len(shifts):
        # As if all from here on went: true up to the first that is expected to stay.
        after = np.array([metric(row) for row in nll_of(odds + shifts[start:].cumsum(0))])
        scores = np.diff(after, prepend=now)
        first = next((i for i, score in enumerate(scores.tolist()) if stays(score)), None)
        if first is None:
            break
        odds, now = odds + shifts[start : start + first].sum(0), float(after[first - 1]) if first else now
        goes[start + first] = False
        start += first + 1
    return goes


def cuts(goes: Bool[np.ndarray, "edge"]) -> Bool[np.ndarray, "variant edge"]:
    """Variant j lacks edge j, and every earlier edge that is expected to go."""
    n = len(goes)
    return np.tril(np.broadcast_to(goes, (n, n)), -1) | np.eye(n, dtype=bool)


def measured_shifts(
    nlls: Float[np.ndarray, "variant fact"], goes: Bool[np.ndarray, "edge"], start: Float[np.ndarray, "fact"]
) -> Float[np.ndarray, "edge fact"]:
    """How far each edge moved the log-odds, from the variant it was cut from: the last before it whose edge goes."""
    odds = np.concatenate((log_odds(start)[None], log_odds(nlls)))
    before = np.maximum.accumulate(np.where(goes, np.arange(1, len(goes) + 1), 0))
    return odds[1:] - odds[np.concatenate(([0], before[:-1]))]


@dataclass
class Width:
    """How many edges to try at once: wide while guesses come true, narrow where they fail often.

    If runs of true guesses last r edges on average, and a call costs as much as c more variants would, then about
    sqrt(2 c r) variants a call settle the most edges for their cost.
    """

    most: int
    least: int = 8
    call_cost: float = 0.0
    """c, in variants; by default a sixteenth of ``most``, since engines ask for many where variants are cheap."""
    settled: float = 32.0
    """Edges that calls settled, the latest ones counting most."""
    ends: float = 1.0
    """Calls among them whose last guess was wrong."""

    @property
    def now(self) -> int:
        cost = self.call_cost or self.most / 16
        best = math.sqrt(2 * cost * self.settled / self.ends)
        return max(min(self.least, self.most), min(self.most, round(best)))

    def learn(self, settled: int, was_true: bool) -> None:
        """One call settled so many edges, and its last guess was true or not."""
        self.settled = 0.9 * self.settled + settled
        self.ends = 0.9 * self.ends + (not was_true) + 1e-3

"""A quick method's scores say which edges ACDC need not try: the others are ablated before the search begins.

What the filter wrongly drops is lost, so `compare` says how much of full ACDC's circuit that is. Where it drops so much that
the answer is gone, there is nothing left to search for, and `require_alive` refuses: scores of single edges at the clean run
do not tell what cutting most of them at once does.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from circuits.circuit import Circuit, Scores
from circuits.engines.engine import Engine

KEEP = "20%"
"""Share of the edges that a prefilter lets through, by default."""

FALL = 10.0
"""By what factor the answer may be less likely with the candidates alone than in the whole model."""

_AMOUNT = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<percent>\s*%)?")


class AmountError(ValueError):
    """A number of edges that cannot be read, or that the graph does not have."""


class DestroyedError(ValueError):
    """A prefilter whose candidates alone no longer give the answer; the message says what would."""


def require_amount(amount: str) -> tuple[float, bool]:
    """(number, whether it is a percentage) of ``"50"`` or ``"2%"``.

    Raises:
        AmountError: it is neither.
    """
    match = _AMOUNT.fullmatch(amount.strip())
    if not match or (not match["percent"] and "." in match["number"]) or float(match["number"]) == 0:
        raise AmountError(f"expected a number of edges such as 50, or a share of them such as 2%, got {amount!r}")
    return float(match["number"]), bool(match["percent"])


def n_edges(amount: str, total: int) -> int:
    """``"50"`` edges, or ``"2%"`` of all, rounded up.

    Raises:
        AmountError: neither, or not from 1 edge to all of them.
    """
    number, is_percentage = require_amount(amount)
    # Rounded first: 7 % of 100 edges are 7, and 0.07 * 100 is a little more.
    count = math.ceil(round(number * total / 100, 6)) if is_percentage else int(number)
    if not 1 <= count <= total:
        raise AmountError(f"expected from 1 to all {total:,} edges (100%), got {amount}")
    return count


def candidates(scores: Scores, keep: str = KEEP) -> Bool[np.ndarray, "writer reader"]:
    """The edges of largest score by magnitude: what a `circuits.discovery.traversal.Traversal` is given to try."""
    return scores.top(n_edges(keep, scores.graph.n_edges), absolute=True).kept


@dataclass(frozen=True, slots=True)
class Start:
    """Where a prefiltered search begins: all candidates kept, all other edges ablated. NLL in nats, mean over the facts."""

    nll: float
    nll_model: float
    nll_uniform: float
    """ln V: the NLL of a guess among all tokens."""

    @property
    def is_alive(self) -> bool:
        """Better than a guess, and the answer at most `FALL` times less likely than in the whole model."""
        return self.nll < self.nll_uniform and self.nll <= self.nll_model + math.log(FALL)


def start(engine: Engine, candidates: Bool[np.ndarray, "writer reader"], d_vocab: int) -> Start:
    """Measured by the engine that will search."""
    alone, whole = (float(engine.nll(kept).mean()) for kept in (candidates, engine.graph.legal))
    return Start(alone, whole, math.log(d_vocab))


def require_alive(begins: Start, method: str, keep: str) -> None:
    """
    Raises:
        DestroyedError: with the candidates alone the answer is gone.
    """
    if not begins.is_alive:
        raise DestroyedError(
            f"with {method}'s best {keep} of the edges alone the answer costs {begins.nll:.2f} nats, {begins.nll_model:.2f} in the "
            f"whole model and {begins.nll_uniform:.2f} as a guess among all tokens: a search from there is of a broken model. "
            "Let more edges through with a larger --keep, or search in full, without --prefilter; --force searches all the same"
        )


@dataclass(frozen=True, slots=True)
class Loss:
    """A prefiltered search beside the full one, at the same threshold."""

    full: int
    """Edges that full ACDC keeps."""
    filtered_out: int
    """Those of them that the filter dropped before the search."""
    lost: int
    """Those of them that the prefiltered search does not keep: filtered out, or dropped in the search."""
    extra: int
    """Edges that only the prefiltered search keeps."""

    @property
    def share_lost(self) -> float:
        """0 where full ACDC keeps nothing."""
        return self.lost / self.full if self.full else 0.0

    @property
    def share_filtered_out(self) -> float:
        return self.filtered_out / self.full if self.full else 0.0


def compare(full: Circuit, prefiltered: Circuit, candidates: Bool[np.ndarray, "writer reader"]) -> Loss:
    """How much of full ACDC's circuit the prefiltered search lost."""
    if full.graph != prefiltered.graph:
        raise ValueError(f"expected circuits of one graph, got {full.graph} and {prefiltered.graph}")
    return Loss(
        full=full.n_edges,
        filtered_out=int((full.kept & ~candidates).sum()),
        lost=(full - prefiltered).n_edges,
        extra=(prefiltered - full).n_edges,
    )

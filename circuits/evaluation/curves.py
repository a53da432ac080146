"""Faithfulness against size: one ranking of the edges, cut at several sizes, and the two areas that sum the curve up.

CPR, the circuit performance ratio, is the area under f; CMD, the circuit-model distance, the area under |1 - f|: both by
trapezoids over the share of edges, from the smallest size to the largest (MIB benchmark, Mueller et al. 2025). CPR
rewards circuits that do better than the model, CMD does not.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from circuits.circuit import Circuit, Scores
from circuits.engines.engine import Engine
from circuits.evaluation.faithfulness import Performance, Scale, perform

MIB_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The benchmark's sizes, as shares of the graph's edges."""


@dataclass(frozen=True, slots=True)
class Curve:
    """f(C_k) of the circuits of the k best edges, smallest first."""

    shares: tuple[float, ...]
    """Nominal sizes, of which the areas are taken, as the benchmark does."""
    edges: tuple[int, ...]
    """Edges that each circuit really has: the share of the graph's, rounded down."""
    faithfulness: tuple[float, ...]

    @property
    def cpr(self) -> float:
        """Area under f, larger is better. At most 1 - the smallest share, where no circuit beats the model."""
        return _area(self.shares, self.faithfulness)

    @property
    def cmd(self) -> float:
        """Area between f and 1, smaller is better; 0 is a circuit as good as the model, and no better, at every size."""
        return _area(self.shares, [abs(1 - f) for f in self.faithfulness])


def _area(x: Sequence[float], y: Sequence[float]) -> float:
    return math.fsum((x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2 for i in range(len(x) - 1))


def curve(
    engine: Engine,
    scores: Scores,
    performance: Performance,
    *,
    sizes: Sequence[float] = MIB_SIZES,
    absolute: bool = False,
) -> Curve:
    """The curve of a ranking of edges on the engine's facts.

    Args:
        sizes: shares of the edges in rising order, between 0 and 1.
        absolute: rank by magnitude, so that suppressive edges come early too. MIB reports CPR of the signed ranking and
            CMD of the absolute one.

    Raises:
        ValueError: sizes that do not rise, or lie outside 0 to 1.
    """
    return curve_of(engine, lambda n: scores.top(n, absolute=absolute), performance, sizes=sizes)


def curve_of(
    engine: Engine, cut: Callable[[int], Circuit], performance: Performance, *, sizes: Sequence[float] = MIB_SIZES
) -> Curve:
    """The curve of any family of circuits: ``cut(n)`` has n edges."""
    if list(sizes) != sorted(set(sizes)) or not sizes or not 0 <= sizes[0] <= sizes[-1] <= 1:
        raise ValueError(f"expected rising sizes between 0 and 1, got {tuple(sizes)}")
    scale = Scale.of(engine, performance)
    # A share such as 0.29 of 100 edges is 28.999... in floating point, and means 29.
    edges = tuple(math.floor(share * engine.graph.n_edges + 1e-9) for share in sizes)
    known = {0: scale.empty.value, engine.graph.n_edges: scale.full.value}
    values = []
    for n in edges:
        if n not in known:
            known[n] = perform(engine, cut(n).kept, performance).value
        values.append(scale.place(known[n]))
    return Curve(tuple(sizes), edges, tuple(values))

"""What many cases of a claim come to: an effect against its control with an interval, and the verdict that follows by one rule.

A claim is put to cases, each a pair: what was measured, and the same of its control (a matched fact, random heads, another
method). The effect is the mean of their differences. Its interval of 95 % is Newcombe's for paired shares where every
number is 0 or 1 (`paired_shares`), and a percentile bootstrap over cases otherwise. The bar, the least effect that the
claim means, is fixed before anything is measured:

* **holds**: the whole interval is above the bar;
* **does not**: the whole interval is below it;
* **undecided**: the bar is within it; or fewer than `LEAST_CASES` cases have a control; or more lack one than have one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from circuits.evaluation.baseline import bootstrap
from circuits.metrics import Share
from circuits.records import Number

Ruling = Literal["holds", "does not", "undecided"]
LEAST_CASES = 10
"""With a control. Of ten fair coins all fall alike in one of 512 throws."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One case: the measured number, and the control's; None where there is nothing to compare with."""

    value: float
    control: float | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the pairs come to. Numbers are NaN where no case has a control."""

    n: int
    """Cases with a control: all numbers are of these."""
    without: int
    """Cases without one."""
    value: Number
    control: Number
    effect: Number
    """Mean of value less control."""
    low: Number
    high: Number
    bar: float
    verdict: Ruling

    def __str__(self) -> str:
        shown = f"{self.verdict}: {self.value:.3g} against {self.control:.3g}, {self.effect:+.3g} [{self.low:+.3g}, {self.high:+.3g}]"
        return f"{shown}, n {self.n}" + (f", {self.without} without a control" if self.without else "")


def judged(pairs: Sequence[Pair], bar: float = 0.0, *, seed: int = 0) -> Judgement:
    """The effect, its interval and the verdict; ``bar`` is in the pairs' unit."""
    there = [(pair.value, pair.control) for pair in pairs if pair.control is not None]
    n, without = len(there), len(pairs) - len(there)
    if not there:
        nan = math.nan
        return Judgement(0, without, nan, nan, nan, nan, nan, bar, "undecided")
    values, controls = zip(*there, strict=True)
    if {*values, *controls} <= {0.0, 1.0}:
        effect, low, high = paired_shares([(bool(value), bool(control)) for value, control in there])
    else:
        found = bootstrap([value - control for value, control in there], seed=seed)
        effect, low, high = found.mean, found.low, found.high
    enough = n >= LEAST_CASES and without <= n
    verdict: Ruling = "undecided"
    if enough and low > bar:
        verdict = "holds"
    elif enough and high < bar:
        verdict = "does not"
    return Judgement(n, without, math.fsum(values) / n, math.fsum(controls) / n, effect, low, high, bar, verdict)


def paired_shares(outcomes: Sequence[tuple[bool, bool]]) -> tuple[float, float, float]:
    """(difference of two shares of the same cases, low, high): Newcombe's interval of 95 % for paired shares (Newcombe 1998,
    Stat. Med. 17, 2635, method 10).

    With p1 and p2 the shares and [l, u] Wilson's intervals of each,
    low = p1 - p2 - sqrt(a^2 - 2 phi a b + b^2), a = p1 - l1, b = u2 - p2; high likewise with u1 - p1 and p2 - l2. phi is the
    correlation of the two outcomes, its numerator lessened by n/2 towards 0 where positive. Unlike a bootstrap's, it has a
    width where all cases are alike.

    Raises:
        ValueError: no outcome.
    """
    if not outcomes:
        raise ValueError("expected at least one case, got none")
    n = len(outcomes)
    both, first = sum(x and y for x, y in outcomes), sum(x and not y for x, y in outcomes)
    second, neither = sum(y and not x for x, y in outcomes), sum(not x and not y for x, y in outcomes)
    one, other = Share(both + first, n), Share(both + second, n)
    margins = one.count * (n - one.count) * other.count * (n - other.count)
    product = both * neither - first * second
    phi = (max(product - n / 2, 0) if product > 0 else product) / math.sqrt(margins) if margins else 0.0
    effect = one.value - other.value

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a**2 - 2 * phi * a * b + b**2))

    low = effect - reach(one.value - one.low, other.high - other.value)
    return effect, low, effect + reach(one.high - one.value, other.value - other.low)

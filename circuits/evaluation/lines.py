"""A line of a certificate: a number, its interval, what chance gives, and a grade by a bar that the line states."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from circuits.evaluation.certificate import Grade
from circuits.metrics import Share
from circuits.records import Number, to_json

Side = Literal["at least", "at most"]


@dataclass(frozen=True, slots=True)
class Line:
    """``grade`` is None where the line tells something that no bar is set for."""

    check: str
    what: str
    value: Number
    low: Number = math.nan
    high: Number = math.nan
    n: int = 1
    """What the value is a share or a mean of."""
    chance: Number = math.nan
    """The same of random circuits, or whatever ``what`` names; NaN where chance has no say."""
    bar: str = ""
    grade: Grade | None = None

    def to_json(self) -> dict[str, Any]:
        return to_json(self)


def graded(low: float, high: float, side: Side, bar: float) -> Grade:
    """By where the interval lies: passed if all of it is on the right side of the bar, failed if all on the other."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "undecided"
    right, wrong = (low >= bar, high < bar) if side == "at least" else (high <= bar, low > bar)
    return "passed" if right else "failed" if wrong else "undecided"


def of_share(check: str, what: str, share: Share, side: Side, bar: float, *, chance: float = math.nan) -> Line:
    """A share, graded by its Wilson interval; undecided of none."""
    grade: Grade = graded(share.low, share.high, side, bar) if share.n else "undecided"
    return Line(check, what, share.value, share.low, share.high, share.n, chance, f"{side} {bar:g}", grade)


def of_number(check: str, what: str, value: float, side: Side, bar: float, *, chance: float = math.nan) -> Line:
    """A single number, which has no interval: on one side of the bar or the other."""
    return Line(check, what, value, value, value, 1, chance, f"{side} {bar:g}", graded(value, value, side, bar))


def of_values(
    check: str, what: str, values: Sequence[float], side: Side, bar: float, *, chance: float = math.nan
) -> Line:
    """The mean of several values with the bootstrap interval of that mean (10,000 resamples, 95 %); undecided of none."""
    # Loaded here: the table of random circuits needs engines, and a page that shows lines does not.
    from circuits.evaluation.baseline import bootstrap

    if not values:
        return Line(check, what, math.nan, n=0, chance=chance, bar=f"{side} {bar:g}", grade="undecided")
    mean = bootstrap(values)
    grade = graded(mean.low, mean.high, side, bar)
    return Line(check, what, mean.mean, mean.low, mean.high, len(values), chance, f"{side} {bar:g}", grade)


def verdict_of(lines: Sequence[Line]) -> Grade:
    """Failed if a line is, else undecided if one is, else passed; lines without a grade have no say."""
    grades = {line.grade for line in lines}
    return "failed" if "failed" in grades else "undecided" if "undecided" in grades else "passed"

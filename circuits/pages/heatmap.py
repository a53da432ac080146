"""A matrix as squares whose depth of colour is the value, as SVG that runs no script."""

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from circuits.pages.charts import escaped, opening
from circuits.pages.style import GRID, NEUTRAL, PALETTE

STEPS = 16
"""Depths of colour."""
TOP, LETTER = 58, 6.8
"""Pixels above the column's labels, and of a letter."""


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    cell: int = 16,
    shown: Callable[[float], str] | None = None,
    groups: Sequence[str] = (),
) -> str:
    """A square for each row and column, the first row on top; NaN leaves a gap. The same values give the same text.

    Args:
        cell: pixels of a square.
        shown: what is written in a square; nothing by default.
        groups: of each row and each column of a square matrix, neighbours alike: lines part them, and they are named on the right.

    Raises:
        ValueError: not as many values as rows and columns, or no value.
    """
    if len(values) != len(rows) or any(len(line) != len(columns) for line in values):
        raise ValueError(f"expected {len(rows)} x {len(columns)} values, got rows of {[len(line) for line in values]}")
    there = [value for line in values for value in line if not math.isnan(value)]
    if not there:
        raise ValueError("expected at least one value that is a number")
    low, high = min(there), max(there)
    long = max(len(label) for label in columns) * LETTER > cell
    left = 16 + round(LETTER * max(len(label) for label in rows))
    top = TOP + (round(LETTER * max(len(label) for label in columns)) + 8 if long else 20)
    right = 16 + round(LETTER * max((len(name) for name in groups), default=0))
    width = max(left + cell * len(columns) + right, 40 + round(7.4 * len(title)), left + 260)
    bottom = top + cell * len(rows)
    parts = [opening(width, bottom + 16, title), f'<text x="12" y="22" font-size="14">{escaped(title)}</text>']
    parts += _key(left, low, high)
    parts += _squares(values, left, top, cell, low, high)
    for i, label in enumerate(rows):
        y = top + cell * (i + 0.5) + 4
        parts.append(f'<text x="{left - 6}" y="{y:.0f}" text-anchor="end" font-size="11">{escaped(label)}</text>')
    for j, label in enumerate(columns):
        x = left + cell * (j + 0.5)
        place = (
            f'x="{x + 4:.0f}" y="{top - 6}" transform="rotate(-90 {x + 4:.0f} {top - 6})"'
            if long
            else f'x="{x:.0f}" y="{top - 8}" text-anchor="middle"'
        )
        parts.append(f'<text {place} font-size="11">{escaped(label)}</text>')
    for i, line in enumerate(values if shown else ()):
        for j, value in enumerate(line):
            if shown and not math.isnan(value):
                x, y = left + cell * (j + 0.5), top + cell * (i + 0.5) + 4
                ink = "#FFFFFF" if _step(value, low, high) > 0.55 * STEPS else NEUTRAL
                parts.append(
                    f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" font-size="11" fill="{ink}">{escaped(shown(value))}</text>'
                )
    at = 0
    for name, members in groupby(groups):
        n = len(list(members))
        y, x, end = top + cell * at, left + cell * at, left + cell * len(columns)
        if at:
            lines = ((left, y, end, y), (x, top, x, bottom))
            parts += [f'<line x1="{a}" y1="{b}" x2="{c}" y2="{d}" stroke="{NEUTRAL}"/>' for a, b, c, d in lines]
        parts.append(f'<text x="{end + 8}" y="{y + cell * n / 2 + 4:.0f}" font-size="11">{escaped(name)}</text>')
        at += n
    return "\n".join([*parts, "</svg>"]) + "\n"


def _step(value: float, low: float, high: float) -> int:
    """1 for the least value, `STEPS` for the largest."""
    return 1 + round((STEPS - 1) * ((value - low) / (high - low) if high > low else 1.0))


def _squares(values: Sequence[Sequence[float]], left: int, top: int, cell: int, low: float, high: float) -> list[str]:
    paths: dict[int, list[str]] = {}
    for i, line in enumerate(values):
        for j, value in enumerate(line):
            if not math.isnan(value):
                square = f"M{left + cell * j} {top + cell * i}h{cell}v{cell}h-{cell}z"
                paths.setdefault(_step(value, low, high), []).append(square)
    return [
        f'<path d="{"".join(squares)}" fill="{PALETTE[0]}" fill-opacity="{step / STEPS:.4g}" stroke="{GRID}" stroke-width="0.5"/>'
        for step, squares in sorted(paths.items())
    ]


def _key(left: int, low: float, high: float) -> list[str]:
    """What the depths stand for, below the title."""
    wide = 8
    parts = [
        f'<rect x="{left + wide * k}" y="34" width="{wide}" height="12" fill="{PALETTE[0]}" fill-opacity="{(k + 1) / STEPS:.4g}"/>'
        for k in range(STEPS)
    ]
    parts.append(f'<text x="{left - 6}" y="44" text-anchor="end" font-size="11">{low:.3g}</text>')
    parts.append(f'<text x="{left + wide * STEPS + 6}" y="44" font-size="11">{high:.3g}</text>')
    return parts

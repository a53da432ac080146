"""Line charts as SVG text, for pages and READMEs that run no script: panels side by side under one legend."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circuits.viz.style import FONT, GRID, NEUTRAL, PALETTE

PANEL_WIDTH, PANEL_HEIGHT = 330, 210
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 62, 62
MOST_LABELS = 13
"""Labels on a horizontal axis: of more points, evenly spaced ones are named."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: for each series, a value at every label of the horizontal axis. NaN leaves a gap."""

    title: str
    x: str
    y: str
    labels: tuple[str, ...]
    series: Mapping[str, tuple[float, ...]]
    log: bool = False
    """A logarithmic vertical axis, 1 on top: ranks."""
    limits: tuple[float, float] | None = None
    """The vertical axis' ends; by default 0 (or 1) and a round number above the values."""

    def __post_init__(self) -> None:
        for name, values in self.series.items():
            if len(values) != len(self.labels):
                raise ValueError(f"expected {len(self.labels)} values of {name!r}, one a label, got {len(values)}")
            if self.log and any(value < 1 for value in values):
                raise ValueError(f"a panel of ranks holds values of at least 1, got {min(values)} of {name!r}")


def line_panels(panels: Sequence[Panel]) -> str:
    """An SVG picture of the panels; a series has one colour in all of them. The same panels give the same text."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.series))
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}
    width, height = LEFT + len(panels) * (PANEL_WIDTH + LEFT) - LEFT + RIGHT, TOP + PANEL_HEIGHT + BOTTOM
    title = _escape("; ".join(panel.title for panel in panels))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{title}" font-family="{_escape(FONT)}" font-size="12" fill="{NEUTRAL}">'
    ]
    x = float(LEFT)
    for name in names:
        parts.append(
            f'<line x1="{x:.0f}" x2="{x + 18:.0f}" y1="14" y2="14" stroke="{colours[name]}" stroke-width="2.5"/>'
        )
        parts.append(f'<text x="{x + 24:.0f}" y="18">{_escape(name)}</text>')
        x += 44 + 6.6 * len(name)
    for i, panel in enumerate(panels):
        parts += _panel(panel, LEFT + i * (PANEL_WIDTH + LEFT), colours)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _panel(panel: Panel, left: int, colours: Mapping[str, str]) -> list[str]:
    ticks = _ticks(panel)
    low, high = (math.log10(end) if panel.log else end for end in (ticks[0][0], ticks[-1][0]))
    last = max(len(panel.labels) - 1, 1)

    def across(i: int) -> float:
        return left + PANEL_WIDTH * i / last

    def down(value: float) -> float:
        part = ((math.log10(value) if panel.log else value) - low) / ((high - low) or 1)
        return TOP + PANEL_HEIGHT * (part if panel.log else 1 - part)

    parts = [f'<text x="{left}" y="{TOP - 18}" font-size="14">{_escape(panel.title)}</text>']
    for value, label in ticks:
        y = down(value)
        parts.append(f'<line x1="{left}" x2="{left + PANEL_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    every = max(1, math.ceil(len(panel.labels) / MOST_LABELS))
    base = TOP + PANEL_HEIGHT
    slanted = max((len(label) for label in panel.labels), default=0) > 4
    for i in range(0, len(panel.labels), every):
        x, label = across(i), _escape(panel.labels[i])
        if slanted:
            parts.append(
                f'<text x="{x:.1f}" y="{base + 16}" text-anchor="end" font-size="11" '
                f'transform="rotate(-40 {x:.1f} {base + 12})">{label}</text>'
            )
        else:
            parts.append(f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle">{label}</text>')
    middle = left + PANEL_WIDTH / 2
    parts.append(f'<text x="{middle:.0f}" y="{base + BOTTOM - 6}" text-anchor="middle">{_escape(panel.x)}</text>')
    parts.append(
        f'<text x="{left - 44}" y="{TOP + PANEL_HEIGHT / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 {left - 44} {TOP + PANEL_HEIGHT / 2:.0f})">{_escape(panel.y)}</text>'
    )
    for name, values in panel.series.items():
        for run in _runs(values):
            points = " ".join(f"{across(i):.1f},{down(values[i]):.1f}" for i in run)
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colours[name]}" stroke-width="2" '
                'stroke-linejoin="round"/>'
            )
        for i, value in enumerate(values):
            if not math.isnan(value):
                tip = _escape(f"{name}, {panel.labels[i]}: {value:.3g}")
                parts.append(
                    f'<circle cx="{across(i):.1f}" cy="{down(value):.1f}" r="2.6" fill="{colours[name]}">'
                    f"<title>{tip}</title></circle>"
                )
    return parts


def _runs(values: Sequence[float]) -> list[list[int]]:
    """Stretches of neighbouring positions whose values are numbers."""
    runs: list[list[int]] = [[]]
    for i, value in enumerate(values):
        if math.isnan(value):
            runs.append([])
        else:
            runs[-1].append(i)
    return [run for run in runs if len(run) > 1]


def _ticks(panel: Panel) -> list[tuple[float, str]]:
    """(value, label) of the vertical axis, from its start to its end."""
    values = [value for own in panel.series.values() for value in own if not math.isnan(value)]
    if panel.log:
        decades = max(1, math.ceil(math.log10(max(values, default=10))))
        return [(10.0**k, f"{10**k:,}") for k in range(decades + 1)]
    low, high = panel.limits or (min(0.0, *values, 0.0), _round_up(max(values, default=1.0)))
    return [(low + (high - low) * k / 4, f"{low + (high - low) * k / 4:g}") for k in range(5)]


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= value * (1 - 1e-9))

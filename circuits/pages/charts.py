"""Charts as SVG text, for pages and READMEs that run no script: line panels, clouds, stacked bars, and heads by role."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circuits.analysis.roles import Role, Roles, strength
from circuits.circuit import Circuit
from circuits.pages.style import FONT, GRID, NEUTRAL, PALETTE, ROLE_COLOURS, ROLE_HINTS

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
    legend = [44 + 7.2 * len(name) for name in names]
    width = max(LEFT + len(panels) * (PANEL_WIDTH + LEFT) - LEFT + RIGHT, LEFT + round(sum(legend)))
    height = TOP + PANEL_HEIGHT + BOTTOM
    title = "; ".join(panel.title for panel in panels)
    parts = [opening(width, height, title)]
    x = float(LEFT)
    for name, room in zip(names, legend, strict=True):
        parts.append(
            f'<line x1="{x:.0f}" x2="{x + 18:.0f}" y1="14" y2="14" stroke="{colours[name]}" stroke-width="2.5"/>'
        )
        parts.append(f'<text x="{x + 24:.0f}" y="18">{escaped(name)}</text>')
        x += room
    for i, panel in enumerate(panels):
        parts += _panel(panel, LEFT + i * (PANEL_WIDTH + LEFT), colours)
    return "\n".join([*parts, "</svg>"]) + "\n"


@dataclass(frozen=True, slots=True)
class Cloud:
    """One plot of points in a plane whose axes have no unit, in sets."""

    title: str
    sets: Mapping[str, Sequence[tuple[float, float]]]


CLOUD = 330
"""Pixels of a cloud's sides."""


def clouds(drawn: Sequence[Cloud]) -> str:
    """An SVG picture of the clouds side by side; a set has one colour in all of them. The same clouds give the same text."""
    names = list(dict.fromkeys(name for cloud in drawn for name in cloud.sets))
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}
    legend = [44 + 7.2 * len(name) for name in names]
    column = max(CLOUD, *(int(7.6 * len(cloud.title)) for cloud in drawn)) + LEFT
    width = max(LEFT + len(drawn) * column, LEFT + round(sum(legend)))
    parts = [opening(width, TOP + CLOUD + 20, "; ".join(cloud.title for cloud in drawn))]
    at = float(LEFT)
    for name, room in zip(names, legend, strict=True):
        parts.append(f'<circle cx="{at + 9:.0f}" cy="14" r="4" fill="{colours[name]}" fill-opacity="0.7"/>')
        parts.append(f'<text x="{at + 24:.0f}" y="18">{escaped(name)}</text>')
        at += room
    for i, cloud in enumerate(drawn):
        left = LEFT + i * column
        points = [point for some in cloud.sets.values() for point in some]
        # One scale on both axes, so that distances are what they are.
        reach = max((abs(each) for point in points for each in point), default=1.0) or 1.0
        parts.append(f'<text x="{left}" y="{TOP - 18}" font-size="14">{escaped(cloud.title)}</text>')
        parts.append(
            f'<rect x="{left}" y="{TOP}" width="{CLOUD}" height="{CLOUD}" fill="none" stroke="{GRID}"/>'
            f'<path d="M{left} {TOP + CLOUD / 2}h{CLOUD}M{left + CLOUD / 2} {TOP}v{CLOUD}" stroke="{GRID}"/>'
        )
        for name, some in cloud.sets.items():
            for x, y in some:
                across, down = (CLOUD / 2 * (1 + 0.95 * sign * each / reach) for sign, each in ((1, x), (-1, y)))
                parts.append(
                    f'<circle cx="{left + across:.1f}" cy="{TOP + down:.1f}" r="3" fill="{colours[name]}" fill-opacity="0.7"/>'
                )
    return "\n".join([*parts, "</svg>"]) + "\n"


def stacked(pictures: Sequence[str]) -> str:
    """SVG pictures of this module one below another, as one.

    Raises:
        ValueError: none, or something else.
    """
    found = [re.match(r'<svg [^>]*viewBox="0 0 (\d+) (\d+)"', picture) for picture in pictures]
    sizes = [(int(match[1]), int(match[2])) for match in found if match]
    if not sizes or len(sizes) < len(pictures):
        raise ValueError("expected pictures made here")
    if len(pictures) == 1:
        return pictures[0]
    parts = [opening(max(width for width, _ in sizes), sum(height + 24 for _, height in sizes), "pictures")]
    at = 0
    for picture, (_, height) in zip(pictures, sizes, strict=True):
        parts.append(picture.rstrip().replace("<svg ", f'<svg y="{at}" height="{height}" ', 1))
        at += height + 24
    return "\n".join([*parts, "</svg>"]) + "\n"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its label, what stands to its right, and its parts by name; negative parts go left from zero."""

    label: str
    parts: Mapping[str, float]
    note: str = ""


BAR, BAR_GAP, BAR_WIDTH, NOTE_WIDTH = 26, 14, 470, 300
"""Pixels: a bar's height, the space below it, the width of the whole axis, the width kept for notes."""


def stacked_bars(bars: Sequence[Bar], *, title: str, x: str, colours: Mapping[str, str] | None = None) -> str:
    """An SVG picture of stacked bars on one axis; a part has one colour in all of them. The same bars give the same text.

    Args:
        colours: by the part's name; `PALETTE` in order by default.
    """
    names = list(dict.fromkeys(name for bar in bars for name in bar.parts))
    paint = colours or {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}
    low = min([0.0, *(sum(v for v in bar.parts.values() if v < 0) for bar in bars)])
    longest = max(sum(v for v in bar.parts.values() if v > 0) for bar in bars)
    step = _round_up(longest / 8, (1, 2, 5, 10))
    high = step * math.ceil(longest / step)
    left = 20 + int(7.0 * max(len(bar.label) for bar in bars))
    width, height = left + BAR_WIDTH + NOTE_WIDTH, 84 + len(bars) * (BAR + BAR_GAP) + 40

    def across(value: float) -> float:
        return left + BAR_WIDTH * (value - low) / (high - low)

    parts = [opening(width, height, title), f'<text x="12" y="22" font-size="14">{escaped(title)}</text>']
    at = 12.0
    for name in names:
        parts.append(f'<rect x="{at:.0f}" y="38" width="14" height="14" rx="3" fill="{paint[name]}"/>')
        parts.append(f'<text x="{at + 20:.0f}" y="50">{escaped(name)}</text>')
        at += 42 + 6.6 * len(name)
    base = 72 + len(bars) * (BAR + BAR_GAP)
    for k in range(round(high / step) + 1):
        value = k * step
        parts.append(
            f'<line x1="{across(value):.1f}" x2="{across(value):.1f}" y1="66" y2="{base}" stroke="{GRID}"/>'
            f'<text x="{across(value):.1f}" y="{base + 18}" text-anchor="middle">{value:g}</text>'
        )
    parts.append(f'<text x="{across((low + high) / 2):.0f}" y="{base + 40}" text-anchor="middle">{escaped(x)}</text>')
    for i, bar in enumerate(bars):
        y = 72 + i * (BAR + BAR_GAP)
        parts.append(f'<text x="{left - 10}" y="{y + BAR / 2 + 4:.0f}" text-anchor="end">{escaped(bar.label)}</text>')
        ends = {True: 0.0, False: 0.0}
        for name, value in bar.parts.items():
            start = ends[value >= 0]
            ends[value >= 0] = start + value
            edge, wide = across(min(start, start + value)), abs(across(value) - across(0.0))
            parts.append(
                f'<rect x="{edge:.1f}" y="{y}" width="{wide:.1f}" height="{BAR}" fill="{paint[name]}">'
                f"<title>{escaped(f'{bar.label}: {name} {value:+.2f}')}</title></rect>"
            )
        parts.append(f'<text x="{left + BAR_WIDTH + 14}" y="{y + BAR / 2 + 4:.0f}">{escaped(bar.note)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


CELL = 56
"""Pixels of one head in the grid of roles, at least."""


def role_grid(roles: Roles, *, title: str, circuit: Circuit | None = None) -> str:
    """An SVG picture of every head at its index and layer: colour and shape tell its role, size the effect behind it.

    Heads of ``circuit`` are ringed.
    """
    inside = set(circuit.nodes) if circuit is not None else set()
    layers = max(verdict.head.layer for verdict in roles.heads) + 1
    heads = max(verdict.head.head for verdict in roles.heads) + 1
    present: list[Role] = [role for role in ROLE_COLOURS if any(verdict.role == role for verdict in roles.heads)]
    names = [ROLE_HINTS[role] if role == "other" else f"{role} ({ROLE_HINTS[role]})" for role in present]
    names += ["in the circuit"] if inside else []
    width = max(LEFT + heads * CELL + RIGHT, 24 + sum(int(46 + 6.6 * len(name)) for name in names))
    width, top = max(width, 24 + int(7.4 * len(title))), 70
    column = (width - LEFT - RIGHT) / heads
    height = top + layers * CELL + 44
    parts = [opening(width, height, title), f'<text x="12" y="22" font-size="14">{escaped(title)}</text>']
    at = 22.0
    for i, name in enumerate(names):
        parts.append(_shape(present[i], at, 46.0, 7.0) if i < len(present) else _ring(at, 46.0, 8.0))
        parts.append(f'<text x="{at + 14:.0f}" y="50">{escaped(name)}</text>')
        at += 46 + 6.6 * len(name)
    for layer in range(layers):
        y = top + (layers - layer - 0.5) * CELL
        parts.append(f'<line x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.0f}" y2="{y:.0f}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">layer {layer}</text>')
    for head in range(heads):
        x = LEFT + (head + 0.5) * column
        parts.append(f'<text x="{x:.0f}" y="{top + layers * CELL + 18}" text-anchor="middle">head {head}</text>')
    for verdict in roles.heads:
        x, y = LEFT + (verdict.head.head + 0.5) * column, top + (layers - verdict.head.layer - 0.5) * CELL
        size = 4.0 if verdict.role == "other" else 8 + 9 * math.sqrt(min(strength(verdict), 4) / 4)
        ring = _ring(x, y, size + 4) if verdict.head in inside else ""
        parts.append(f"<g><title>{escaped(str(verdict))}</title>{_shape(verdict.role, x, y, size)}{ring}</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _shape(role: Role, x: float, y: float, size: float) -> str:
    """A mark of the role: circle, diamond, square, triangle or cross."""
    colour = ROLE_COLOURS[role]
    if role in ("mover", "other"):
        faint = ' fill-opacity="0.5"' if role == "other" else ""
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" fill="{colour}"{faint}/>'
    if role == "suppressor":
        arm = 0.8 * size
        return (
            f'<path d="M{x - arm:.1f} {y - arm:.1f}L{x + arm:.1f} {y + arm:.1f}M{x - arm:.1f} {y + arm:.1f}L{x + arm:.1f} '
            f'{y - arm:.1f}" stroke="{colour}" stroke-width="{size / 2:.1f}"/>'
        )
    if role == "carrier":
        return f'<path d="M{x:.1f} {y - size:.1f}l{size:.1f} {1.8 * size:.1f}h{-2 * size:.1f}z" fill="{colour}"/>'
    turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if role == "relation" else ""
    half = 0.85 * size
    return f'<rect x="{x - half:.1f}" y="{y - half:.1f}" width="{2 * half:.1f}" height="{2 * half:.1f}" fill="{colour}"{turn}/>'


def _ring(x: float, y: float, size: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" fill="none" stroke="{NEUTRAL}" stroke-width="1.5"/>'


def opening(width: int, height: int, label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{escaped(label)}" font-family="{escaped(FONT)}" font-size="12" fill="{NEUTRAL}">'
    )


def escaped(text: str) -> str:
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

    parts = [f'<text x="{left}" y="{TOP - 18}" font-size="14">{escaped(panel.title)}</text>']
    for value, label in ticks:
        y = down(value)
        parts.append(f'<line x1="{left}" x2="{left + PANEL_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    every = max(1, math.ceil(len(panel.labels) / MOST_LABELS))
    base = TOP + PANEL_HEIGHT
    slanted = max((len(label) for label in panel.labels), default=0) > 4
    for i in range(0, len(panel.labels), every):
        x, label = across(i), escaped(panel.labels[i])
        if slanted:
            parts.append(
                f'<text x="{x:.1f}" y="{base + 16}" text-anchor="end" font-size="11" '
                f'transform="rotate(-40 {x:.1f} {base + 12})">{label}</text>'
            )
        else:
            parts.append(f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle">{label}</text>')
    middle = left + PANEL_WIDTH / 2
    parts.append(f'<text x="{middle:.0f}" y="{base + BOTTOM - 6}" text-anchor="middle">{escaped(panel.x)}</text>')
    parts.append(
        f'<text x="{left - 44}" y="{TOP + PANEL_HEIGHT / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 {left - 44} {TOP + PANEL_HEIGHT / 2:.0f})">{escaped(panel.y)}</text>'
    )
    for i, (name, values) in enumerate(panel.series.items()):
        # Ranks of different series often coincide: the earlier ones are drawn wider, and show beside what lies on them.
        pen = 2 + 1.8 * (len(panel.series) - 1 - i) if panel.log else 2
        for run in _runs(values):
            points = " ".join(f"{across(i):.1f},{down(values[i]):.1f}" for i in run)
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colours[name]}" stroke-width="{pen:g}" '
                'stroke-linejoin="round"/>'
            )
        for i, value in enumerate(values):
            if not math.isnan(value):
                tip = escaped(f"{name}, {panel.labels[i]}: {value:.3g}")
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


def _round_up(value: float, steps: Sequence[int] = (1, 2, 4, 8, 10)) -> float:
    """The next of ``steps`` (up to 10) times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in steps if step * power >= value * (1 - 1e-9))

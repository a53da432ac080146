"""A large circuit on one screen: a row a layer, heads in lanes by what they do, the MLPs as a rail on the right.

A drawing that gives every component a box with words (`circuits.pages.layout`) is ten screens tall at thirty layers. Here a
head is a small box at a fixed place; the page opens a layer, a lane or a component when asked. The lines are the page's to
draw: it is given their curves, so that it can draw a few of them, and bend them where a layer opens.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from circuits.analysis.roles import Role
from circuits.circuit import Circuit
from circuits.graph import Node
from circuits.pages.layout import Point
from circuits.pages.page import plain
from circuits.pages.style import ROLE_HINTS

LARGE = 400
"""A circuit of more edges is shown as an overview."""

STRONGEST = 300
"""Edges that an overview draws before it is asked for more, the strongest."""

ROW = 26
"""Pixels of a layer: its heads, and its MLP half a row above them."""

COLUMN, NARROW = 32, 26
"""Pixels of a head, and of one that rests."""

GUTTER, RAIL, ARCS, HEADER, MARGIN = 52, 64, 96, 46, 10
"""Pixels: left of the heads for the layers' names; between the heads and the rail's middle; right of it for the arcs between
MLPs; above the first row for the lanes' names; below the last."""

LEAST_LANE = 72
"""Pixels of a lane at least: its name must fit."""

GAP = 12
"""Pixels between lanes."""

HALF_WIDTH, HALF_HEIGHT = 13, 7
"""Half of a head's box, in pixels."""

HALF_RAIL = 22
"""Half the width of an MLP's box, in pixels."""

OPEN_WIDTH = 80
"""Pixels of a head in an opened layer."""

Lane = Role | Literal["resting"]
LANES: tuple[Lane, ...] = ("resting", "other", "carrier", "suppressor", "mixture", "relation", "mover")
"""From the left: heads that write of the answer stand nearest to the MLPs and the logits."""


@dataclass(frozen=True)
class Overview:
    """The place of every component, in pixels from the top left."""

    places: Mapping[Node, Point]
    lanes: Mapping[Lane, tuple[float, float, int]]
    """Of each lane with heads: left, right, and how many heads."""
    lane_of: Mapping[Node, Lane]
    rows: Mapping[int, float]
    """Of each layer, y of its heads."""
    width: float
    height: float

    def curve(self, writer: Node, reader: Node) -> tuple[int, ...]:
        """x and y of the four control points of a cubic Bezier curve, from the writer's upper edge to the reader's lower one.

        Between two of the rail it runs as an arc on the right, the wider the longer.
        """
        (x0, y0), (x1, y1) = self.places[writer], self.places[reader]
        span = (y0 - y1) / ROW
        if writer.kind != "head" and reader.kind != "head":
            right, bow = x0 + HALF_RAIL, 12 + 15 * span**0.5
            return tuple(round(v) for v in (right, y0, right + bow, y0, right + bow, y1, x1 + HALF_RAIL, y1))
        y0, y1 = y0 - HALF_HEIGHT, y1 + HALF_HEIGHT
        # A line past heads of its own column bows out.
        bow = 10 + 2 * span if abs(x0 - x1) < COLUMN / 2 and span > 1 else 0
        lift = max(0.45 * (y0 - y1), 4)
        return tuple(round(v) for v in (x0, y0, x0 - bow, y0 - lift, x1 - bow, y1 + lift, x1, y1))


def survey(circuit: Circuit, nodes: Sequence[Node], roles: Mapping[Node, Role], resting: Collection[Node]) -> Overview:
    """A place for each of ``nodes``: the layers upwards, every head in the lane of its role.

    A head without a role that is among ``resting`` stands apart from the others; a layer without components keeps its row.
    Where no head has a role and none rests, every head stands at its own index.
    """
    n_layers = circuit.graph.shape.n_layers
    heads = [node for node in nodes if node.kind == "head"]

    def lane(head: Node) -> Lane:
        role = roles.get(head, "other")
        return "resting" if role == "other" and head in resting else role

    lane_of: dict[Node, Lane] = {head: lane(head) for head in heads}
    alike = set(lane_of.values()) <= {"other"}
    cells: dict[tuple[Lane, int], list[Node]] = {}
    for head in sorted(heads):
        cells.setdefault((lane_of[head], head.layer), []).append(head)
    lanes: dict[Lane, tuple[float, float, int]] = {}
    x = float(GUTTER)
    for name in LANES:
        own = [cell for (other, _), cell in cells.items() if other == name]
        if not own:
            continue
        most = circuit.graph.shape.n_heads if alike else max(map(len, own))
        wide = max(most * _column(name), LEAST_LANE)
        lanes[name] = (x, x + wide, sum(map(len, own)))
        x += wide + GAP
    rail = x + RAIL - GAP
    bottom = HEADER + ROW * (n_layers + 0.5)
    rows = {layer: bottom - ROW * (layer + 1) for layer in range(n_layers)}
    places: dict[Node, Point] = {}
    for (name, layer), cell in cells.items():
        left, right, _ = lanes[name]
        start = left if alike else (left + right - len(cell) * _column(name)) / 2
        for i, head in enumerate(cell):
            places[head] = (start + _column(name) * ((head.head if alike else i) + 0.5), rows[layer])
    for node in nodes:
        if node.kind == "head":
            continue
        at = {"input": bottom, "logits": HEADER - ROW}.get(node.kind)
        beside = HALF_RAIL * 2 if node.kind == "bypass" else 0
        places[node] = (rail - beside, rows[node.layer] - ROW / 2 if at is None else at)
    return Overview(places, lanes, lane_of, rows, rail + HALF_RAIL + ARCS, bottom + ROW / 2 + MARGIN)


def _column(lane: Lane) -> int:
    return NARROW if lane == "resting" else COLUMN


def lane_words(lane: Lane, told: bool) -> tuple[str, str]:
    """A lane's name, and what it means; ``told``: whether roles were read at all."""
    if lane == "resting":
        return "resting", "without a role, with most of their attention from the last token on the first one (a sink)"
    if lane == "other":
        return ("other heads", "with no established role") if told else ("heads", "attention heads")
    return lane, ROLE_HINTS[lane]


def overview_svg(
    overview: Overview,
    nodes: Sequence[Node],
    *,
    label: str,
    lines: Mapping[Node, str],
    roles: Mapping[Node, Role],
    told: bool,
) -> str:
    """The components as SVG text over two empty drawings for the lines: those that rest, and those that are lit."""
    width, height = round(overview.width), round(overview.height)
    box = f'viewBox="0 0 {width} {height}"'
    return "\n".join(
        [
            f'<div class="map" id="map" data-width="{width}" data-height="{height}">',
            f'<svg class="wires" {box} aria-hidden="true"></svg><svg class="wires lit" {box} aria-hidden="true"></svg>',
            f'<svg class="components" {box} role="group" aria-label="{plain(label)}">',
            *components(overview, nodes, lines=lines, roles=roles, told=told),
            "</svg>",
            "</div>",
        ]
    )


def components(
    overview: Overview, nodes: Sequence[Node], *, lines: Mapping[Node, str], roles: Mapping[Node, Role], told: bool
) -> list[str]:
    """Rows, lanes and components, without what holds them."""
    width, parts = round(overview.width), list[str]()
    for layer, y in overview.rows.items():
        shade = "band" if layer % 2 == 0 else "band plain"
        parts.append(
            f'<g class="layer" data-layer="{layer}" transform="translate(0 {y:g})"><rect class="{shade}" x="0" y="{-ROW / 2:g}" '
            f'width="{width - ARCS}" height="{ROW}" rx="5"/><g class="opener"><text class="layer-name" x="8" y="4">'
            f'<tspan class="sign">+</tspan> L{layer}</text></g></g>'
        )
    for name, (left, right, count) in overview.lanes.items():
        word, hint = lane_words(name, told)
        middle = (left + right) / 2
        parts.append(
            f'<g class="lane {name}" data-lane="{name}"><title>{plain(f"{word}: {hint}")}</title><rect x="{left:g}" y="4" '
            f'width="{right - left:g}" height="34" rx="6"/><text x="{middle:g}" y="18">{word}</text>'
            f'<text class="count" x="{middle:g}" y="32">{count}</text></g>'
        )
    for node in nodes:
        x, y = overview.places[node]
        role = roles.get(node)
        rests = overview.lane_of.get(node) == "resting"
        half = HALF_WIDTH - 3 * rests if node.kind == "head" else HALF_RAIL
        small = f"H{node.head}" if node.kind == "head" else node.label
        token = f'<text class="token" y="12">{plain(lines[node])}</text>' if node in lines else ""
        said = f'<text class="role-word" y="1">{role}</text>' if role else ""
        classes = " ".join(part for part in ("node", node.kind, role, "resting" if rests else "") if part)
        parts.append(
            f'<g class="{classes}" transform="translate({x:g} {y:g})"><rect x="{-half}" y="{-HALF_HEIGHT}" width="{2 * half}" '
            f'height="{2 * HALF_HEIGHT}" rx="4"/><text class="small" y="3.5">{small}</text>'
            + (f'<text class="whole-name" y="-9">{node.label}</text>{said}{token}' if node.kind == "head" else "")
            + "</g>"
        )
    return parts

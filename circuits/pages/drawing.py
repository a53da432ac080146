"""A circuit as the SVG text that a page moves and colours: layers as bands, edges as curves, nodes as boxes with their words."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from circuits.analysis.roles import Role
from circuits.circuit import Circuit
from circuits.graph import Edge, Node
from circuits.pages.layout import HALF_HEIGHT, HALF_WIDTH, Placement, Point
from circuits.pages.page import plain
from circuits.pages.style import ROLE_COLOURS, ROLE_HINTS, pen_widths, short_token

COLUMN, ROW = 76, 60
"""Pixels of one column and one row of the layout."""

GUTTER, MARGIN = 74, 14
"""Pixels left of the heads for the layers' names, and on the other sides."""

TAG_HEIGHT = 13
"""Pixels of the tag on a node's upper edge that says its role."""

Words = Sequence[tuple[str, str]]
"""(class, text) of the second lines of a node; the page's style shows one of them at a time."""


@dataclass(frozen=True, slots=True)
class Dress:
    """How nodes look."""

    words: Callable[[Node], Words] = lambda node: ()
    node_class: Callable[[Node], str] = lambda node: ""
    roles: Mapping[Node, Role] = field(default_factory=dict)
    """A head with a role wears it as a tag, and as a class."""


PLAIN = Dress()


def circuit_svg(
    circuit: Circuit,
    layout: Placement,
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    *,
    label: str,
    edge_class: Callable[[Edge], str],
    dress: Dress = PLAIN,
    empty: str = "This circuit has no edges.",
) -> str:
    """The drawing, its edges and nodes in the given orders.

    ``label`` is what a screen reader calls the whole.
    """
    if not edges:
        return (
            f'<svg viewBox="0 0 600 80" role="img" aria-label="No edges"><text class="layer-name" x="20" y="44">{plain(empty)}'
            "</text></svg>"
        )
    right = max([layout.spine + 0.5, *(layout.right(edge) + 0.1 for edge in edges)])
    width, height = GUTTER + right * COLUMN + MARGIN, len(layout.rows) * ROW + 2.0 * MARGIN

    def pixel(point: Point) -> str:
        return f"{GUTTER + point[0] * COLUMN:.0f} {height - MARGIN - (point[1] + 0.5) * ROW:.0f}"

    parts = [
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="group" aria-label="{plain(label)}">',
        *_bands(circuit, layout, width, height),
        '<g fill="none">',
    ]
    for edge, pen in zip(edges, pen_widths(circuit, edges), strict=True):
        start, *rest = (pixel(point) for point in layout.curve(edge))
        parts.append(f'<path class="edge {edge_class(edge)}" d="M{start}C{" ".join(rest)}" stroke-width="{pen:.2g}"/>')
    parts.append("</g>")
    wide, tall = 2 * HALF_WIDTH * COLUMN, 2 * HALF_HEIGHT * ROW
    for node in nodes:
        role = dress.roles.get(node)
        lines = dress.words(node)
        classes = " ".join(part for part in ("node", node.kind, role, dress.node_class(node)) if part)
        parts.append(
            f'<g class="{classes}" transform="translate({pixel(layout.places[node])})">'
            f'<rect x="{-wide / 2:.1f}" y="{-tall / 2:.1f}" width="{wide:.1f}" height="{tall:.1f}" rx="8"/>'
            f'<text y="{(0 if lines else 4) + (2 if role else 0)}">{node.label}</text>'
            + "".join(
                f'<text class="{f"token {own}".strip()}" y="{13 if role else 12}">{plain(short_token(text))}</text>'
                for own, text in lines
            )
            + (_tag(role, tall) if role else "")
            + "</g>"
        )
    return "\n".join([*parts, "</svg>"])


def legend(items: Iterable[tuple[str, str]], roles: Iterable[Role] = ()) -> str:
    """What the colours mean, as a list: (class of the key, words), then the roles that occur."""
    named = [*items]
    present = set(roles)
    named += [
        (f"head {role}", f"{role} head ({ROLE_HINTS[role]})")
        for role in ROLE_COLOURS
        if role in present and role != "other"
    ]
    rows = "".join(f'<li><span class="key {key}"></span>{plain(text)}</li>' for key, text in named)
    return f'<ul class="legend" aria-label="Legend">{rows}</ul>'


def _tag(role: Role, tall: float) -> str:
    wide = 10 + 5.2 * len(role)
    return (
        f'<rect class="tag" x="{-wide / 2:.1f}" y="{-tall / 2 - TAG_HEIGHT / 2 - 2:.1f}" width="{wide:.1f}" '
        f'height="{TAG_HEIGHT}" rx="{TAG_HEIGHT / 2}"/><text class="tag" y="{-tall / 2 + 1.2:.1f}">{role}</text>'
    )


def _bands(circuit: Circuit, layout: Placement, width: float, height: float) -> Iterable[str]:
    """A name for each layer, and a shade behind every second one."""
    layers: dict[int, list[int]] = {}
    for y, (layer, _) in enumerate(layout.rows):
        layers.setdefault(layer, []).append(y)
    shaded = True
    for layer, rows in layers.items():
        if not 0 <= layer < circuit.graph.shape.n_layers:
            continue
        top = height - MARGIN - (rows[-1] + 1) * ROW
        if shaded:
            yield f'<rect class="band" x="0" y="{top:.0f}" width="{width:.0f}" height="{len(rows) * ROW}" rx="8"/>'
        shaded = not shaded
        middle = top + len(rows) * ROW / 2 + 4
        yield f'<text class="layer-name" x="12" y="{middle:.0f}">Layer {layer}</text>'

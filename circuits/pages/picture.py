"""A circuit as one SVG picture with its own style, that needs no script and no graphviz: for notebooks, folders and READMEs."""

from collections.abc import Collection, Mapping, Sequence

from circuits.analysis.lens import NodeReadout
from circuits.analysis.roles import Role
from circuits.circuit import Circuit
from circuits.graph import Edge, Node
from circuits.pages.drawing import Dress, circuit_svg
from circuits.pages.layout import place
from circuits.pages.overview import LARGE, STRONGEST, components, survey
from circuits.pages.page import plain
from circuits.pages.style import FILLS, FONT, GRID, NEUTRAL, SLOT_COLOURS, SLOT_NAMES, node_words, pen_widths, strongest

STRIP = 40
"""Pixels above the drawing for the title and the names of the lines' colours."""

INK = "#16191E"


def circuit_picture(
    circuit: Circuit,
    readouts: Sequence[NodeReadout] = (),
    roles: Mapping[Node, Role] | None = None,
    *,
    title: str = "",
    resting: Collection[Node] = (),
) -> str:
    """The SVG text: nodes by kind and role, edges by the slot that reads them, under the title.

    Every node has its words (`circuits.pages.style.node_words`); a circuit of more than `LARGE` edges is an overview, with its `STRONGEST`
    edges and without them. The same circuit gives the same text.

    Args:
        resting: heads that an overview shows apart (see `circuits.pages.overview`).
    """
    lines = node_words(readouts)
    if circuit.n_edges > LARGE:
        edges, drawn = _overview(circuit, roles or {}, resting)
    else:
        edges, layout = strongest(circuit), place(circuit)
        drawn = circuit_svg(
            circuit,
            layout,
            tuple(sorted(layout.places)),
            edges,
            label=str(circuit),
            edge_class=lambda edge: _edge_class(circuit, edge),
            dress=Dress(lambda node: [("", lines[node])] if node in lines else (), roles=roles or {}),
        )
    opening, _, rest = drawn.partition(">")
    width, height = (int(size) for size in opening.split('viewBox="')[1].split('"')[0].split()[2:])
    opening = opening.replace(f'"0 0 {width} {height}"', f'"0 {-STRIP} {width} {height + STRIP}"')
    return (
        f'{opening} xmlns="http://www.w3.org/2000/svg" class="kcircuit" style="max-width:900px"><style>{_style()}</style>'
        f"{_strip(circuit, edges, title)}{rest}"
    )


def _edge_class(circuit: Circuit, edge: Edge) -> str:
    return (edge.reader.slot or "whole") + (" negative" if circuit.score(edge) < 0 else "")


def _overview(circuit: Circuit, roles: Mapping[Node, Role], resting: Collection[Node]) -> tuple[tuple[Edge, ...], str]:
    overview, edges = survey(circuit, circuit.nodes, roles, resting), strongest(circuit, STRONGEST)
    wires = []
    for edge, pen in zip(edges, pen_widths(circuit, edges), strict=True):
        x, y, *rest = overview.curve(edge.writer, edge.reader.node)
        wires.append(
            f'<path class="edge {_edge_class(circuit, edge)}" d="M{x} {y}C{" ".join(map(str, rest))}" stroke-width="{pen:.2g}"/>'
        )
    width, height = round(overview.width), round(overview.height)
    parts = components(overview, circuit.nodes, lines={}, roles=roles, told=bool(roles))
    return edges, "\n".join(
        [
            f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{plain(str(circuit))}">',
            *('<g fill="none">', *wires, "</g>", '<g class="overview">', *parts, "</g>", "</svg>"),
        ]
    )


def _strip(circuit: Circuit, edges: Sequence[Edge], title: str) -> str:
    """The title, how much is drawn, and a line in the colour of each slot that occurs."""
    some = f", the {len(edges):,} strongest of {circuit.n_edges:,} edges" if len(edges) < circuit.n_edges else ""
    parts = [f'<text class="title" x="12" y="{14 - STRIP}">{plain(title)}{some}</text>' if title or some else ""]
    present, x = {edge.reader.slot for edge in edges}, 12
    for slot in SLOT_COLOURS:
        if slot in present:
            parts.append(
                f'<path class="key {slot or "whole"}" d="M{x} {28 - STRIP}h18"/>'
                f'<text class="layer-name" x="{x + 24}" y="{32 - STRIP}">{SLOT_NAMES[slot]}</text>'
            )
            x += 44 + 7 * len(SLOT_NAMES[slot])
    return "".join(parts)


def _style() -> str:
    rules = [
        f"text{{font:600 12px {FONT};text-anchor:middle;fill:{INK}}}",
        "text.token{font-weight:400;font-size:10px}",
        f"text.layer-name{{font-weight:400;text-anchor:start;fill:{NEUTRAL}}}",
        "text.tag{font-size:9px;fill:#FFFFFF}",
        f".band{{fill:{GRID};fill-opacity:.4}}",
        ".edge{stroke-opacity:.6;stroke-linecap:round}",
        ".edge.negative{stroke-dasharray:5 4}",
        ".key{stroke-width:3;stroke-linecap:round}",
        f"text.title{{font-size:14px;text-anchor:start;fill:{NEUTRAL}}}",
        *(f".{slot or 'whole'}{{stroke:{colour}}}" for slot, colour in SLOT_COLOURS.items()),
        ".overview text{font-size:9.5px}",
        ".overview .band.plain{fill:none}",
        ".sign,.kcircuit .whole-name,.kcircuit .role-word,.kcircuit .overview text.token{display:none}",
        f".overview .lane rect{{fill:{GRID};stroke:none}}",
        f".overview .lane text{{fill:{NEUTRAL}}}",
        f".overview .node.resting rect{{fill:#FFFFFF;stroke-dasharray:2 2;stroke:{NEUTRAL}}}",
        *(
            f".node.{name} rect{{fill:{fill};stroke:{outline}}}.node.{name} rect.tag{{fill:{outline}}}"
            for name, (fill, outline) in FILLS.items()
        ),
    ]
    # Style inside a notebook's page reaches all of it: every rule is bound to the picture.
    return "".join(".kcircuit " + rule.replace("}.node", "}.kcircuit .node") for rule in rules)

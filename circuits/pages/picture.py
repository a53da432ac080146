"""A circuit as one SVG picture with its own style: what a notebook shows, with no script and no graphviz."""

from collections.abc import Mapping, Sequence

from circuits.analysis.lens import NodeReadout
from circuits.analysis.roles import Role
from circuits.circuit import Circuit
from circuits.graph import Edge, Node
from circuits.pages.drawing import circuit_svg
from circuits.pages.layout import place
from circuits.pages.style import FILLS, FONT, GRID, NEUTRAL, SLOT_COLOURS, strongest

MOST = 400
"""Edges drawn at most, the strongest: a notebook keeps its pictures."""

INK = "#16191E"


def circuit_picture(
    circuit: Circuit, readouts: Sequence[NodeReadout] = (), roles: Mapping[Node, Role] | None = None
) -> str:
    """The SVG text: nodes by kind and role, each with the token it promotes; edges by the slot that reads them.

    At most `MOST` edges are drawn, the strongest. The same circuit gives the same text.
    """
    edges = strongest(circuit, MOST)
    layout = place(circuit, edges)
    promoted = {readout.node: readout.promoted[0].token for readout in readouts if readout.promoted}

    def edge_class(edge: Edge) -> str:
        return (edge.reader.slot or "whole") + (" negative" if circuit.score(edge) < 0 else "")

    drawn = circuit_svg(
        circuit,
        layout,
        tuple(sorted(layout.places)),
        edges,
        label=str(circuit),
        edge_class=edge_class,
        words=lambda node: [("", promoted[node])] if node in promoted else (),
        roles=roles,
    )
    opening, _, rest = drawn.partition(">")
    return f'{opening} xmlns="http://www.w3.org/2000/svg" class="kcircuit" style="max-width:900px"><style>{_style()}</style>{rest}'


def _style() -> str:
    rules = [
        f"text{{font:600 12px {FONT};text-anchor:middle;fill:{INK}}}",
        "text.token{font-weight:400;font-size:10px}",
        f"text.layer-name{{font-weight:400;text-anchor:start;fill:{NEUTRAL}}}",
        "text.tag{font-size:9px;fill:#FFFFFF}",
        f".band{{fill:{GRID};fill-opacity:.4}}",
        ".edge{stroke-opacity:.6;stroke-linecap:round}",
        ".edge.negative{stroke-dasharray:5 4}",
        *(f".edge.{slot or 'whole'}{{stroke:{colour}}}" for slot, colour in SLOT_COLOURS.items()),
        *(
            f".node.{name} rect{{fill:{fill};stroke:{outline}}}.node.{name} rect.tag{{fill:{outline}}}"
            for name, (fill, outline) in FILLS.items()
        ),
    ]
    # Style inside a notebook's page reaches all of it: every rule is bound to the picture.
    return "".join(".kcircuit " + rule.replace("}.node", "}.kcircuit .node") for rule in rules)

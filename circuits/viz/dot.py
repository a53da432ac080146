"""A circuit as graphviz text, and that text as SVG."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence

from circuits.analysis.lens import NodeReadout
from circuits.analysis.roles import Role
from circuits.circuit import Circuit
from circuits.graph import Node
from circuits.viz.style import (
    KIND_COLOURS,
    ROLE_COLOURS,
    SLOT_COLOURS,
    pen_widths,
    printable,
    score_text,
    score_unit,
    short_token,
)


def circuit_to_dot(
    circuit: Circuit, readouts: Sequence[NodeReadout] = (), title: str = "", roles: Mapping[Node, Role] | None = None
) -> str:
    """Graphviz text of the circuit: input at the bottom, one rank a layer, one line an edge in the circuit's order.

    A node shows the paper's name and, if it is among ``readouts``, the token it promotes most. An edge's colour tells the
    slot that reads it (q, k, v, or a whole input), its pen width the square root of its |score|, its dash a negative
    score; its tooltip says name and score in nats.
    Heads with a role among ``roles`` have its colour, and their tooltip names it. The same circuit gives the same bytes.
    """
    promoted = {readout.node: readout.promoted[0].token for readout in readouts if readout.promoted}
    lines = [
        "digraph circuit {",
        '  graph [rankdir=BT, ranksep=0.7, nodesep=0.18, outputorder=edgesfirst, bgcolor="transparent", '
        f'fontname="Helvetica", labelloc=t, label={_quote(title)}];',
        '  node [shape=box, style="rounded,filled", penwidth=0, fontname="Helvetica", fontsize=12, margin="0.1,0.05"];',
        "  edge [arrowsize=0.5];",
    ]
    layers: dict[int, list[Node]] = {}
    for node in circuit.nodes:
        layers.setdefault(node.layer, []).append(node)
    for layer, nodes in layers.items():
        lines.append("  {")
        lines.append("    rank=same;")
        layer_label = f"Layer {layer}" if 0 <= layer < circuit.graph.shape.n_layers else ""
        lines.append(
            f'    "layer {layer}" [shape=plaintext, style="", fontcolor="#747C88", label={_quote(layer_label)}];'
        )
        for node in nodes:
            label = _escape(node.label)
            if node in promoted:
                label += "\\n" + _escape(short_token(promoted[node]))
            role = (roles or {}).get(node)
            colour = KIND_COLOURS[node.kind] if role is None else ROLE_COLOURS[role]
            tip = "" if role is None else f", tooltip={_quote(f'{node.label}, {role} head')}"
            lines.append(f'    "{node.name}" [fillcolor="{colour}", label="{label}"{tip}];')
        lines.append("  }")
    if len(layers) > 1:
        # Unseen, but it holds the layers in order where no edge of the circuit does.
        lines.append("  " + " -> ".join(f'"layer {layer}"' for layer in layers) + " [style=invis];")
    for edge, width in zip(circuit.edges, pen_widths(circuit, circuit.edges), strict=True):
        score = circuit.score(edge)
        dash = ", style=dashed" if score < 0 else ""
        tip = _quote(f"{edge.name}  {score_text(score, score_unit(circuit))}")
        lines.append(
            f'  "{edge.writer.name}" -> "{edge.reader.node.name}" '
            f'[color="{SLOT_COLOURS[edge.reader.slot]}", penwidth={width:.2f}{dash}, tooltip={tip}];'
        )
    return "\n".join([*lines, "}", ""])


def render_svg(dot_text: str) -> str | None:
    """The drawing as SVG text, by graphviz' ``dot``; None where that program is not installed.

    Graphviz' time grows fast with the number of edges: a few hundred take seconds, many thousand may not end.

    Raises:
        ValueError: ``dot`` refuses the text.
    """
    program = shutil.which("dot")
    if program is None:
        return None
    done = subprocess.run([program, "-Tsvg"], input=dot_text.encode(), capture_output=True, check=False)
    if done.returncode:
        raise ValueError(f"expected graphviz text, and `dot` says: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()


def _escape(text: str) -> str:
    """Text inside a quoted label: graphviz reads backslashes, quotes and HTML entities there."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _quote(text: str) -> str:
    return f'"{_escape(text)}"'

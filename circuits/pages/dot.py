"""A circuit as graphviz text, for other tools, and that text as PNG."""

import html
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from circuits.analysis.lens import NodeReadout
from circuits.analysis.roles import Role
from circuits.circuit import Circuit
from circuits.graph import Node, NodeKind
from circuits.pages.style import (
    FILLS,
    NEUTRAL,
    ROLE_COLOURS,
    SLOT_COLOURS,
    SLOT_NAMES,
    node_words,
    pen_widths,
    printable,
    score_text,
    score_unit,
)

FONT = "Helvetica,Arial,sans-serif"

KINDS: tuple[tuple[NodeKind, str], ...] = (
    ("head", "attention head"),
    ("mlp", "MLP"),
    ("bypass", "edit's bypass"),
    ("input", "input"),
    ("logits", "logits"),
)


def circuit_to_dot(
    circuit: Circuit, readouts: Sequence[NodeReadout] = (), title: str = "", roles: Mapping[Node, Role] | None = None
) -> str:
    """Graphviz text of the circuit: input at the bottom, one rank a sub-layer, one line an edge in the circuit's order.

    A node shows the paper's name, a head with a role among ``roles`` that role and its colour, and a node among ``readouts``
    its words (`node_words`). An edge's colour tells the slot that reads it (q, k, v, or a whole input), its pen width the
    square root of its |score|, its dash a negative score; its tooltip says name and score in nats. A legend names the colours.
    The same circuit gives the same bytes.
    """
    named = roles or {}
    words = node_words(readouts)
    lines = [
        "digraph circuit {",
        '  graph [rankdir=BT, ranksep=0.45, nodesep=0.15, outputorder=edgesfirst, bgcolor="white", pad=0.2, '
        f'fontname="{FONT}", labelloc=t, label={_heading(circuit, title, named)}];',
        f'  node [shape=box, style="rounded,filled", penwidth=1.2, fontname="{FONT}", fontsize=12, margin="0.08,0.04", height=0.3];',
        "  edge [arrowsize=0.5];",
    ]
    ranks: dict[tuple[int, bool], list[Node]] = {}
    for node in circuit.nodes:
        ranks.setdefault((node.layer, node.kind == "head"), []).append(node)
    seen: set[int] = set()
    for (layer, heads), nodes in ranks.items():
        lines.append("  {")
        lines.append("    rank=same;")
        first = layer not in seen and 0 <= layer < circuit.graph.shape.n_layers
        seen.add(layer)
        lines.append(
            f'    {_mark(layer, heads)} [shape=plaintext, style="", fontcolor="{NEUTRAL}", '
            f"label={_quote(f'Layer {layer}' if first else '')}];"
        )
        for node in nodes:
            role = named.get(node)
            label = _escape(node.label if role is None else f"{node.label} {role}")
            if node in words:
                label += "\\n" + _escape(words[node])
            fill, outline = FILLS[role or node.kind]
            # Nodes of one group stand above each other where they can.
            group = "" if node.kind == "head" else ", group=spine"
            tip = _quote(f"{node.label}, {role} head" if role else node.label)
            lines.append(
                f'    "{node.name}" [fillcolor="{fill}", color="{outline}", label="{label}", tooltip={tip}{group}];'
            )
        lines.append("  }")
    if len(ranks) > 1:
        # Unseen, but it holds the ranks in order where no edge of the circuit does.
        lines.append("  " + " -> ".join(_mark(*rank) for rank in ranks) + " [style=invis];")
    for edge, width in zip(circuit.edges, pen_widths(circuit, circuit.edges), strict=True):
        score = circuit.score(edge)
        dash = ", style=dashed" if score < 0 else ""
        tip = _quote(f"{edge.label}  {score_text(score, score_unit(circuit))}")
        lines.append(
            f'  "{edge.writer.name}" -> "{edge.reader.node.name}" '
            f'[color="{SLOT_COLOURS[edge.reader.slot]}", penwidth={width:.2f}{dash}, tooltip={tip}];'
        )
    return "\n".join([*lines, "}", ""])


def _mark(layer: int, heads: bool) -> str:
    return f'"layer {layer} {"heads" if heads else "rest"}"'


def _heading(circuit: Circuit, title: str, roles: Mapping[Node, Role]) -> str:
    """The title over a legend of the colours that occur, as graphviz' own HTML."""
    present = [roles.get(node) or node.kind for node in circuit.nodes]
    kinds = [(FILLS[kind], name) for kind, name in KINDS if kind in present]
    told = [(FILLS[role], f"{role} head") for role in ROLE_COLOURS if role in present]
    cells = [
        f'<td bgcolor="{fill}" color="{outline}" border="1" style="rounded">{name}</td>'
        for (fill, outline), name in [*kinds, *told]
    ]
    slots = {edge.reader.slot for edge in circuit.edges}
    cells += [
        f'<td><font color="{colour}">&#9473; {SLOT_NAMES[slot]}</font></td>'
        for slot, colour in SLOT_COLOURS.items()
        if slot in slots
    ]
    rows = []
    if title:
        rows.append(
            f'<tr><td colspan="{max(len(cells), 1)}"><font point-size="16">{html.escape(printable(title))}</font></td></tr>'
        )
    if cells:
        rows.append(f"<tr>{''.join(cells)}</tr>")
    table = f'<table border="0" cellborder="0" cellspacing="6" cellpadding="3">{"".join(rows)}</table>'
    return f"<{table}>" if rows else '""'


def render_png(dot_text: str, *, dpi: int = 144) -> bytes | None:
    """The drawing as a PNG picture, by graphviz' ``dot``; None where that program is not installed.

    Graphviz' time grows fast with the number of edges: a few hundred take seconds, many thousand may not end.

    Raises:
        ValueError: ``dot`` refuses the text.
    """
    program = shutil.which("dot")
    if program is None:
        return None
    options = ("-Tpng", f"-Gdpi={dpi}")
    done = subprocess.run([program, *options], input=dot_text.encode(), capture_output=True, check=False)
    if done.returncode:
        raise ValueError(f"expected graphviz text, and `dot` says: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _escape(text: str) -> str:
    """Text inside a quoted label: graphviz reads backslashes, quotes and HTML entities there."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _quote(text: str) -> str:
    return f'"{_escape(text)}"'

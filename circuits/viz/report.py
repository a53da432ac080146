"""One run as one HTML file that opens from disk, offline: the circuit to click through, the plots, the settings."""

from collections.abc import Iterable
from dataclasses import dataclass
from string import Template
from typing import Any

from circuits.analysis.lens import NodeReadout, TokenScore, Trajectory
from circuits.analysis.reading import Reading
from circuits.analysis.roles import Role
from circuits.analysis.story import Sentence
from circuits.circuit import Circuit
from circuits.discovery import METHODS
from circuits.graph import Edge, Node
from circuits.viz.layout import HALF_HEIGHT, HALF_WIDTH, Layout, Point, place
from circuits.viz.page import (
    COLUMN,
    GUTTER,
    MARGIN,
    ROW,
    asset,
    bands,
    figure_values,
    json_text,
    number,
    packed_plotly,
    pairs,
    plain,
    plotly_version,
)
from circuits.viz.plots import KIND_NAMES, MAX_DRAWN, layer_activity, trajectory_plot
from circuits.viz.story import heads_section, role_keys, story_section
from circuits.viz.style import (
    SLOT_COLOURS,
    SLOT_NAMES,
    pen_widths,
    printable,
    score_unit,
    short_token,
    strongest,
    token_text,
)


@dataclass(frozen=True)
class Page:
    """What one page shows. ``numbers`` and ``settings`` are (name, value) pairs, shown as they stand."""

    title: str
    """The fact, as a heading."""
    subtitle: str
    circuit: Circuit
    readouts: tuple[NodeReadout, ...]
    trajectory: Trajectory
    answer: str
    """The answer's first token, leading space kept."""
    numbers: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    command: str
    """What a reader types to make the page again."""
    reading: Reading | None = None
    """What heads and MLPs do for this fact, where it was asked for."""
    story: tuple[Sentence, ...] = ()


def render(page: Page) -> str:
    """The page as one HTML text that loads nothing: styles, scripts, values and plotly.js are inside.

    The same page gives the same bytes. Every string of ``page`` is shown as text, never read as markup.
    A circuit of more than `MAX_DRAWN` edges shows the strongest, and says so.
    """
    edges = strongest(page.circuit, MAX_DRAWN)
    layout = place(page.circuit, edges)
    nodes = tuple(sorted(layout.places))
    return Template(asset("page.html")).substitute(
        title=plain(page.title),
        subtitle=plain(page.subtitle),
        model=plain(page.circuit.provenance.model),
        cards=pairs(page.numbers),
        summary=_summary(page),
        story=story_section(page.story),
        heads=heads_section(page.reading, page.circuit.nodes),
        slots=_slot_boxes(edges),
        caption=_caption(page, len(edges)),
        svg=_drawing(page, layout, nodes, edges),
        trajectory_caption=_trajectory_caption(page),
        trajectory_label=plain(_trajectory_sentence(page)),
        activity_label=plain(_activity_sentence(page.circuit)),
        unit=_unit_heading(page.circuit),
        settings=pairs(page.settings),
        command=plain(page.command, keep_newlines=True),
        plotly_version=plain(plotly_version()),
        css=asset("page.css"),
        js=asset("page.js"),
        data=json_text(_data(page, nodes, edges)),
        plotly=packed_plotly(),
    )


# ---- text ------------------------------------------------------------------------------------------------------------


def _summary(page: Page) -> str:
    circuit = page.circuit
    percent = 100 * circuit.n_edges / circuit.graph.n_edges
    share = f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
    heads, mlps = sum(circuit.nodes_per_layer("head")), sum(circuit.nodes_per_layer("mlp"))
    shape = circuit.graph.shape
    return (
        f"The circuit keeps {circuit.n_edges:,} of the model’s {circuit.graph.n_edges:,} edges ({share} %) and passes "
        f"through {heads:,} of its {shape.n_layers * shape.n_heads:,} attention heads and {mlps:,} of its "
        f"{shape.n_layers:,} MLPs. {plain(_trajectory_sentence(page))}"
    )


def _trajectory_sentence(page: Page) -> str:
    answer, trajectory = page.answer.strip(), page.trajectory
    if trajectory.decided is not None:
        return (
            f"In the whole model, “{answer}” comes first among all tokens from {trajectory.decided} on, "
            f"with a final probability of {trajectory.probabilities[-1]:.3g}."
        )
    if not trajectory.ranks:
        return "No trajectory was measured."
    return (
        f"In the whole model, “{answer}” ends at rank {trajectory.ranks[-1]:,}, "
        f"with a probability of {trajectory.probabilities[-1]:.3g}."
    )


def _trajectory_caption(page: Page) -> str:
    return (
        f"Rank and probability of “{plain(page.answer.strip())}” when the residual stream at the prompt’s end is read as "
        "tokens (logit lens) after every attention and MLP block. Rank 1 is on top."
    )


def _activity_sentence(circuit: Circuit) -> str:
    heads, mlps, of = circuit.nodes_per_layer("head"), circuit.nodes_per_layer("mlp"), circuit.graph.shape.n_heads
    parts = [f"layer {i}: {n} of {of} heads, {m} of 1 MLP" for i, (n, m) in enumerate(zip(heads, mlps, strict=True))]
    return "Components used: " + "; ".join(parts)


def _roles(page: Page) -> dict[Node, Role]:
    """Heads with an established role."""
    roles = page.reading.roles if page.reading else None
    return {verdict.head: verdict.role for verdict in roles.labelled} if roles else {}


def _unit_heading(circuit: Circuit) -> str:
    unit = score_unit(circuit)
    return f", {unit}" if unit else ""


def _score_sentence(circuit: Circuit) -> str:
    method = METHODS.get(circuit.provenance.method)
    return plain(method.score) if method else "as its method gave it"


def _caption(page: Page, drawn: int) -> str:
    total = page.circuit.n_edges
    some = f" <strong>The {drawn:,} strongest of {total:,} edges are drawn.</strong>" if drawn < total else ""
    bypass = [("bypass", KIND_NAMES["bypass"])] if page.circuit.graph.shape.bypasses else []
    keys = "".join(
        f'<span class="key {kind}"></span>{name}'
        for kind, name in (("head", "attention head"), ("mlp", "MLP"), *bypass, ("ends", "input and logits"))
    )
    keys += role_keys([role for node, role in _roles(page).items() if node in page.circuit.nodes])
    return (
        f"{keys}. Information flows upwards. An edge is what one component writes as another reads it; the "
        f"wider, the larger its score (dashed: negative), {_score_sentence(page.circuit)}. "
        f"A component’s second line is the token it promotes most. Click one to see more.{some}"
    )


# ---- the drawing -----------------------------------------------------------------------------------------------------


def _drawing(page: Page, layout: Layout, nodes: tuple[Node, ...], edges: tuple[Edge, ...]) -> str:
    if not edges:
        return '<svg viewBox="0 0 600 80" role="img" aria-label="No edges"><text class="layer-name" x="20" y="44">This circuit has no edges.</text></svg>'  # noqa: E501
    curves = [layout.curve(edge) for edge in edges]
    right = max([layout.spine + 0.5, *(layout.right(edge) + 0.1 for edge in edges)])
    width, height = GUTTER + right * COLUMN + MARGIN, len(layout.rows) * ROW + 2.0 * MARGIN

    def pixel(point: Point) -> str:
        return f"{GUTTER + point[0] * COLUMN:.0f} {height - MARGIN - (point[1] + 0.5) * ROW:.0f}"

    parts = [
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="group" aria-label="The circuit, input at the bottom. '
        'Its components are listed beside it.">',
        *bands(page.circuit, layout, width, height),
        '<g fill="none">',
    ]
    for edge, curve, pen in zip(edges, curves, pen_widths(page.circuit, edges), strict=True):
        start, *rest = (pixel(point) for point in curve)
        negative = " negative" if page.circuit.score(edge) < 0 else ""
        parts.append(
            f'<path class="edge {edge.reader.slot or "whole"}{negative}" d="M{start}C{" ".join(rest)}" '
            f'stroke-width="{pen:.2g}"/>'
        )
    parts.append("</g>")
    promoted = {readout.node: readout.promoted[0].token for readout in page.readouts if readout.promoted}
    roles = _roles(page)
    wide, tall = 2 * HALF_WIDTH * COLUMN, 2 * HALF_HEIGHT * ROW
    for node in nodes:
        token = promoted.get(node)
        second = "" if token is None else f'<text class="token" y="12">{plain(short_token(token))}</text>'
        parts.append(
            f'<g class="node {node.kind} {roles.get(node, "")}" transform="translate({pixel(layout.places[node])})">'
            f'<rect x="{-wide / 2:.1f}" y="{-tall / 2:.1f}" width="{wide:.1f}" height="{tall:.1f}" rx="8"/>'
            f'<text y="{4 if token is None else -1}">{node.label}</text>{second}</g>'
        )
    return "\n".join([*parts, "</svg>"])


def _slot_boxes(edges: tuple[Edge, ...]) -> str:
    present = {edge.reader.slot for edge in edges}
    return "\n".join(
        f'<label class="{slot or "whole"}"><input type="checkbox" value="{slot or ""}" checked>'
        f'<span class="swatch"></span>{SLOT_NAMES[slot]}</label>'
        for slot in SLOT_COLOURS
        if slot in present
    )


# ---- values for the page's script ------------------------------------------------------------------------------------


def _data(page: Page, nodes: tuple[Node, ...], edges: tuple[Edge, ...]) -> dict[str, Any]:
    lens = {readout.node: readout for readout in page.readouts}
    heads = _heads(page)
    index = {node: i for i, node in enumerate(nodes)}
    return {
        "answer": token_text(page.answer),
        "unit": score_unit(page.circuit),
        "nodes": [
            {
                "name": node.name,
                "label": node.label,
                "kind": KIND_NAMES[node.kind],
                "lens": _lens(lens[node], page.answer) if node in lens else None,
                "head": heads.get(node),
            }
            for node in nodes
        ],
        "edges": [
            {
                "from": index[edge.writer],
                "to": index[edge.reader.node],
                "slot": edge.reader.slot or "",
                "score": number(page.circuit.score(edge)),
            }
            for edge in edges
        ],
        "trajectory": {
            "labels": [printable(label) for label in page.trajectory.labels],
            "ranks": list(page.trajectory.ranks),
            "probabilities": [number(value) for value in page.trajectory.probabilities],
        },
        "plots": {
            "trajectory": figure_values(trajectory_plot(page.trajectory, page.answer), height=440),
            "activity": figure_values(layer_activity(page.circuit), height=440),
        },
    }


def _heads(page: Page) -> dict[Node, dict[str, Any]]:
    """For every head with a role: its verdict, and its attention over this prompt."""
    if page.reading is None or page.reading.roles is None:
        return {}
    tokens = [token_text(token) for token in page.reading.tokens]
    return {
        each.head: {
            "role": each.role,
            "verdict": printable(str(page.reading.roles.of(each.head))),
            "attention": [[token, number(weight)] for token, weight in zip(tokens, each.attention, strict=True)],
        }
        for each in page.reading.heads
    }


def _lens(readout: NodeReadout, answer: str) -> dict[str, Any]:
    def rows(entries: Iterable[TokenScore]) -> list[list[object]]:
        return [[token_text(entry.token), round(entry.logit, 3), entry.token == answer] for entry in entries]

    return {
        "rank": readout.answer_rank,
        "probability": number(readout.answer_probability),
        "promoted": rows(readout.promoted),
        "suppressed": rows(readout.suppressed),
    }

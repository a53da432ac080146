"""One run as one HTML file that opens from disk, offline: the circuit to click through, the plots, the settings."""

import base64
import html
import json
import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from circuits.analysis.lens import NodeReadout, TokenScore, Trajectory
from circuits.circuit import Circuit
from circuits.graph import Edge, Node
from circuits.viz.layout import HALF_HEIGHT, HALF_WIDTH, Layout, Point, place
from circuits.viz.plots import KIND_NAMES, MAX_DRAWN, layer_activity, trajectory_plot
from circuits.viz.style import (
    SCORE_UNIT,
    SLOT_COLOURS,
    SLOT_NAMES,
    pen_widths,
    printable,
    short_token,
    strongest,
    token_text,
)

COLUMN, ROW = 76, 60
"""Pixels of one column and one row of the layout."""

GUTTER, MARGIN = 74, 14
"""Pixels left of the heads for the layers' names, and on the other sides."""


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


def render(page: Page) -> str:
    """The page as one HTML text that loads nothing: styles, scripts, values and plotly.js are inside.

    The same page gives the same bytes. Every string of ``page`` is shown as text, never read as markup.
    A circuit of more than `MAX_DRAWN` edges shows the strongest, and says so.
    """
    edges = strongest(page.circuit, MAX_DRAWN)
    layout = place(page.circuit, edges)
    nodes = tuple(sorted(layout.places))
    return Template(_asset("page.html")).substitute(
        title=_text(page.title),
        subtitle=_text(page.subtitle),
        model=_text(page.circuit.provenance.model),
        cards=_pairs(page.numbers),
        summary=_summary(page),
        slots=_slot_boxes(edges),
        caption=_caption(page, len(edges)),
        svg=_drawing(page, layout, nodes, edges),
        trajectory_caption=_trajectory_caption(page),
        trajectory_label=_text(_trajectory_sentence(page)),
        activity_label=_text(_activity_sentence(page.circuit)),
        unit=SCORE_UNIT,
        settings=_pairs(page.settings),
        command=_text(page.command, keep_newlines=True),
        plotly_version=_text(_plotly_version()),
        css=_asset("page.css"),
        js=_asset("page.js"),
        data=_json(_data(page, nodes, edges)),
        plotly=_packed_plotly(),
    )


# ---- text ------------------------------------------------------------------------------------------------------------


def _text(text: str, *, keep_newlines: bool = False) -> str:
    lines = text.split("\n") if keep_newlines else [text]
    return html.escape("\n".join(printable(line) for line in lines))


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in pairs)


def _summary(page: Page) -> str:
    circuit = page.circuit
    percent = 100 * circuit.n_edges / circuit.graph.n_edges
    share = f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
    heads, mlps = sum(circuit.nodes_per_layer("head")), sum(circuit.nodes_per_layer("mlp"))
    shape = circuit.graph.shape
    return (
        f"The circuit keeps {circuit.n_edges:,} of the model’s {circuit.graph.n_edges:,} edges ({share} %) and passes "
        f"through {heads:,} of its {shape.n_layers * shape.n_heads:,} attention heads and {mlps:,} of its "
        f"{shape.n_layers:,} MLPs. {_text(_trajectory_sentence(page))}"
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
        f"Rank and probability of “{_text(page.answer.strip())}” when the residual stream at the prompt’s end is read as "
        "tokens (logit lens) after every attention and MLP block. Rank 1 is on top."
    )


def _activity_sentence(circuit: Circuit) -> str:
    heads, mlps, of = circuit.nodes_per_layer("head"), circuit.nodes_per_layer("mlp"), circuit.graph.shape.n_heads
    parts = [f"layer {i}: {n} of {of} heads, {m} of 1 MLP" for i, (n, m) in enumerate(zip(heads, mlps, strict=True))]
    return "Components used: " + "; ".join(parts)


def _caption(page: Page, drawn: int) -> str:
    total = page.circuit.n_edges
    some = f" <strong>The {drawn:,} strongest of {total:,} edges are drawn.</strong>" if drawn < total else ""
    keys = "".join(
        f'<span class="key {kind}"></span>{name}'
        for kind, name in (("head", "attention head"), ("mlp", "MLP"), ("ends", "input and logits"))
    )
    return (
        f"{keys}. Information flows upwards. An edge is what one component writes as another reads it; the "
        "wider, the larger its score (dashed: negative), the rise of the answer’s negative log-likelihood when the edge is "
        f"cut. A component’s second line is the token it promotes most. Click one to see more.{some}"
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
        *_bands(page.circuit, layout, width, height),
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
    wide, tall = 2 * HALF_WIDTH * COLUMN, 2 * HALF_HEIGHT * ROW
    for node in nodes:
        token = promoted.get(node)
        second = "" if token is None else f'<text class="token" y="12">{_text(short_token(token))}</text>'
        parts.append(
            f'<g class="node {node.kind}" transform="translate({pixel(layout.places[node])})">'
            f'<rect x="{-wide / 2:.1f}" y="{-tall / 2:.1f}" width="{wide:.1f}" height="{tall:.1f}" rx="8"/>'
            f'<text y="{4 if token is None else -1}">{node.label}</text>{second}</g>'
        )
    return "\n".join([*parts, "</svg>"])


def _bands(circuit: Circuit, layout: Layout, width: float, height: float) -> Iterable[str]:
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
    index = {node: i for i, node in enumerate(nodes)}
    return {
        "answer": token_text(page.answer),
        "unit": SCORE_UNIT,
        "nodes": [
            {
                "name": node.name,
                "label": node.label,
                "kind": KIND_NAMES[node.kind],
                "lens": _lens(lens[node], page.answer) if node in lens else None,
            }
            for node in nodes
        ],
        "edges": [
            {
                "from": index[edge.writer],
                "to": index[edge.reader.node],
                "slot": edge.reader.slot or "",
                "score": _number(page.circuit.score(edge)),
            }
            for edge in edges
        ],
        "trajectory": {
            "labels": [printable(label) for label in page.trajectory.labels],
            "ranks": list(page.trajectory.ranks),
            "probabilities": [_number(value) for value in page.trajectory.probabilities],
        },
        "plots": {
            "trajectory": _figure(trajectory_plot(page.trajectory, page.answer), height=440),
            "activity": _figure(layer_activity(page.circuit), height=440),
        },
    }


def _lens(readout: NodeReadout, answer: str) -> dict[str, Any]:
    def rows(entries: Iterable[TokenScore]) -> list[list[object]]:
        return [[token_text(entry.token), round(entry.logit, 3), entry.token == answer] for entry in entries]

    return {
        "rank": readout.answer_rank,
        "probability": _number(readout.answer_probability),
        "promoted": rows(readout.promoted),
        "suppressed": rows(readout.suppressed),
    }


def _figure(figure: go.Figure, *, height: int) -> dict[str, Any]:
    """The figure as plain values, without the title and with the margins that the page's own heading makes possible."""
    figure = figure.update_layout(title=None, height=height, margin={"t": 36, "r": 8})
    content = json.loads(str(figure.to_json(engine="json")))
    return {"data": content["data"], "layout": content["layout"]}


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _json(value: object) -> str:
    """JSON that may stand inside a script element: no character of it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# ---- assets ----------------------------------------------------------------------------------------------------------


@cache
def _asset(name: str) -> str:
    return files("circuits.viz").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _packed_plotly() -> str:
    """plotly.js as base64 of a zlib stream: 2 MB in place of 4.8. The page's script unpacks it."""
    return base64.b64encode(zlib.compress(get_plotlyjs().encode(), 9)).decode()


def _plotly_version() -> str:
    match = re.search(r"plotly\.js v([\d.]+)", get_plotlyjs()[:400])
    return match[1] if match else ""

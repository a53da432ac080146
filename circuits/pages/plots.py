"""Values to plotly figures, for notebooks and for the page: the circuit, the answer's trajectory, each layer's part."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from circuits.analysis.lens import NodeReadout, Trajectory
from circuits.analysis.roles import Role
from circuits.circuit import Circuit
from circuits.graph import Edge, Node, NodeKind
from circuits.pages.layout import HALF_HEIGHT, HALF_WIDTH, Layout, Point, place
from circuits.pages.style import (
    FILLS,
    GRID,
    KIND_COLOURS,
    NEUTRAL,
    ROLE_COLOURS,
    SLOT_COLOURS,
    SLOT_NAMES,
    TEMPLATE,
    pen_widths,
    plotly_text,
    score_text,
    score_unit,
    short_token,
    strongest,
    token_text,
)

MAX_DRAWN = 5000
"""Edges drawn at most, the strongest: a picture of more says nothing, and stalls the browser."""

WIDTH_STEPS = 5
"""Plotly draws one width a trace, so edges come in this many widths."""

CURVE_STEPS = 20

KIND_NAMES: dict[NodeKind, str] = {
    "input": "input",
    "head": "attention head",
    "mlp": "MLP",
    "bypass": "edit's bypass",
    "logits": "logits",
}


def circuit_graph(
    circuit: Circuit, readouts: Sequence[NodeReadout] = (), roles: Mapping[Node, Role] | None = None
) -> go.Figure:
    """The circuit, input at the bottom: nodes by kind, edges by the slot that reads them, wider the larger |score|, dashed if negative.

    Hover on a node for its name, the tokens it promotes, the answer's rank there and its edges; on the middle of an edge
    for its name and score in nats. The legend toggles each slot. At most MAX_DRAWN edges, the strongest; the title says so.
    Heads with a role among ``roles`` have its colour.
    """
    edges = strongest(circuit, MAX_DRAWN)
    layout = place(circuit, edges)
    figure = go.Figure(layout={"template": TEMPLATE})
    widths = pen_widths(circuit, edges)
    top = max(widths, default=1.0)
    for slot, colour in SLOT_COLOURS.items():
        own = [(edge, width) for edge, width in zip(edges, widths, strict=True) if edge.reader.slot == slot]
        if not own:
            continue
        name = f"{slot} ({SLOT_NAMES[slot]})" if slot else SLOT_NAMES[slot]
        key = {"color": colour, "width": 3}
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", line=key, legendgroup=str(slot), name=name))
        steps: dict[tuple[int, bool], list[tuple[Edge, float]]] = {}
        for edge, width in own:
            step = math.ceil(WIDTH_STEPS * width / top)
            steps.setdefault((step, circuit.score(edge) < 0), []).append((edge, width))
        for (_, negative), group in steps.items():
            line = {"color": colour, "width": round(group[0][1], 2), "dash": "dash" if negative else "solid"}
            figure.add_trace(_edge_lines(layout, [edge for edge, _ in group], line, str(slot)))
        figure.add_trace(_edge_targets(circuit, layout, [edge for edge, _ in own], colour, str(slot)))
    _add_nodes(figure, circuit, layout, readouts, roles or {})
    drawn = "" if len(edges) == circuit.n_edges else f", the {len(edges):,} strongest edges"
    figure.update_layout(
        title=plotly_text(f"{circuit}{drawn}"),
        hovermode="closest",
        height=160 + 58 * max(len(layout.rows), 4),
        margin={"t": 88},
        xaxis={
            "visible": False,
            "range": [-0.6, max([layout.spine + 0.6, *(layout.right(edge) + 0.1 for edge in edges)])],
        },
        yaxis={
            "tickvals": list(range(len(layout.rows))),
            "ticktext": [_row_name(layer, kind) for layer, kind in layout.rows],
            "showgrid": False,
            "showline": False,
        },
    )
    return figure


def _row_name(layer: int, kind: str) -> str:
    return {"heads": f"L{layer} heads", "mlp": f"L{layer} MLP", "bypass": f"L{layer} bypass"}.get(
        kind, kind.capitalize()
    )


def _bezier(curve: tuple[Point, Point, Point, Point], t: float) -> Point:
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
    return (
        round(sum(weight * point[0] for weight, point in zip(weights, curve, strict=True)), 4),
        round(sum(weight * point[1] for weight, point in zip(weights, curve, strict=True)), 4),
    )


def _edge_lines(layout: Layout, edges: Sequence[Edge], line: dict[str, object], group: str) -> go.Scatter:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for edge in edges:
        curve = layout.curve(edge)
        points = [_bezier(curve, i / CURVE_STEPS) for i in range(CURVE_STEPS + 1)]
        xs += [*(x for x, _ in points), None]
        ys += [*(y for _, y in points), None]
    return go.Scatter(
        x=xs,
        y=ys,
        mode="lines",
        line=line,
        opacity=0.6,
        hoverinfo="skip",
        legendgroup=group,
        showlegend=False,
    )


def _edge_targets(circuit: Circuit, layout: Layout, edges: Sequence[Edge], colour: str, group: str) -> go.Scatter:
    """Unseen points along the edges that carry the hover text: plotly's lines have none of their own."""
    at = (0.3, 0.5, 0.7)
    points = [_bezier(layout.curve(edge), t) for edge in edges for t in at]
    texts = [
        f"<b>{plotly_text(edge.name)}</b><br>{score_text(circuit.score(edge), score_unit(circuit))}"
        for edge in edges
        for _ in at
    ]
    return go.Scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="markers",
        marker={"size": 9, "color": colour, "opacity": 0},
        text=texts,
        hovertemplate="%{text}<extra></extra>",
        hoverlabel={"bgcolor": colour, "font": {"color": "#ffffff"}},
        legendgroup=group,
        showlegend=False,
    )


def _add_nodes(
    figure: go.Figure,
    circuit: Circuit,
    layout: Layout,
    readouts: Sequence[NodeReadout],
    roles: Mapping[Node, Role],
) -> None:
    lens = {readout.node: readout for readout in readouts}
    into, out = Counter(edge.reader.node for edge in circuit.edges), Counter(edge.writer for edge in circuit.edges)
    groups: list[tuple[NodeKind, Role | None]] = [
        *((kind, None) for kind in KIND_COLOURS),
        *(("head", role) for role in ROLE_COLOURS),
    ]
    for kind, role in groups:
        nodes = [node for node in layout.places if node.kind == kind and roles.get(node) == role]
        if not nodes:
            continue
        colour, outline = FILLS[role or kind]
        boxes = _boxes(layout, nodes, colour, outline)
        if role is not None:
            boxes.update(name=f"{role} head", showlegend=True, legendgroup=role)
            figure.add_trace(_role_words(layout, nodes, role))
        figure.add_trace(boxes)
        figure.add_trace(
            go.Scatter(
                x=[layout.places[node][0] for node in nodes],
                y=[layout.places[node][1] for node in nodes],
                mode="markers+text",
                marker={"symbol": "square", "size": 32, "color": colour, "opacity": 0},
                text=[_node_label(node, lens.get(node)) for node in nodes],
                textfont={"size": 10, "color": "#16181d"},
                customdata=[_node_hover(node, lens.get(node), into[node], out[node]) for node in nodes],
                hovertemplate="%{customdata}<extra></extra>",
                hoverlabel={"bgcolor": colour, "font": {"color": "#16181d"}},
                name=KIND_NAMES[kind] if role is None else f"{role} head",
                legendgroup=kind if role is None else role,
                showlegend=False,
            )
        )


def _role_words(layout: Layout, nodes: Sequence[Node], role: Role) -> go.Scatter:
    """The role above its heads' boxes: colour is not alone."""
    return go.Scatter(
        x=[layout.places[node][0] for node in nodes],
        y=[layout.places[node][1] + HALF_HEIGHT + 0.06 for node in nodes],
        mode="text",
        text=[role] * len(nodes),
        textposition="top center",
        textfont={"size": 9, "color": FILLS[role][1]},
        hoverinfo="skip",
        legendgroup=role,
        showlegend=False,
    )


def _boxes(layout: Layout, nodes: Sequence[Node], colour: str, outline: str) -> go.Scatter:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for node in nodes:
        x, y = layout.places[node]
        left, right, low, high = x - HALF_WIDTH, x + HALF_WIDTH, y - HALF_HEIGHT, y + HALF_HEIGHT
        xs += [left, right, right, left, left, None]
        ys += [low, low, high, high, low, None]
    line = {"color": outline, "width": 1.5}
    return go.Scatter(
        x=xs, y=ys, mode="lines", line=line, fill="toself", fillcolor=colour, hoverinfo="skip", showlegend=False
    )


def _node_label(node: Node, readout: NodeReadout | None) -> str:
    top = f"<br>{plotly_text(short_token(readout.promoted[0].token))}" if readout and readout.promoted else ""
    return f"<b>{node.label}</b>{top}"


def _node_hover(node: Node, readout: NodeReadout | None, n_in: int, n_out: int) -> str:
    lines = [f"<b>{node.label}</b>, {KIND_NAMES[node.kind]}", f"{n_in} edges in, {n_out} out"]
    if readout:
        tokens = ", ".join(plotly_text(token_text(entry.token)) for entry in readout.promoted[:10])
        lines += [f"answer at rank {readout.answer_rank:,}", "promotes:", tokens]
    return "<br>".join(lines)


def trajectory_plot(trajectory: Trajectory, answer: str) -> go.Figure:
    """The answer's rank (log axis, 1 on top) and probability after every sub-layer (paper 2, Figure 3).

    A line marks `Trajectory.decided`, the first state from which the answer stays at rank 1.
    """
    states = list(range(len(trajectory.labels)))
    labels = [plotly_text(label) for label in trajectory.labels]
    kinds: list[NodeKind] = [_state_kind(label) for label in trajectory.labels]
    marker = {
        "size": 8,
        "color": [KIND_COLOURS[kind] for kind in kinds],
        "symbol": ["square" if kind == "mlp" else "diamond" if kind == "input" else "circle" for kind in kinds],
        "line": {"width": 0},
    }
    hover = [
        f"<b>{label}</b><br>rank {rank:,}<br>probability {probability:.3g}"
        for label, rank, probability in zip(labels, trajectory.ranks, trajectory.probabilities, strict=True)
    ]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    figure.update_layout(template=TEMPLATE)
    for row, values in ((1, trajectory.ranks), (2, trajectory.probabilities)):
        figure.add_trace(
            go.Scatter(
                x=states,
                y=list(values),
                mode="lines+markers",
                line={"color": NEUTRAL, "width": 1.5},
                marker=marker,
                text=hover,
                hovertemplate="%{text}<extra></extra>",
                showlegend=False,
            ),
            row=row,
            col=1,
        )
    for kind, symbol, name in (("head", "circle", "after attention"), ("mlp", "square", "after MLP")):
        if kind in kinds:
            key = {"size": 9, "color": KIND_COLOURS[kind], "symbol": symbol}
            figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=key, name=name), row=1, col=1)
    decades = math.ceil(math.log10(max(max(trajectory.ranks, default=1), 2)))
    figure.update_yaxes(
        title="rank (log)",
        type="log",
        range=[decades + 0.1, -0.15],
        tickvals=[10**k for k in range(decades + 1)],
        ticktext=[f"{10**k:,}" for k in range(decades + 1)],
        row=1,
        col=1,
    )
    figure.update_yaxes(title="probability", rangemode="tozero", row=2, col=1)
    every = max(1, math.ceil(len(states) / 26))
    figure.update_xaxes(range=[-0.5, len(states) - 0.5], tickvals=states[::every], ticktext=labels[::every])
    figure.update_xaxes(title="state of the residual stream", tickangle=-45, row=2, col=1)
    figure.update_layout(
        title=f"Rank and probability of “{plotly_text(answer.strip())}” after every sub-layer",
        height=480,
        margin={"t": 88},
    )
    if trajectory.decided is not None:
        _mark(figure, trajectory.labels.index(trajectory.decided), plotly_text(trajectory.decided), len(states))
    return figure


def _mark(figure: go.Figure, state: int, label: str, n_states: int) -> None:
    figure.add_vline(x=state, line={"color": SLOT_COLOURS["v"], "width": 1.5, "dash": "dot"})
    late = state > n_states / 2
    figure.add_annotation(
        x=state,
        y=0.03,
        xref="x",
        yref="y domain",
        text=f"at rank 1 from {label} on",
        showarrow=False,
        xanchor="right" if late else "left",
        yanchor="bottom",
        xshift=-6 if late else 6,
        font={"color": SLOT_COLOURS["v"]},
    )


def _state_kind(label: str) -> NodeKind:
    if label.endswith("MLP"):
        return "mlp"
    return "input" if label == "Input" else "head"


def layer_activity(circuit: Circuit) -> go.Figure:
    """The share of each layer's heads, and of its MLP, that the circuit uses, in per cent (paper 2, Figure 2)."""
    shape = circuit.graph.shape
    layers = list(range(shape.n_layers))
    figure = go.Figure(layout={"template": TEMPLATE})
    parts: tuple[tuple[NodeKind, str, tuple[int, ...], int], ...] = (
        ("head", "heads", circuit.nodes_per_layer("head"), shape.n_heads),
        ("mlp", "MLP", circuit.nodes_per_layer("mlp"), 1),
    )
    for kind, name, used, of in parts:
        figure.add_trace(
            go.Bar(
                x=layers,
                y=[100 * count / of for count in used],
                name=name,
                marker={"color": KIND_COLOURS[kind], "line": {"width": 0}},
                text=[f"{count} of {of}" for count in used],
                textposition="none",
                hovertemplate=f"<b>L%{{x}}</b> {name}<br>%{{text}} in the circuit<extra></extra>",
            )
        )
    figure.update_layout(title="Share of each layer in the circuit", height=340, bargap=0.3, margin={"t": 88})
    every = max(1, math.ceil(len(layers) / 26))
    figure.update_xaxes(title="layer", tickvals=layers[::every])
    figure.update_yaxes(title="in the circuit, %", range=[0, 104], tickvals=[0, 25, 50, 75, 100], gridcolor=GRID)
    return figure

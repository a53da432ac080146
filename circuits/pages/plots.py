"""Values to plotly figures, for notebooks and for the page: the answer's trajectory, each layer's part."""

import math
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from circuits.analysis.lens import Trajectory
from circuits.circuit import Circuit
from circuits.graph import NodeKind
from circuits.pages.style import (
    GRID,
    KIND_COLOURS,
    NEUTRAL,
    SLOT_COLOURS,
    TEMPLATE,
    plotly_text,
)

KIND_NAMES: dict[NodeKind, str] = {
    "input": "input",
    "head": "attention head",
    "mlp": "MLP",
    "bypass": "edit's bypass",
    "logits": "logits",
}


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
    figure.update_yaxes(**rank_axis(max(max(trajectory.ranks, default=1), 2)), row=1, col=1)
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


def rank_axis(worst: int) -> dict[str, Any]:
    """A plotly axis of ranks up to ``worst``, at least 2: the first on top, a tick for every power of ten."""
    decades = math.ceil(math.log10(worst))
    return {
        "title": "rank (log)",
        "type": "log",
        "range": [decades + 0.1, -0.15],
        "tickvals": [10**k for k in range(decades + 1)],
        "ticktext": [f"{10**k:,}" for k in range(decades + 1)],
    }


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

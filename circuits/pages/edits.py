"""Figures of what edits did to the weights: heatmaps of |delta W|, spectra against the number of edits, drift of values."""

from collections.abc import Sequence
from itertools import pairwise

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from circuits.editing.diagnostics import Heatmap, UnembeddedChange
from circuits.pages.charts import Panel, line_panels
from circuits.pages.style import NEUTRAL, SLOT_COLOURS, TEMPLATE, plotly_text, token_text
from circuits.studies.sequence import Drift, Trace, principal_plane

SCALE = "Cividis"
"""A colour scale that readers with any colour vision can order."""


def change_heatmap(map_: Heatmap, title: str | None = None) -> go.Figure:
    """|delta W| of one matrix and, below, the share of it in each block of hidden units (paper 0, Figure 6).

    The title says how concentrated it is: the share of the 5 hidden units with most of it, and the Gini coefficient.
    """
    n_units, d_model = map_.shape
    rows, columns = map_.cells.shape
    said = title or map_.matrix
    concentration = f"top 5 hidden units hold {map_.top_share(5):.1%}, Gini {map_.gini:.2f}"
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.75, 0.25], vertical_spacing=0.06)
    units = [round((i + 0.5) * n_units / rows) for i in range(rows)]
    figure.add_trace(
        go.Heatmap(
            z=map_.cells.T.tolist(),
            x=units,
            y=[round((i + 0.5) * d_model / columns) for i in range(columns)],
            colorscale=SCALE,
            colorbar={"title": "|ΔW|", "len": 0.72, "y": 0.66},
            hovertemplate="near hidden unit %{x}, dimension %{y}<br>|ΔW| up to %{z:.3g}<extra></extra>",
        ),
        row=1,
        col=1,
    )
    total = float(map_.columns.sum()) or 1.0
    bounds = [i * n_units // rows for i in range(rows + 1)]
    shares = [100 * float(map_.columns[a:b].sum()) / total for a, b in pairwise(bounds)]
    figure.add_trace(
        go.Bar(
            x=units,
            y=shares,
            marker={"color": NEUTRAL, "line": {"width": 0}},
            hovertemplate="near hidden unit %{x}<br>%{y:.2f} % of the change<extra></extra>",
            showlegend=False,
        ),
        row=2,
        col=1,
    )
    figure.update_layout(template=TEMPLATE, title=f"{plotly_text(said)}: {concentration}", height=480, bargap=0)
    figure.update_yaxes(title="residual stream", row=1, col=1)
    figure.update_yaxes(title="share, %", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title="hidden unit", row=2, col=1)
    return figure


def spectrum_traces(traces: Sequence[Trace], matrix: str | None = None) -> go.Figure:
    """Condition number, singular values, summed delta and locality against the number of edits (paper 1, Figure 2, Table 1).

    Of one edited matrix: the one named, by default the first. Every sequence has one colour.

    Raises:
        ValueError: no traces, or no such matrix.
    """
    names = [spectrum.matrix for trace in traces[:1] for spectrum in trace.points[-1].spectra]
    matrix = names[0] if matrix is None and names else matrix
    if matrix not in names:
        raise ValueError(f"expected one of the edited matrices {', '.join(names) or '(none)'}, got {matrix!r}")
    titles = (
        "condition number",
        "largest singular value",
        "smallest singular value",
        "largest of ΔW",
        "locality, %",
        "success, %",
    )
    figure = make_subplots(rows=2, cols=3, subplot_titles=titles, vertical_spacing=0.16)
    colours = list(SLOT_COLOURS.values())
    for i, trace in enumerate(traces):
        points = [(p, next(s for s in p.spectra if s.matrix == matrix)) for p in trace.points]
        edits = [p.n_edits for p, _ in points]
        panels = (
            [s.condition for _, s in points],
            [s.largest for _, s in points],
            [s.smallest for _, s in points],
            [s.delta_largest for _, s in points],
            [100 * p.locality for p, _ in points],
            [100 * p.success for p, _ in points],
        )
        for j, values in enumerate(panels):
            figure.add_trace(
                go.Scatter(
                    x=edits,
                    y=values,
                    mode="lines+markers",
                    name=plotly_text(trace.name),
                    legendgroup=trace.name,
                    showlegend=j == 0,
                    line={"color": colours[i % len(colours)]},
                    hovertemplate=f"<b>{plotly_text(trace.name)}</b><br>%{{x}} edits: %{{y:.4g}}<extra></extra>",
                ),
                row=j // 3 + 1,
                col=j % 3 + 1,
            )
    figure.update_layout(template=TEMPLATE, title=plotly_text(matrix), height=560, margin={"t": 100})
    figure.update_xaxes(title="edits", rangemode="tozero")
    return figure


def trace_panels(traces: Sequence[Trace]) -> str:
    """The same as SVG text, for pages that run no script: of the matrix whose condition number is the largest.

    Raises:
        ValueError: none, or traces that were not measured after the same numbers of edits.
    """
    labels = tuple(str(point.n_edits) for point in traces[0].points) if traces else ()
    if not traces or any(tuple(str(p.n_edits) for p in trace.points) != labels for trace in traces):
        raise ValueError("expected at least one trace, all measured after the same numbers of edits")
    worst = [[max(p.spectra, key=lambda s: s.condition) for p in trace.points] for trace in traces]

    def panel(
        title: str, y: str, values: Sequence[Sequence[float]], limits: tuple[float, float] | None = None
    ) -> Panel:
        named = {trace.name: tuple(row) for trace, row in zip(traces, values, strict=True)}
        return Panel(title, "edits", y, labels, named, limits=limits)

    return line_panels(
        [
            panel("Condition number", "κ", [[s.condition for s in row] for row in worst]),
            panel("Largest singular value of ΔW", "σ", [[s.delta_largest for s in row] for row in worst]),
            panel("Locality", "%", [[100 * p.locality for p in trace.points] for trace in traces], (0.0, 100.0)),
            panel("Success", "%", [[100 * p.success for p in trace.points] for trace in traces], (0.0, 100.0)),
        ]
    )


def drift_plot(drifts: Sequence[tuple[str, Drift]]) -> go.Figure:
    """The values as stored, and what the matrix gives to the same keys later, in two principal components (paper 1, Figure 5).

    ``drifts`` are (name for the legend, drift), of one sequence of edits: they share their stored values.

    Raises:
        ValueError: none.
    """
    if not drifts:
        raise ValueError("expected at least one drift to draw, got none")
    stored, *later = principal_plane(drifts[0][1].stored, *(drift.later for _, drift in drifts))
    figure = go.Figure(layout={"template": TEMPLATE})
    named = [
        ("as stored", stored),
        *((f"{name}: now", values) for (name, _), values in zip(drifts, later, strict=True)),
    ]
    for name, values in named:
        figure.add_trace(
            go.Scatter(
                x=values[:, 0].tolist(),
                y=values[:, 1].tolist(),
                mode="markers",
                marker={"size": 7, "opacity": 0.75},
                name=plotly_text(name),
                text=[f"edit {i + 1}" for i in range(len(values))],
                hovertemplate="%{text}<extra>" + plotly_text(name) + "</extra>",
            )
        )
    means = ", ".join(f"{plotly_text(name)} {float(drift.distances.mean()):.0%}" for name, drift in drifts)
    figure.update_layout(
        title=f"Stored values, and how far they moved on average: {means}", height=460, margin={"t": 88}
    )
    figure.update_xaxes(title="first principal component")
    figure.update_yaxes(title="second", scaleanchor="x")
    return figure


def change_table(change: UnembeddedChange) -> go.Figure:
    """The changed value vectors before and after, and the directions of delta W, as tokens (paper 0, Figure 7)."""
    rows = [
        (reading.name, when, str(min(reading.ranks)), ", ".join(token_text(token) for token in reading.promoted))
        for when, readings in (("before", change.before), ("after", change.after), ("change", change.directions))
        for reading in readings
    ]
    columns = [[plotly_text(row[i]) for row in rows] for i in range(4)]
    figure = go.Figure(
        go.Table(
            header={"values": ["vector", "of", "best rank of a target", "likeliest tokens"], "align": "left"},
            cells={"values": columns, "align": "left"},
        ),
        layout={"template": TEMPLATE},
    )
    hits = ", ".join(
        f"Hit@{k} {100 * change.hits('before', k)[0]:.0f} → {100 * change.hits('after', k)[0]:.0f} %" for k in (10, 50)
    )
    figure.update_layout(title=f"{plotly_text(change.matrix)}: {hits}", height=160 + 26 * len(rows))
    return figure

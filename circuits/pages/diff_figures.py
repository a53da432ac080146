"""Figures of a diff: where the answers appear, and who writes them."""

import plotly.graph_objects as go

from circuits.pages.plots import rank_axis
from circuits.pages.sides import SideNames
from circuits.pages.style import TEMPLATE, plotly_text
from circuits.studies.diffs import CircuitDiff, Side

WRITERS = (
    ("edited", "edited node", "#CC79A7"),
    ("movers", "mover heads", "#0072B2"),
    ("heads", "other heads", "#56B4E9"),
    ("mlps", "other MLPs", "#E69F00"),
    ("input", "input", "#999999"),
)
"""Who may write an answer: the field of `WriteShares`, its name in a legend, its colour."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")

Line = tuple[str, str, Side]
"""What is added to an answer's name, how its line is drawn, and the side that it is read from."""


def lines(diff: CircuitDiff) -> tuple[Line, ...]:
    """One a side; one in all where both sides read the same."""
    names = SideNames.of(diff)
    if names.one_reading:
        return (("", "solid", diff.after),)
    return ((f", {names.before}", "dot", diff.before), (f", {names.after}", "solid", diff.after))


def trajectories(diff: CircuitDiff) -> go.Figure:
    """Rank of every followed answer after every sub-layer, on the first side (dotted) and on the second."""
    figure = go.Figure(layout={"template": TEMPLATE})
    worst = 2
    for i, answer in enumerate(diff.before.answers):
        for name, dash, side in lines(diff):
            path = side.path(answer)
            worst = max(worst, *path.ranks)
            figure.add_trace(
                go.Scatter(
                    x=[plotly_text(label) for label in path.labels],
                    y=list(path.ranks),
                    mode="lines+markers",
                    name=plotly_text(f"{answer}{name}"),
                    line={"color": COLOURS[i % len(COLOURS)], "dash": dash, "width": 2},
                    marker={"size": 6},
                    customdata=list(path.probabilities),
                    hovertemplate="%{x}: rank %{y:,}, probability %{customdata:.3g}<extra>%{fullData.name}</extra>",
                )
            )
    figure.update_yaxes(**rank_axis(worst))
    figure.update_xaxes(tickangle=-45)
    figure.update_layout(
        title="Rank of the answers after every sub-layer", height=460, legend={"orientation": "h", "y": 1.12}
    )
    return figure


def who_writes(diff: CircuitDiff) -> go.Figure:
    """Logits of every followed answer at the last token by who writes them, on each side."""
    figure = go.Figure(layout={"template": TEMPLATE, "barmode": "relative"})
    bars = [(answer, side, name) for answer in diff.before.answers for name, _, side in lines(diff)]
    labels = [plotly_text(f"{answer}{name}") for answer, _, name in bars]
    for field, name, colour in WRITERS:
        values = [getattr(side.shares(answer), field) for answer, side, _ in bars]
        if any(values):
            figure.add_trace(
                go.Bar(
                    y=labels,
                    x=values,
                    name=name,
                    orientation="h",
                    marker_color=colour,
                    hovertemplate="%{y}: %{x:.2f} logits<extra>%{fullData.name}</extra>",
                )
            )
    figure.update_xaxes(title="logits")
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(
        title="Who writes the answers", height=120 + 44 * len(bars), legend={"orientation": "h", "y": 1.18}
    )
    return figure

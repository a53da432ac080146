"""What heads and nodes do, as plotly figures: attention over the prompt, lens tables, and which head has which role."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from circuits.analysis.lens import NodeReadout
from circuits.analysis.reading import Reading
from circuits.analysis.roles import HeadRole, Role, Roles, strength
from circuits.circuit import Circuit
from circuits.graph import Node
from circuits.pages.style import GRID, NEUTRAL, ROLE_COLOURS, ROLE_HINTS, TEMPLATE, plotly_text, token_text

ROW = 44
"""Pixels of a row of the lens table: its tokens take two lines."""
SYMBOLS: dict[Role, str] = {
    "mover": "circle",
    "relation": "diamond",
    "mixture": "square",
    "suppressor": "x",
    "carrier": "triangle-up",
    "other": "circle",
}
"""Roles differ in shape, not by colour alone."""
ATTENTION_SCALE = [[0, "rgba(0,114,178,0.04)"], [1, "#0072B2"]]


def attention_pattern(
    tokens: Sequence[str], attention: Sequence[Sequence[float]], heads: Sequence[str], *, title: str = ""
) -> go.Figure:
    """Attention of heads from the prompt's last token to every token, one row a head (paper 2, Figure 1, right).

    Args:
        attention: for each of ``heads``, the share given to each of ``tokens``.
    """
    shares = [[100 * weight for weight in row] for row in attention]
    figure = go.Figure(
        go.Heatmap(
            x=list(range(len(tokens))),
            y=list(range(len(heads))),
            z=shares,
            zmin=0,
            zmax=100,
            colorscale=ATTENTION_SCALE,
            xgap=2,
            ygap=2,
            text=[[f"{share:.0f}" if share >= 1 else "" for share in row] for row in shares],
            texttemplate="%{text}",
            customdata=[[plotly_text(token_text(token)) for token in tokens] for _ in heads],
            hovertemplate="<b>%{y}</b> to %{customdata}<br>%{z:.1f} %<extra></extra>",
            colorbar={"title": "%", "thickness": 12},
        ),
        layout={"template": TEMPLATE},
    )
    figure.update_xaxes(
        tickvals=list(range(len(tokens))),
        ticktext=[plotly_text(token_text(token)) for token in tokens],
        tickangle=-40,
        showgrid=False,
    )
    figure.update_yaxes(
        tickvals=list(range(len(heads))), ticktext=[plotly_text(h) for h in heads], autorange="reversed", showgrid=False
    )
    figure.update_layout(
        title=plotly_text(title or "Attention from the last token, %"), height=140 + 34 * max(len(heads), 2)
    )
    return figure


def reading_attention(reading: Reading) -> go.Figure:
    """`attention_pattern` of the heads that have a role, on the reading's own prompt."""
    heads = [f"{each.head.label} {each.role}" for each in reading.heads]
    return attention_pattern(
        reading.tokens,
        [each.attention for each in reading.heads],
        heads,
        title=f"Attention from the last token of “{reading.fact.prompt}”, %",
    )


def lens_table(readouts: Sequence[NodeReadout], answer: str, *, top: int = 8) -> go.Figure:
    """The lens on each node as a table: the tokens it promotes and suppresses most, and where the answer stands.

    Args:
        answer: the answer's first token; it is set in bold.
    """
    columns = [
        [readout.node.label for readout in readouts],
        [_tokens([entry.token for entry in readout.promoted[:top]], answer) for readout in readouts],
        [_tokens([entry.token for entry in readout.suppressed[:top]], answer) for readout in readouts],
        [f"{readout.answer_rank:,}" for readout in readouts],
        [f"{readout.answer_probability:.3g}" for readout in readouts],
    ]
    figure = go.Figure(
        go.Table(
            columnwidth=[50, 260, 260, 60, 70],
            header={
                "values": ["node", "promotes", "suppresses", f"rank of {plotly_text(answer.strip())}", "probability"],
                "align": ["left", "left", "left", "right", "right"],
                "fill": {"color": GRID},
                "font": {"color": NEUTRAL},
            },
            cells={
                "values": columns,
                "align": ["left", "left", "left", "right", "right"],
                "fill": {"color": "rgba(0,0,0,0)"},
                "font": {"color": NEUTRAL},
                "height": ROW,
            },
        ),
        layout={"template": TEMPLATE},
    )
    title = f"What each node writes, read as tokens; the answer is “{answer.strip()}”"
    figure.update_layout(title=plotly_text(title), height=190 + ROW * len(readouts))
    return figure


def _tokens(tokens: Sequence[str], answer: str) -> str:
    shown = [plotly_text(token_text(token)) for token in tokens]
    own = answer.strip()
    return " · ".join(
        f"<b>{text}</b>" if token.strip() == own else text for token, text in zip(tokens, shown, strict=True)
    )


def role_map(roles: Roles, circuit: Circuit | None = None) -> go.Figure:
    """Every head at its layer and index: in the colour and shape of its role, larger the larger the effect that the role rests on.

    With a circuit, its heads are ringed. Hover for the verdict.
    """
    inside = set(circuit.nodes) if circuit is not None else set[Node]()
    figure = go.Figure(layout={"template": TEMPLATE})
    for role, colour in ROLE_COLOURS.items():
        own = [verdict for verdict in roles.heads if verdict.role == role]
        if not own:
            continue
        figure.add_trace(
            go.Scatter(
                x=[verdict.head.head for verdict in own],
                y=[verdict.head.layer for verdict in own],
                mode="markers",
                name=f"{role} ({ROLE_HINTS[role]})" if role != "other" else ROLE_HINTS[role],
                marker={
                    "size": [_size(verdict) for verdict in own],
                    "color": colour,
                    "symbol": SYMBOLS[role],
                    "opacity": 0.9 if role != "other" else 0.35,
                    "line": {"width": [2 if verdict.head in inside else 0 for verdict in own], "color": NEUTRAL},
                },
                text=[_wrapped(plotly_text(str(verdict))) for verdict in own],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    layers = sorted({verdict.head.layer for verdict in roles.heads})
    heads = sorted({verdict.head.head for verdict in roles.heads})
    figure.update_xaxes(title="head", tickvals=heads, range=[heads[0] - 0.6, heads[-1] + 0.6])
    figure.update_yaxes(title="layer", tickvals=layers, range=[layers[0] - 0.6, layers[-1] + 0.6])
    ringed = "; ringed heads are in the circuit" if inside else ""
    figure.update_layout(
        title=plotly_text(f"Roles of heads for {roles.relation}, over {len(roles.facts)} facts{ringed}"),
        height=180 + 46 * max(len(layers), 3),
        margin={"t": 88},
        legend={"itemsizing": "constant"},
    )
    return figure


def _size(verdict: HeadRole) -> float:
    """Pixels: grows with the square root of the effect."""
    return 8.0 if verdict.role == "other" else round(12 + 14 * math.sqrt(min(strength(verdict), 4) / 4), 1)


def _wrapped(text: str, width: int = 70) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) >= width:
            lines, line = [*lines, line], word
        else:
            line = f"{line} {word}".strip()
    return "<br>".join([*lines, line])

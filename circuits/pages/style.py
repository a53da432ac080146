"""How values look, the same in every picture: colours, pen widths, tokens as text, the order of edges.

Colours are Okabe and Ito's, told apart by readers with any common colour vision. Assets/page.css repeats them for the page.
"""

import html
import math
from collections.abc import Iterable, Sequence

import plotly.graph_objects as go

from circuits.analysis.lens import NodeReadout
from circuits.analysis.roles import Role
from circuits.circuit import Circuit
from circuits.discovery import METHODS
from circuits.graph import Edge, Node, NodeKind, Slot

SCORE_UNIT = "nats"

SLOT_COLOURS: dict[Slot | None, str] = {"q": "#0072B2", "k": "#D55E00", "v": "#009E73", None: "#8A919C"}
KIND_COLOURS: dict[NodeKind, str] = {
    "input": "#CC79A7",
    "head": "#56B4E9",
    "mlp": "#E69F00",
    "bypass": "#F0E442",
    "logits": "#CC79A7",
}
ROLE_COLOURS: dict[Role, str] = {
    "mover": "#009E73",
    "relation": "#D55E00",
    "mixture": "#9467BD",
    "suppressor": "#4B535E",
    "carrier": "#8C6D31",
    "other": "#56B4E9",
}
"""Of heads; one without an established role looks like any head."""
ROLE_HINTS: dict[Role, str] = {
    "mover": "moves the subject's attribute",
    "relation": "reads the relation",
    "mixture": "reads both",
    "suppressor": "works against the answer",
    "carrier": "brings the subject to later layers",
    "other": "no established role",
}
"""What a role means, in a few words."""
FILLS: dict[NodeKind | Role, tuple[str, str]] = {
    "input": ("#F0C9DE", "#BD6493"),
    "head": ("#BFE3F8", "#3F9FD4"),
    "mlp": ("#FBD78A", "#D18E00"),
    "bypass": ("#F7F1A8", "#A89C12"),
    "logits": ("#F0C9DE", "#BD6493"),
    "mover": ("#B5E6D5", "#009E73"),
    "relation": ("#F6C9A8", "#D55E00"),
    "mixture": ("#D9C8F0", "#8A5FC0"),
    "suppressor": ("#CCD1D8", "#4B535E"),
    "carrier": ("#E7DAB8", "#8C6D31"),
    "other": ("#BFE3F8", "#3F9FD4"),
}
"""Of a node drawn as a box: a fill that dark text reads on, and its outline. The page's light style has the same."""
SLOT_NAMES: dict[Slot | None, str] = {"q": "query", "k": "key", "v": "value", None: "whole input"}

NEUTRAL = "#747C88"
"""A grey whose text reads on white and on near-black alike: a figure does not know the page it will stand on."""

GRID = "rgba(128,136,148,0.25)"
CLEAR = "rgba(0,0,0,0)"
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of series that have no colour of their own, in order."""

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": NEUTRAL},
        "title": {"font": {"size": 16}, "x": 0, "xref": "paper", "xanchor": "left"},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "colorway": list(PALETTE),
        "margin": {"l": 64, "r": 16, "t": 48, "b": 56},
        "hoverlabel": {"font": {"family": FONT, "size": 13}, "align": "left"},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "ticks": "", "automargin": True},
        "yaxis": {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "ticks": "", "automargin": True},
    }
)

MIN_PEN, MAX_PEN = 0.8, 5.0
"""Pen widths in pixels of the weakest and of the strongest edge."""


def strength(circuit: Circuit, edge: Edge) -> float:
    """|score| of the edge, 0 if it has none: a suppressive edge is as strong as a helpful one."""
    score = circuit.score(edge)
    return abs(score) if math.isfinite(score) else 0.0


def strongest(circuit: Circuit, n: int | None = None) -> tuple[Edge, ...]:
    """The n edges of largest |score| (all, by default), strongest first; ties, and edges without one, as in the graph."""
    return tuple(sorted(circuit.edges, key=lambda edge: -strength(circuit, edge))[:n])


def pen_widths(circuit: Circuit, edges: Sequence[Edge]) -> tuple[float, ...]:
    """Width in pixels of each edge: grows with the square root of |score|, from MIN_PEN at 0 to MAX_PEN at the largest."""
    strengths = [strength(circuit, edge) for edge in edges]
    top = max(strengths, default=0.0) or 1.0
    return tuple(MIN_PEN + (MAX_PEN - MIN_PEN) * math.sqrt(value / top) for value in strengths)


def score_unit(circuit: Circuit) -> str:
    """Nats; empty for a method whose scores have no unit."""
    method = METHODS.get(circuit.provenance.method)
    return SCORE_UNIT if method is None or method.has_unit else ""


def score_text(score: float, unit: str = SCORE_UNIT) -> str:
    """A score with sign and unit: ``+0.0123 nats``; ``not scored`` for NaN."""
    return f"{score:+.3g} {unit}".rstrip() if math.isfinite(score) else "not scored"


def printable(text: str) -> str:
    """The text with control, bidirectional and unpaired characters as backslash escapes: ``\\n``, ``\\u202e``."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def token_text(token: str) -> str:
    """A token as readers see it: a leading or trailing space shows as ``␣``, what cannot be printed as an escape."""
    inner = token.strip(" ")
    left = len(token) - len(token.lstrip(" ")) if inner else len(token)
    right = len(token) - left - len(inner)
    return "␣" * left + printable(inner) + "␣" * right


def short_token(token: str, width: int = 9) -> str:
    """A token as a node's second line: no outer spaces, at most ``width`` characters."""
    text = printable(token.strip(" ")) or token_text(token)
    return text if len(text) <= width else text[: width - 1] + "…"


def node_words(readouts: Iterable[NodeReadout], objects: Sequence[str] = ()) -> dict[Node, str]:
    """Each node's second line: the answer and its rank, where it is among the tokens that were read.

    Else, with the ``objects`` of the relation, the first token that begins one of them, with its rank, and nothing where none
    does; without objects, the token on top. What a head writes seldom reads as a word by itself; where the answer, or an answer
    of the same kind, stands in it says more than an accident on top.
    """
    words: dict[Node, str] = {}
    for readout in readouts:
        rank, promoted = readout.answer_rank, readout.promoted
        if rank > len(promoted) and objects:
            rank = next((i for i, score in enumerate(promoted, 1) if _begins(score.token, objects)), 0)
        elif rank > len(promoted):
            rank = min(1, len(promoted))
        if rank == 1:
            words[readout.node] = short_token(promoted[0].token)
        elif rank > 1:
            words[readout.node] = f"{short_token(promoted[rank - 1].token, 6)} {rank}"
    return words


BEGINS = 3
"""Letters that a token must have for it to be taken as the beginning of an object."""


def _begins(token: str, objects: Sequence[str]) -> bool:
    word = token.strip()
    return word in objects or (len(word) >= BEGINS and any(each.startswith(word) for each in objects))


def plotly_text(text: str) -> str:
    """Text that plotly shows as it stands: its markup (a subset of HTML, and ``$`` for TeX) is escaped."""
    return html.escape(printable(text)).replace("$", "&#36;")

"""What every exported page is made of: escaped text, packed scripts, figures as values."""

import base64
import html
import json
import math
import re
import zlib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from circuits.pages.style import printable


def plain(text: str, *, keep_newlines: bool = False) -> str:
    lines = text.split("\n") if keep_newlines else [text]
    return html.escape("\n".join(printable(line) for line in lines))


def pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"<div><dt>{plain(name)}</dt><dd>{plain(value)}</dd></div>" for name, value in pairs)


def figure_values(figure: go.Figure, *, height: int) -> dict[str, Any]:
    """The figure as plain values, without the title and with the margins that the page's own heading makes possible.

    The legend stands right above the plot, below plotly's buttons.
    """
    legend = {"y": 1.02, "yanchor": "bottom"}
    figure = figure.update_layout(title=None, height=height, margin={"t": 64, "r": 8}, legend=legend)
    content = json.loads(str(figure.to_json(engine="json")))
    return {"data": content["data"], "layout": content["layout"]}


def number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def signed(value: float) -> str:
    """Two decimals, a plus or a true minus before them; what rounds to zero has neither."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def json_text(value: object) -> str:
    """JSON that may stand inside a script element: no character of it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def asset(name: str) -> str:
    return files("circuits.pages").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def packed_plotly() -> str:
    """plotly.js as base64 of a zlib stream: 2 MB in place of 4.8. The page's script unpacks it."""
    return base64.b64encode(zlib.compress(get_plotlyjs().encode(), 9)).decode()


def shared(*, heading: str, find_hint: str, drawing: str, data: object, js: str) -> dict[str, str]:
    """What pages of a circuit have in common: the head, the drawing's toolbar and slider, the end with data and script."""
    return {
        "page_head": asset("head.html"),
        "toolbar": Template(asset("toolbar.html")).substitute(
            heading=heading, find_hint=plain(find_hint), drawing=drawing
        ),
        "slider": asset("slider.html"),
        "plotly_version": plain(plotly_version()),
        "page_end": Template(asset("end.html")).substitute(data=json_text(data), plotly=packed_plotly(), js=js),
    }


def plotly_version() -> str:
    match = re.search(r"plotly\.js v([\d.]+)", get_plotlyjs()[:400])
    return match[1] if match else ""

"""What stands around the text of every page: the contents, the headings, and the pages before and after."""

import html
import os
from collections.abc import Callable
from pathlib import Path

import circuits
from circuits.pages.page import asset
from docs.contents import CONTENTS
from docs.markdown import Heading, Text

HERE = Path(__file__).parent
LISTED = {path: title for part in CONTENTS.values() for path, title in part.items()}


def style() -> str:
    """The colours and letters of the pages that kcircuit writes, and the site's own style."""
    colours, _, _ = asset("page.css").partition("\n* {")
    return f"{colours}\n{(HERE / 'site.css').read_text(encoding='utf-8')}"


def framed(path: str, text: Text, place: Callable[[str], str]) -> str:
    """The page of a file of the repository.

    Args:
        place: where a file of the repository lies in the site.
    """
    folder = os.path.dirname(place(path)) or "."

    def to(other: str) -> str:
        return html.escape(os.path.relpath(other, folder))

    def entry(other: str, kind: str = "") -> str:
        here = ' aria-current="page"' if other == path else ""
        return f'<a{kind}{here} href="{to(place(other))}">{html.escape(LISTED[other])}</a>'

    contents = "".join(
        f"<h2>{html.escape(name)}</h2><ul>{''.join(f'<li>{entry(each)}</li>' for each in part)}</ul>"
        for name, part in CONTENTS.items()
    )
    order = list(LISTED)
    at = order.index(path) if path in order else None
    beside = ""
    if at is not None:
        beside += entry(order[at - 1], ' class="before" rel="prev"') if at else ""
        beside += entry(order[at + 1], ' class="after" rel="next"') if at + 1 < len(order) else ""
    parts = {
        "TITLE": html.escape(text.title or LISTED.get(path, path)),
        "STYLE": to("style.css"),
        "HOME": to(place(order[0])),
        "VERSION": html.escape(circuits.__version__),
        "CONTENTS": contents,
        "HEADINGS": _headings(text.headings),
        "BESIDE": beside,
        "TEXT": text.body,
    }
    page = (HERE / "page.html").read_text(encoding="utf-8")
    for name, part in parts.items():
        page = page.replace(f"<!--{name}-->", part)
    return page


def _headings(headings: tuple[Heading, ...]) -> str:
    """The list of a page's sections; nothing where there are too few to be lost among."""
    shown = [each for each in headings if each.level in (2, 3)]
    if len(shown) < 2:
        return ""
    lines = [
        f'<li class="level{each.level}"><a href="#{html.escape(each.place)}">{html.escape(each.words)}</a></li>'
        for each in shown
    ]
    return f'<nav class="headings" aria-label="On this page"><h2>On this page</h2><ul>{"".join(lines)}</ul></nav>'

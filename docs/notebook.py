"""A notebook to the inside of a page: its text, its code, and what the code printed and drew when it was last run."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from docs.markdown import Text, preformatted, rendered


def notebook(text: str, link: Callable[[str], str]) -> Text:
    """The notebook's JSON as HTML; see `docs.markdown.rendered`."""
    body, headings, links = [], [], []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            piece = rendered(source, link)
            body.append(piece.body)
            headings += piece.headings
            links += piece.links
        elif source.strip():
            body.append(preformatted(source, "python"))
            body += [_shown(output) for output in cell["outputs"]]
    return Text("".join(body), tuple(headings), tuple(links))


def _shown(output: Mapping[str, Any]) -> str:
    """The richest form that needs no script."""
    data = {kind: "".join(value) for kind, value in output.get("data", {}).items() if isinstance(value, list | str)}
    if "image/svg+xml" in data:
        return f'<div class="drawn">{data["image/svg+xml"]}</div>\n'
    if "image/png" in data:
        return f'<div class="drawn"><img alt="" src="data:image/png;base64,{data["image/png"].strip()}"></div>\n'
    if "text/html" in data and "<script" not in data["text/html"]:
        return f'<div class="drawn">{data["text/html"]}</div>\n'
    if "text/markdown" in data:
        return rendered(data["text/markdown"], str).body
    said = data.get("text/plain") or "".join(output.get("text", ()))
    return preformatted(said, kind="printed") if said else ""

"""The one writer of tables: Markdown, HTML, and the terminal, of the same cells."""

import html
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from circuits.records import write_whole
from circuits.studies.columns import cells, columns

if TYPE_CHECKING:
    from rich.table import Table

BY_HAND = "<!-- What stands below is written by hand, and stays when the page is made again. -->"


@dataclass(frozen=True, slots=True)
class Grid:
    """A table's texts, still unescaped."""

    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    left: int = 1
    """So many columns, the first, hold words; the others hold numbers and are flush right."""
    strong: frozenset[int] = frozenset()
    """Lines that stand out: averages."""

    def __post_init__(self) -> None:
        if wrong := [line for line in self.lines if len(line) != len(self.header)]:
            raise ValueError(f"expected {len(self.header)} cells under {self.header}, got {wrong[0]}")


def grid(header: Sequence[str], lines: Sequence[Sequence[str]], *, left: int = 1, strong: Sequence[int] = ()) -> Grid:
    return Grid(tuple(header), tuple(tuple(line) for line in lines), left, frozenset(strong))


def of_rows(rows: Sequence[Any], fields: Sequence[str] | None = None, *, left: int = 1) -> Grid:
    """Rows of one class under the columns of their fields; all that have a column by default.

    Raises:
        ValueError: no row, so that no one can tell the columns.
    """
    if not rows:
        raise ValueError("expected at least one row, got none")
    shown = columns(type(rows[0]))
    names = tuple(fields or shown)
    return grid([shown[name].name for name in names], [cells(row, names) for row in rows], left=left)


# ---- Markdown --------------------------------------------------------------------------------------------------------


def markdown(made: Grid) -> str:
    rule = ["---"] * made.left + ["---:"] * (len(made.header) - made.left)
    lines = (made.header, rule, *made.lines)
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_page(path: Path, text: str) -> None:
    """Write a page of results. What a person wrote below the line `BY_HAND` of the page that is there stays.

    Raises:
        OSError: it cannot be written.
    """
    try:
        _, mark, own = path.read_text(encoding="utf-8").partition(BY_HAND)
    except (OSError, UnicodeDecodeError):
        mark = own = ""
    write_whole(path, f"{text.rstrip()}\n\n{mark}{own}" if mark else text)


# ---- HTML ------------------------------------------------------------------------------------------------------------

STYLE = """.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; white-space: nowrap; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #8886; text-align: right; }
th.text, td.text { text-align: left; }
tr.average td { font-weight: 600; }"""
"""What a page's style needs for its tables."""


def to_html(made: Grid, *, links: Sequence[str] = (), linked: int = 0) -> str:
    """The table.

    Args:
        links: what the first lines open, an address each.
        linked: the column whose words open it.
    """

    def line(tag: str, values: Sequence[str], kind: str = "", link: str = "") -> str:
        words, numbers = (f'<{tag} class="text">', f"<{tag}>")
        shown = [plain(value) for value in values]
        if link:
            shown[linked] = f'<a href="{html.escape(quote(link))}">{shown[linked]}</a>'
        inner = "".join(f"{words if i < made.left else numbers}{value}</{tag}>" for i, value in enumerate(shown))
        return f"<tr{kind}>{inner}</tr>"

    opens = [*links, *[""] * (len(made.lines) - len(links))]
    body = "\n".join(
        line("td", values, ' class="average"' if i in made.strong else "", opens[i])
        for i, values in enumerate(made.lines)
    )
    head = line("th", made.header)
    return f'<div class="wide"><table><thead>{head}</thead><tbody>\n{body}\n</tbody></table></div>'


def plain(text: str) -> str:
    """The text as HTML shows it, whatever is in it."""
    return html.escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", text))


# ---- the terminal ----------------------------------------------------------------------------------------------------


def terminal(made: Grid, *, title: str | None = None) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), title=title)
    for i, name in enumerate(made.header):
        table.add_column(Text(name), justify="left" if i < made.left else "right", no_wrap=i >= made.left)
    for i, line in enumerate(made.lines):
        table.add_row(*(Text(cell) for cell in line), style="bold" if i in made.strong else None)
    return table


def show(made: Grid, *, title: str | None = None, width: int = 160) -> None:
    """Print the table as wide as the terminal; where there is none, so many characters wide."""
    from rich.console import Console

    Console(highlight=False, width=None if sys.stdout.isatty() else width).print(terminal(made, title=title))

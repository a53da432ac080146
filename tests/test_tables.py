"""Tables: a row's fields say how they are shown, and every medium shows the same cells."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

import pytest

from circuits.pages.tables import BY_HAND, grid, markdown, of_rows, show, to_html, write_page
from circuits.records import Number
from circuits.studies.columns import Column, columns


@dataclass(frozen=True)
class Row:
    method: Annotated[str, Column("method")]
    layers: Annotated[tuple[int, ...], Column("layers")]
    share: Annotated[Number, Column("success", "%", digits=1, scale=100)]
    n: Annotated[int, Column("facts")]
    default: Annotated[bool, Column("default")]
    best: Annotated[float | None, Column("best", digits=0)] = None
    hidden: int = 0


ROWS = (Row("rome", (3, 4), 0.125, 20, True), Row("a|b <i>", (), math.nan, 3, False, 7.6))
CELLS = [("rome", "3, 4", "12.5 %", "20", "yes", "–"), ("a|b <i>", "", "–", "3", "", "8")]


def test_a_field_says_its_name_unit_and_format():
    made = of_rows(ROWS, left=2)
    assert made.header == ("method", "layers", "success", "facts", "default", "best")
    assert list(made.lines) == CELLS
    assert "hidden" not in columns(Row)
    assert of_rows(ROWS, ("n", "method")).lines == (("20", "rome"), ("3", "a|b <i>"))


def test_every_medium_shows_the_same_cells(capsys: pytest.CaptureFixture[str]):
    made = grid(of_rows(ROWS).header, CELLS, left=2, strong=[1])
    lines = [re.split(r" (?<!\\)\| ", line[2:-2]) for line in markdown(made).splitlines()]
    assert lines[1] == ["---", "---", "---:", "---:", "---:", "---:"]
    assert [[cell.replace("\\|", "|").strip() for cell in line] for line in lines[2:]] == [list(line) for line in CELLS]
    tree = ElementTree.fromstring(to_html(made))
    assert [tuple(cell.text or "" for cell in line) for line in tree.iter("tr")] == [made.header, *CELLS]
    assert [line.get("class") for line in tree.iter("tr")] == [None, None, "average"]
    assert [cell.get("class") for cell in next(iter(tree.iter("tr")))] == ["text", "text", None, None, None, None]
    show(made)
    printed = capsys.readouterr().out
    assert all(cell in printed for line in CELLS for cell in line)


def test_a_line_of_another_length_is_refused():
    with pytest.raises(ValueError, match="expected 2 cells"):
        grid(["a", "b"], [["1"]])
    with pytest.raises(ValueError, match="at least one row"):
        of_rows(())


def test_what_a_person_wrote_below_a_page_stays_when_it_is_made_again(tmp_path: Path):
    page = tmp_path / "page.md"
    write_page(page, "# One\n")
    assert page.read_text() == "# One\n"
    page.write_text(f"# One\n\n{BY_HAND}\n\nWhat it shows.\n")
    write_page(page, "# Two\n")
    write_page(page, "# Three\n")
    assert page.read_text() == f"# Three\n\n{BY_HAND}\n\nWhat it shows.\n"

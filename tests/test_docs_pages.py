"""What the pages of docs/ say works: every command parses, blocks of Python and commands marked `run` run, and print what is shown."""

import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import parsed, succeeds

ROOT = Path(__file__).parent.parent
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```(\w+)( run)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-\d+)?")


def blocks(page: str) -> list[tuple[str, bool, str]]:
    """(language, whether it is run, text) of each fenced block, in order."""
    return [(name, bool(run), text) for name, run, text in BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))]


def commands(page: str) -> Iterator[str]:
    """The commands of a page: of its blocks, indented ones included, without what is said about them."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^ *(kcircuit .*)$", text, re.MULTILINE):
        yield shlex.join(shlex.split(line, comments=True))


@pytest.mark.parametrize("command", sorted({line for page in PAGES for line in commands(page)}))
def test_every_command_parses(command: str) -> None:
    parsed(command)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(run or name == "python" for name, run, _ in blocks(page))]
)
def test_what_a_page_runs_works_and_prints_what_it_shows(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    printed = ""
    for language, run, text in blocks(page):
        if language == "python":
            exec(compile(text, page, "exec"), names)
            printed = capsys.readouterr().out
        elif language == "json" and run:
            (name,) = re.findall(r"`([\w.]+\.json)`:\n\n```json run\n" + re.escape(text), (ROOT / page).read_text())
            Path(name).write_text(text, encoding="utf-8")
        elif language == "sh" and run:
            lines = text.replace("\\\n", " ").splitlines()
            printed = "".join(succeeds(shlex.split(line, comments=True)[1:], capsys) for line in lines)
        elif language == "text" and printed:
            assert missing(text, printed) is None


def missing(shown: str, printed: str) -> str | None:
    """The first line that is shown and was not printed, in this order; a line of an ellipsis stands for any lines."""
    said = iter([" ".join(line.split()) for line in printed.splitlines()])
    for line in shown.splitlines():
        if line.strip() not in ("", "…") and not any(alike(" ".join(line.split()), one) for one in said):
            return line
    return None


def alike(shown: str, printed: str) -> bool:
    """Equal words; numbers within 5 %, or one in the last digit: machines round differently."""
    if NUMBER.split(shown) != NUMBER.split(printed):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return all(
        math.isclose(number(one), number(two), rel_tol=0.05, abs_tol=1.01 * 10.0 ** -len(one.partition(".")[2]))
        for one, two in pairs
    )


def number(text: str) -> float:
    return float(text.replace(",", ""))


def test_a_line_that_was_not_printed_is_told_and_a_number_that_rounding_moves_is_not() -> None:
    assert missing("a 0.50\n…\nb 7\n", "a 0.51\nx\nb 7\n") is None
    assert missing("a 0.50\n", "a 0.60\n") == "a 0.50"
    assert missing("b\na\n", "a\nb\n") == "a"
    assert missing("rank 1, p 0.9\n", "rank 1, q 0.9\n") == "rank 1, p 0.9"

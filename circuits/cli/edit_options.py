"""What the commands that make edits share: options, the requests to edit, and a line of progress."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuits.cli.app import CommandError
from circuits.cli.progress import SECONDS_BETWEEN_LINES

if TYPE_CHECKING:
    from rich.console import Console

    from circuits.evaluation.edits import EvalAt

SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="An option of the method, such as lr=0.1; again for another.")
]
CorpusOption = Annotated[
    Path | None,
    typer.Option(
        help="Text file, one document a line: the covariance of ROME and MEMIT, in place of text that the model itself writes."
    ),
]
CasesOption = Annotated[
    str | None,
    typer.Option(
        help="Cases from a published file instead: counterfact:FILE, zsre-alt:FILE, zsre-true:FILE, knowedit:FILE, mquake:FILE."
    ),
]
EvalAtOption = Annotated[
    str, typer.Option(help="When a sequence is evaluated: immediate, after each edit; end; or checkpoints.")
]
FluencyOption = Annotated[
    int, typer.Option("--fluency-samples", min=0, help="Texts sampled for each edit to measure fluency; 0: none.")
]


def parse_eval_at(text: str) -> "EvalAt":
    from circuits.evaluation.edits import EVAL_AT

    for choice in EVAL_AT:
        if choice == text:
            return choice
    raise CommandError(f"expected --eval-at {', '.join(EVAL_AT)}, got {text!r}")


def told(line: str) -> None:
    """Says on stderr what a study notices."""
    typer.echo(line, err=True)


def wide_console() -> "Console":
    """As wide as the terminal; where there is none, wide enough for the tables."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 150)


def _now_and_then(clock: Callable[[], float] = time.monotonic) -> Callable[[str], None]:
    began = said = clock()

    def show(line: str) -> None:
        nonlocal said
        now = clock()
        if now - said >= SECONDS_BETWEEN_LINES:
            said = now
            told(f"{line} ({now - began:.0f} s)")

    return show


@contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """A line on stderr that says how far things are, so that stdout holds the result alone; without a terminal, the latest
    one every ten seconds."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _now_and_then()
        return
    with console.status("") as status:
        yield lambda line: status.update(escape(line))

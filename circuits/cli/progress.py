"""How far a study is, on stderr, so that stdout holds the result alone; and how a stop ends a command."""

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from circuits.cli.app import Stopped

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn

    from circuits.studies.study import Outcome, Study, Watch

Spec = TypeVar("Spec")
Context = TypeVar("Context")
Row = TypeVar("Row")
SECONDS_BETWEEN_LINES = 10.0
"""Where stderr is no terminal."""
SEARCHES = "searches"
"""Where a command keeps the searches of rows that are not whole yet, in the folder of its results."""


@contextmanager
def progress(what: str) -> "Iterator[tuple[Watch, Callable[[int, int, Outcome[Any]], None]]]":
    """(whom a sweep tells of the case under way, what it tells of each case done).

    A bar on a terminal; elsewhere a line every ten seconds, whatever happens or does not, and one at the end.

    Args:
        what: what cases are, in the plural.
    """
    from rich.progress import TextColumn

    from circuits.studies.study import Watch

    began = time.monotonic()
    complete, counted, line = 0, what, f"{what}: begun"

    def say() -> None:
        typer.echo(f"{line} ({time.monotonic() - began:.0f} s)", err=True)

    with bar_or_lines(say, TextColumn("{task.fields[state]}")) as bar:
        task = bar.add_task(what, total=None, state="")

        def finished(done: int, total: int, outcome: "Outcome[Any]") -> None:
            nonlocal complete, counted, line
            complete, counted = done, f"{done} of {total} {what}"
            line = f"{counted}, {outcome.case} done"
            bar.update(task, completed=float(done), total=float(total), description=line)
            if not bar.console.is_terminal and done == total:
                say()

        def show(done: int, total: int, state: str) -> None:
            nonlocal line
            line = f"{counted}: {state}"
            bar.update(task, completed=complete + 0.9 * done / total, state=state)

        def notice(line: str) -> None:
            if not line.startswith("before the search"):
                bar.console.print(line, markup=False)

        yield Watch(notice, show), finished


@contextmanager
def bar_or_lines(say: Callable[[], None], *columns: "ProgressColumn") -> "Iterator[Bar]":
    """A bar on stderr with these columns between its middle and its times; where that is no terminal, ``say`` every ten seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with (
        Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as bar,
        nullcontext() if console.is_terminal else _every(SECONDS_BETWEEN_LINES, say),
    ):
        yield bar


@contextmanager
def _every(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Calls again and again, from a thread of its own, until the end."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds):
            call()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def carried_out(
    study: "Study[Spec, Context, Any, Row]",
    spec: Spec,
    what: str,
    *,
    folder: Path | None = None,
    searches: Path | None = None,
    jobs: Callable[[Context], int] = lambda _: 1,
) -> tuple[Context, list[Row]]:
    """The study's context, and its rows in the order of its cases; how far it is is said meanwhile.

    Args:
        folder: rows are kept there, so that a command that was stopped goes on where it was.
        searches: a folder for the searches of a row that is not whole yet; what is there is no longer needed when all rows are.
        jobs: processes at work.
    """
    from circuits.studies.sweep import Folder, Pool, sweep

    store = None if folder is None else Folder(folder)
    kept = folder is not None or searches is not None
    with nullcontext() if not kept else stoppable(kept=True), progress(what) as (watch, finished):
        watch = replace(watch, searches=searches)
        context = study.open(spec, watch)
        n = jobs(context)
        where = Pool(n) if n > 1 else None
        swept = sweep(study, spec, context=context, where=where, store=store, watch=watch, finished=finished)
        outcomes = list(swept)
        rows = {outcome.case: outcome.row for outcome in outcomes}
        found = [rows[case.name] for case in study.cases(spec, context)]
    if searches is not None:
        shutil.rmtree(searches, ignore_errors=True)
    return context, [row for row in found if row is not None]


@contextmanager
def stoppable(kept: bool) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the command with a word on how to continue.

    Args:
        kept: what is done lies where the same command finds it.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        how = "run the same command again to continue" if kept else "give --out to keep what is done"
        raise Stopped(f"stopped; {how}") from None
    finally:
        signal.signal(signal.SIGTERM, previous)

"""How far a study is, on stderr, so that stdout holds the result alone; and how a stop ends a command."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from circuits.cli.app import Stopped

if TYPE_CHECKING:
    from circuits.studies.study import Outcome, Watch

SECONDS_BETWEEN_LINES = 10.0
"""Where stderr is no terminal."""


@contextmanager
def progress(what: str) -> "Iterator[tuple[Watch, Callable[[int, int, Outcome[Any]], None]]]":
    """(whom a sweep tells of the case under way, what it tells of each case done).

    A bar on a terminal; elsewhere a line every ten seconds, and one at the end.

    Args:
        what: what cases are, in the plural.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from circuits.studies.study import Watch

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    began = said = time.monotonic()
    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(what, total=None, state="")
        complete = 0

        def finished(done: int, total: int, outcome: "Outcome[Any]") -> None:
            nonlocal complete, said
            complete = done
            line = f"{done} of {total} {what}, {outcome.case} done"
            bar.update(task, completed=float(done), total=float(total), description=line)
            now = time.monotonic()
            if not console.is_terminal and (done == total or now - said >= SECONDS_BETWEEN_LINES):
                said = now
                typer.echo(f"{line} ({now - began:.0f} s)", err=True)

        def show(done: int, total: int, state: str) -> None:
            bar.update(task, completed=complete + 0.9 * done / total, state=state)

        def notice(line: str) -> None:
            if not line.startswith("before the search"):
                bar.console.print(line, markup=False)

        yield Watch(notice, show), finished


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

"""``kcircuit edit trace``: what a sequence of edits does to the matrices that it edits, with and without PRUNE."""

import json
import os
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, ModelOption
from circuits.cli.edit import edit_app
from circuits.cli.edit_options import (
    CasesOption,
    CorpusOption,
    SetOption,
    parse_settings,
    progress_line,
    requests_of,
    resources_of,
    wide_console,
)

if TYPE_CHECKING:
    from circuits.studies.sequence import Trace

CHECKPOINTS = "10,20,50,100"
RESTRAINT = "prune:alpha=1.2"


@edit_app.command("trace")
def trace(
    method: Annotated[str, typer.Option(help="A method that edits weights: rome, memit, ft-l or ft-m.")] = "rome",
    n: Annotated[int, typer.Option("--n", min=1, help="How many edits, one on top of another.")] = 100,
    restrain: Annotated[
        str, typer.Option(help="The restraint of the second trace: prune:alpha=1.2, prune:alpha=2,kind=linear.")
    ] = RESTRAINT,
    every: Annotated[
        int | None,
        typer.Option(
            min=1, help="Restrain the sequence itself after each so many edits; by default a copy, at the end."
        ),
    ] = None,
    checkpoints: Annotated[str, typer.Option(help="Numbers of edits after which to measure; the last always is.")] = (
        CHECKPOINTS
    ),
    model: ModelOption = "factlm",
    cases: CasesOption = None,
    settings: SetOption = None,
    corpus: CorpusOption = None,
    seed: Annotated[int, typer.Option(help="Of the facts, the new objects and the edits.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the results page (Markdown) to this file.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw the traces (SVG) into this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Edit in a sequence: condition number, singular values, success and locality against the number of edits."""
    for name, path in (("--out", out), ("--figure", figure)):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise CommandError(f"expected {name} as a file in a folder that exists, got {path}")
    at = _checkpoints(checkpoints)
    chosen = parse_settings(settings)
    from circuits.editing import find_method
    from circuits.editing.prune import parse_restraint
    from circuits.model import Model
    from circuits.pages.sequence import to_json, trace_page
    from circuits.pages.tables import write_page
    from circuits.records import write_whole
    from circuits.studies.sequence import sequential_traces

    found_method = find_method(method)
    if method == "memoe":
        raise CommandError("a trace is of edited matrices, and memoe leaves them as they are; see `kcircuit edit eval`")
    restraint = parse_restraint(restrain)
    loaded = Model.load(model)
    make: Any = partial(found_method, options=found_method.options(loaded, **chosen))
    requests = requests_of(loaded, cases, n, seed)
    found: list[Trace] = []
    with progress_line() as show:
        # Restrained on the way, the sequence is another one, and the free one is run for comparison.
        for step in [None] if every is None else [None, every]:
            found += sequential_traces(
                loaded,
                requests,
                make,
                checkpoints=at,
                restraint=restraint if every is None or step is not None else None,
                every=step,
                resources=resources_of(corpus),
                seed=seed,
                progress=show,
                name=method,
            )
    given = {"method": method, "n": n, "restrain": restrain, "every": every, "checkpoints": checkpoints}
    given |= {"model": model, "cases": cases, "corpus": corpus, "seed": seed, "out": out, "figure": figure}
    if figure is not None:
        from circuits.pages.edits import trace_panels

        write_whole(figure, trace_panels(found))
    if out is not None:
        page = trace_page(found, loaded, _command(given, settings or []), restrain, _linked(figure, out))
        write_page(out, page)
    if as_json:
        typer.echo(json.dumps({"model": model, "weights": loaded.weights, "method": method, **to_json(found)}))
    else:
        _print(found)
    for path in (out, figure):
        if path is not None and not as_json:
            typer.echo(f"Wrote {path}")


def _checkpoints(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        raise CommandError(f"expected --checkpoints as numbers of edits such as {CHECKPOINTS}, got {text!r}")
    return found


def _linked(figure: Path | None, page: Path) -> str | None:
    """The figure as the page's readers find it."""
    return None if figure is None else Path(os.path.relpath(figure, page.parent)).as_posix()


def _command(given: dict[str, Any], settings: list[str]) -> str:
    defaults = {
        "method": "rome",
        "n": 100,
        "restrain": RESTRAINT,
        "checkpoints": CHECKPOINTS,
        "model": "factlm",
        "seed": 0,
    }
    words = ["kcircuit", "edit", "trace"]
    for name, value in given.items():
        if value != defaults.get(name):
            words += [f"--{name}", str(value)]
    return shlex.join([*words, *(word for setting in settings for word in ("--set", setting))])


def _print(traces: "list[Trace]") -> None:
    from rich.table import Table

    from circuits.pages.sequence import HEADER, lines

    table = Table(show_edge=False, pad_edge=False)
    for i, column in enumerate(HEADER):
        table.add_column(column, justify="left" if i == 0 else "right")
    for line in lines(traces):
        table.add_row(*line)
    wide_console().print(table)

"""``kcircuit edit trace``: what a sequence of edits does to the matrices that it edits, with and without PRUNE."""

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption
from circuits.cli.edit import edit_app
from circuits.cli.edit_options import progress_line, told
from circuits.cli.options import asks
from circuits.studies.options import command
from circuits.studies.requests import parse_settings, requests_of, resources_of
from circuits.studies.specs import TraceSpec

if TYPE_CHECKING:
    from circuits.studies.sequence import SequenceTrace


@edit_app.command("trace")
@asks(TraceSpec)
def trace(
    asked: dict[str, Any],
    out: Annotated[Path | None, typer.Option(help="Write the results page (Markdown) to this file.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw the traces (SVG) into this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Edit in a sequence: condition number, singular values, success and locality against the number of edits."""
    for name, path in (("--out", out), ("--figure", figure)):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise CommandError(f"expected {name} as a file in a folder that exists, got {path}")
    spec = TraceSpec(**asked)
    method, every = spec.method, spec.every
    at = _checkpoints(spec.checkpoints)
    chosen = parse_settings(spec.settings)
    from circuits.editing import find_method
    from circuits.editing.prune import parse_restraint
    from circuits.model import Model
    from circuits.pages.sequence import to_json, trace_page
    from circuits.pages.tables import write_page
    from circuits.records import write_whole
    from circuits.studies.sequence import sequential_traces

    found_method = find_method(method)
    if found_method.makes != "weights":
        raise CommandError(
            f"a trace is of edited matrices, and {method} leaves them as they are; see `kcircuit edit eval`"
        )
    restraint = parse_restraint(spec.restrain)
    loaded = Model.load(spec.model)
    make: Any = partial(found_method, options=found_method.options(loaded, **chosen))
    requests = requests_of(loaded, spec.cases, spec.n, spec.seed, notice=told)
    found: list[SequenceTrace] = []
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
                resources=resources_of(spec.corpus),
                seed=spec.seed,
                progress=show,
                name=method,
            )
    if figure is not None:
        from circuits.pages.edits import trace_panels

        write_whole(figure, trace_panels(found))
    if out is not None:
        files = ["--out", str(out), *([] if figure is None else ["--figure", str(figure)])]
        made_by = command(["edit", "trace"], spec, more=files)
        page = trace_page(found, loaded, made_by, spec.restrain, _linked(figure, out))
        write_page(out, page)
    if as_json:
        typer.echo(json.dumps({"model": spec.model, "weights": loaded.weights, "method": method, **to_json(found)}))
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
        raise CommandError(f"expected --checkpoints as numbers of edits such as 10,20,50,100, got {text!r}")
    return found


def _linked(figure: Path | None, page: Path) -> str | None:
    """The figure as the page's readers find it."""
    return None if figure is None else Path(os.path.relpath(figure, page.parent)).as_posix()


def _print(traces: "list[SequenceTrace]") -> None:
    from circuits.pages.sequence import HEADER, lines
    from circuits.pages.tables import grid, show

    show(grid(HEADER, lines(traces)))

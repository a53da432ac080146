"""``kcircuit edit trace``: what a sequence of edits does to the matrices that it edits, with and without PRUNE."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import JsonOption, require_file, require_writable_folder
from circuits.cli.edit import edit_app
from circuits.cli.options import asks
from circuits.cli.progress import carried_out
from circuits.studies.edit_specs import TraceSpec
from circuits.studies.options import command

if TYPE_CHECKING:
    from circuits.studies.sequence import Traced


@edit_app.command("trace")
@asks(TraceSpec)
def trace(
    asked: dict[str, Any],
    out: Annotated[Path | None, typer.Option(help="Write the results page (Markdown) to this file.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw the traces (SVG) into this file.")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Folder that keeps each method's sequence; a stopped run continues.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Edit in a sequence: condition number, singular values, success and locality against the number of edits, with PRUNE."""
    if keep is not None:
        require_writable_folder(keep)
    require_file(out)
    require_file(figure, "--figure")
    from circuits.pages.sequence import to_json, trace_page
    from circuits.pages.tables import write_page
    from circuits.records import write_whole
    from circuits.studies.sequence import TRACE

    spec = TraceSpec(**asked)
    unedited, found = carried_out(TRACE, spec, "sequences", folder=keep)
    model = unedited.model
    if figure is not None:
        from circuits.pages.edits import trace_figure

        write_whole(figure, trace_figure(found))
    if out is not None:
        files = ["--out", str(out), *([] if figure is None else ["--figure", str(figure)])]
        made_by = command(["edit", "trace"], spec, more=files)
        page = trace_page(found, model, made_by, _linked(figure, out))
        write_page(out, page)
    if as_json:
        typer.echo(json.dumps({"model": spec.model, "weights": model.weights, "method": spec.method, **to_json(found)}))
    else:
        _print(found)
    for path in (out, figure):
        if path is not None and not as_json:
            typer.echo(f"Wrote {path}")


def _linked(figure: Path | None, page: Path) -> str | None:
    """The figure as the page's readers find it."""
    return None if figure is None else Path(os.path.relpath(figure, page.parent)).as_posix()


def _print(found: "list[Traced]") -> None:
    from circuits.pages.sequence import HEADER, lines
    from circuits.pages.tables import grid, show

    show(grid(HEADER, [line for traced in found for line in lines(traced)]))

"""``kcircuit edit compare``: several methods on the same facts, in one table."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import JsonOption, require_file
from circuits.cli.edit import edit_app
from circuits.cli.options import asks
from circuits.cli.progress import carried_out
from circuits.studies.edit_specs import CompareSpec
from circuits.studies.options import command

if TYPE_CHECKING:
    pass


@edit_app.command()
@asks(CompareSpec)
def compare(
    asked: dict[str, Any],
    out: Annotated[Path | None, typer.Option(help="Write the results page (Markdown) to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare editing methods: success, generality, portability, locality in percent, fluency, seconds a fact."""
    require_file(out)
    from circuits.pages.edits_table import compared, page
    from circuits.pages.tables import show, write_page
    from circuits.studies.edits import EDITS

    spec = CompareSpec(**asked)
    unedited, standings = carried_out(EDITS, spec, "methods")
    if out is not None:
        write_page(out, page(standings, unedited.model, command(["edit", "compare"], spec, more=("--out", str(out)))))
    rows = [standing.to_json() for standing in standings]
    if as_json:
        asked_for = {"model": spec.model, "weights": unedited.model.weights, "seed": spec.seed}
        typer.echo(json.dumps({**asked_for, "rows": rows}))
        return
    show(
        compared(rows),
        title=f"Edits of {unedited.model.name}; shares in percent, fluency in bits, seconds a fact",
    )
    if out is not None:
        typer.echo(f"\nWrote {out}")

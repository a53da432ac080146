"""``kcircuit edit sweep-layers``: where a method should edit."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from circuits.cli.app import JsonOption, require_file
from circuits.cli.edit import edit_app
from circuits.cli.options import asks
from circuits.cli.progress import carried_out
from circuits.studies.edit_specs import LayersSpec
from circuits.studies.options import command

NOT_PRINTED = ("regime", "default")
"""Fields that the page alone shows."""


@edit_app.command("sweep-layers")
@asks(LayersSpec)
def sweep_layers(
    asked: dict[str, Any],
    out: Annotated[Path | None, typer.Option(help="Write the tables (Markdown) to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Edit at one layer after another: success, generality and locality of each."""
    require_file(out)
    from circuits.pages.layers import page
    from circuits.pages.tables import write_page
    from circuits.records import to_json
    from circuits.studies.layers import LAYERS

    spec = LayersSpec(**asked)
    unedited, rows = carried_out(LAYERS, spec, "settings")
    if out is not None:
        made_by = command(["edit", "sweep-layers"], spec, more=("--out", str(out)))
        write_page(out, page(rows, unedited.model, spec, made_by))
    if as_json:
        asked_for = {"model": spec.model, "weights": unedited.model.weights, "method": spec.method, "n": spec.n}
        shown = [{name: value for name, value in to_json(row).items() if name not in NOT_PRINTED} for row in rows]
        typer.echo(json.dumps({**asked_for, "rows": shown}))
        return
    for row in rows:
        typer.echo(str(row))
    if out is not None:
        typer.echo(f"\nWrote {out}")

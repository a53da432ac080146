"""``kcircuit edit sweep-layers``: where a method should edit."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption
from circuits.cli.edit import edit_app
from circuits.cli.edit_options import told
from circuits.cli.options import asks
from circuits.cli.progress import progress
from circuits.studies.options import command
from circuits.studies.specs import LayersSpec

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
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise CommandError(f"expected --out as a file in a folder that exists, got {out}")
    from circuits.pages.layers import page
    from circuits.pages.tables import write_page
    from circuits.records import to_json
    from circuits.studies.layers import LAYERS
    from circuits.studies.sweep import sweep

    spec = LayersSpec(**asked)
    context = LAYERS.open(spec, told)
    with progress("settings") as (watch, finished):
        outcomes = list(sweep(LAYERS, spec, context=context, watch=watch, finished=finished))
    rows = [outcome.row for outcome in outcomes if outcome.row is not None]
    if out is not None:
        made_by = command(["edit", "sweep-layers"], spec, more=("--out", str(out)))
        write_page(out, page(rows, context.model, spec, made_by))
    if as_json:
        asked_for = {"model": spec.model, "weights": context.model.weights, "method": spec.method, "n": spec.n}
        shown = [{name: value for name, value in to_json(row).items() if name not in NOT_PRINTED} for row in rows]
        typer.echo(json.dumps({**asked_for, "rows": shown}))
        return
    for row in rows:
        typer.echo(str(row))
    if out is not None:
        typer.echo(f"\nWrote {out}")

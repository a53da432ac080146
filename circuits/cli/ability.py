"""``kcircuit ability``: what a model is able to do besides recalling facts."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from circuits.cli.app import JsonOption, app, require_file
from circuits.cli.options import asks
from circuits.cli.progress import carried_out
from circuits.studies.ability_specs import AbilitySpec
from circuits.studies.options import command


@app.command()
@asks(AbilitySpec)
def ability(
    asked: dict[str, Any],
    out: Annotated[Path | None, typer.Option(help="Write the results page (Markdown) to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Put tasks to a model (choices, questions, sums, summaries), each beside its level by chance; with an edit, before and after."""
    require_file(out)
    from circuits.pages.ability import as_json as scores_json
    from circuits.pages.ability import page, pairs, table
    from circuits.pages.tables import show, write_page
    from circuits.studies.ability import ABILITY

    spec = AbilitySpec(**asked)
    at, rows = carried_out(ABILITY, spec, "tasks")
    if out is not None:
        write_page(out, page(rows, at.unedited, command(["ability"], spec, more=("--out", str(out)))))
    if as_json:
        asked_for = {"model": spec.model, "weights": at.unedited.weights, "with_edit": spec.with_edit}
        typer.echo(json.dumps({**asked_for, "scores": scores_json(rows)}, ensure_ascii=False))
        return
    show(table(list(pairs(rows)), edited=spec.with_edit is not None))
    if out is not None:
        typer.echo(f"\nWrote {out}")

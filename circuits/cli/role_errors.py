"""``kcircuit role-errors``: how often heads are labelled where there is nothing to label."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from circuits.cli.app import JsonOption, app, require_file, require_writable_folder
from circuits.cli.options import asks
from circuits.cli.progress import carried_out
from circuits.studies.claims_specs import RoleErrorsSpec
from circuits.studies.options import command


@app.command("role-errors")
@asks(RoleErrorsSpec)
def role_errors(
    asked: dict[str, Any],
    out: Annotated[Path | None, typer.Option(help="Folder that keeps what is done; a stopped run continues.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write the results page (Markdown) to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Label the heads of scrambled models, and try other relations' ranges: how often is a label given in error?"""
    if out is not None:
        require_writable_folder(out)
    require_file(page, "--page")
    from circuits.pages.role_errors import page as text_of
    from circuits.pages.role_errors import rates
    from circuits.pages.tables import show, write_page
    from circuits.studies.role_errors import ROLE_ERRORS, error_rates

    spec = RoleErrorsSpec(**asked)
    at, trials = carried_out(ROLE_ERRORS, spec, "trials", folder=out)
    found = error_rates(trials, spec.seed)
    if page is not None:
        made_by = command(["role-errors"], spec, more=("--page", str(page)))
        write_page(page, text_of(found, trials, at.model, made_by))
    if as_json:
        rows = [{**asdict(each), "standing": each.standing} for each in found]
        typer.echo(json.dumps({"model": at.model.name, "rates": rows}, ensure_ascii=False))
        return
    show(rates(found), width=190)
    if page is not None:
        typer.echo(f"\nWrote {page}")

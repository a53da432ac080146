"""``kcircuit claims``: what the papers say, put to the model at hand."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from circuits.cli.app import JsonOption, app, require_file, require_writable_folder
from circuits.cli.options import asks
from circuits.cli.progress import carried_out
from circuits.studies.claims_specs import ClaimsSpec
from circuits.studies.options import command


@app.command()
@asks(ClaimsSpec)
def claims(
    asked: dict[str, Any],
    out: Annotated[Path | None, typer.Option(help="Folder that keeps what is done; a stopped run continues.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write the results page (Markdown) to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Put the papers' claims to cases: effect against a control with its interval, and holds, does not or undecided."""
    if out is not None:
        require_writable_folder(out)
    require_file(page, "--page")
    from circuits.pages.claims import as_rows, summary
    from circuits.pages.claims import page as text_of
    from circuits.pages.tables import show, write_page
    from circuits.studies.claims.table import CLAIMS, claim_rows

    spec = ClaimsSpec(**asked)
    searches = None if out is None else out / "searches"
    lab, tried = carried_out(CLAIMS, spec, "cases", folder=out, searches=searches)
    rows = claim_rows(spec, lab, tried)
    if page is not None:
        write_page(page, text_of(rows, lab.model, command(["claims"], spec, more=("--page", str(page)))))
    if as_json:
        typer.echo(json.dumps(as_rows(rows), ensure_ascii=False, indent=1))
        return
    show(summary(rows), width=190)
    if page is not None:
        typer.echo(f"\nWrote {page}")

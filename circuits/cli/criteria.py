"""``kcircuit criteria``: what circuits of the same facts are worth, by what they are searched by."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from circuits.cli.app import JsonOption, app, fit_threads, require_file, require_writable_folder
from circuits.cli.options import asks
from circuits.cli.progress import progress, stoppable
from circuits.studies.certify_specs import CriteriaSpec
from circuits.studies.options import command


@app.command()
@asks(CriteriaSpec, leave_out=("ablation",))
def criteria(
    asked: dict[str, Any],
    out: Annotated[Path | None, typer.Option(help="Folder that keeps what is done; a stopped run continues.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write the results page (Markdown) to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Search the same facts by every metric, ablation and number of siblings, and certify each circuit."""
    if out is not None:
        require_writable_folder(out)
    require_file(page, "--page")
    from circuits.datasets import relations_for
    from circuits.model import library
    from circuits.pages.criteria import page as text_of
    from circuits.pages.criteria import summary
    from circuits.pages.tables import show, write_page
    from circuits.records import to_json
    from circuits.studies.criteria import CRITERIA
    from circuits.studies.sweep import Folder, sweep

    spec = CriteriaSpec(**asked)
    relations = relations_for(library.profile_of(spec.model), *spec.names)
    with stoppable(kept=out is not None), progress("circuits") as (watch, finished):
        bench = CRITERIA.open(spec, relations)
        fit_threads(bench.model)
        store = None if out is None else Folder(out)
        outcomes = list(sweep(CRITERIA, spec, context=bench, store=store, watch=watch, finished=finished))
    by_case = {one.case: one.row for one in outcomes}
    rows = [row for case in CRITERIA.cases(spec, bench) if (row := by_case[case.name]) is not None]
    if page is not None:
        words = ("--page", str(page))
        write_page(page, text_of(rows, bench.model, command(["criteria"], spec, leave_out=("ablation",), more=words)))
    if as_json:
        made = [
            {**to_json(row), "certificate": row.certificate.to_json(), "criterion": row.criterion.name} for row in rows
        ]
        typer.echo(json.dumps({"model": spec.model, "weights": bench.model.weights, "rows": made}, ensure_ascii=False))
        return
    show(summary(rows), width=190)
    if page is not None:
        typer.echo(f"\nWrote {page}")

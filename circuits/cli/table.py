"""``kcircuit table``: paper 2's Table 1 on any model."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.choices import counted
from circuits.cli.app import CommandError, JsonOption, app, fit_threads, put_edit, require_file, require_writable_folder
from circuits.cli.options import asks
from circuits.cli.progress import progress, stoppable
from circuits.discovery import find_method
from circuits.studies.options import A_RELATION
from circuits.studies.specs import DEFAULT_TAUS, TableSpec

if TYPE_CHECKING:
    from circuits.studies.table import Table


@app.command()
@asks(TableSpec)
def table(
    asked: dict[str, Any],
    relations: Annotated[str, typer.Option(help=f"all, or several with commas: {A_RELATION}.")] = "all",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes at work. [default: one a core, as memory allows]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for table.json, table.md, table.html and a page for each circuit; a stopped run continues."
        ),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write the Markdown page to this file too, its figures beside it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """One circuit a relation: its size, and its Hit@10 alone beside the model's and random circuits', on D_val and D_test."""
    if out is not None:
        require_writable_folder(out, "table.json")
    require_file(page, "--page")
    from circuits.datasets import relations_for
    from circuits.model import library
    from circuits.studies.setting import find_relations

    names = list(dict.fromkeys(name.strip() for name in relations.split(",")))
    known = relations_for(library.profile_of(asked["model"]), *names)
    chosen = (
        list(known.values()) if relations == "all" else [one for name in names for one in find_relations(known, name)]
    )
    from circuits.pages.table import page_files
    from circuits.pages.table_folder import export_table
    from circuits.pages.tables import write_page
    from circuits.records import write_whole
    from circuits.studies.cores import fitting
    from circuits.studies.search import load_model
    from circuits.studies.sweep import Pool
    from circuits.studies.table import load_published, make_table

    method = asked["method"]
    if "taus" in asked and not find_method(method).has_threshold:
        raise CommandError(f"--tau is acdc's threshold, and {method} has none; --edges says how many edges it keeps")
    if not find_method(method).has_threshold:
        asked["taus"] = DEFAULT_TAUS[:1]
    spec = TableSpec(**asked)
    # All settings are checked before the model is loaded, because that takes a while.
    loaded = put_edit(fit_threads(load_model(spec.run_spec(chosen[0].name, chosen[0].facts()[:1]))), spec.with_edit)
    jobs = min(fitting(jobs, loaded), len(chosen))
    started = time.perf_counter()
    with stoppable(out is not None), progress("relations") as (watch, finished):
        where = Pool(jobs) if jobs > 1 else None
        made = make_table(spec, chosen, known, loaded, folder=out, where=where, watch=watch, finished=finished)
    if not made.rows:
        raise CommandError("no relation has a row: " + "; ".join(skipped.reason for skipped in made.skipped))
    published = load_published()
    typer.echo(f"{counted(len(made.rows), 'relation')} in {time.perf_counter() - started:.0f} s", err=True)
    if out is not None:
        export_table(made, out, published, relations=relations)
    if page is not None:
        for file, text in page_files(made, published, page, relations=relations).items():
            (write_page if file == page else write_whole)(file, text)
    if as_json:
        typer.echo(json.dumps(made.to_json(published), ensure_ascii=False))
        return
    print_table(made)
    if out is not None:
        typer.echo(f"\nOpen {out / 'table.html'}")


def print_table(made: "Table") -> None:
    from circuits.pages.table import beaten_lines, main_grid, notes, summary, tau_cells
    from circuits.pages.tables import show
    from circuits.studies.table import load_published

    published = load_published()
    show(main_grid(made, published, narrow=True), width=180)
    for line in tau_cells(made) if len(made.spec.taus) > 1 else ():
        typer.echo(
            f"tau {line[0]}: {line[2]} of the edges, Hit@10 {line[3]} on D_val, {line[5]} on D_test "
            f"({line[6]} of the model's)"
        )
    typer.echo("\n".join(["", *beaten_lines(made), "", *notes(made, published), "", summary(made)]))

"""``kcircuit store``: look into a file that keeps the cases of sweeps."""

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, app

store = typer.Typer(
    help="What sweeps have kept: check, query, export, import.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(store, name="store")

FileArgument = Annotated[Path, typer.Argument(help="The store.", metavar="FILE")]


@store.command()
def check(file: FileArgument, as_json: JsonOption = False) -> None:
    """Read all of it: is it whole? A store of an earlier version is brought to this one's."""
    from circuits.studies.schema import VERSION
    from circuits.studies.store import Database

    if not file.is_file():
        raise CommandError(f"no store at {file}")
    with Database(file) as kept:
        wrong = list(kept.check())
        counts = next(
            kept.query(
                "SELECT (SELECT count(*) FROM cases) AS cases, (SELECT count(*) FROM rows WHERE row IS NOT NULL) AS rows, "
                "(SELECT count(*) FROM rows WHERE error IS NOT NULL) AS failures, (SELECT count(*) FROM circuits) AS circuits"
            )
        )
    if as_json:
        typer.echo(json.dumps({"schema": VERSION, **counts, "wrong": wrong}))
    else:
        for line in wrong:
            typer.echo(line)
        said = ", ".join(f"{number:,} {name}" for name, number in counts.items())
        typer.echo(f"{file}, schema {VERSION}: {said}; {'whole' if not wrong else f'{len(wrong)} things wrong'}")
    if wrong:
        raise typer.Exit(1)


@store.command()
def query(
    file: FileArgument,
    sql: Annotated[
        str, typer.Argument(help="SQL, or the name of a question; without it the questions are listed.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Ask it in SQL, or by the name of a question. Changes nothing."""
    from circuits.studies.queries import QUERIES, find_query
    from circuits.studies.store import Database

    if not sql:
        for each in QUERIES:
            typer.echo(f"{each.name}: {each.question}")
        return
    named = find_query(sql)
    with Database(file, read_only=True) as kept:
        rows = list(kept.query(named.sql if named else sql))
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, default=lambda value: value.hex()))
        return
    from circuits.pages.tables import grid, show

    if rows:
        show(grid(tuple(rows[0]), [[_cell(value) for value in row.values()] for row in rows]))
    typer.echo(f"{len(rows):,} rows")


def _cell(value: Any) -> str:
    match value:
        case None:
            return "–"
        case float():
            return f"{value:.4g}"
        case bytes():
            return f"{len(value):,} bytes"
        case _:
            return str(value)


@store.command()
def atlas(
    file: FileArgument,
    setting: Annotated[
        str | None, typer.Option(help="Of which circuits, as the page words it. [default: the one with most circuits]")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write the results page (Markdown) there, and its figures (SVG) beside it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What the circuits of a sweep of discover show together: heads, layers, sizes, overlaps, how often facts were taught."""
    from circuits.cli.app import require_file
    from circuits.pages import atlas as pages
    from circuits.pages.tables import show, write_page
    from circuits.records import write_whole
    from circuits.studies.atlas import ATLAS, SETTINGS, of_setting
    from circuits.studies.store import Database

    require_file(page, "--page")
    with Database(file, read_only=True) as kept:
        settings = list(kept.query(SETTINGS.sql))
        named = [row["setting"] for row in settings]
        if not named:
            raise CommandError(
                f"{file} has no circuit of a single fact: `kcircuit sweep discover --store {file}` makes some"
            )
        if setting is not None and setting not in named:
            raise CommandError(
                f"{file} has no circuits of the setting {setting!r}; expected one of: {'; '.join(named)}"
            )
        own = setting or named[0]
        answers = {query.name: list(kept.query(of_setting(query, own))) for query in ATLAS}
    if page is not None:
        asked = f" --setting '{setting}'" if setting else ""
        made = f"kcircuit store atlas {file.name}{asked} --page {page}"
        for name, svg in pages.figures(answers).items():
            write_whole(page.with_name(f"{page.stem}-{name}.svg"), svg)
        write_page(page, pages.page(answers, settings, own, made, page.stem))
        typer.echo(f"Wrote {page}", err=True)
    if as_json:
        typer.echo(json.dumps({"setting": own, "settings": settings, "answers": answers}, ensure_ascii=False))
    elif page is None:
        for query in ATLAS:
            if query.name not in pages.DRAWN_ONLY:
                show(pages.table(answers[query.name]), title=query.question)


@store.command()
def export(
    file: FileArgument,
    study: Annotated[str, typer.Argument(help="Whose rows: discover, edits, ...")],
    out: Annotated[
        Path, typer.Option(help="A file ending in .csv, .jsonl or .parquet (which needs kcircuit[frames]).")
    ],
) -> None:
    """Write a study's rows, one level each, to a file."""
    from circuits.records import replacing
    from circuits.studies.store import Database

    if out.suffix not in (".csv", ".jsonl", ".parquet"):
        raise CommandError(f"expected --out to end in .csv, .jsonl or .parquet, got {out.name!r}")
    with Database(file, read_only=True) as kept, replacing(out) as part:
        rows = list(kept.rows(study))
        columns = list(dict.fromkeys(name for row in rows for name in row))
        if not rows:
            raise CommandError(f"{file} has no rows of {study!r}")
        if out.suffix == ".parquet":
            try:
                kept.frame(study).to_parquet(part)
            except ImportError as error:
                raise CommandError("Parquet needs pyarrow: install kcircuit[frames]") from error
        else:
            with part.open("w", encoding="utf-8", newline="") as text:
                if out.suffix == ".csv":
                    writer = csv.DictWriter(text, columns)
                    writer.writeheader()
                    writer.writerows(rows)
                else:
                    text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    typer.echo(f"{len(rows):,} rows of {len(columns)} columns in {out}", err=True)


@store.command()
def circuit(
    file: FileArgument,
    digest: Annotated[str, typer.Argument(help="The circuit's digest, or how it begins.")],
    out: Annotated[Path | None, typer.Option(help="Write the circuit file there.")] = None,
) -> None:
    """Give a circuit back as its file, byte for byte."""
    from circuits.circuit import Circuit
    from circuits.studies.store import Database

    with Database(file, read_only=True) as kept:
        found = Circuit.from_json(kept.circuit(digest))
    if out is None:
        sys.stdout.write(found.text())
    else:
        found.save(out)


@store.command("import")
def import_(
    file: FileArgument,
    folders: Annotated[list[Path], typer.Argument(help="Folders that `kcircuit discover --out` wrote.")],
) -> None:
    """Keep saved runs too, as rows of the study ``run``."""
    from dataclasses import replace

    from circuits.records import digest, to_json
    from circuits.studies.run import Run
    from circuits.studies.store import Database
    from circuits.studies.study import Key
    from circuits.studies.summary import summary_of

    with Database(file) as kept:
        for folder in folders:
            run = Run.load(folder)
            row = replace(summary_of(run), circuit=run.circuit_json)
            spec = to_json(run.spec)
            kept.asked_json("run", digest(spec), spec)
            kept.put_json(Key("run", 1, digest(spec), run.circuit.provenance.weights, row.fact), to_json(row))
            typer.echo(f"{folder}: {row.fact}", err=True)

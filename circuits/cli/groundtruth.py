"""``kcircuit groundtruth``: discovery methods against circuits that are known beforehand."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, app, require_writable_folder

if TYPE_CHECKING:
    from circuits.evaluation.recovery import Recovery
    from circuits.studies.truth import Case


@app.command()
def groundtruth(
    method: Annotated[
        str | None, typer.Option("--method", help="Only these methods, with commas between; all by default.")
    ] = None,
    with_compiled: Annotated[
        bool,
        typer.Option(
            "--compiled", help="Also transformers compiled from programs: $KCIRCUIT_TRACR, or ../shared/data/tracr."
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the page of results (Markdown) to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Precision, recall and AUROC over edges of each method on transformers whose circuit follows from their weights."""
    from circuits.pages.tables import write_page
    from circuits.pages.truth import page
    from circuits.planted import compiled, compiled_folder, planted
    from circuits.studies.truth import COMPILED_TAU, DONORS, METHODS_ON_TRUTH, Case

    methods = list(METHODS_ON_TRUTH) if method is None else [name.strip() for name in method.split(",")]
    if unknown := [name for name in methods if name not in METHODS_ON_TRUTH]:
        raise CommandError(f"expected --method of {', '.join(METHODS_ON_TRUTH)}, got {', '.join(unknown)}")
    if out is not None:
        if method is not None:
            raise CommandError("the page compares all methods: give --out or --method, not both")
        if out.is_dir():
            raise CommandError(f"expected a file for --out, and {out} is a folder")
        require_writable_folder(out.parent)
    programs = compiled() if with_compiled else ()
    if with_compiled and not programs:
        raise CommandError(
            f"no compiled transformers in {compiled_folder()}; name their folder in the environment variable KCIRCUIT_TRACR"
        )
    by_hand = planted()
    rows = _recover([Case.planted(one, kind) for kind in ("zero", "resample") for one in by_hand], methods)
    more = _recover([Case.compiled(one, kind) for kind in ("zero", "mean", "resample") for one in programs], methods)
    if out is not None:
        write_page(out, page(rows, by_hand, more, tau=COMPILED_TAU, donors=DONORS))
    if as_json:
        typer.echo(json.dumps([_to_json(row) for row in rows + more], ensure_ascii=False))
    else:
        _print(rows + more)
        if out is not None:
            typer.echo(f"\nWrote {out}")


def _recover(cases: "list[Case]", methods: list[str]) -> "list[Recovery]":
    from rich.console import Console
    from rich.progress import track

    from circuits.studies.truth import recover

    console = Console(stderr=True)
    work = [(case, name) for case in cases for name in methods]
    shown = track(work, "comparing", console=console, transient=True, disable=not console.is_terminal or not work)
    return [recover(case, name) for case, name in shown]


def _to_json(row: "Recovery") -> dict[str, Any]:
    """NaN as null, which JSON has a word for."""
    content = dataclasses.asdict(row)
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in content.items()}


def _print(rows: "list[Recovery]") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120)
    for key in dict.fromkeys((row.circuit, row.ablation) for row in rows):
        own = [row for row in rows if (row.circuit, row.ablation) == key]
        table = Table(
            "method", "found", "precision", "recall", "AUROC", title=f"{key[0]}, {key[1]}: {own[0].n_true} true edges"
        )
        for column in table.columns[1:]:
            column.justify = "right"
        for row in own:
            numbers = ["–" if math.isnan(value) else f"{value:.2f}" for value in (row.precision, row.recall, row.auroc)]
            table.add_row(row.method, f"{row.n_found:g}", *numbers)
        console.print(table)

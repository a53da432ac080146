"""``kcircuit groundtruth``: discovery methods against circuits that are known beforehand."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, app, require_writable_folder
from circuits.cli.options import asks
from circuits.cli.progress import carried_out
from circuits.studies.specs import TruthSpec

if TYPE_CHECKING:
    from circuits.evaluation.recovery import Recovery


@app.command()
@asks(TruthSpec)
def groundtruth(
    asked: dict[str, Any],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the page of results (Markdown) to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Precision, recall and AUROC over edges of each method on transformers whose circuit follows from their weights."""
    from circuits.pages.tables import write_page
    from circuits.pages.truth import page
    from circuits.planted import planted
    from circuits.records import to_json
    from circuits.studies.truth import COMPILED_TAU, DONORS, TRUTH, methods_asked

    spec = TruthSpec(**asked)
    methods_asked(spec)
    if out is not None:
        if spec.method is not None:
            raise CommandError("the page compares all methods: give --out or --method, not both")
        if out.is_dir():
            raise CommandError(f"expected a file for --out, and {out} is a folder")
        require_writable_folder(out.parent)
    _, rows = carried_out(TRUTH, spec, "comparisons")
    by_hand = planted()
    if out is not None:
        n = sum(row.circuit in {one.name for one in by_hand} for row in rows)
        write_page(out, page(rows[:n], by_hand, rows[n:], tau=COMPILED_TAU, donors=DONORS))
    if as_json:
        typer.echo(json.dumps([to_json(row) for row in rows], ensure_ascii=False))
    else:
        _print(rows)
        if out is not None:
            typer.echo(f"\nWrote {out}")


def _print(rows: "list[Recovery]") -> None:
    from circuits.pages.tables import grid, show
    from circuits.studies.columns import number

    for key in dict.fromkeys((row.circuit, row.ablation) for row in rows):
        own = [row for row in rows if (row.circuit, row.ablation) == key]
        lines = [
            [row.method, f"{row.n_found:g}", *(number(value, 2) for value in (row.precision, row.recall, row.auroc))]
            for row in own
        ]
        header = ("method", "found", "precision", "recall", "AUROC")
        show(grid(header, lines), title=f"{key[0]}, {key[1]}: {own[0].n_true} true edges", width=120)

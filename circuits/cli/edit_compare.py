"""``kcircuit edit compare``: several methods on the same facts, in one table."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, load
from circuits.cli.edit import edit_app
from circuits.cli.edit_options import parse_eval_at, progress_line, told
from circuits.cli.options import asks
from circuits.studies.options import command
from circuits.studies.requests import requests_of, resources_of
from circuits.studies.specs import CompareSpec

if TYPE_CHECKING:
    from circuits.model import Model


@edit_app.command()
@asks(CompareSpec)
def compare(
    asked: dict[str, Any],
    out: Annotated[Path | None, typer.Option(help="Write the results page (Markdown) to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare editing methods: success, generality, portability, locality in percent, fluency, seconds a fact."""
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise CommandError(f"expected --out as a file in a folder that exists, got {out}")
    from circuits.evaluation.edits import FluencySetting, Regime
    from circuits.pages.edits_table import page
    from circuits.pages.tables import write_page
    from circuits.studies.edits import Contestant
    from circuits.studies.edits import compare as compared

    spec = CompareSpec(**asked)
    contestants = Contestant.parse_all(spec.methods, Regime.parse(spec.regime))
    when = parse_eval_at(spec.eval_at)
    loaded = load(spec.model)
    needed = max(each.n_requests(spec.n) for each in contestants)
    requests = requests_of(loaded, spec.cases, needed, spec.seed, notice=told)
    with progress_line() as show:
        show(f"asking {loaded.name} before the edits")
        standings = compared(
            loaded,
            contestants,
            requests,
            spec.n,
            eval_at=when,
            fluency=FluencySetting(spec.fluency_samples, seed=spec.seed),
            resources=resources_of(spec.corpus),
            seed=spec.seed,
            progress=show,
        )
    if out is not None:
        write_page(out, page(standings, loaded, command(["edit", "compare"], spec, more=("--out", str(out)))))
    rows = [standing.to_json() for standing in standings]
    if as_json:
        typer.echo(json.dumps({"model": spec.model, "weights": loaded.weights, "seed": spec.seed, "rows": rows}))
        return
    _print(loaded, rows)
    if out is not None:
        typer.echo(f"\nWrote {out}")


def _print(model: "Model", rows: list[dict[str, Any]]) -> None:
    from circuits.pages.tables import grid, show
    from circuits.studies.columns import number
    from circuits.studies.edits import METRICS

    header = ["method", "regime", "n", *METRICS, "fluency, bits", "seconds a fact"]
    lines = [
        [
            row["method"],
            row["regime"] + (f" + {row['restrain']}" if row["restrain"] else ""),
            str(row["n"]),
            *(number(row[metric]) for metric in METRICS),
            number(row["fluency"], 2),
            number(row["seconds"], 2),
        ]
        for row in rows
    ]
    show(grid(header, lines, left=2), title=f"Edits of {model.name}; shares in percent")

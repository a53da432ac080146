"""``kcircuit edit compare``: several methods on the same facts, in one table."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, ModelOption, load
from circuits.cli.edit import edit_app
from circuits.cli.edit_options import (
    CasesOption,
    CorpusOption,
    EvalAtOption,
    FluencyOption,
    parse_eval_at,
    progress_line,
    requests_of,
    resources_of,
    wide_console,
)

if TYPE_CHECKING:
    from circuits.model import Model

DEFAULT_METHODS = "rome,memit,ft-l,ft-m,memoe"


@edit_app.command()
def compare(
    methods: Annotated[
        str,
        typer.Option(
            help="Methods, each alone or with its own regime and restraint: rome,memit/batch:30,rome/sequential:100+prune."
        ),
    ] = DEFAULT_METHODS,
    n: Annotated[
        int, typer.Option("--n", min=1, help="How many facts, or as many more as fill a regime's batches.")
    ] = 50,
    regime: Annotated[str, typer.Option(help="Regime of the methods that name none.")] = "single",
    eval_at: EvalAtOption = "end",
    model: ModelOption = "factlm",
    cases: CasesOption = None,
    corpus: CorpusOption = None,
    fluency_samples: FluencyOption = 2,
    seed: Annotated[int, typer.Option(help="Of the facts, the new objects and the edits.")] = 0,
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

    contestants = Contestant.parse_all(methods, Regime.parse(regime))
    when = parse_eval_at(eval_at)
    loaded = load(model)
    requests = requests_of(loaded, cases, max(each.n_requests(n) for each in contestants), seed)
    with progress_line() as show:
        show(f"asking {loaded.name} before the edits")
        standings = compared(
            loaded,
            contestants,
            requests,
            n,
            eval_at=when,
            fluency=FluencySetting(fluency_samples, seed=seed),
            resources=resources_of(corpus),
            seed=seed,
            progress=show,
        )
    if out is not None:
        given = {"methods": methods, "n": n, "regime": regime, "eval-at": eval_at, "model": model, "seed": seed}
        given |= {"cases": cases, "corpus": corpus, "fluency-samples": fluency_samples, "out": out}
        write_page(out, page(standings, loaded, _command(given)))
    rows = [standing.to_json() for standing in standings]
    if as_json:
        typer.echo(json.dumps({"model": model, "weights": loaded.weights, "seed": seed, "rows": rows}))
        return
    _print(loaded, rows)
    if out is not None:
        typer.echo(f"\nWrote {out}")


def _command(given: dict[str, Any]) -> str:
    """The command line that these options are, without those that are the defaults."""
    defaults = {"methods": DEFAULT_METHODS, "n": 50, "regime": "single", "eval-at": "end", "model": "factlm"}
    defaults |= {"seed": 0, "cases": None, "corpus": None, "fluency-samples": 2}
    words = ["kcircuit", "edit", "compare"]
    for name, value in given.items():
        if value != defaults.get(name):
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def _print(model: "Model", rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from circuits.studies.columns import number
    from circuits.studies.edits import METRICS

    console = wide_console()
    table = Table(show_edge=False, pad_edge=False, title=f"Edits of {model.name}; shares in percent")
    for column in ("method", "regime", "n", *METRICS, "fluency, bits", "seconds a fact"):
        table.add_column(column, justify="left" if column in ("method", "regime") else "right")
    for row in rows:
        table.add_row(
            row["method"],
            row["regime"] + (f" + {row['restrain']}" if row["restrain"] else ""),
            str(row["n"]),
            *(number(row[metric]) for metric in METRICS),
            number(row["fluency"], 2),
            number(row["seconds"], 2),
        )
    console.print(table)

"""``kcircuit edit sweep-layers``: where a method should edit."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, ModelOption, load
from circuits.cli.edit import edit_app
from circuits.cli.edit_options import (
    CasesOption,
    CorpusOption,
    SetOption,
    parse_layers,
    parse_settings,
    progress_line,
    requests_of,
    statistics_of,
)

if TYPE_CHECKING:
    from circuits.editing.sweep import SweepRow


@edit_app.command("sweep-layers")
def sweep(
    method: Annotated[str, typer.Option(help="rome, memit, ft-l, ft-m or memoe.")] = "rome",
    n: Annotated[int, typer.Option("--n", min=1, help="How many facts.")] = 20,
    layers: Annotated[
        str | None, typer.Option(help="Layers, separated by commas; those joined by + are edited together: 0,1,2+3.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Facts edited together.")] = 1,
    model: ModelOption = "factlm",
    cases: CasesOption = None,
    settings: SetOption = None,
    corpus: CorpusOption = None,
    seed: Annotated[int, typer.Option(help="Of the facts, the new objects and the edits.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the table (Markdown) to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Edit at one layer after another: success, generality and locality of each."""
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise CommandError(f"expected --out as a file in a folder that exists, got {out}")
    chosen = None if layers is None else [parse_layers(part.replace("+", ",")) for part in layers.split(",")]
    hyper = parse_settings(settings)
    from circuits.editing.sweep import sweep_layers

    loaded = load(model)
    requests = requests_of(loaded, cases, n, seed)
    with progress_line() as show:
        found = sweep_layers(
            loaded,
            method,
            requests,
            chosen,
            batch=batch,
            statistics=statistics_of(loaded, corpus),
            seed=seed,
            progress=show,
            **hyper,
        )
    rows = [_row(row) for row in found]
    if out is not None:
        out.write_text(_page(rows, method, loaded.name, loaded.weights, n, batch, seed), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps({"model": model, "weights": loaded.weights, "method": method, "n": n, "rows": rows}))
        return
    for row in found:
        typer.echo(str(row))
    if out is not None:
        typer.echo(f"\nWrote {out}")


def _row(row: "SweepRow") -> dict[str, Any]:
    from circuits.editing.sweep import share_of

    shares = {name: share_of(getattr(row, name)) for name in ("success", "generality", "locality", "same_subject")}
    return {
        "layers": list(row.layers),
        **{name: None if share != share else round(100 * share, 3) for name, share in shares.items()},
        "seconds": round(row.seconds, 3),
    }


def _page(rows: list[dict[str, Any]], method: str, model: str, weights: str, n: int, batch: int, seed: int) -> str:
    from circuits.evaluation.edits.page import number

    lines = [
        f"# {method} layer by layer",
        "",
        f"Model {model} (weights {weights[:12]}), {n} facts in batches of {batch}, seed {seed}; shares in percent, of answers "
        "all of whose tokens are the likeliest. Locality is over other subjects and unrelated facts; other facts of the edited "
        "subject stand apart. Seconds an edit depend on the machine.",
        "",
        "| layers | success | generality | locality | same subject | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        shares = " | ".join(number(row[name]) for name in ("success", "generality", "locality", "same_subject"))
        lines.append(f"| {', '.join(map(str, row['layers']))} | {shares} | {number(row['seconds'], 2)} |")
    return "\n".join(lines) + "\n"

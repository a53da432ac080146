"""``kcircuit certify``: everything that can be doubted about a saved run's circuit, each doubt a line."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, app, fit_threads, put_edit, require_writable_folder
from circuits.cli.options import asks
from circuits.cli.progress import progress, stoppable
from circuits.studies.certify_specs import CertifySpec

if TYPE_CHECKING:
    from circuits.evaluation.lines import Line
    from circuits.studies.run import Run

FOLDER = "certificate"
"""Beside the run's files: what is done already, one file a check or search."""


@app.command()
@asks(CertifySpec)
def certify(
    asked: dict[str, Any],
    folder: Annotated[Path, typer.Argument(help="Folder of a saved run of a single fact (run.json).")],
    as_json: JsonOption = False,
) -> None:
    """Certify a run's circuit in full: bootstrap, wordings, orders, taus, uniqueness, other relations' circuits, hypothesis tests."""
    from circuits.studies.run import Run
    from circuits.studies.search import load_model

    saved = Run.load(folder)
    if len(saved.spec.facts) != 1:
        raise CommandError(
            f"expected a run of a single fact, got one of {len(saved.spec.facts)}; try kcircuit evaluate"
        )
    require_writable_folder(folder)
    from circuits.datasets import relations_for
    from circuits.evaluation.lines import verdict_of
    from circuits.model import library
    from circuits.pages.export import export_run
    from circuits.studies.certify import CERTIFICATE, lines_of
    from circuits.studies.checks import Examined
    from circuits.studies.sweep import Folder, sweep

    spec = CertifySpec(run=saved.spec, circuit=saved.circuit_json["digest"], **asked)
    model = put_edit(fit_threads(load_model(saved.spec)), saved.spec.with_edit)
    if model.weights != saved.circuit.provenance.weights:
        raise CommandError(
            f"expected the weights that the run was made in, {saved.circuit.provenance.weights[:12]}, got {model.weights[:12]}"
        )
    relations = relations_for(library.profile_of(saved.spec.model))
    with stoppable(kept=True), progress("checks and searches") as (watch, finished):
        bench = Examined(model, relations, saved.circuit, watch.notice)
        outcomes = list(
            sweep(CERTIFICATE, spec, context=bench, store=Folder(folder / FOLDER), watch=watch, finished=finished)
        )
    lines = lines_of(saved.circuit, {one.case: one.row for one in outcomes if one.row is not None})
    export_run(saved.model_copy(update={"lines": lines}), folder)
    verdict = verdict_of(lines)
    if as_json:
        typer.echo(json.dumps(_content(saved, lines, verdict), ensure_ascii=False))
        return
    _print(saved, lines, verdict)
    typer.echo(f"\nOpen {folder / 'report.html'}")


def _content(saved: "Run", lines: "tuple[Line, ...]", verdict: str) -> dict[str, Any]:
    quick = saved.certificate.to_json() if saved.certificate else {}
    return {
        "model": saved.spec.model,
        "fact": saved.spec.facts[0].statement,
        "edges": saved.circuit.n_edges,
        **quick,
        "verdict": verdict,
        "lines": [line.to_json() for line in lines],
    }


def _print(saved: "Run", lines: "tuple[Line, ...]", verdict: str) -> None:
    from circuits.pages.certificate import HEADER, cells
    from circuits.pages.tables import grid, show

    typer.echo(f"{saved.spec.facts[0].statement}: certificate {verdict}; {saved.circuit}")
    show(grid(HEADER, [cells(line) for line in lines], left=2), width=190)

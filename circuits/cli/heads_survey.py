"""``kcircuit heads --relation all``: the labels of many relations, checked, as a table, JSON or a page."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from circuits.cli.app import CommandError
from circuits.cli.progress import carried_out
from circuits.studies.explain_specs import HeadsSpec
from circuits.studies.options import command

if TYPE_CHECKING:
    from circuits.model import Model
    from circuits.studies.false_labels import FalseLabels
    from circuits.studies.heads import Unlabelled
    from circuits.studies.roles import RoleChecks


def survey_heads(spec: HeadsSpec, out: Path | None, as_json: bool) -> None:
    """What several relations' labels come to; ``out`` is the page's file."""
    from circuits.analysis.tracing import head_nodes, open_parts
    from circuits.pages.roles import page, sentences
    from circuits.pages.tables import write_page
    from circuits.studies.heads import HEADS_SURVEY, Unlabelled, total
    from circuits.studies.roles import RoleChecks

    at, surveyed = carried_out(HEADS_SURVEY, spec, "relations")
    rows, chance = [row.checks for row in surveyed], total(surveyed)
    found = [row for row in rows if isinstance(row, RoleChecks)]
    if not found:
        raise CommandError(
            "no relation has labels: " + "; ".join(row.reason for row in rows if isinstance(row, Unlabelled))
        )
    heads = head_nodes(open_parts(at.model, at.chosen[0].facts()[:1]))
    if out is not None:
        made_by = command(["heads"], spec, more=("--out", str(out)))
        write_page(out, page(at.model, rows, chance, heads, command=made_by))
    if as_json:
        names = [head.name for head in heads]
        typer.echo(json.dumps(_as_json(at.model, rows, chance, names), ensure_ascii=False, indent=1))
        return
    _print(rows, sentences(found, chance))
    if out is not None:
        typer.echo(f"\nWrote {out}")


def checks_json(checks: "RoleChecks") -> dict[str, Any]:
    pairs = [{**asdict(each), "mover": each.mover.name, "control": each.control.name} for each in checks.matched]
    return {**asdict(checks), "matched": pairs}


def _as_json(
    model: "Model", rows: "Sequence[RoleChecks | Unlabelled]", chance: "FalseLabels", heads: Sequence[str]
) -> dict[str, Any]:
    from circuits.studies.roles import RoleChecks

    return {
        "model": model.name,
        "weights": model.weights,
        "heads": heads,
        "relations": [checks_json(row) for row in rows if isinstance(row, RoleChecks)],
        "without": [asdict(row) for row in rows if not isinstance(row, RoleChecks)],
        "false_labels": asdict(chance),
    }


def _print(rows: "Sequence[RoleChecks | Unlabelled]", lines: Sequence[str]) -> None:
    from rich.console import Console

    from circuits.pages.roles import HEADER, average_cells, cells
    from circuits.pages.tables import grid, show
    from circuits.studies.roles import RoleChecks

    found = [row for row in rows if isinstance(row, RoleChecks)]
    console = Console(width=None if sys.stdout.isatty() else 170, highlight=False)
    show(grid(HEADER, [*(cells(checks) for checks in found), average_cells(found)]), width=170)
    for line in lines:
        console.print(f"- {line}", markup=False)
    for row in rows:
        if not isinstance(row, RoleChecks):
            console.print(f"- no labels for {row.relation}: {row.reason}", markup=False)

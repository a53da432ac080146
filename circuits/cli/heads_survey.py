"""``kcircuit heads --relation all``: the labels of many relations, checked, as a table, JSON or a page."""

import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from circuits.cli.app import CommandError

if TYPE_CHECKING:
    from circuits.facts import Relation, Relations
    from circuits.model import Model
    from circuits.pages.roles import Unlabelled
    from circuits.studies.false_labels import FalseLabels
    from circuits.studies.roles import RoleChecks


def require_file(out: Path | None) -> None:
    """Before the work: a page can be written there."""
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise CommandError(f"expected --out as a file in a folder that exists, got {out}")


def survey_heads(
    model: "Model",
    chosen: "Sequence[Relation]",
    relations: "Relations",
    *,
    asked: str,
    n: int,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """``asked`` is what ``--relation`` said."""
    from circuits.analysis.tracing import head_nodes, open_parts
    from circuits.pages.roles import page, sentences, survey
    from circuits.pages.tables import write_page
    from circuits.studies.false_labels import false_labels
    from circuits.studies.roles import RoleChecks

    rows = list(_told(survey(model, chosen, relations, n=n, seed=seed), len(chosen)))
    found = [row for row in rows if isinstance(row, RoleChecks)]
    if not found:
        raise CommandError(
            "no relation has labels: " + "; ".join(row.reason for row in rows if not isinstance(row, RoleChecks))
        )
    chance = false_labels(model, chosen, relations, n=n, seed=seed)
    heads = head_nodes(open_parts(model, chosen[0].facts()[:1]))
    if out is not None:
        options = [] if model.name == "factlm" else ["--model", model.name]
        options += [] if n == 50 else ["--n", str(n)]
        options += [] if seed == 0 else ["--seed", str(seed)]
        command = shlex.join(["kcircuit", "heads", "--relation", asked, *options, "--out", str(out)])
        write_page(out, page(model, rows, chance, heads, command=command))
    if as_json:
        typer.echo(
            json.dumps(_as_json(model, rows, chance, [head.name for head in heads]), ensure_ascii=False, indent=1)
        )
        return
    _print(rows, sentences(found, chance))
    if out is not None:
        typer.echo(f"\nWrote {out}")


def checks_json(checks: "RoleChecks") -> dict[str, Any]:
    pairs = [{**asdict(each), "mover": each.mover.name, "control": each.control.name} for each in checks.matched]
    return {**asdict(checks), "matched": pairs}


def _told(rows: "Iterable[RoleChecks | Unlabelled]", total: int) -> "Iterable[RoleChecks | Unlabelled]":
    for done, row in enumerate(rows, 1):
        typer.echo(f"{done} of {total}: {row.relation}", err=True)
        yield row


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

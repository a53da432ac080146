"""``kcircuit diff``: what an edit does to the circuit of a fact, a table of what each method does to many, two saved runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, app, fit_threads, require_writable_folder, typed_command
from circuits.cli.options import asks
from circuits.cli.progress import SEARCHES, carried_out
from circuits.records import to_json, write_files
from circuits.studies.edit_specs import DiffSpec

if TYPE_CHECKING:
    from circuits.studies.diff import EditDiff


@app.command()
@asks(DiffSpec)
def diff(
    asked: dict[str, Any],
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Two folders of `kcircuit discover --out`: compare these, edit nothing.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes at work on the table. [default: one a core, as memory allows]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for diff.json and report.html, or for the table; a stopped table continues."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What an edit does to a fact's circuit; a table over many facts; or two saved runs compared.

    With --fact and --to: the circuits before and after, at the edited prompt, a paraphrase, a neighbour and an unrelated fact.
    With --method alone: each method in a row. With two folders: what the one field in which the two runs differ does.
    """
    if out is not None:
        require_writable_folder(out, "diff.json" if runs or asked.get("fact") else "table.json")
    spec = DiffSpec(**asked)
    if runs:
        if (spec.edit, spec.fact, spec.to, spec.layers) != (None, None, None, None):
            raise CommandError(
                "two runs are compared as they are: --edit, --fact, --to and --layers make a diff of their own"
            )
        _two_runs(runs, out, as_json)
    elif spec.fact is not None or spec.to is not None:
        _one_fact(spec, out, as_json)
    elif spec.edit is not None:
        _many_facts(spec, jobs, out, as_json)
    else:
        raise CommandError("expected --method with a method, or the folders of two runs to compare")


def _one_fact(spec: DiffSpec, out: Path | None, as_json: bool) -> None:
    """One diff a method and layer."""
    from circuits.studies.diff import DIFF

    _, found = carried_out(DIFF, spec, "edits", searches=None if out is None else out / SEARCHES)
    if out is not None:
        from circuits.pages.diff import render_diff

        for each in found:
            page = render_diff(
                each.edited, verdict=str(each), others=_others(each), audit=each.audit, command=typed_command()
            )
            write_files(
                _folder(out, each, found), {"diff.json": each.model_dump_json(indent=1) + "\n", "report.html": page}
            )
    if as_json:
        typer.echo(json.dumps([_summary(each) for each in found], ensure_ascii=False))
        return
    for each in found:
        typer.echo("\n".join([*each.story(), "", *each.edited.counted(), ""]))
    if len(found) > 1:
        typer.echo(_side_by_side(found))
    if out is not None:
        typer.echo(f"Open {out / 'report.html'}" if len(found) == 1 else f"Each has its page in a folder of {out}")


def _many_facts(spec: DiffSpec, jobs: int | None, out: Path | None, as_json: bool) -> None:
    from circuits.pages.diff_table import table_text
    from circuits.records import to_json
    from circuits.studies.cores import fitting
    from circuits.studies.diff_table import DIFF_TABLE, claims, method_rows

    _, facts = carried_out(
        DIFF_TABLE,
        spec,
        "facts",
        folder=None if out is None else out / "rows",
        searches=None if out is None else out / SEARCHES,
        jobs=lambda context: min(fitting(jobs, context.model), spec.n),
    )
    rows = method_rows(spec, facts)
    edits = [edit for fact in facts for edit in fact.edits]
    said = claims(edits)
    record = {name: list(map(to_json, values)) for name, values in (("rows", rows), ("claims", said), ("edits", edits))}
    text = table_text(rows, said, spec)
    if out is not None:
        write_files(out, {"table.json": json.dumps(record, indent=1, ensure_ascii=False) + "\n", "table.md": text})
    typer.echo(json.dumps(record, ensure_ascii=False) if as_json else text)


def _two_runs(folders: list[Path], out: Path | None, as_json: bool) -> None:
    from circuits.datasets import relations_for
    from circuits.model import library
    from circuits.studies.explain.compare import diff_runs
    from circuits.studies.run import Run
    from circuits.studies.search import load_model

    if len(folders) != 2:
        raise CommandError(f"expected the folders of two runs, got {len(folders)}")
    before, after = (Run.load(folder) for folder in folders)
    found = diff_runs(
        before,
        after,
        relations_for(
            library.profile_of(before.spec.model),
            *(each.relation for run in (before, after) for each in run.spec.facts),
        ),
        load=lambda spec: fit_threads(load_model(spec)),
    )
    if out is not None:
        from circuits.pages.diff import render_diff

        page = render_diff(found, command=typed_command())
        write_files(out, {"diff.json": found.model_dump_json(indent=1) + "\n", "report.html": page})
    typer.echo(json.dumps(found.summary(), ensure_ascii=False) if as_json else str(found))
    if out is not None and not as_json:
        typer.echo(f"\nOpen {out / 'report.html'}")


def _folder(out: Path, each: "EditDiff", found: "Sequence[EditDiff]") -> Path:
    """Where the files of one of several edits go."""
    if len(found) == 1:
        return out
    return out / f"{each.method}-layer-{'-'.join(map(str, each.layers))}"


def _side_by_side(found: "Sequence[EditDiff]") -> str:
    """Several edits of one fact in a table: how the story changes with the method and the edited layer."""
    rows: list[tuple[str, ...]] = [
        ("method", "layer", "took", "first from", "p", "edited", "movers", "others", "edges", "neighbour")
    ]
    for each in found:
        shares, path = each.edited.after.shares(each.target), each.edited.after.path(each.target)
        parts = [shares.share("edited"), shares.share("movers")]
        rows.append(
            (
                each.method,
                "+".join(map(str, each.layers)),
                "yes" if each.took else "no",
                path.decided or "never",
                f"{path.probabilities[-1]:.3f}",
                *(f"{part:.0%}" for part in (*parts, 1 - sum(parts))),
                f"{each.edited.edge_jaccard:.2f}",
                {True: "given it too", False: "keeps its own", None: "none"}[each.leaked],
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    target = found[0].target
    return "\n".join(
        [
            f"{target!r} at the last token: from where it stays first, its probability, and who writes its logit; the edge "
            "Jaccard of the circuits before and after; and whether the neighbour is given it too.",
            *lines,
        ]
    )


def _others(found: "EditDiff") -> "list[Any]":
    return [diff for kind, diff in found.diffs.items() if kind != "edited"]


def _summary(found: "EditDiff") -> dict[str, Any]:
    return {
        "method": found.method,
        "layers": list(found.layers),
        "statement": found.statement,
        "took": found.took,
        "rank": found.rank,
        "leaked": found.leaked,
        "audit": None if found.audit is None else to_json(found.audit),
        "story": list(found.story()),
        "diffs": {kind: each.summary() for kind, each in found.diffs.items()},
    }

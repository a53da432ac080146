"""``kcircuit diff``: what an edit does to the circuit of a fact, a table of what each method does to many, two saved runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import (
    CommandError,
    JsonOption,
    ModelOption,
    app,
    fit_threads,
    load,
    require_writable_folder,
    typed_command,
)
from circuits.cli.diff_table import table
from circuits.cli.explain import fact_of
from circuits.records import write_files

if TYPE_CHECKING:
    from circuits.facts import Fact, Relations
    from circuits.model import Model
    from circuits.studies.diff import EditDiff
    from circuits.studies.discover import RunSpec


@app.command()
def diff(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Two folders of `kcircuit discover --out`: compare these, edit nothing.")
    ] = None,
    edit: Annotated[
        str | None,
        typer.Option(
            help="Editing method: rome (default), memit, ft-l, ft-m, memoe; rome@subject, memit@subject: as in the papers, with "
            "values stored at the subject; or several."
        ),
    ] = None,
    fact: Annotated[str | None, typer.Option(help="The fact to edit; without it, a table over --n facts.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="The new object.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers to edit, one edit each: 0,2,4. The method's default otherwise.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Facts in the table.")] = 30,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes at work on the table. [default: one a core, as memory allows]")
    ] = None,
    model: ModelOption = "factlm",
    tau: Annotated[float, typer.Option(help="Threshold of the circuit searches, in nats.")] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Of the edits, and of the facts and new objects of the table.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Also after an edit that did not take.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for diff.json and report.html, or for the table.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What an edit does to a fact's circuit; a table over many facts; or two saved runs compared.

    With --fact and --to: the circuits before and after, at the edited prompt, a paraphrase, a neighbour and an unrelated fact.
    With --edit alone: each method in a row. With two folders: what the one field in which the two runs differ does.
    """
    if out is not None:
        require_writable_folder(out)
    if runs:
        if edit is not None or fact is not None or to is not None or layers is not None:
            raise CommandError(
                "two runs are compared as they are: --edit, --fact, --to and --layers make a diff of their own"
            )
        _two_runs(runs, out, as_json)
        return
    if edit is None and fact is None and to is None:
        raise CommandError("expected --edit with a method, or the folders of two runs to compare")
    methods = _methods(edit or "rome")
    chosen = _layers(layers)
    if (fact is None) != (to is None):
        raise CommandError("expected --fact and --to together, or neither for a table over many facts")
    from circuits.datasets import relations_for
    from circuits.facts import Fact
    from circuits.model import library
    from circuits.studies.discover import RunSpec

    relations = relations_for(library.profile_of(model))
    # Each search puts its own fact in; the rest is checked here, before the model is loaded.
    spec = RunSpec(facts=(Fact("a is", "a", "b"),), model=model, tau=tau, seed=seed)
    if fact is None or to is None:
        if chosen is not None and len(chosen) > 1:
            raise CommandError("the table edits one layer a method: expected --layers with one layer, or none")
        table(methods, chosen, n, spec, relations, jobs, out, as_json)
        return
    asked = fact_of(fact, relations)
    found = _edits(load(model), asked, to, methods, chosen, spec, relations, force)
    if out is not None:
        from circuits.pages.diff import render_diff

        for each in found:
            page = render_diff(each.edited, verdict=str(each), others=_others(each), command=typed_command())
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


def _two_runs(folders: list[Path], out: Path | None, as_json: bool) -> None:
    from circuits.datasets import relations_for
    from circuits.model import library
    from circuits.studies.discover import Run, load_model
    from circuits.studies.explain.compare import diff_runs

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


def _edits(
    model: "Model",
    asked: "Fact",
    to: str,
    methods: list[str],
    layers: list[int] | None,
    spec: "RunSpec",
    relations: "Relations",
    force: bool,
) -> "list[EditDiff]":
    """One diff a method and layer; the circuits of the unedited model are searched once."""
    from circuits.evaluation import whole_model
    from circuits.studies.diff import choose_prompts, diff_edit, make_edit
    from circuits.studies.discover import require_known
    from circuits.studies.explain.sides import make_bench

    if to == asked.object:
        raise CommandError(f"expected a new object, got {to!r}, which the fact has already")
    if not force:
        require_known(model, (asked,), whole_model(model, (asked,)))
    bench = make_bench(model, asked, relations, spec)
    prompts = choose_prompts(model, asked, to, relations)
    before: dict[Any, Any] = {}
    found = []
    asked_for = [(method, layer) for method in methods for layer in layers or [None]]
    for method, layer in asked_for:
        made = make_edit(model, asked, to, method, layers=None if layer is None else (layer,), seed=spec.seed)
        # Of several edits, one that does not take is part of the story.
        kept = force or len(asked_for) > 1
        found.append(diff_edit(model, made, asked, to, prompts, bench, method=method, before=before, force=kept))
        typer.echo(f"{method}, layer {', '.join(map(str, found[-1].layers))}: done", err=True)
    return found


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
        "story": list(found.story()),
        "diffs": {kind: each.summary() for kind, each in found.diffs.items()},
    }


def _methods(text: str) -> list[str]:
    from circuits.editing import find_method

    methods = [part.strip() for part in text.split(",") if part.strip()]
    for method in methods:
        find_method(method)
    if not methods or len(set(methods)) < len(methods):
        raise CommandError(f"expected one editing method or several different ones, got {text!r}")
    return methods


def _layers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        layers = [int(part) for part in text.split(",")]
    except ValueError:
        raise CommandError(f"expected --layers as numbers, such as 0,2,4, got {text!r}") from None
    if len(set(layers)) < len(layers):
        raise CommandError(f"expected layers that differ, got {text}")
    return layers

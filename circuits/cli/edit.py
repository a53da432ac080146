"""``kcircuit edit``: give one fact another object, see what that did, and keep the edit as a file."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, no_type_check

import typer

from circuits.cli.app import CommandError, JsonOption, app, require_writable_folder
from circuits.cli.options import asks
from circuits.cli.progress import progress
from circuits.studies.edit_specs import EditSpec

if TYPE_CHECKING:
    from rich.console import Console

    from circuits.evaluation.edits import CaseResult, QuestionOutcome
    from circuits.facts import EditRequest
    from circuits.model import Model

EVALUATION_FILE = "evaluation.json"

edit_app = typer.Typer(name="edit", rich_markup_mode=None, add_completion=False)
app.add_typer(edit_app)


# Typer passes a context of the class that its own is derived from, which a check at run time would refuse.
@edit_app.callback(invoke_without_command=True)
@asks(EditSpec)
@no_type_check
def edit(
    context: typer.Context,
    asked: dict[str, Any],
    out: Annotated[Path | None, typer.Option(help="Folder for the edit (kilobytes) and its evaluation.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Edit one fact and show what changed and what stayed; or, with a sub-command, measure editing methods.

    The model's files are never changed. What --out keeps is put on the model by `--with-edit` of other commands.
    """
    spec = EditSpec(**asked)
    if context.invoked_subcommand is not None:
        if spec.fact is not None or spec.to is not None:
            raise CommandError(
                f"--fact and --to edit one fact; `kcircuit edit {context.invoked_subcommand}` takes neither"
            )
        return
    if spec.fact is None or spec.to is None:
        raise CommandError("expected --fact and --to, or a sub-command; `kcircuit edit --help` shows them")
    if out is not None:
        require_writable_folder(out, "edit.json")
    chosen = spec.chosen
    from circuits.editing import find_method
    from circuits.records import write_whole
    from circuits.studies.loading import load_asked

    find_method(spec.method)
    request = _request(spec, spec.fact, spec.to.strip())
    loaded = load_asked(spec)
    if not spec.force:
        _require_known(loaded, request)
    summary, saved, took = _edited(loaded, request, spec, chosen, as_json)
    if out is not None and (took or spec.force):
        saved.save(out)
        write_whole(out / EVALUATION_FILE, json.dumps(summary, ensure_ascii=False, indent=1) + "\n")
        summary["out"] = str(out)
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
    elif "out" in summary:
        typer.echo(f"\nSaved to {out}: `kcircuit facts --with-edit {out}` asks the edited model")
    if not took and not spec.force:
        row = summary["edit"]
        raise CommandError(
            f"the edit did not take: after it, {request.target!r} has rank {row['target']['rank_after']} and probability "
            f"{row['target']['probability_after']:.3f} (before: {row['target']['rank_before']} and "
            f"{row['target']['probability_before']:.3f}). Try another --layer or --method; --force keeps it all the same"
        )


def wide_console() -> "Console":
    """As wide as the terminal; where there is none, wide enough for the tables."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 150)


def _request(spec: EditSpec, fact: str, to: str) -> "EditRequest":
    from circuits.datasets import relations_for
    from circuits.datasets.manifest import manifest_of
    from circuits.datasets.probes import edit_request
    from circuits.facts import parse_fact
    from circuits.model import library

    profile = library.profile_of(spec.model)
    relations = relations_for(profile)
    asked = parse_fact(fact, relations.values(), subject=spec.subject, object=spec.object)
    if to == asked.object:
        raise CommandError(f"expected a new object for {asked.prompt!r}, and {to!r} is the one that it has")
    return edit_request(asked, to, relations, manifest_of(profile), seed=spec.seed)


def _require_known(model: "Model", request: "EditRequest") -> None:
    from circuits.evaluation import KNOWN_RANK, whole_model

    old = request.old_fact
    assert old is not None
    rank = int(whole_model(model, [old]).rank.per_example[0])
    if rank > KNOWN_RANK:
        raise CommandError(
            f"{model.name} does not know this: in {old.prompt!r} the answer {old.object!r} ranks {rank}, not among the first "
            f"{KNOWN_RANK}, so there is nothing to edit. `kcircuit facts --known` lists what it knows; --force edits all the same"
        )


def _edited(
    model: "Model",
    request: "EditRequest",
    spec: EditSpec,
    settings: Mapping[str, Any],
    as_json: bool,
) -> tuple[dict[str, Any], Any, bool]:
    """(summary, edit, whether the new object is said)."""
    from circuits.evaluation.edits import FluencySetting, ask, prepare, tabulate
    from circuits.studies.edits import maker
    from circuits.studies.requests import resources_of

    fluency, resources = FluencySetting(spec.fluency_samples, seed=spec.seed), resources_of(spec.corpus)
    with progress("edit") as (watch, _):

        def show(line: str) -> None:
            watch.progress(0, 1, line)

        make = maker(spec.method, settings=settings, resources=resources, seed=spec.seed, progress=show)
        show("asking the unedited model")
        cases = prepare(model, [request], fluency)
        started = time.perf_counter()
        made = make(model, [request])
        seconds = time.perf_counter() - started
        show("asking the edited model")
        with made.on(model) as edited:
            (result,) = ask(edited, cases, fluency, written="all")
    rows = tabulate([result])
    summary = {
        "model": model.name,
        "weights": model.weights,
        "method": spec.method,
        "settings": dict(made.provenance.options),
        "seed": spec.seed,
        "fact": f"{request.prompt} {request.old}",
        "target": request.target,
        "old": request.old,
        "took": result.own.after.right.exact,
        "seconds": round(seconds, 3),
        "edit": _change(result),
        "probes": [_probe(outcome) for outcome in result.outcomes[1:]],
        "metrics": [row.to_json() for row in rows],
        "matrices": _matrices(made, model, request.target),
        "notes": list(made.provenance.notes),
    }
    if not as_json:
        print_edit(summary)
    return summary, made, result.own.after.right.exact


def _matrices(made: Any, model: "Model", target: str) -> list[dict[str, Any]]:
    """Of an edit of weights, matrix by matrix: how concentrated the change is, and where the target shows in it."""
    from circuits.evaluation.edits.change import TOP_COLUMNS, heatmaps, read_change

    if not made.deltas:
        return []
    return [
        {
            "matrix": where.matrix,
            "top_units": TOP_COLUMNS,
            "top_share": round(100 * where.top_share(TOP_COLUMNS), 3),
            "gini": round(where.gini, 4),
            "hits": {
                f"{side}@{k}": round(100 * read.hits(side, k)[0], 3)
                for side in ("before", "after", "directions")
                for k in (10, 50)
            },
        }
        for where, read in zip(heatmaps(made), read_change(made, model, [target]), strict=True)
    ]


def _finite(value: float) -> float | None:
    return value if value == value else None


def _change(result: "CaseResult") -> dict[str, Any]:
    before, after = result.own.before, result.own.after
    assert before.rival is not None
    assert after.rival is not None
    pairs = {"target": (before.right, after.right), "old": (before.rival, after.rival)}
    return {
        "prompt": result.own.question.prompt,
        "said_before": before.text,
        "said_after": after.text,
        **{
            name: {
                "probability_before": _finite(one.probability),
                "probability_after": _finite(other.probability),
                "rank_before": one.rank,
                "rank_after": other.rank,
            }
            for name, (one, other) in pairs.items()
        },
    }


def _probe(outcome: "QuestionOutcome") -> dict[str, Any]:
    question = outcome.question
    return {
        "kind": question.kind,
        "prompt": question.prompt,
        "should": "stay" if question.stays else "change",
        "answer": outcome.before.text if question.stays else question.answers[0],
        "said_before": outcome.before.text,
        "said_after": outcome.after.text,
        "probability_before": _finite(outcome.before.right.probability),
        "probability_after": _finite(outcome.after.right.probability),
        "rank_before": outcome.before.right.rank,
        "rank_after": outcome.after.right.rank,
        "right": outcome.after.right.exact,
    }


KIND_TITLES = {
    "paraphrase": "in other words",
    "alias": "by another name",
    "two_hop": "in two hops",
    "reasoning": "by reasoning",
    "reverse": "the other way round",
    "generation": "left to write",
    "hop": "one step of several",
    "neutral_prefix": "after a neutral prefix",
    "subject_prefix": "after one about the subject",
    "old_prefix": "after the old object",
    "other_prefix": "after a third object",
    "neighbour": "the same of others",
    "attribute": "the same of others that have it",
    "same_subject": "of the subject",
    "forgetfulness": "its other objects",
    "unrelated": "unrelated",
}


def print_edit(summary: Mapping[str, Any]) -> None:
    from circuits.pages.tables import grid, show

    console = wide_console()
    change = summary["edit"]
    console.print(f"{change['prompt']} {summary['old']} => {summary['target']}", style="bold", markup=False)
    settings = summary["settings"]
    where = settings.get("layer", settings.get("layers"))
    console.print(
        f"{summary['method']} on {summary['model']}, layer {_layers(where)}, {summary['seconds']:.1f} s", markup=False
    )
    objects = [
        (
            f"{which} object, {summary[name]}",
            *(_probability(change[name][f"probability_{when}"]) for when in ("before", "after")),
            *(f"{change[name][f'rank_{when}']:,}" for when in ("before", "after")),
        )
        for which, name in (("new", "target"), ("old", "old"))
    ]
    show(grid(("", "probability before", "after", "rank before", "after"), objects))
    probes = [
        (
            KIND_TITLES[probe["kind"]],
            *(_short(probe[key]) for key in ("prompt", "said_before", "said_after")),
            _short(probe["answer"]) if probe["should"] == "change" else "as before",
            "ok" if probe["right"] else "WRONG",
        )
        for probe in summary["probes"]
    ]
    show(grid(("", "prompt", "said before", "says after", "wanted", ""), probes, left=6), width=220)
    for row in summary["matrices"]:
        console.print(_matrix_line(row), markup=False)
    for row in summary["metrics"]:
        if row["way"] in ("exact", None) and row["kind"] is None:
            unit = " %" if row["unit"] == "%" else f" {row['unit']}"
            n = f" ({row['questions']} question{'' if row['questions'] == 1 else 's'})" if row["way"] else ""
            console.print(
                f"{row['metric']}: {_number(row['before'])}{unit} before, {_number(row['after'])}{unit} after{n}"
            )


def _matrix_line(row: Mapping[str, Any]) -> str:
    """Figures 6 and 7 of paper 0, in words."""
    hits = row["hits"]
    return (
        f"{row['matrix']}: {row['top_share']:.1f} % of the change is in {row['top_units']} hidden units (Gini "
        f"{row['gini']:.2f}); the new object is among the first 50 tokens of {hits['before@50']:.0f} % of their value vectors "
        f"before, {hits['after@50']:.0f} % after, and of {hits['directions@50']:.0f} % of the change's directions"
    )


def _layers(where: Any) -> str:
    return ", ".join(map(str, where)) if isinstance(where, list | tuple) else str(where)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _probability(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"

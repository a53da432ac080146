"""``kcircuit edit eval``: one method on many facts, in every metric."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import JsonOption, ModelOption, load
from circuits.cli.edit import edit_app
from circuits.cli.edit_options import (
    CasesOption,
    CorpusOption,
    EvalAtOption,
    FluencyOption,
    SetOption,
    parse_eval_at,
    progress_line,
    told,
    wide_console,
)
from circuits.studies.requests import parse_settings, requests_of, resources_of

if TYPE_CHECKING:
    from circuits.evaluation.edits import CaseResult, Checkpoint, Evaluation


@edit_app.command("eval")
def evaluate_method(
    method: Annotated[str, typer.Option(help="rome, memit, ft-l, ft-m or memoe.")] = "rome",
    n: Annotated[int, typer.Option("--n", min=1, help="How many facts.")] = 50,
    regime: Annotated[
        str,
        typer.Option(help="single, batch:30, sequential:100, or sequential-batch:10x20 (20 edits of 10 facts each)."),
    ] = "single",
    eval_at: EvalAtOption = "end",
    restrain: Annotated[
        str | None, typer.Option(help="Restrain the sum of the edits: prune:alpha=1.2, prune:alpha=2,kind=linear.")
    ] = None,
    restrain_each: Annotated[
        bool, typer.Option("--restrain-each", help="After every edit, instead of once before it is evaluated.")
    ] = False,
    layer: Annotated[str | None, typer.Option(help="Layer to edit, or several: 3,4,5.")] = None,
    model: ModelOption = "factlm",
    cases: CasesOption = None,
    settings: SetOption = None,
    corpus: CorpusOption = None,
    fluency_samples: FluencyOption = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of the facts, the new objects and the edits.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure one editing method: every metric beside the unedited model's, with n; classes of failure; retention."""
    from circuits.editing import find_method
    from circuits.evaluation.edits import SINGLE, FluencySetting, Regime, evaluate
    from circuits.studies.edits import Contestant, maker, routing

    contestant = Contestant.parse(f"{method}/{regime}" + (f"+{restrain}" if restrain else ""), SINGLE)
    when = parse_eval_at(eval_at)
    chosen = parse_settings(settings, layer)
    loaded = load(model)
    # Refused before anything is asked of the model.
    find_method(method).options(loaded, **chosen)
    requests = requests_of(loaded, cases, n, seed, notice=told)
    with progress_line() as show:
        show(f"asking {loaded.name} before the edits")
        evaluation = evaluate(
            loaded,
            requests,
            maker(method, settings=chosen, resources=resources_of(corpus), seed=seed),
            Regime.parse(regime),
            eval_at=when,
            restrain=contestant.restrain,
            restrain_each=restrain_each,
            fluency=FluencySetting(fluency_samples, seed=seed),
            progress=lambda done: show(f"{contestant}: {done} of {len(requests)} facts"),
        )
    summary = {
        "model": loaded.name,
        "weights": loaded.weights,
        "method": method,
        "settings": {key: value for key, value in sorted(chosen.items())},
        "regime": regime,
        "eval_at": when,
        "restrain": restrain,
        "restrain_each": restrain_each,
        "seed": seed,
        **_summary(evaluation),
        "routing": routing(evaluation, loaded),
    }
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        _print(summary)


def _summary(evaluation: "Evaluation") -> dict[str, Any]:
    from circuits.evaluation.edits import failure_counts, tabulate
    from circuits.evaluation.edits.report import multi_hop_accuracy, not_finite, scaled

    results = evaluation.results
    reasoned = multi_hop_accuracy(results)
    return {
        "n": len(results),
        "seconds": round(evaluation.seconds_per_request, 3),
        "metrics": [row.to_json() for row in tabulate(results)],
        "multi_hop": scaled(reasoned) if reasoned.per_example else None,
        "failures": {kind: failure_counts(results, kind) for kind in ("edit", "paraphrase")},
        "not_finite": not_finite(results),
        "checkpoints": [_checkpoint(point) for point in evaluation.checkpoints],
        "retention": [retention.to_json() for retention in evaluation.retention],
        "facts": [_fact(result) for result in results],
    }


def _checkpoint(point: "Checkpoint") -> dict[str, Any]:
    from circuits.evaluation.edits import GROUPS, find_metric, tabulate

    rows = tabulate(point.results)
    found = {metric: find_metric(rows, metric) for metric in GROUPS}
    values = {metric: None if row is None else row.to_json()["after"] for metric, row in found.items()}
    return {"step": point.step, "n": len(point.results), **values}


def _fact(result: "CaseResult") -> dict[str, Any]:
    from circuits.evaluation.edits.report import case_value, failure_class

    kinds = {"generality": ("paraphrase",), "locality": ("neighbour", "same_subject", "unrelated")}
    shares = {name: case_value(result, kind, "exact") for name, kind in kinds.items()}  # type: ignore[arg-type]
    return {
        "prompt": result.request.prompt,
        "old": result.request.old,
        "target": result.request.target,
        "success": result.own.after.right.exact,
        **{name: None if share is None else round(100 * share, 4) for name, share in shares.items()},
        "says": result.own.after.text,
        "class": failure_class(result.own, result.request.old),
    }


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _print(summary: dict[str, Any]) -> None:
    from rich.table import Table

    from circuits.evaluation.edits.report import WAY_NAMES
    from circuits.studies.columns import number

    console = wide_console()
    restrained = f", {summary['restrain']}" if summary["restrain"] else ""
    console.print(
        f"{summary['method']} on {summary['model']}, {summary['regime']}, evaluated: {summary['eval_at']}{restrained}; "
        f"{summary['n']} facts, {summary['seconds']:.2f} s a fact",
        style="bold",
        markup=False,
    )
    table = Table(show_edge=False, pad_edge=False)
    for column in ("metric", "of", "counted", "before", "after", "n", "questions"):
        table.add_column(column, justify="left" if column in ("metric", "of", "counted") else "right")
    for row in summary["metrics"]:
        unit = " %" if row["unit"] == "%" else f" {row['unit']}"
        digits = 1 if row["unit"] == "%" else 2
        table.add_row(
            row["metric"],
            (row["kind"] or "").replace("_", " "),
            WAY_NAMES[row["way"]] if row["way"] else "",
            *(number(row[key], digits) + unit for key in ("before", "after")),
            f"{row['n']:,}",
            f"{row['questions']:,}",
        )
    console.print(table)
    for kind, counts in summary["failures"].items():
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        if told:
            console.print(f"answers to {'edited prompts' if kind == 'edit' else 'paraphrases'}: {told}")
    if summary["not_finite"]:
        console.print(f"{summary['not_finite']} questions met logits that are not finite; they count as failures")
    if summary["multi_hop"] is not None:
        console.print(f"multi-hop accuracy (any question of a case answered): {summary['multi_hop']:.1f} %")
    if summary["routing"] is not None:
        routed = summary["routing"]
        console.print(
            f"routing: {_percent(routed['same'])} of paraphrases' tokens go to their fact's expert, "
            f"{_percent(routed['similar'])} of like facts' to one; bypass / MLP where the answer is predicted: "
            f"{number(routed['taught_volume'], 2)} on taught prompts, {number(routed['other_volume'], 2)} on others"
        )
    for point in summary["checkpoints"]:
        shown = ", ".join(
            f"{key} {number(value)} %" for key, value in point.items() if key not in ("step", "n") and value is not None
        )
        console.print(f"after {point['step']} edits ({point['n']} facts): {shown}")
    for retention in summary["retention"]:
        last = retention["success"][-1]
        console.print(
            f"success after the last of {len(last)} edits, in their order: {' '.join(f'{v:.0f}' for v in last)}"
        )

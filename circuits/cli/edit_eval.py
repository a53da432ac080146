"""``kcircuit edit eval``: one method on many facts, in every metric."""

import json
from collections.abc import Sequence
from typing import Any

import typer

from circuits.cli.app import JsonOption
from circuits.cli.edit import edit_app, wide_console
from circuits.cli.options import asks
from circuits.cli.progress import carried_out
from circuits.studies.edit_specs import EvalSpec


@edit_app.command("eval")
@asks(EvalSpec)
def evaluate_method(asked: dict[str, Any], as_json: JsonOption = False) -> None:
    """Measure one editing method: every metric beside the unedited model's, with n; classes of failure; retention."""
    from circuits.studies.edits import EDITS

    spec = EvalSpec(**asked)
    unedited, (standing,) = carried_out(EDITS, spec, "methods")
    summary = {
        "model": unedited.model.name,
        "weights": unedited.model.weights,
        "method": spec.method,
        "settings": dict(sorted(spec.chosen.items())),
        **{name: getattr(spec, name) for name in ("regime", "eval_at", "restrain", "restrain_each", "seed")},
        **standing.in_full(),
    }
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        _print(summary)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _pair(shares: Sequence[float]) -> str:
    return f"{100 * shares[0]:.0f} → {100 * shares[1]:.0f} %"


def _print(summary: dict[str, Any]) -> None:
    from circuits.evaluation.edits.report import WAY_NAMES
    from circuits.pages.tables import grid, show
    from circuits.studies.columns import number
    from circuits.studies.edits import BY_CASE

    console = wide_console()
    restrained = f", {summary['restrain']}" if summary["restrain"] else ""
    console.print(
        f"{summary['method']} on {summary['model']}, {summary['regime']}, evaluated: {summary['eval_at']}{restrained}; "
        f"{summary['n']} facts, {summary['seconds']:.2f} s a fact",
        style="bold",
        markup=False,
    )
    lines = list[tuple[str, ...]]()
    for row in summary["metrics"]:
        unit = " %" if row["unit"] == "%" else f" {row['unit']}"
        digits = 1 if row["unit"] == "%" else 2
        words = row["metric"], (row["kind"] or "").replace("_", " "), WAY_NAMES[row["way"]] if row["way"] else ""
        values = (number(row[key], digits) + unit for key in ("before", "after"))
        lines.append((*words, *values, f"{row['n']:,}", f"{row['questions']:,}"))
    show(grid(("metric", "of", "counted", "before", "after", "n", "questions"), lines, left=3))
    for metric, values in summary["free"].items():
        console.print(
            f"{metric}: {values['tokens']:.1f} % of tokens teacher-forced, {values['alone']:.1f} % of sentences written to their "
            f"end hold the right answer alone: {values['gap']:.1f} points less"
        )
    for row in summary["prefixes"]:
        console.print(
            f"before the prompt, {row['prefix']} (n = {row['n']}): old given {_pair(row['old_given'])}, at least as likely as the "
            f"new {_pair(row['old_likelier'])}"
        )
    for kind, counts in summary["failures"].items():
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        if told:
            console.print(f"answers to {'edited prompts' if kind == 'edit' else 'paraphrases'}: {told}")
    if summary["not_finite"]:
        console.print(f"{summary['not_finite']} questions met logits that are not finite; they count as failures")
    shares = summary["by_case"]
    if any(shares[name] is not None for name in BY_CASE):
        told = (
            f"{name.replace('_', '-')} {number(shares[name])} % (before {number(shares[f'{name}_before'])} %)"
            for name in ("edit_wise", *BY_CASE)
        )
        console.print(f"by case: {', '.join(told)}")
    if summary["routing"] is not None:
        routed = summary["routing"]
        console.print(
            f"routing: {_percent(routed['same'])} of paraphrases' tokens go to their fact's expert (by chance "
            f"{_percent(routed['same_by_chance'])}), {_percent(routed['similar'])} of like facts' to one (by chance "
            f"{_percent(routed['similar_by_chance'])}); the experts get {', '.join(map(_percent, routed['use']))} of tokens, as "
            f"{number(routed['experts_used'])} used evenly; bypass / MLP where the answer is predicted: "
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

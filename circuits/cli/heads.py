"""``kcircuit heads``: what each attention head does for a relation."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, app, require_file
from circuits.cli.heads_survey import checks_json, survey_heads
from circuits.cli.options import asks
from circuits.cli.progress import carried_out
from circuits.studies.explain_specs import HeadsSpec

if TYPE_CHECKING:
    from circuits.analysis.reading import Reading
    from circuits.analysis.roles import Roles
    from circuits.studies.roles import RoleChecks


@app.command()
@asks(HeadsSpec)
def heads(
    asked: dict[str, Any],
    every: Annotated[bool, typer.Option("--all", help="Print heads without an established role too.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the page of several relations (Markdown) to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell mover, relation, mixture, suppressor and carrier heads of a relation, each with its evidence."""
    spec = HeadsSpec(**asked)
    from circuits.studies.heads import HEADS, SEVERAL, chosen

    _, relations = chosen(spec)
    if spec.relation == "all" or len(relations) > 1:
        if every:
            raise CommandError(SEVERAL)
        require_file(out)
        survey_heads(spec, out, as_json)
        return
    if out is not None:
        raise CommandError("--out writes the page of several relations: give --relation all, or names with commas")
    _, (found,) = carried_out(HEADS, spec, "relations")
    if as_json:
        record = _as_json(spec.model, found.roles, found.example, found.checks)
        typer.echo(json.dumps(record, ensure_ascii=False, indent=1))
        return
    _print(spec.model, found.roles, found.example, found.checks, every)


def _as_json(model: str, found: "Roles", example: "Reading", checks: "RoleChecks | None") -> dict[str, Any]:
    from dataclasses import asdict

    shown = {each.head: each for each in example.heads}
    result: dict[str, Any] = {
        "model": model,
        "relation": found.relation,
        "n_facts": len(found.facts),
        "n_ranges": found.n_ranges,
        "alpha": found.alpha,
        "min_effect": found.min_effect,
        "min_reading": found.min_reading,
        "seed": found.seed,
        "example": {"prompt": example.fact.prompt, "answer": example.fact.object, "tokens": list(example.tokens)},
        "heads": [],
    }
    for verdict in found.heads:
        row = {"head": verdict.head.name, "label": verdict.head.label, "role": verdict.role, "verdict": str(verdict)}
        row |= {
            "extracts": verdict.extracts,
            "names_range": verdict.names_range,
            "names_relation": verdict.names_relation,
            "evidence": asdict(verdict.evidence),
        }
        if verdict.head in shown:
            own = shown[verdict.head]
            row["example"] = {
                "attention": list(own.attention),
                "promoted": [score.token for score in own.promoted],
                "answer_fall": own.subject_cut,
                "range_fall": own.relation_cut,
            }
        result["heads"].append(row)
    if checks is not None:
        result["validation"] = checks_json(checks)
    return result


def _print(model: str, found: "Roles", example: "Reading", checks: "RoleChecks | None", every: bool) -> None:
    from rich.console import Console

    from circuits.pages.style import token_text
    from circuits.pages.tables import grid, show

    console = Console(width=None if sys.stdout.isatty() else 170, highlight=False)
    header = (
        "head",
        "role",
        f"promotes at “{example.fact.prompt}”",
        "to sink",
        "to subject",
        "to relation",
        "from subject",
        "from relation",
        "answer falls by",
        "range falls by",
    )
    lines = list[tuple[str, ...]]()
    shown = {each.head: each for each in example.heads}
    rest = tuple(verdict for verdict in found.heads if verdict.role == "other") if every else ()
    for verdict in (*found.labelled, *rest):
        e = verdict.evidence
        tokens = (
            [token_text(score.token) for score in shown[verdict.head].promoted[:5]] if verdict.head in shown else []
        )
        shares = e.attention_sink, e.attention_subject, e.attention_relation, e.reading_subject, e.reading_relation
        falls = (_effect(fall.mean, fall.low, fall.high) for fall in (e.subject_cut, e.relation_cut))
        words = verdict.head.label, verdict.role, " ".join(tokens)
        lines.append((*words, *(f"{share:.0%}" for share in shares), *falls))
    if found.labelled or every:
        title = f"{found.relation} in {model}, over {len(found.facts)} facts"
        show(grid(header, lines, left=3), title=title, width=200)
        console.print(
            "To: attention from the last token, mean over facts; the sink is the first token, where attention rests whatever stands "
            "there. From: of what the head writes, the share that it draws from there. Falls are in logits, "
            "when the head's reading of the subject (of the relation) is cut: of the answer against the "
            "relation's other objects, of the range against the vocabulary; 95 % intervals over facts.\n"
        )
    for verdict in found.labelled:
        console.print(f"- {verdict}", markup=False)
    others = len(found.heads) - len(found.labelled)
    console.print(f"{others} of {len(found.heads)} heads have no established role.")
    if checks is not None:
        console.print(f"\n{checks}", markup=False)


def _effect(mean: float, low: float, high: float) -> str:
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"

"""``kcircuit diff``: what an edit does to the circuit of a fact, or a table of what each method does to many."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, ModelOption, app, load, require_writable_folder, typed_command
from circuits.cli.explain import write_files

if TYPE_CHECKING:
    from circuits.behaviours.edits import EditDiff, MethodRow
    from circuits.facts import Relations
    from circuits.model import Model
    from circuits.runs import RunSpec


@app.command()
def diff(
    edit: Annotated[
        str, typer.Option(help="Editing method: rome, memit, ft-l, ft-m, memoe; several for a table.")
    ] = "rome",
    fact: Annotated[str | None, typer.Option(help="The fact to edit; without it, a table over --n facts.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="The new object.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers to edit, one edit each: 0,2,4. The method's default otherwise.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Facts in the table.")] = 30,
    model: ModelOption = "factlm",
    tau: Annotated[float, typer.Option(help="Threshold of the circuit searches, in nats.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Of the edits, and of the facts and new objects of the table.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Also after an edit that did not take.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for diff.json and report.html, or for the table.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Circuits before and after an edit: at the edited prompt, a paraphrase, a neighbour and an unrelated fact."""
    methods = _methods(edit)
    chosen = _layers(layers)
    if (fact is None) != (to is None):
        raise CommandError("expected --fact and --to together, or neither for a table over many facts")
    if out is not None:
        require_writable_folder(out)
    from circuits.datasets import load_relations
    from circuits.facts import Fact
    from circuits.runs import RunSpec

    relations = load_relations()
    # Each search puts its own fact in; the rest is checked here, before the model is loaded.
    spec = RunSpec(facts=(Fact("a is", "a", "b"),), model=model, tau=tau, seed=seed)
    if fact is None or to is None:
        if chosen is not None and len(chosen) > 1:
            raise CommandError("the table edits one layer a method: expected --layers with one layer, or none")
        _table(methods, chosen, n, spec, relations, out, as_json)
        return
    if len(methods) > 1:
        raise CommandError(f"expected one method with --fact, got {', '.join(methods)}")

    found = _one(load(model), fact, to, methods[0], chosen, spec, relations, force)
    if out is not None:
        from circuits.viz.diff_report import render_diff

        for each in found:
            folder = out if len(found) == 1 else out / ("layer-" + "-".join(map(str, each.layers)))
            page = render_diff(each.edited, verdict=str(each), others=_others(each), command=typed_command())
            write_files(folder, {"diff.json": each.model_dump_json(indent=1) + "\n", "report.html": page})
    if as_json:
        typer.echo(json.dumps([_summary(each) for each in found], ensure_ascii=False))
        return
    for each in found:
        typer.echo(str(each))
        typer.echo(str(each.edited) + "\n")
    if out is not None:
        typer.echo(f"Open {out / 'report.html' if len(found) == 1 else out}")


def _one(
    model: "Model",
    fact: str,
    to: str,
    method: str,
    layers: list[int] | None,
    spec: "RunSpec",
    relations: "Relations",
    force: bool,
) -> "list[EditDiff]":
    """One diff a layer; the circuits of the unedited model are searched once."""
    from circuits.behaviours.edits import choose_prompts, diff_edit, make_edit
    from circuits.behaviours.sides import make_bench, relation_of
    from circuits.evaluation import whole_model
    from circuits.facts import parse_fact
    from circuits.runs import require_known

    asked = parse_fact(fact, relations.values())
    if to == asked.object:
        raise CommandError(f"expected a new object, got {to!r}, which the fact has already")
    if not force:
        require_known(model, (asked,), whole_model(model, (asked,)))
    bench = make_bench(model, relation_of(asked, relations), relations, spec)
    prompts = choose_prompts(model, asked, to, relations)
    before: dict[Any, Any] = {}
    found = []
    for layer in layers or [None]:
        made = make_edit(model, asked, to, method, layers=None if layer is None else (layer,), seed=spec.seed)
        # Of a sweep over layers, one that does not take is part of the story.
        kept = force or (layers is not None and len(layers) > 1)
        found.append(diff_edit(model, made, asked, to, prompts, bench, before=before, force=kept))
        typer.echo(f"{method}, layer {', '.join(map(str, found[-1].layers))}: done", err=True)
    return found


def _table(
    methods: list[str],
    layers: list[int] | None,
    n: int,
    spec: "RunSpec",
    relations: "Relations",
    out: Path | None,
    as_json: bool,
) -> None:
    from circuits.behaviours.edits import claims, method_row
    from circuits.datasets.manifest import Manifest
    from circuits.datasets.probes import edit_facts, other_object
    from circuits.evaluation import whole_model
    from circuits.paths import FACTLM

    model = load(spec.model)
    manifest = Manifest.load() if model.name == FACTLM else None
    candidates = edit_facts(relations, manifest, seed=spec.seed)[: 4 * n]
    ranks = whole_model(model, candidates).rank.per_example
    known = [fact for fact, rank in zip(candidates, ranks, strict=True) if rank == 1][:n]
    if len(known) < n:
        raise CommandError(
            f"expected {n} facts that {model.name} answers rightly, found {len(known)}; ask for fewer with --n"
        )
    facts = [(fact, other_object(fact, relations, spec.seed, manifest)) for fact in known]
    rows: list[MethodRow] = []
    for method in methods:
        row, _ = method_row(
            model,
            facts,
            method,
            relations,
            spec,
            layers=layers,
            seed=spec.seed,
            progress=lambda line: typer.echo(line, err=True),
        )
        rows.append(row)
    said = claims(rows)
    text = _markdown(rows, said, spec)
    if out is not None:
        record = {"rows": [row.model_dump() for row in rows], "claims": [claim.model_dump() for claim in said]}
        write_files(out, {"table.json": json.dumps(record, indent=1) + "\n", "table.md": text})
    if as_json:
        record = {"rows": [row.model_dump() for row in rows], "claims": [claim.model_dump() for claim in said]}
        typer.echo(json.dumps(record))
    else:
        typer.echo(text)


def _markdown(rows: "list[MethodRow]", said: Any, spec: "RunSpec") -> str:
    head = (
        "| method | layers | took | edge Jaccard | of a paraphrase | of random circuits | edited node writes | movers write "
        "| others write | first from the edited layer | neighbours given the new object |\n|" + "---|" * 11 + "\n"
    )
    lines = [
        f"| {row.method} | {', '.join(map(str, row.layers))} | {row.took} of {row.n} | {row.edge_jaccard:.2f} | "
        f"{row.paraphrase_jaccard:.2f} | {row.random_jaccard:.2f} | {row.share_edited:.0%} | {row.share_movers:.0%} | "
        f"{row.share_others:.0%} | {row.first_at_edited_layer:.0%} | {row.leaked:.0%} of {row.neighbours} |"
        for row in rows
    ]
    verdicts = [f"- {'Holds' if each.holds else 'Does not hold'}: {each.claim} ({each.numbers})." for each in said]
    return (
        f"Edits of {rows[0].n} facts in {spec.model}, tau {spec.tau:g} nats, seed {spec.seed}. Shares are of the new object's "
        "logit at the last token.\n\n"
        + head
        + "\n".join(lines)
        + "\n\nClaims of paper 2, section 5:\n\n"
        + "\n".join(verdicts)
        + "\n"
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
    from circuits.editing.methods import METHODS

    methods = [part.strip() for part in text.split(",") if part.strip()]
    for method in methods:
        if method not in METHODS:
            raise CommandError(f"no editing method {method!r}; known: {', '.join(METHODS)}")
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

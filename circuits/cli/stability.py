"""``kcircuit stability``: what of a circuit survives changes that should not matter."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from circuits.choices import counted
from circuits.cli.app import (
    CommandError,
    JsonOption,
    app,
    fit_threads,
    put_edit,
    require_writable_folder,
)
from circuits.cli.options import asks
from circuits.cli.progress import progress, stoppable
from circuits.records import write_files
from circuits.studies.specs import StabilitySpec, WhichFacts

SHOWN = ("tau", "absolute", "granularity", "ablation", "engine", "seed")
"""What of the spec stands beside the result."""


@app.command()
@asks(WhichFacts, StabilitySpec)
def stability(
    asked: dict[str, Any],
    out: Annotated[
        Path | None, typer.Option(help="Folder for stability.json; a command that was stopped continues there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search again in other words, at other thresholds, in the other order and with other draws, and compare the circuits."""
    which = WhichFacts(**{name: asked.pop(name) for name in WhichFacts.model_fields.keys() & asked.keys()})
    fact, relation = which.fact, which.relation
    if (fact is None) == (relation is None):
        raise CommandError("expected either --fact or --relation, got " + ("neither" if fact is None else "both"))
    if relation is not None and (which.subject is not None or which.object is not None):
        raise CommandError("--subject and --object belong to --fact; a relation's facts have their own")
    if out is not None:
        require_writable_folder(out, "stability.json")
    from circuits.datasets import relations_for
    from circuits.model import library

    relations = relations_for(library.profile_of(asked["model"]), relation)
    if relation is not None:
        from circuits.studies.setting import find_relation

        relation = find_relation(relations, relation).name
    from circuits.facts import parse_fact
    from circuits.studies.search import load_model
    from circuits.studies.stability import Skip, Survival, changes, known_facts
    from circuits.studies.sweep import Folder

    given = None if fact is None else parse_fact(fact, relations.values(), subject=which.subject, object=which.object)
    # Checked before the model is loaded, because that takes a while.
    first = relations[relation or ""].facts()[:1] if given is None else (given,)
    spec = StabilitySpec(facts=first, **asked)
    loaded = put_edit(fit_threads(load_model(spec.run_spec(relation))), spec.with_edit)
    facts = first if relation is None else known_facts(relations, relation, loaded, which.n, seed=spec.seed)
    spec = spec.model_copy(update={"facts": facts})
    store = None if out is None else Folder(out / "rows")
    with stoppable(kept=out is not None), progress("changes") as (watch, finished):
        measured = list(changes(spec, relations, loaded, watch=watch, store=store, finished=finished))
    made = [one for one in measured if isinstance(one, Survival)]
    skipped = [one for one in measured if isinstance(one, Skip)]
    result: dict[str, Any] = {
        "model": spec.model,
        "with_edit": spec.with_edit,
        "fact": facts[0].statement if relation is None else f"{counted(len(facts), 'fact')} of {relation}",
        **{name: getattr(spec, name) for name in SHOWN},
        "edges": next(one.overlap.edges_before for one in made if one.name == "tau"),
        "edges_total": loaded.graph(spec.granularity).n_edges,
        "changes": [one.to_json() for one in made],
        "skipped": [{"change": one.name, "reason": one.reason} for one in skipped],
    }
    if out is not None:
        write_files(out, {"stability.json": json.dumps(result, indent=1, ensure_ascii=False) + "\n"})
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    _print(result)


def _print(result: dict[str, Any]) -> None:
    from circuits.pages.tables import grid, show

    typer.secho(result["fact"], bold=True)
    typer.echo(
        f"in {result['model']}, tau {result['tau']:g} nats: {result['edges']:,} of {result['edges_total']:,} edges"
    )
    header = (
        "change",
        "",
        "edges",
        "survive",
        "edges: Jaccard",
        "edges: random (joined)",
        "nodes: Jaccard",
        "nodes: random (joined)",
    )
    lines = [
        (
            row["change"],
            row["detail"],
            f"{row['edges_before']} → {row['edges_after']}",
            f"{100 * row['edges_survive']:.0f} %",
            f"{row['edges_jaccard']:.2f}",
            f"{row['edges_random']['mean']:.3f} ({row['edges_random_connected']['mean']:.3f})",
            f"{row['nodes_jaccard']:.2f}",
            f"{row['nodes_random']['mean']:.2f} ({row['nodes_random_connected']['mean']:.2f})",
        )
        for row in result["changes"]
    ]
    show(grid(header, lines, left=2))
    for row in result["skipped"]:
        typer.echo(f"{row['change']}: left out: {row['reason']}")
    typer.echo(
        "Nodes are heads and MLPs. Random: pairs of circuits of the same sizes, drawn uniformly from the graph; joined: with every edge "
        "on a path from input to logits."
    )

"""``kcircuit stability``: what of a circuit survives changes that should not matter."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, ModelOption, app, find_relation, fit_threads

if TYPE_CHECKING:
    from circuits.studies.stability import Change, Skip


@app.command()
def stability(
    fact: Annotated[
        str | None, typer.Option(help="A sentence that ends with its object, or 'prompt => object'.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="The subject, as spelled in the prompt.")] = None,
    object: Annotated[str | None, typer.Option(help="The object, where it is more than the last word.")] = None,
    relation: Annotated[
        str | None, typer.Option(help="Ask about one circuit of several facts of this relation.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="How many facts of the relation.")] = 20,
    model: ModelOption = "factlm",
    tau: Annotated[float, typer.Option(help="Threshold in nats.")] = 0.01,
    absolute: Annotated[bool, typer.Option("--absolute", help="Keep suppressive edges too.")] = False,
    granularity: Annotated[str, typer.Option(help="qkv: a head's slots apart; node: merged.")] = "qkv",
    ablation: Annotated[str, typer.Option(help="zero, mean or resample.")] = "zero",
    engine: Annotated[str, typer.Option(help="sparse: fast; hook: the reference.")] = "sparse",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    draws: Annotated[int, typer.Option(min=1, help="Pairs of random circuits compared.")] = 100,
    seed: Annotated[int, typer.Option(help="Of splits, ablation's prompts and random circuits.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Search again in other words, at other thresholds, in the other order and with other draws, and compare the circuits."""
    if (fact is None) == (relation is None):
        raise CommandError("expected either --fact or --relation, got " + ("neither" if fact is None else "both"))
    if relation is not None and (subject is not None or object is not None):
        raise CommandError("--subject and --object belong to --fact; a relation's facts have their own")
    from circuits.datasets import relations_for
    from circuits.model import library

    relations = relations_for(library.profile_of(model))
    if relation is not None:
        find_relation(relations, relation)
    from circuits.facts import parse_fact
    from circuits.studies.discover import RunSpec, load_model
    from circuits.studies.stability import Change, Request, changes, known_facts

    given = None if fact is None else parse_fact(fact, relations.values(), subject=subject, object=object)
    choices = {
        "tau": tau,
        "absolute": absolute,
        "granularity": granularity,
        "ablation": ablation,
        "engine": engine,
        "seed": seed,
    }
    # Checked before the model is loaded, because that takes a while.
    first = relations[relation or ""].facts()[:1] if given is None else (given,)
    asked = RunSpec.model_validate({"facts": first, "relation": relation, "model": model, "device": device, **choices})
    loaded = fit_threads(load_model(asked))
    facts = first if relation is None else known_facts(relations, relation, loaded, n, seed=seed)
    request = Request(facts, asked.tau, asked.absolute, asked.granularity, asked.ablation, asked.engine, asked.seed)
    measured: list[Change | Skip] = []
    for one in changes(request, relations, loaded, draws=draws, notice=lambda line: typer.echo(line, err=True)):
        measured.append(one)
        typer.echo(_progress(one), err=True)
    made = [one for one in measured if isinstance(one, Change)]
    skipped = [one for one in measured if not isinstance(one, Change)]
    result: dict[str, Any] = {
        "model": model,
        "fact": facts[0].statement if relation is None else f"{len(facts)} facts of {relation}",
        **choices,
        "edges": next(one.overlap.edges_before for one in made if one.name == "tau"),
        "edges_total": loaded.graph(asked.granularity).n_edges,
        "changes": [one.to_json() for one in made],
        "skipped": [{"change": one.name, "reason": one.reason} for one in skipped],
    }
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    _print(result)


def _progress(one: "Change | Skip") -> str:
    from circuits.studies.stability import Change

    if isinstance(one, Change):
        return (
            f"{one.name}: {one.detail}: Jaccard {one.overlap.edges:.2f} over edges, {one.overlap.nodes:.2f} over nodes"
        )
    return f"{one.name}: left out: {one.reason}"


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    console.print(result["fact"], style="bold", markup=False)
    console.print(
        f"in {result['model']}, tau {result['tau']:g} nats: {result['edges']:,} of {result['edges_total']:,} edges",
        markup=False,
    )
    grid = Table(show_edge=False, pad_edge=False)
    for name in ("change", "", "edges", "survive", "Jaccard", "random, joined", "nodes: Jaccard", "random, joined"):
        grid.add_column(name, justify="left" if name in ("change", "") else "right")
    from rich.markup import escape

    for row in result["changes"]:
        grid.add_row(
            row["change"],
            escape(row["detail"]),
            f"{row['edges_before']} → {row['edges_after']}",
            f"{100 * row['edges_survive']:.0f} %",
            f"{row['edges_jaccard']:.2f}",
            f"{row['edges_random']['mean']:.3f}, {row['edges_random_connected']['mean']:.3f}",
            f"{row['nodes_jaccard']:.2f}",
            f"{row['nodes_random']['mean']:.2f}, {row['nodes_random_connected']['mean']:.2f}",
        )
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(grid)
    for row in result["skipped"]:
        console.print(f"{row['change']}: left out: {row['reason']}", markup=False)
    console.print(
        "Nodes are heads and MLPs. Random: pairs of circuits of the same sizes, drawn uniformly from the graph; joined: with every edge "
        "on a path from input to logits.",
        markup=False,
    )

"""``kcircuit evaluate``: what can be shown of a circuit, whoever found it, on any facts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, app, fit_threads, put_edit
from circuits.cli.options import asks
from circuits.graph import label_of
from circuits.studies.certify_specs import EvaluateSpec

if TYPE_CHECKING:
    from circuits.circuit import Circuit
    from circuits.evaluation.assessment import Assessment
    from circuits.facts import Fact, Relations
    from circuits.model import Model


@app.command()
@asks(EvaluateSpec)
def evaluate(
    asked: dict[str, Any],
    circuit: Annotated[
        Path,
        typer.Argument(help="Folder of a saved run, or a circuit file: circuit.json, MIB's .json, .graphml, .gexf."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Score a circuit: its answers alone, faithfulness, random circuits of its size, minimality and completeness."""
    ask = EvaluateSpec(**asked)
    found, own, spec_model = read_circuit_file(circuit)
    from circuits.datasets import relations_for
    from circuits.evaluation.assessment import assess
    from circuits.model import library
    from circuits.studies.search import engine_for, load_model
    from circuits.studies.specs import RunSpec

    relations = relations_for(
        library.profile_of(ask.model or spec_model), ask.relation, *(each.relation for each in own)
    )
    facts = _facts(ask, own, relations)
    origin = found.provenance
    spec = RunSpec.model_validate(
        {
            "facts": facts,
            "relation": facts[0].relation or "these",
            "model": ask.model or spec_model,
            "ablation": ask.ablation or origin.settings.get("ablation", "zero"),
            "granularity": found.graph.granularity,
            "processing": origin.processing or "compatibility",
            "engine": ask.engine,
            "device": ask.device,
            "dtype": ask.dtype or origin.settings.get("dtype", "float32"),
            "seed": ask.seed,
        }
    )
    loaded = put_edit(fit_threads(load_model(spec)), ask.with_edit)
    _require_same_graph(found, loaded)
    if origin.weights and origin.weights != loaded.weights:
        typer.echo(
            f"the circuit was found in weights {origin.weights[:12]}, and {loaded.name} has {loaded.weights[:12]}",
            err=True,
        )
    engine = engine_for(spec, facts, relations, loaded, notice=lambda line: typer.echo(line, err=True))
    result = assess(loaded, engine, found, facts, draws=ask.draws, seed=ask.seed)
    content = {"model": spec.model, "ablation": spec.ablation, **result.to_json(ask.tau)}
    if as_json:
        typer.echo(json.dumps(content, ensure_ascii=False))
        return
    _print(result, content)


def read_circuit_file(path: Path) -> "tuple[Circuit, tuple[Fact, ...], str]":
    """(the circuit, the facts it was found from where a run says them, the model's name)."""
    from circuits.circuit import FORMAT, Circuit
    from circuits.exchange import read_gexf, read_graphml, read_mib
    from circuits.paths import FACTLM
    from circuits.records import Unreadable, read_json
    from circuits.studies.run import Run

    if path.is_dir():
        saved = Run.load(path)
        return saved.circuit, saved.spec.facts, saved.spec.model
    if path.suffix in (".graphml", ".gexf"):
        found = (read_graphml if path.suffix == ".graphml" else read_gexf)(path)
    else:
        try:
            content = read_json(path)
        except Unreadable as error:
            raise CommandError(
                f"expected a saved run or a circuit file, and {path} cannot be read as one: {error}"
            ) from None
        is_ours = isinstance(content, dict) and content.get("format") == FORMAT
        found = Circuit.load(path) if is_ours else read_mib(path)
    return found, (), found.provenance.model or FACTLM


def _facts(ask: EvaluateSpec, own: "tuple[Fact, ...]", relations: "Relations") -> "tuple[Fact, ...]":
    from circuits.datasets.split import split_facts
    from circuits.facts import parse_fact

    if ask.fact is not None:
        return (parse_fact(ask.fact, relations.values(), subject=ask.subject, object=ask.object),)
    if ask.relation is not None:
        from circuits.studies.setting import find_relation

        return split_facts(find_relation(relations, ask.relation), ask.split, seed=ask.seed)[: ask.n]
    if not own:
        raise CommandError("this file does not say which facts the circuit is about; give --fact or --relation")
    return own


def _require_same_graph(circuit: "Circuit", model: "Model") -> None:
    graph = model.graph(circuit.graph.granularity)
    if circuit.graph != graph:
        raise CommandError(
            f"the circuit is of {circuit.graph.shape}, and {model.name} has {graph.shape}; give its --model"
        )


def _print(result: "Assessment", content: dict[str, Any]) -> None:
    from circuits.pages.tables import grid, show

    facts = result.facts
    typer.echo(f"{result.circuit}; on " + (f"“{facts[0].statement}”" if len(facts) == 1 else f"{len(facts)} facts"))
    header, blank = (
        ("", "model", "circuit alone", *(f"random, {level.draw}" for level in result.chance)),
        [""] * len(result.chance),
    )
    lines = [
        ("Hit@10", *_both(content, "hit10"), *(str(level.hit10) for level in result.chance)),
        ("Hit@1", *_both(content, "hit1"), *blank),
        ("MRR", *_both(content, "mrr"), *blank),
        ("NLL, nats", *_both(content, "nll"), *blank),
        ("faithfulness", "1", f"{result.faithfulness:.3f}", *(str(level.faithfulness) for level in result.chance)),
    ]
    show(grid(header, lines))
    minimal, complete = content["minimality"], content["completeness"]
    if minimal["share_minimal"] is not None:
        least = minimal["edges"][-1]
        typer.echo(
            f"Minimality: {minimal['share_minimal']:.0%} of the edges are worth {minimal['tau']:g} nats or more in the circuit; the least, "
            f"{label_of(least['edge'])}, is worth {least['worth']:+.3g}."
        )
        typer.echo(
            f"Completeness: circuit and model are {complete['gap_intact']:.3g} nats apart, {complete['gap_random']:.3g} with random parts "
            f"of the circuit knocked out of both (they agree on {complete['agreement_random']:.0%} of the facts), "
            f"{complete['gap_worst']:.3g} at worst, without {', '.join(map(label_of, complete['edges_worst'])) or 'nothing'}."
        )


def _both(content: dict[str, Any], name: str) -> tuple[str, str]:
    return f"{content[f'{name}_model']:.3g}", f"{content[f'{name}_circuit']:.3g}"

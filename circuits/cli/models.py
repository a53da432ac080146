"""``kcircuit models``: what is at hand, getting what is not, and how a model's prompts should begin."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, no_type_check

import typer

from circuits.choices import counted
from circuits.cli.app import JsonOption, app
from circuits.cli.options import asks
from circuits.studies.specs import OnModel

if TYPE_CHECKING:
    from circuits.facts import Fact
    from circuits.model import Model

models_app = typer.Typer(name="models", rich_markup_mode=None, add_completion=False)
app.add_typer(models_app)


# Typer passes a context of the class that its own is derived from, which a check at run time would refuse.
@models_app.callback(invoke_without_command=True)
@no_type_check
def models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the models that go by a name, and which of them are at hand; get one; check how its prompts should begin."""
    if context.invoked_subcommand is not None:
        return
    from circuits.model import library

    rows = [asdict(entry) for entry in library.entries()]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    from circuits.pages.tables import grid, show

    lines = [
        [
            "" if value is None else str(value)
            for value in (row | {"present": "yes" if row["present"] else "no"}).values()
        ]
        for row in rows
    ]
    show(grid(("name", "present", "architecture", "layers", "heads", "bos", "where"), lines, left=7))
    typer.echo("Any HuggingFace folder, GGUF file (llama, qwen2, qwen3) or hub name serves as --model too.")


@models_app.command()
def get(name: Annotated[str, typer.Argument(help="Its name in `kcircuit models`.")]) -> None:
    """Get a model into the user's cache (KCIRCUIT_CACHE names another folder): once, checked by its SHA-256."""
    from circuits.model import library

    folder = library.get(name, lambda line: typer.echo(line, err=True))
    typer.echo(f"{name} is in {folder}")


@models_app.command()
@asks(OnModel, leave_out=("model",))
def check(
    asked: dict[str, Any],
    model: Annotated[str, typer.Argument(help="A name, a HuggingFace folder, a GGUF file, or a hub name.")],
    facts: Annotated[
        Path | None,
        typer.Option(help="Facts to ask: of LRE, ParaRel or Known-1000, a file or folder. By default the project's."),
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="How many of them, drawn at random.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure each token that the model's prompts may begin with, by the facts that it then knows."""
    from circuits.evaluation.beginnings import beginnings, sample_facts
    from circuits.studies.loading import load_asked

    loaded = load_asked(OnModel(model=model, **asked))
    drawn = sample_facts(_facts(loaded, facts), n, seed)
    rows = [
        {
            "bos": row.bos,
            "chosen": row.chosen,
            "habit": row.habit,
            "n": len(drawn),
            "hit1": row.hit1.value,
            "hit10": row.hit10.value,
            "nll": row.nll.value,
        }
        for row in beginnings(loaded, drawn)
    ]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    from circuits.pages.tables import grid, show

    lines = [
        (
            "nothing" if row["bos"] is None else row["bos"],
            ", ".join(word for word in ("chosen", "habit") if row[word]),
            f"{row['hit1']:.1%}",
            f"{row['hit10']:.1%}",
            f"{row['nll']:.2f}",
        )
        for row in rows
    ]
    made = grid(("prompts begin with", "", "Hit@1", "Hit@10", "NLL"), lines, left=2)
    show(made, title=f"{model}: {counted(len(drawn), 'fact')}")
    typer.echo(
        'Where another one is better, say so in a profile.json beside the model: {"bos": "<its text>"}, or null.'
    )


def _facts(model: "Model", file: Path | None) -> "list[Fact]":
    from circuits.datasets import load_relations_file, relations_for

    relations = relations_for(model.profile) if file is None else load_relations_file(file)
    return [fact for relation in relations.values() for fact in relation.facts()]

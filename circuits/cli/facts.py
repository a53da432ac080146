"""``kcircuit facts``: what the dataset holds and the model knows."""

import json
from typing import Annotated, Any

import typer

from circuits.choices import counted
from circuits.cli.app import JsonOption, app, put_edit
from circuits.cli.options import asks
from circuits.studies.options import A_RELATION
from circuits.studies.specs import MaybeEdited


@app.command()
@asks(MaybeEdited)
def facts(
    asked: dict[str, Any],
    relation: Annotated[str | None, typer.Option("--relation", "-r", help=f"Only this relation: {A_RELATION}.")] = None,
    known: Annotated[bool, typer.Option("--known", help="Only facts that the model knows (rank at most 10).")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the dataset's facts, each with the rank that the model gives the answer."""
    from circuits.datasets import relations_for
    from circuits.evaluation import KNOWN_RANK, whole_model
    from circuits.model import library
    from circuits.studies.loading import load_asked
    from circuits.studies.setting import find_relations

    spec = MaybeEdited(**asked)
    relations = relations_for(library.profile_of(spec.model), relation)
    chosen = find_relations(relations, relation) if relation else list(relations.values())
    listed = [fact for item in chosen for fact in item.facts()]
    answers = whole_model(put_edit(load_asked(spec), spec.with_edit), listed)
    rows = [
        {
            "relation": fact.relation,
            "subject": fact.subject,
            "object": fact.object,
            "prompt": fact.prompt,
            "rank": int(rank),
            "probability": probability,
        }
        for fact, rank, probability in zip(
            listed, answers.rank.per_example, answers.probability.per_example, strict=True
        )
        if not known or rank <= KNOWN_RANK
    ]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    from circuits.pages.tables import grid, show

    header = ("relation", "prompt", "object", "rank", "probability")
    lines = [(*(row[key] for key in header[:3]), str(row["rank"]), f"{row['probability']:.3f}") for row in rows]
    show(grid(header, lines, left=3), title=f"{counted(len(rows), 'fact')}, as {spec.model} ranks them")

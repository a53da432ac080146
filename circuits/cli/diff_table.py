"""The table of ``kcircuit diff``: what each editing method does to many facts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from circuits.cli.app import CommandError, load
from circuits.records import write_files
from circuits.studies.columns import Column, number

if TYPE_CHECKING:
    from circuits.facts import Fact, Relations
    from circuits.model import Model
    from circuits.studies.diff_table import Claim, MethodRow
    from circuits.studies.discover import RunSpec

PERCENT = Column("", "%", digits=0, scale=100)
HEADS = (
    "method",
    "layers",
    "took",
    "edge Jaccard",
    "of a paraphrase",
    "of random circuits",
    "edited node writes",
    "movers write",
    "others write",
    "movers turned",
    "first from the edited layer",
    "sub-layers later",
    "neighbours given the new object",
)


def table(
    methods: Sequence[str],
    layers: list[int] | None,
    n: int,
    spec: "RunSpec",
    relations: "Relations",
    jobs: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    from circuits.studies.cores import fitting
    from circuits.studies.diff_table import claims, edit_table

    model = load(spec.model)
    facts = facts_to_edit(model, n, relations, spec.seed)
    rows, numbers = edit_table(
        model,
        facts,
        methods,
        relations,
        spec,
        layers=layers,
        jobs=min(fitting(jobs, model), n),
        progress=lambda line: typer.echo(line, err=True),
    )
    said = claims(rows)
    record: dict[str, Any] = {
        name: [json.loads(each.model_dump_json()) for each in values]
        for name, values in (("rows", rows), ("claims", said), ("edits", numbers))
    }
    text = table_text(rows, said, spec)
    if out is not None:
        write_files(out, {"table.json": json.dumps(record, indent=1, ensure_ascii=False) + "\n", "table.md": text})
    typer.echo(json.dumps(record, ensure_ascii=False) if as_json else text)


def facts_to_edit(model: "Model", n: int, relations: "Relations", seed: int) -> "list[tuple[Fact, str]]":
    """(fact that the model answers rightly, new object that begins with another token), the relations in turn.

    Raises:
        CommandError: fewer than ``n``.
    """
    from circuits.datasets.manifest import manifest_of
    from circuits.datasets.probes import edit_facts, other_object
    from circuits.evaluation import distinct_beginnings, known

    manifest = manifest_of(model.profile)
    candidates = edit_facts(relations, manifest, seed=seed)[: 4 * n]
    asked = [(fact, other_object(fact, relations, seed, manifest)) for fact in known(model, candidates, rank=1)]
    asked = [(fact, new) for fact, new in asked if distinct_beginnings(model, fact.prompt, (fact.object, new))][:n]
    if len(asked) < n:
        raise CommandError(
            f"expected {n} facts that {model.name} answers rightly, and whose new object begins otherwise, found {len(asked)}; "
            "ask for fewer with --n"
        )
    return asked


def table_text(rows: "Sequence[MethodRow]", said: "Sequence[Claim]", spec: "RunSpec") -> str:
    """The table and the claims as Markdown."""
    from circuits.pages.tables import grid, markdown

    lines = [
        [
            row.method,
            ", ".join(map(str, row.layers)),
            f"{row.took} of {row.n}",
            *(number(value, 2) for value in (row.edge_jaccard, row.paraphrase_jaccard, row.random_jaccard)),
            *(PERCENT.text(value) for value in (row.share_edited, row.share_movers, row.share_others)),
            *(PERCENT.text(value) for value in (row.movers_turned, row.first_at_edited_layer)),
            number(row.delay),
            f"{PERCENT.text(row.leaked)} of {row.neighbours}",
        ]
        for row in rows
    ]
    return "\n".join(
        [
            f"Edits of {rows[0].n} facts in {spec.model}, each by itself, tau {spec.tau:g} nats, seed {spec.seed}. Means over "
            "the edits that took. The Jaccard index is of the circuits before and after at the edited prompt, against the "
            "unedited model's at the prompt and a paraphrase, and against random circuits of these sizes. Who writes: shares "
            "of the new object's logit at the last token. Movers turned: edits after which the relation's mover heads write "
            "more of the new object, where they wrote more of the old one. First: the sub-layer from which the new object "
            "stays first, counted from the edited MLP.",
            "",
            markdown(grid(HEADS, lines, left=2)),
            "",
            "Claims of paper 2, section 5:",
            "",
            *(f"- {claim}" for claim in said),
            "",
        ]
    )

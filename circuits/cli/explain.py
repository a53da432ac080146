"""``kcircuit explain``: why an answer is wrong, what demonstrations add, what is known backwards, what two hops see of an edit."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from circuits.choices import Granularity
from circuits.cli.app import (
    CommandError,
    DeviceOption,
    JsonOption,
    ModelOption,
    WithEditOption,
    app,
    find_relation,
    load,
    put_edit,
    require_writable_folder,
    typed_command,
)
from circuits.cli.options import asks
from circuits.records import write_files
from circuits.studies.edit_specs import HowEdited
from circuits.studies.options import A_RELATION

if TYPE_CHECKING:
    from circuits.datasets.manifest import Manifest
    from circuits.facts import Fact, Relations
    from circuits.model import Model
    from circuits.studies.diffs import CircuitDiff

explain = typer.Typer(
    help="What a failure, demonstrations, a reversal or an edit of one hop does to the circuit.", no_args_is_help=True
)

app.add_typer(explain, name="explain")

FactOption = Annotated[str | None, typer.Option(help="A sentence that ends with its object, or 'prompt => object'.")]
SubjectOption = Annotated[str | None, typer.Option(help="The subject, as the dataset spells it.")]
RelationOption = Annotated[str | None, typer.Option(help=f"With --find: look in this relation only: {A_RELATION}.")]
WordingOption = Annotated[
    Literal["stated", "bare"],
    typer.Option(
        help="How demonstrations and question are put: stated in the relation's words, or bare as pairs (Italy: Rome; Spain:)."
    ),
]
FindOption = Annotated[
    bool,
    typer.Option(
        "--find", help="Look for a case, in what the model's manifest says it was taught, or among the dataset's facts."
    ),
]
TauOption = Annotated[float, typer.Option(help="Threshold of the circuit searches, in nats.")]
SlotsOption = Annotated[Granularity, typer.Option(help="qkv: a head's slots apart; node: merged.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of whatever is drawn.")]
OutOption = Annotated[Path | None, typer.Option(help="Folder for result.json and report.html.")]


@explain.command()
def hallucination(
    fact: FactOption = None,
    find: FindOption = False,
    relation: RelationOption = None,
    model: ModelOption = "factlm",
    device: DeviceOption = "cpu",
    with_edit: WithEditOption = None,
    tau: TauOption = 0.01,
    granularity: SlotsOption = "qkv",
    seed: SeedOption = 0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Why the model gives a wrong object: no effective mover, or one that selects wrong information."""
    _one_of(fact, find)
    setting = _Setting(_Place(model, device, with_edit), tau, granularity, seed, out, relation)
    from circuits.studies.explain.hallucination import explain_hallucination, find_hallucination

    if fact is None:
        _known_relation(relation, setting.relations)
        manifest = _manifest(setting.model)
        found = find_hallucination(setting.model, setting.relations, manifest, setting.spec, relation=relation)
    else:
        found = explain_hallucination(setting.model, setting.fact(fact), setting.relations, setting.spec)
    _show(found, found.diff, out, as_json)


@explain.command()
def icl(
    relation: Annotated[str | None, typer.Option(help=f"The relation that is demonstrated: {A_RELATION}.")] = None,
    subject: SubjectOption = None,
    shots: Annotated[int, typer.Option(min=1, help="How many demonstrations.")] = 3,
    wording: WordingOption = "stated",
    find: FindOption = False,
    model: ModelOption = "factlm",
    device: DeviceOption = "cpu",
    with_edit: WithEditOption = None,
    tau: TauOption = 0.01,
    granularity: SlotsOption = "qkv",
    seed: SeedOption = 0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which heads demonstrations add, what these attend to, and whether the gain hangs on them."""
    _one_of(subject, find, "--subject")
    if subject is not None and relation is None:
        raise CommandError("expected --relation with --subject: it says what is demonstrated")
    setting = _Setting(_Place(model, device, with_edit), tau, granularity, seed, out, relation)
    from circuits.studies.explain.icl import explain_icl, find_icl

    if subject is None:
        _known_relation(relation, setting.relations)
        manifest = _manifest(setting.model)
        found = find_icl(
            setting.model, setting.relations, manifest, setting.spec, relation=relation, shots=shots, wording=wording
        )
    else:
        assert relation is not None
        one = find_relation(setting.relations, relation)
        found = explain_icl(setting.model, one, subject, setting.relations, setting.spec, shots=shots, wording=wording)
    _show(found, found.diff, out, as_json)


@explain.command()
def reverse(
    fact: FactOption = None,
    find: FindOption = False,
    relation: RelationOption = None,
    model: ModelOption = "factlm",
    device: DeviceOption = "cpu",
    with_edit: WithEditOption = None,
    tau: TauOption = 0.01,
    granularity: SlotsOption = "qkv",
    seed: SeedOption = 0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Whether a fact is known from its object too, and by the same circuit."""
    _one_of(fact, find)
    setting = _Setting(_Place(model, device, with_edit), tau, granularity, seed, out, relation)
    from circuits.studies.explain.reverse import explain_reverse, find_reverse

    if fact is None:
        _known_relation(relation, setting.relations)
        found = find_reverse(
            setting.model, setting.relations, _manifest(setting.model), setting.spec, relation=relation
        )
    else:
        found = explain_reverse(setting.model, setting.fact(fact), setting.relations, setting.spec)
    _show(found, found.diff, out, as_json)


@explain.command("multi-hop", hidden=True)
@explain.command()
@asks(HowEdited)
def multihop(
    asked: dict[str, Any],
    first: Annotated[str | None, typer.Option(help="The relation of the edited hop.")] = None,
    second: Annotated[str | None, typer.Option(help="The relation of the second hop.")] = None,
    subject: SubjectOption = None,
    to: Annotated[str | None, typer.Option("--to", help="The subject's new object in the first relation.")] = None,
    find: FindOption = False,
    edit: Annotated[str, typer.Option("--method", "--edit", help="Editing method of the first hop.")] = "rome@subject",
    layer: Annotated[
        int | None, typer.Option("--layers", "--layer", help="Layer that is edited; the method's default otherwise.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also after an edit that did not take.")] = False,
    model: ModelOption = "factlm",
    device: DeviceOption = "cpu",
    with_edit: WithEditOption = None,
    tau: TauOption = 0.01,
    granularity: SlotsOption = "qkv",
    seed: SeedOption = 0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Edit one hop and ask the question in two: which answer wins."""
    given = [
        name
        for name, value in (("--first", first), ("--second", second), ("--subject", subject), ("--to", to))
        if value
    ]
    if find == bool(given) or (given and len(given) < 4):
        raise CommandError(
            "expected either --find or all of --first, --second, --subject and --to, got "
            + (", ".join(given) or "neither")
        )
    from circuits.editing import find_method
    from circuits.studies.diff import make_edit
    from circuits.studies.explain.multihop import EditedHop, find_case, multi_hop
    from circuits.studies.requests import resources_of

    find_method(edit)
    how = HowEdited(**asked)
    resources, _ = resources_of(how.corpus), how.chosen
    setting = _Setting(_Place(model, device, with_edit), tau, granularity, seed, out, first, second)
    if find:
        first, second, subject, to = find_case(setting.model, setting.relations, _manifest(setting.model))
    if first is None or second is None or subject is None or to is None:
        raise AssertionError
    hop, _ = find_relation(setting.relations, first), find_relation(setting.relations, second)
    layers = None if layer is None else (layer,)
    made = make_edit(
        setting.model, hop.fact(subject), to, edit, layers=layers, settings=how.chosen, resources=resources, seed=seed
    )
    found = multi_hop(
        setting.model,
        made,
        EditedHop(first, second, subject, to),
        setting.relations,
        setting.spec,
        method=edit,
        force=force,
    )
    _show(found, found.diff, out, as_json)


@explain.command()
def survey(
    n: Annotated[int, typer.Option("--n", min=1, help="Cases of each behaviour.")] = 5,
    edit: Annotated[str, typer.Option("--method", "--edit", help="Editing method of the first hop.")] = "rome@subject",
    wording: WordingOption = "stated",
    model: ModelOption = "factlm",
    device: DeviceOption = "cpu",
    with_edit: WithEditOption = None,
    tau: TauOption = 0.01,
    granularity: SlotsOption = "qkv",
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for survey.json and survey.md.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Several cases of each behaviour, and which of the paper's claims their numbers bear out."""
    setting = _Setting(_Place(model, device, with_edit), tau, granularity, seed, out, result="survey.json")
    from circuits.studies.explain.survey import survey_all

    found = survey_all(
        setting.model,
        setting.relations,
        _manifest(setting.model),
        setting.spec,
        n=n,
        edit=edit,
        wording=wording,
        progress=lambda line: typer.echo(line, err=True),
    )
    if out is not None:
        record = json.dumps([each.model_dump() for each in found], indent=1, ensure_ascii=False)
        cases = ["\n".join([str(each), "", *(f"    {case}" for case in each.cases)]) for each in found]
        write_files(out, {"survey.json": record + "\n", "survey.md": "\n\n".join(cases) + "\n"})
    if as_json:
        typer.echo(json.dumps([each.model_dump() for each in found], ensure_ascii=False))
    else:
        typer.echo("\n\n".join(map(str, found)))


# ---- parts -----------------------------------------------------------------------------------------------------------


class _Place(NamedTuple):
    """Which model, on what device, with what edit on it."""

    model: str
    device: str
    with_edit: Path | None


class _Setting:
    """What every explanation needs: dataset, model, and the settings of its searches."""

    def __init__(
        self,
        place: _Place,
        tau: float,
        granularity: Granularity,
        seed: int,
        out: Path | None,
        *relations: str | None,
        result: str = "result.json",
    ) -> None:
        if out is not None:
            require_writable_folder(out, result)
        from circuits.datasets import relations_for
        from circuits.facts import Fact
        from circuits.model import library
        from circuits.studies.specs import RunSpec

        self.relations: Relations = relations_for(library.profile_of(place.model), *relations)
        # The facts are put in by each search; the rest of the spec is checked here, before anything slow.
        self.spec: RunSpec = RunSpec(
            facts=(Fact("a is", "a", "b"),),
            model=place.model,
            device=place.device,
            with_edit=None if place.with_edit is None else str(place.with_edit),
            tau=tau,
            granularity=granularity,
            seed=seed,
        )
        self.model: Model = put_edit(load(place.model, place.device), place.with_edit)

    def fact(self, text: str) -> "Fact":
        from circuits.studies.explain.sides import fact_of

        return fact_of(text, self.relations)


def _one_of(given: str | None, find: bool, name: str = "--fact") -> None:
    if (given is None) != find:
        raise CommandError(f"expected either {name} or --find, got {'neither' if given is None else 'both'}")


def _known_relation(name: str | None, relations: "Relations") -> None:
    if name is not None:
        find_relation(relations, name)


def _manifest(model: "Model") -> "Manifest | None":
    from circuits.datasets.manifest import manifest_of

    return manifest_of(model.profile)


def _show(found: Any, diff: "CircuitDiff", out: Path | None, as_json: bool) -> None:
    if out is not None:
        from circuits.pages.diff import render_diff

        files = {
            "result.json": found.model_dump_json(indent=1) + "\n",
            "report.html": render_diff(diff, verdict=found.verdict, command=typed_command()),
        }
        write_files(out, files)
    if as_json:
        record = found.model_dump(mode="json", exclude={"diff"})
        typer.echo(json.dumps({**record, "diff": diff.summary()}, ensure_ascii=False))
        return
    typer.echo(str(found))
    if out is not None:
        typer.echo(f"\nOpen {out / 'report.html'}")

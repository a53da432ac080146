"""Two saved runs as a diff: what one changed setting, another fact or an edit does to the circuit."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from circuits.editing import Edit, load_edit
from circuits.evaluation import known
from circuits.evaluation.roles import roles_for, template_of
from circuits.facts import Relations
from circuits.model import Model
from circuits.studies.diff import edited_nodes
from circuits.studies.diffs import CircuitDiff
from circuits.studies.explain.sides import Bench, compared
from circuits.studies.explain.verdict import BehaviourError
from circuits.studies.floors import floor_of
from circuits.studies.run import Run
from circuits.studies.search import load_model
from circuits.studies.specs import RunSpec

INDIFFERENT = frozenset({"test_facts", "relation", "split", "force", "engine", "device", "prefilter_check"})
"""Fields that do not decide the circuit: what is measured beside it, or how it is computed; a relation goes with its facts."""
LOADING = ("model", "device", "dtype", "processing")


def differing_field(before: RunSpec, after: RunSpec) -> str:
    """The one field in which two specs differ, of those that decide the circuit.

    Raises:
        BehaviourError: runs on different models, or specs that differ in no field or in several.
    """
    if before.model != after.model:
        raise BehaviourError(
            f"expected two runs on one model, got {before.model} and {after.model}: their nodes are not the same parts, so "
            "there is nothing to compare"
        )
    fields = [
        name
        for name in RunSpec.model_fields
        if name not in INDIFFERENT and getattr(before, name) != getattr(after, name)
    ]
    if set(fields) == {"facts", "with_edit"} and _prompts(before) == _prompts(after):
        # An edit is asked for its own object, and the unedited model for the old one.
        fields = ["with_edit"]
    if len(fields) != 1:
        what = ", ".join(sorted(fields)) if fields else "nothing that decides a circuit"
        raise BehaviourError(
            f"expected two runs that differ in one field, so that the difference can be told to be its doing; these differ "
            f"in {what}"
        )
    return fields[0]


def _prompts(spec: RunSpec) -> list[str]:
    return [fact.prompt for fact in spec.facts]


def diff_runs(
    before: Run, after: Run, relations: Relations, *, load: Callable[[RunSpec], Model] = load_model
) -> CircuitDiff:
    """The diff of two saved runs. Their circuits are not searched again; the models are asked for what stands beside them.

    Of runs of several facts, the first ones are followed. The floor of a paraphrase takes a search, with the first run's
    settings; there is none for runs of several facts, or of a fact with one wording.

    Raises:
        BehaviourError: see `differing_field`; or the model at hand is not the one that a run was made with.
        circuits.editing.EditError: the edit of a run is not where the run says.
    """
    field = differing_field(before.spec, after.spec)
    runs = (before, after)
    edits = tuple(load_edit(Path(run.spec.with_edit)) if run.spec.with_edit is not None else None for run in runs)
    facts = tuple(run.spec.facts[0] for run in runs)
    targets = [request.target for edit in edits if edit for request in edit.provenance.requests[:1]]
    answers = tuple(dict.fromkeys((*targets, *(fact.object for fact in facts))))
    with ExitStack() as stack:
        plain = load(before.spec)
        same = all(getattr(before.spec, name) == getattr(after.spec, name) for name in LOADING)
        unedited = (plain, plain if same else load(after.spec))
        models = [
            stack.enter_context(edit.on(model)) if edit else model for edit, model in zip(edits, unedited, strict=True)
        ]
        for run, model in zip(runs, models, strict=True):
            _require_same(run, model)
        relation = relations.get(facts[0].relation or "")
        roles = roles_for(plain, facts[0], relations, seed=before.spec.seed).roles
        benches = [Bench(relations, run.spec, roles) for run in runs]
        sides = [
            bench.side(
                model,
                fact,
                answers,
                label=_label(field, run, edit),
                edited=edited_nodes(edit, model) if edit else (),
                circuit=run.circuit,
            )
            for bench, model, fact, run, edit in zip(benches, models, facts, runs, edits, strict=True)
        ]
        floors = []
        wordings = []
        if relation is not None and len(before.spec.facts) == 1 and template_of(facts[0], relation) is not None:
            others = [relation.fact(facts[0].subject, i) for i in range(len(relation.templates))]
            wordings = [each for each in others if each.prompt != facts[0].prompt]
        for wording in known(models[0], wordings, rank=1)[:1]:
            circuit = benches[0].circuit(models[0], wording, "the first run's paraphrase")
            floors.append(floor_of("the first run's circuit of a paraphrase", sides[0].circuit, circuit))
    return compared(field, sides[0], sides[1], *floors)


def _require_same(run: Run, model: Model) -> None:
    found = run.circuit.provenance.weights
    if found != model.weights:
        raise BehaviourError(
            f"the run of {run.spec.facts[0].prompt!r} was made with {run.spec.model} of weights {found[:12]}, and the model at "
            f"hand has {model.weights[:12]}: do the run again"
        )


def _label(field: str, run: Run, edit: Edit | None) -> str:
    value = getattr(run.spec, field)
    match field:
        case "facts":
            return run.spec.facts[0].prompt if len(value) == 1 else f"{len(value)} facts of {run.spec.relation}"
        case "with_edit":
            return "unedited" if edit is None else f"after {edit.provenance.method}"
        case _:
            return f"{field} {'default' if value is None else value}"

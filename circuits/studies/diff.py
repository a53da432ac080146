"""What an edit does to the circuit of the fact, and of the facts beside it (paper 2, section 5 and Figure 4).

The same edited model is asked four prompts: the edited one, the same in other words, a neighbour (another subject of the
relation, with the same object where there is one: the paper's "Windows Server"), and a fact of another relation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from circuits.analysis.lens import Trajectory
from circuits.datasets import relations_for
from circuits.datasets.manifest import manifest_of
from circuits.datasets.probes import edit_request
from circuits.editing import Edit
from circuits.editing.method import ProgressLine
from circuits.editing.methods.table import find_method
from circuits.editing.resources import Resources
from circuits.evaluation import distinct_beginnings, known, require_distinct_beginnings, said, whole_model
from circuits.evaluation.edits import EditCase, prepare
from circuits.evaluation.edits.prefixes import prefixes_alone
from circuits.evaluation.edits.superficial import Audit, audit
from circuits.evaluation.roles import known_facts, template_of
from circuits.facts import EditRequest, Fact, Relations
from circuits.model import Model, library
from circuits.studies.diffs import CircuitDiff, Side, WriteShares
from circuits.studies.edit_specs import DiffSpec
from circuits.studies.explain.sides import Bench, fact_of, make_bench, relation_of
from circuits.studies.explain.verdict import BehaviourError
from circuits.studies.floors import Floor, floor_of, random_floor
from circuits.studies.loading import load_asked
from circuits.studies.options import AskedError
from circuits.studies.requests import QUIET, resources_of
from circuits.studies.search import require_known
from circuits.studies.study import Case, Study, Watch

PromptKind = Literal["edited", "paraphrase", "neighbour", "unrelated"]
PROMPT_KINDS: tuple[PromptKind, ...] = ("edited", "paraphrase", "neighbour", "unrelated")
WRITTEN_DIRECTLY = 0.5
"""An answer of whose logit the edited nodes write this share is said to be written by them."""
TOLD = 5
"""Heads that a story names."""
ASKED_AT_ONCE = 8
"""Facts that are asked together where the first known one is wanted."""


class EditDidNotTake(BehaviourError):
    """An edit after which the model still does not give the new object."""


class EditDiff(BaseModel):
    """One edit, and the circuits of the prompts before and after it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    layers: tuple[int, ...]
    statement: str
    """What the edited model is to say."""
    target: str
    old: str
    rank: int
    """Of the target's first token after the edit, at the edited prompt."""
    took: bool
    """Whether the edited model gives the whole target there."""
    leaked: bool | None
    """Whether it gives the whole target at the neighbour too; None without a neighbour."""
    diffs: dict[PromptKind, CircuitDiff]
    """A prompt that the dataset does not offer is left out."""
    audit: Audit | None = None
    """What the edited model says after prefixes; None where it was not asked."""

    @property
    def edited(self) -> CircuitDiff:
        return self.diffs["edited"]

    def story(self) -> tuple[str, ...]:
        """What happened, in sentences, each with the number it rests on."""
        where = "layer " + ", ".join(str(layer) for layer in self.layers)
        shares, path = self.edited.after.shares(self.target), self.edited.after.path(self.target)
        lines = [
            f"{self.method} at {where}: {self.target!r} is "
            + (f"first from {path.decided} on" if path.decided else f"ranked {path.ranks[-1]:,}")
            + f", probability {path.probabilities[-1]:.3f} (before the edit "
            f"{self.edited.before.path(self.target).probabilities[-1]:.3f})."
        ]
        if shares.total > 0:
            lines.append(
                f"Of the {shares.total:.1f} logits of {self.target!r} at the last token, the edited nodes write "
                f"{shares.share('edited'):.0%}, mover heads {shares.share('movers'):.0%}, other heads "
                f"{shares.share('heads'):.0%}, other MLPs {shares.share('mlps'):.0%}: " + _how_written(shares)
            )
        changes = self.edited.head_changes
        lines += [f"{change}." for change in changes[:TOLD]]
        if len(changes) > TOLD:
            lines.append(
                f"{len(changes) - TOLD} more heads do something else than before, or write the answers otherwise."
            )
        neighbour = self.diffs.get("neighbour")
        if neighbour is not None:
            after = neighbour.after.path(self.target).probabilities[-1]
            before = neighbour.before.path(self.target).probabilities[-1]
            lines.append(
                f"At the neighbour {neighbour.before.fact.prompt!r} the target "
                + ("now wins" if self.leaked else "does not win")
                + f" (probability {before:.3f} before, {after:.3f} after)."
            )
        if self.audit is not None:
            lines += self.audit.told()
        return tuple(lines)

    def __str__(self) -> str:
        return "\n".join(self.story())


def _how_written(shares: WriteShares) -> str:
    if shares.share("edited") >= WRITTEN_DIRECTLY:
        return "the edited nodes write it directly."
    if shares.edited >= max(shares.movers, shares.heads, shares.mlps):
        return "the edited nodes write the largest part of it."
    return "it is carried to the last token or built there by later nodes."


class Prompts(BaseModel):
    """The prompts that an edit is watched at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edited: Fact
    paraphrase: Fact | None
    neighbour: Fact | None
    unrelated: Fact | None

    def items(self) -> list[tuple[PromptKind, Fact]]:
        found: list[tuple[PromptKind, Fact | None]] = [(kind, getattr(self, kind)) for kind in PROMPT_KINDS]
        return [(kind, fact) for kind, fact in found if fact is not None]


def choose_prompts(model: Model, fact: Fact, target: str, relations: Relations) -> Prompts:
    """The first fitting ones in the dataset's order, among facts that the model knows best (rank 1)."""
    relation = relation_of(fact, relations)
    index = template_of(fact, relation)
    paraphrase = None
    if index is not None:
        others = [relation.fact(fact.subject, i) for i in range(len(relation.templates)) if i != index]
        paraphrase = next(iter(known(model, others, rank=1)), None)
    neighbours = [
        each
        for each in known_facts(model, relation, template=index or 0, rank=1)
        if each.subject != fact.subject
        and distinct_beginnings(model, each.prompt, (each.object, target))
        and each.object != target
    ]
    neighbour = next((each for each in neighbours if each.object == fact.object), neighbours[0] if neighbours else None)
    return Prompts(
        edited=fact, paraphrase=paraphrase, neighbour=neighbour, unrelated=_unrelated(model, fact, relations)
    )


def _unrelated(model: Model, fact: Fact, relations: Relations) -> Fact | None:
    own = relation_of(fact, relations)
    for relation in relations.values():
        if relation.kind == own.kind and relation.domain != own.domain and relation.range != own.range:
            facts = relation.facts()
            for start in range(0, len(facts), ASKED_AT_ONCE):
                some = facts[start : start + ASKED_AT_ONCE]
                if found := known(model, some, rank=1):
                    return found[0]
    return None


def mlp_state(path: Trajectory, layer: int) -> str:
    """The state of the trajectory that holds the layer's MLP; in a model with parallel blocks, the layer's only one."""
    return f"L{layer} MLP" if f"L{layer} MLP" in path.labels else f"L{layer}"


def edited_nodes(edit: Edit, model: Model) -> tuple[str, ...]:
    """The names of the nodes that compute something else with the edit on, or that it adds."""
    return tuple(node.name for node in edit.nodes(model.shape))


def make_edit(
    model: Model,
    fact: Fact,
    target: str,
    method: str,
    *,
    layers: Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    resources: Resources | None = None,
    seed: int = 0,
    progress: ProgressLine = lambda _: None,
) -> Edit:
    """The method's edit of one fact, at its default layers or these, with those of its options set otherwise.

    ``rome@subject`` is the paper's ROME on any model.

    Raises:
        EditError: no such method, or none of its edits can be made here.
    """
    found = find_method(method)
    options = found.options(model, **{**(settings or {}), **({} if layers is None else {"layers": tuple(layers)})})
    request = EditRequest.of(fact, target)
    return found(model, (request,), options=options, resources=resources, seed=seed, progress=progress)


def diff_edit(
    model: Model,
    edit: Edit,
    target: str,
    prompts: Prompts,
    bench: Bench,
    *,
    method: str | None = None,
    before: dict[PromptKind, Side] | None = None,
    kinds: Sequence[PromptKind] = PROMPT_KINDS,
    force: bool = False,
) -> EditDiff:
    """The circuits of the prompts before and after the edit, which gives the edited prompt's fact the object ``target``.

    Args:
        method: what `make_edit` was asked for; the edit's own name of its method, by default.
        before: the sides of the unedited model, where another edit of the same fact needed them already.
        force: also for an edit that did not take.

    Raises:
        EditDidNotTake: the edited model does not give the target, all of its tokens, and ``force`` is off.
        circuits.evaluation.AlikeAnswers: the target begins with the same token as the fact's object.
    """
    fact = prompts.edited
    require_distinct_beginnings(model, fact.prompt, (fact.object, target))
    asked = Fact(fact.prompt, fact.subject, target, fact.relation)
    before, method = {} if before is None else before, method or edit.provenance.method
    nodes = edited_nodes(edit, model)
    diffs: dict[PromptKind, CircuitDiff] = {}
    with edit.on(model) as edited:
        answers = whole_model(edited, (asked,))
        rank, took = int(answers.rank.value), said(edited, fact.prompt, (target,)) is not None
        if not took and not force:
            raise EditDidNotTake(
                f"the edit did not take: after {method}, {target!r} ranks {rank} at {fact.prompt!r} (probability "
                f"{answers.probability.value:.3f}, of its first token) and is not what the model writes; try another layer or "
                "method, or --force to see its circuits all the same"
            )
        neighbour = prompts.neighbour if "neighbour" in kinds else None
        leaked = None if neighbour is None else said(edited, neighbour.prompt, (target,)) is not None
        for kind, original in prompts.items():
            if kind not in kinds:
                continue
            changed = original if kind in ("neighbour", "unrelated") else _with(original, target)
            follow = (target, original.object)
            if kind not in before:
                before[kind] = bench.side(model, original, follow, label="before")
            after = bench.side(edited, changed, follow, label=f"after {method}", edited=nodes)
            diffs[kind] = CircuitDiff(
                differs="edit", before=before[kind].model_copy(update={"edited": nodes}), after=after
            )
    floors = _floors(diffs, prompts, bench, model, before)
    diffs = {kind: diff.model_copy(update={"floors": (*floors, _random(diff))}) for kind, diff in diffs.items()}
    layers = tuple(sorted({node.layer for node in edit.nodes(model.shape)}))
    return EditDiff(
        method=method,
        layers=layers,
        statement=asked.statement,
        target=target,
        old=fact.object,
        rank=rank,
        took=took,
        leaked=leaked,
        diffs=diffs,
    )


def _with(fact: Fact, answer: str) -> Fact:
    return Fact(fact.prompt, fact.subject, answer, fact.relation)


def _random(diff: CircuitDiff) -> Floor:
    return random_floor(diff.before.circuit, diff.after.circuit)


def _floors(
    diffs: dict[PromptKind, CircuitDiff],
    prompts: Prompts,
    bench: Bench,
    model: Model,
    before: dict[PromptKind, Side],
) -> tuple[Floor, ...]:
    """The unedited model's circuits of the same fact in two wordings: what a change of words alone does."""
    if "edited" not in diffs or prompts.paraphrase is None:
        return ()
    other = (
        before["paraphrase"].circuit
        if "paraphrase" in before
        else bench.circuit(model, prompts.paraphrase, "the paraphrase")
    )
    return (floor_of("the unedited model's circuit of the paraphrase", diffs["edited"].before.circuit, other),)


# ---- the study: one fact, by several methods and at several layers ---------------------------------------------------


@dataclass(frozen=True)
class Watched:
    """A fact to edit, the prompts that its edits are watched at, and the unedited model."""

    model: Model
    target: str
    prompts: Prompts
    bench: Bench
    resources: Resources
    before: dict[PromptKind, Side] = field(default_factory=dict)
    """The unedited model's sides, once an edit has needed them."""
    audited: tuple[EditCase, ...] = ()
    """The edited prompt with prefixes, put to the unedited model."""


def methods_of(spec: DiffSpec) -> list[str]:
    """Raises:
    AskedError, EditError: none, two alike, or one that there is not.
    """
    text = spec.edit or "rome"
    methods = [part.strip() for part in text.split(",") if part.strip()]
    for method in methods:
        find_method(method)
    if not methods or len(set(methods)) < len(methods):
        raise AskedError(f"expected one editing method or several different ones, got {text!r}")
    return methods


def layers_of(spec: DiffSpec) -> list[int] | None:
    """Raises:
    AskedError: no numbers, or two alike.
    """
    if spec.layers is None:
        return None
    try:
        layers = [int(part) for part in spec.layers.split(",")]
    except ValueError:
        raise AskedError(f"expected --layers as numbers, such as 0,2,4, got {spec.layers!r}") from None
    if len(set(layers)) < len(layers):
        raise AskedError(f"expected layers that differ, got {spec.layers}")
    return layers


def _open(spec: DiffSpec, watch: Watch | None) -> Watched:
    if spec.fact is None or spec.to is None:
        raise AskedError("expected --fact and --to together, or neither for a table over many facts")
    _edits(spec)
    run_spec, _ = spec.run_spec(), spec.chosen
    relations = relations_for(library.profile_of(spec.model))
    fact, resources = fact_of(spec.fact, relations), resources_of(spec.corpus)
    if spec.to == fact.object:
        raise AskedError(f"expected a new object, got {spec.to!r}, which the fact has already")
    model = load_asked(spec)
    if not spec.force:
        require_known(model, (fact,), whole_model(model, (fact,)))
    bench = make_bench(model, fact, relations, run_spec)
    request = edit_request(fact, spec.to, relations, manifest_of(model.profile), seed=spec.seed)
    audited = prepare(model, [prefixes_alone(request)], QUIET, written="nothing")
    return Watched(model, spec.to, choose_prompts(model, fact, spec.to, relations), bench, resources, audited=audited)


def _edits(spec: DiffSpec) -> list[tuple[str, int | None]]:
    return [(method, layer) for method in methods_of(spec) for layer in layers_of(spec) or [None]]


def _cases(spec: DiffSpec, watched: Watched) -> list[Case[tuple[str, int | None]]]:
    # Of one group: all are compared with the unedited model's circuits, which are searched once.
    return [
        Case(method if layer is None else f"{method}, layer {layer}", (method, layer), "one fact")
        for method, layer in _edits(spec)
    ]


def _run(spec: DiffSpec, case: Case[tuple[str, int | None]], watched: Watched, watch: Watch) -> EditDiff:
    (method, layer), model, prompts = case.asked, watched.model, watched.prompts
    edit = make_edit(
        model,
        prompts.edited,
        watched.target,
        method,
        layers=None if layer is None else (layer,),
        settings=spec.chosen,
        resources=watched.resources,
        seed=spec.seed,
        progress=lambda line: watch.progress(0, 2, f"{case.name}: {line}"),
    )
    force = spec.force or len(_edits(spec)) > 1  # Of several edits, one that does not take is part of the story.
    bench = replace(watched.bench, watch=watch.at(case.name))
    found = diff_edit(model, edit, watched.target, prompts, bench, method=method, before=watched.before, force=force)
    with edit.on(model) as edited:
        return found.model_copy(update={"audit": audit(edited, watched.audited, seed=spec.seed)})


DIFF: Study[DiffSpec, Watched, tuple[str, int | None], EditDiff] = Study(
    "diff", EditDiff, _open, _cases, _run, algorithm=2
)

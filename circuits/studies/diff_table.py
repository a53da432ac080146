"""What each editing method does to the circuits of many facts, and which of the paper's claims that bears out (paper 2, section 5)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

from circuits.datasets import relations_for
from circuits.datasets.manifest import manifest_of
from circuits.datasets.probes import edit_facts, other_object
from circuits.editing import Resources
from circuits.evaluation import distinct_beginnings, known, said
from circuits.evaluation.claims import Pair
from circuits.evaluation.roles import known_facts, template_of
from circuits.facts import Fact, Relations
from circuits.metrics import Measurement
from circuits.model import Model, library
from circuits.records import Number
from circuits.studies.columns import Column
from circuits.studies.diff import EditDiff, PromptKind, Prompts, diff_edit, layers_of, make_edit, methods_of, mlp_state
from circuits.studies.diffs import Side
from circuits.studies.edit_specs import DiffSpec
from circuits.studies.explain.sides import Benches, relation_of
from circuits.studies.explain.verdict import Claim
from circuits.studies.loading import load_asked
from circuits.studies.options import AskedError
from circuits.studies.requests import resources_of
from circuits.studies.study import Case, Study, Watch

NEIGHBOURS = 5
"""Other subjects of the relation that each edit is tried on, those with the edited fact's old object first."""


@dataclass(frozen=True, slots=True)
class EditNumbers:
    """One fact edited by one method, in numbers."""

    method: str
    statement: str
    layers: tuple[int, ...]
    took: bool
    edge_jaccard: float
    """Circuits before and after, at the edited prompt."""
    paraphrase_jaccard: float | None
    """The floor: circuits of the unedited model at the edited prompt and its paraphrase."""
    random_jaccard: float
    share_edited: Number
    """Of the new object's logit at the last token; so the next two."""
    share_movers: Number
    share_others: Number
    movers_before: float
    """What the relation's mover heads write of the new object less what they write of the old one, in logits."""
    movers_after: float
    delay: int | None
    """Sub-layers from the (last) edited MLP to where the new object is first to stay; 0 is the edited MLP itself, below 0
    before it; None where it is not first in the end."""
    leaked: int
    """Of the neighbours: how many are now given the new object."""
    neighbours: int

    @property
    def movers_turned(self) -> bool:
        """Movers that favoured the old object favour the new one now."""
        return self.movers_before < 0 < self.movers_after


@dataclass(frozen=True, slots=True)
class MethodRow:
    """One method's edits of several facts: means over the edits that took."""

    method: Annotated[str, Column("method")]
    layers: Annotated[tuple[int, ...], Column("layers")]
    n: int
    took: int
    edge_jaccard: Annotated[Number, Column("edge Jaccard")]
    paraphrase_jaccard: Annotated[Number, Column("of a paraphrase")]
    random_jaccard: Annotated[Number, Column("of random circuits")]
    share_edited: Annotated[Number, Column("edited node writes", "%", digits=0, scale=100)]
    share_movers: Annotated[Number, Column("movers write", "%", digits=0, scale=100)]
    share_others: Annotated[Number, Column("others write", "%", digits=0, scale=100)]
    movers_turned: Annotated[Number, Column("movers turned", "%", digits=0, scale=100)]
    """Share of the edits after which movers that favoured the old object favour the new one."""
    first_at_edited_layer: Annotated[Number, Column("first from the edited layer", "%", digits=0, scale=100)]
    """Share of the edits whose new object is first to stay from the edited layer's MLP on, or before it."""
    delay: Annotated[Number, Column("sub-layers later", digits=1)]
    """Sub-layers from there to where it is."""
    leaked: Annotated[Number, Column("neighbours given the new object", "%", digits=0, scale=100)]
    """Share of the neighbours that are now given the new object."""
    neighbours: int


def method_row(method: str, found: Sequence[EditNumbers]) -> MethodRow:
    took = [each for each in found if each.took]

    def mean(name: str, values: Sequence[float | int | None]) -> float:
        there = tuple(float(value) for value in values if value is not None and value == value)
        return Measurement(name, "", there).value if there else float("nan")

    turnable = [each for each in took if each.movers_before < 0]
    neighbours = sum(each.neighbours for each in took)
    return MethodRow(
        method=method,
        layers=found[0].layers if found else (),
        n=len(found),
        took=len(took),
        edge_jaccard=mean("edge Jaccard", [each.edge_jaccard for each in took]),
        paraphrase_jaccard=mean("paraphrase", [each.paraphrase_jaccard for each in took]),
        random_jaccard=mean("random", [each.random_jaccard for each in took]),
        share_edited=mean("edited", [each.share_edited for each in took]),
        share_movers=mean("movers", [each.share_movers for each in took]),
        share_others=mean("others", [each.share_others for each in took]),
        movers_turned=mean("turned", [float(each.movers_turned) for each in turnable]),
        first_at_edited_layer=mean("first there", [float(each.delay is not None and each.delay <= 0) for each in took]),
        delay=mean("delay", [each.delay for each in took]),
        leaked=sum(each.leaked for each in took) / neighbours if neighbours else float("nan"),
        neighbours=neighbours,
    )


# ---- the study -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FactsToEdit:
    """Facts with their new objects, and what the unedited model was asked already: a relation's serve all its facts."""

    benches: Benches
    facts: tuple[tuple[Fact, str], ...]
    resources: Resources
    recalled: dict[tuple[str, int], tuple[Fact, ...]] = field(default_factory=dict)
    """By relation and template."""

    @property
    def model(self) -> Model:
        return self.benches.model

    @property
    def relations(self) -> Relations:
        return self.benches.relations


@dataclass(frozen=True, slots=True)
class FactEdits:
    """One fact, edited by each method."""

    edits: tuple[EditNumbers, ...]


def facts_to_edit(model: Model, n: int, relations: Relations, seed: int) -> tuple[tuple[Fact, str], ...]:
    """(fact that the model answers rightly, new object that begins with another token), the relations in turn.

    Raises:
        AskedError: fewer than ``n``.
    """
    manifest = manifest_of(model.profile)
    candidates = edit_facts(relations, manifest, seed=seed)[: 4 * n]
    asked = [(fact, other_object(fact, relations, seed, manifest)) for fact in known(model, candidates, rank=1)]
    asked = [(fact, new) for fact, new in asked if distinct_beginnings(model, fact.prompt, (fact.object, new))][:n]
    if len(asked) < n:
        raise AskedError(
            f"expected {n} facts that {model.name} answers rightly, and whose new object begins otherwise, found {len(asked)}; "
            "ask for fewer with --n"
        )
    return tuple(asked)


def _open(spec: DiffSpec, watch: Watch | None) -> FactsToEdit:
    methods_of(spec)
    layers = layers_of(spec)
    if layers is not None and len(layers) > 1:
        raise AskedError("the table edits one layer a method: expected --layers with one layer, or none")
    search, _ = spec.run_spec(), spec.chosen
    relations, resources = relations_for(library.profile_of(spec.model)), resources_of(spec.corpus)
    model = load_asked(spec)
    facts = facts_to_edit(model, spec.n, relations, spec.seed)
    return FactsToEdit(Benches(model, relations, search), facts, resources)


def _cases(spec: DiffSpec, facts: FactsToEdit) -> list[Case[tuple[Fact, str]]]:
    return [
        Case(f"{fact.prompt} {target}", (fact, target), fact.relation or "")
        for fact, target in sorted(facts.facts, key=lambda asked: asked[0].relation or "")
    ]


def _run(spec: DiffSpec, case: Case[tuple[Fact, str]], facts: FactsToEdit, watch: Watch) -> FactEdits:
    (fact, target), model = case.asked, facts.model
    relation = relation_of(fact, facts.relations)
    index = template_of(fact, relation) or 0
    known_as = (relation.name, index)
    if known_as not in facts.recalled:
        facts.recalled[known_as] = known_facts(model, relation, template=index, rank=1)
    bench = replace(facts.benches.of(fact), watch=watch.at(case.name))
    others = [each for each in facts.recalled[known_as] if each.subject != fact.subject and each.object != target]
    near = sorted(others, key=lambda each: each.object != fact.object)[:NEIGHBOURS]
    wordings = [relation.fact(fact.subject, i) for i in range(len(relation.templates)) if i != index]
    paraphrase = next(iter(known(model, wordings, rank=1)), None)
    prompts = Prompts(edited=fact, paraphrase=paraphrase, neighbour=None, unrelated=None)
    before: dict[PromptKind, Side] = {}
    if paraphrase is not None:
        before["paraphrase"] = bench.side(model, paraphrase, (target, fact.object), label="before")
    edits, methods = [], methods_of(spec)
    for i, method in enumerate(methods):
        watch.progress(i, len(methods), f"{case.name}: {method}")
        how = {"layers": layers_of(spec), "settings": spec.chosen, "resources": facts.resources, "seed": spec.seed}
        edit = make_edit(model, fact, target, method, **how)
        found = diff_edit(
            model, edit, target, prompts, bench, method=method, before=before, kinds=("edited",), force=True
        )
        with edit.on(model) as edited:
            leaked = sum(said(edited, each.prompt, (target,)) is not None for each in near)
        edits.append(_numbers(found, leaked, len(near)))
    return FactEdits(tuple(edits))


def _numbers(found: EditDiff, leaked: int, neighbours: int) -> EditNumbers:
    before, after, target = found.edited.before, found.edited.after, found.target
    shares, path = after.shares(target), after.path(target)
    jaccards = {floor.name: floor.edge_jaccard for floor in found.edited.floors}
    there = path.labels.index(mlp_state(path, found.layers[-1]))
    return EditNumbers(
        method=found.method,
        statement=found.statement,
        layers=found.layers,
        took=found.took,
        edge_jaccard=found.edited.edge_jaccard,
        paraphrase_jaccard=next((value for name, value in jaccards.items() if "paraphrase" in name), None),
        random_jaccard=next(value for name, value in jaccards.items() if "random" in name),
        share_edited=shares.share("edited"),
        share_movers=shares.share("movers"),
        share_others=1 - shares.share("edited") - shares.share("movers"),
        movers_before=before.shares(target).movers - before.shares(found.old).movers,
        movers_after=shares.movers - after.shares(found.old).movers,
        delay=path.labels.index(path.decided) - there if path.decided else None,
        leaked=leaked,
        neighbours=neighbours,
    )


DIFF_TABLE: Study[DiffSpec, FactsToEdit, tuple[Fact, str], FactEdits] = Study(
    "diff-table", FactEdits, _open, _cases, _run, algorithm=2
)


def method_rows(spec: DiffSpec, facts: Sequence[FactEdits]) -> tuple[MethodRow, ...]:
    """One for each method, in the order asked for."""
    edits = [edit for fact in facts for edit in fact.edits]
    return tuple(method_row(method, [edit for edit in edits if edit.method == method]) for method in methods_of(spec))


# ---- the paper's claims ----------------------------------------------------------------------------------------------


def claims(edits: Sequence[EditNumbers]) -> tuple[Claim, ...]:
    """Paper 2, section 5: FT-M beside ROME on the same facts, where both took. At different layers neither is the other's control."""
    took = {(each.method, each.statement): each for each in edits if each.took}
    # The paper's ROME stores its values at the subject.
    rome = "rome@subject" if any(method == "rome@subject" for method, _ in took) else "rome"
    both = [
        (ft_m, other)
        for (method, statement), ft_m in took.items()
        if method == "ft-m" and (other := took.get((rome, statement))) is not None
    ]
    if not both:
        return ()

    def pair(value: float, control: float, at: tuple[EditNumbers, EditNumbers]) -> Pair:
        return Pair(value, control if at[0].layers == at[1].layers else None)

    def directly(each: EditNumbers) -> float:
        return float(each.delay is not None and each.delay <= 0)

    found = (
        (
            "FT-M writes the new object directly, more than ROME: the edited MLP's share of its logit",
            [pair(a.share_edited, b.share_edited, (a, b)) for a, b in both if a.share_edited == a.share_edited],
        ),
        (
            "after FT-M the new object is first in the stream from the edited MLP on, and not after ROME",
            [pair(directly(a), directly(b), (a, b)) for a, b in both],
        ),
        (
            "movers turn to the new object after ROME more than after FT-M",
            [pair(float(b.movers_turned), float(a.movers_turned), (a, b)) for a, b in both if b.movers_before < 0],
        ),
        (
            "FT-M leaks into neighbours more than ROME does",
            [
                pair(a.leaked / a.neighbours, b.leaked / b.neighbours, (a, b))
                for a, b in both
                if a.neighbours and b.neighbours
            ],
        ),
    )
    ft_m, rome = (", ".join(map(str, each.layers)) for each in both[0])
    layers = f"FT-M at layer {ft_m}, ROME at layer {rome}"
    return tuple(Claim.of(claim, [each for each in own if each.value == each.value], layers) for claim, own in found)

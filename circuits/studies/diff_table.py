"""What each editing method does to the circuits of many facts, and which of the paper's claims that bears out (paper 2, section 5)."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from multiprocessing import get_context

import torch
from pydantic import BaseModel, ConfigDict

from circuits.evaluation import known, said
from circuits.evaluation.roles import known_facts, template_of
from circuits.facts import Fact, Relations
from circuits.metrics import Measurement
from circuits.model import Model
from circuits.studies.diff import EditDiff, PromptKind, Prompts, diff_edit, make_edit, mlp_state
from circuits.studies.diffs import Side
from circuits.studies.discover import RunSpec, load_model
from circuits.studies.explain.sides import Bench, make_bench, relation_of
from circuits.studies.explain.verdict import Claim

NEIGHBOURS = 5
"""Other subjects of the relation that each edit is tried on, those with the edited fact's old object first."""


class EditNumbers(BaseModel):
    """One fact edited by one method, in numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    statement: str
    layers: tuple[int, ...]
    took: bool
    edge_jaccard: float
    """Circuits before and after, at the edited prompt."""
    paraphrase_jaccard: float | None
    """The floor: circuits of the unedited model at the edited prompt and its paraphrase."""
    random_jaccard: float
    share_edited: float
    """Of the new object's logit at the last token; so the next two."""
    share_movers: float
    share_others: float
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


class MethodRow(BaseModel):
    """One method's edits of several facts: means over the edits that took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    layers: tuple[int, ...]
    n: int
    took: int
    edge_jaccard: float
    paraphrase_jaccard: float
    random_jaccard: float
    share_edited: float
    share_movers: float
    share_others: float
    movers_turned: float
    """Share of the edits after which movers that favoured the old object favour the new one."""
    first_at_edited_layer: float
    """Share of the edits whose new object is first to stay from the edited layer's MLP on, or before it."""
    delay: float
    """Sub-layers from there to where it is."""
    leaked: float
    """Share of the neighbours that are now given the new object."""
    neighbours: int


def edit_table(
    model: Model,
    facts: Sequence[tuple[Fact, str]],
    methods: Sequence[str],
    relations: Relations,
    spec: RunSpec,
    *,
    layers: Sequence[int] | None = None,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[tuple[MethodRow, ...], tuple[EditNumbers, ...]]:
    """Edit each (fact, new object) by itself with each method, and compare the circuits at the edited prompt.

    Args:
        model: the loaded ``spec.model``.
        jobs: processes at work; more than one load the model again, each for itself.
    """
    groups = [tuple(group) for _, group in groupby(sorted(facts, key=_relation_name), key=_relation_name)]
    found: list[EditNumbers] = []
    for done, numbers in enumerate(_measured(model, groups, tuple(methods), relations, spec, layers, jobs)):
        found.extend(numbers)
        progress(f"{sum(map(len, groups[: done + 1]))} of {len(facts)} facts")
    rows = tuple(method_row(method, [each for each in found if each.method == method]) for method in methods)
    return rows, tuple(found)


def _relation_name(asked: tuple[Fact, str]) -> str:
    return asked[0].relation or ""


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


# ---- one fact --------------------------------------------------------------------------------------------------------


class _Worker:
    """A model, and what it was asked already: the roles of a relation's heads serve all its facts."""

    def __init__(
        self, model: Model, methods: Sequence[str], relations: Relations, spec: RunSpec, layers: Sequence[int] | None
    ) -> None:
        self._model, self._methods, self._relations, self._spec, self._layers = model, methods, relations, spec, layers

    def __call__(self, group: Sequence[tuple[Fact, str]]) -> tuple[EditNumbers, ...]:
        """The numbers of facts of one relation."""
        relation = relation_of(group[0][0], self._relations)
        benches: dict[int, Bench] = {}
        recalled: dict[int, tuple[Fact, ...]] = {}
        found = []
        for fact, target in group:
            index = template_of(fact, relation) or 0
            if index not in recalled:
                recalled[index] = known_facts(self._model, relation, template=index, rank=1)
                benches[index] = make_bench(self._model, fact, self._relations, self._spec)
            others = [each for each in recalled[index] if each.subject != fact.subject and each.object != target]
            near = sorted(others, key=lambda each: each.object != fact.object)[:NEIGHBOURS]
            wordings = [relation.fact(fact.subject, i) for i in range(len(relation.templates)) if i != index]
            found += self._edit(benches[index], fact, target, near, wordings)
        return tuple(found)

    def _edit(
        self, bench: Bench, fact: Fact, target: str, near: Sequence[Fact], wordings: Sequence[Fact]
    ) -> Iterator[EditNumbers]:
        model = self._model
        paraphrase = next(iter(known(model, wordings, rank=1)), None)
        prompts = Prompts(edited=fact, paraphrase=paraphrase, neighbour=None, unrelated=None)
        before: dict[PromptKind, Side] = {}
        if paraphrase is not None:
            before["paraphrase"] = bench.side(model, paraphrase, (target, fact.object), label="before")
        for method in self._methods:
            edit = make_edit(model, fact, target, method, layers=self._layers, seed=self._spec.seed)
            found = diff_edit(
                model, edit, fact, target, prompts, bench, before=before, kinds=("edited",), force=True, method=method
            )
            with edit.on(model) as edited:
                leaked = sum(said(edited, each.prompt, (target,)) is not None for each in near)
            yield _numbers(found, leaked, len(near))


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


# ---- several processes -----------------------------------------------------------------------------------------------

_worker: _Worker


def _measured(
    model: Model,
    groups: Sequence[Sequence[tuple[Fact, str]]],
    methods: Sequence[str],
    relations: Relations,
    spec: RunSpec,
    layers: Sequence[int] | None,
    jobs: int,
) -> Iterator[tuple[EditNumbers, ...]]:
    """What `_Worker` makes of each group, in order."""
    if jobs == 1:
        yield from map(_Worker(model, methods, relations, spec, layers), groups)
        return
    with get_context("spawn").Pool(jobs, _start, (methods, relations, spec, layers)) as pool:
        yield from pool.imap(_work, groups)


def _start(methods: Sequence[str], relations: Relations, spec: RunSpec, layers: Sequence[int] | None) -> None:
    global _worker
    torch.set_num_threads(1)
    _worker = _Worker(load_model(spec), methods, relations, spec, layers)


def _work(group: Sequence[tuple[Fact, str]]) -> tuple[EditNumbers, ...]:
    return _worker(group)


# ---- the paper's claims ----------------------------------------------------------------------------------------------


def claims(rows: Sequence[MethodRow]) -> tuple[Claim, ...]:
    """Paper 2, section 5, put as comparisons of the table's numbers; those whose methods are in the table, and took."""
    by_name = {row.method: row for row in rows if row.took}
    found = []
    for method in ("ft-m", "ft-l"):
        if row := by_name.get(method):
            name = method.upper()
            found += [
                Claim(
                    claim=f"{name} writes the new object directly: the edited MLP writes most of its logit",
                    holds=row.share_edited > 0.5,
                    numbers=f"edited MLP {row.share_edited:.0%}, mover heads {row.share_movers:.0%}",
                ),
                Claim(
                    claim=f"after {name} the new object is first in the stream directly, from the edited MLP on",
                    holds=row.first_at_edited_layer > 0.5,
                    numbers=f"{row.first_at_edited_layer:.0%} of the edits; {row.delay:.1f} sub-layers later on average",
                ),
            ]
    # The paper's ROME stores its values at the subject.
    if rome := by_name.get("rome@subject") or by_name.get("rome"):
        row = rome
        found += [
            Claim(
                claim="ROME adds information at the subject, and later nodes bring it to the last token",
                holds=row.share_edited < 0.5 and row.first_at_edited_layer < 0.5,
                numbers=f"edited MLP {row.share_edited:.0%} of the new object's logit; first {row.delay:.1f} sub-layers after it",
            ),
            Claim(
                claim="after ROME mover heads give the new object where they gave the old one",
                holds=row.movers_turned > 0.5,
                numbers=f"movers that favoured the old object favour the new one after {row.movers_turned:.0%} of the edits",
            ),
        ]
    if rome and (ft_m := by_name.get("ft-m")):
        found += [
            Claim(
                claim="movers turn after ROME more than after FT-M",
                holds=rome.movers_turned > ft_m.movers_turned,
                numbers=f"ROME {rome.movers_turned:.0%}, FT-M {ft_m.movers_turned:.0%}; they write {rome.share_movers:.0%} and "
                f"{ft_m.share_movers:.0%} of the new object's logit",
            ),
            Claim(
                claim="FT-M leaks into neighbours more than ROME does",
                holds=ft_m.leaked > rome.leaked,
                numbers=f"FT-M {ft_m.leaked:.0%}, ROME {rome.leaked:.0%} of neighbours given the new object",
            ),
        ]
    return tuple(found)

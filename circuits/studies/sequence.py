"""What a sequence of edits does to the matrices that it edits, and what PRUNE changes of that (paper 1, Figures 2 to 5, Table 1).

A sequence is traced free; with its sum restrained at each checkpoint, as paper 1 does after the last edit; and, where asked, with
the sequence itself restrained on the way. Beside each restraint stands its control, the same sum scaled as a whole to the same
norm. Of several restraints one is chosen on a sequence of edits of other facts, and reported on this one.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor

from circuits.datasets.tasks import Task
from circuits.editing.delta import WeightEdit
from circuits.editing.edit import Edit, EditError
from circuits.editing.methods.table import find_method
from circuits.editing.prompts import Site
from circuits.editing.prune import Restraint
from circuits.evaluation.ability import Score, scores
from circuits.evaluation.edits import EditCase, Make, Shares, ask
from circuits.evaluation.general import GeneralAbility
from circuits.evaluation.perturbation import Perturbation, Spectrum, perturbations, spectra, unedited_spectra
from circuits.evaluation.stored_values import Drift, Stored, ValuePlane, keys, projection
from circuits.facts import EditRequest
from circuits.model import Model, library
from circuits.model.network import layer_of
from circuits.studies.ability import tasks_about_others, tasks_of
from circuits.studies.edit_specs import TraceSpec
from circuits.studies.edits import Contestant, maker
from circuits.studies.loading import load_asked
from circuits.studies.options import AskedError
from circuits.studies.requests import QUIET, Unedited
from circuits.studies.study import Case, Study, Watch

MOST_LOST = 0.05
"""Success that a restraint may cost, as a share, and still be chosen for the locality that it keeps."""


@dataclass(frozen=True, slots=True)
class TracePoint:
    """The model after ``n_edits`` edits."""

    n_edits: int
    spectra: tuple[Spectrum, ...]
    shares: tuple[Shares, ...]
    """Of each request edited so far."""
    perturbations: tuple[Perturbation, ...] = ()
    """On keys of facts that no edit is about; empty before any edit, or where there are no such facts."""
    general: GeneralAbility | None = None
    abilities: tuple[Score, ...] = ()

    @property
    def worst(self) -> Spectrum:
        """Of the edited matrix with the largest condition number."""
        return max(self.spectra, key=lambda spectrum: spectrum.condition)

    def share(self, name: str) -> float:
        """The mean of `Shares`' ``name`` over the requests that have such a question; NaN where none has."""
        known = [value for value in (getattr(each, name) for each in self.shares) if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan


@dataclass(frozen=True, slots=True)
class SequenceTrace:
    """One sequence of edits, as a name for a legend and a point at each checkpoint."""

    name: str
    points: tuple[TracePoint, ...]
    drift: tuple[Drift, ...]
    """One for each edited matrix, over all edits of the sequence."""

    @property
    def last(self) -> TracePoint:
        return self.points[-1]


# ---- sequences -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sequencing:
    """A sequence that is to be made: what of, how, and what it is measured by."""

    model: Model
    cases: tuple[EditCase, ...]
    make: Make
    batch: int = 1
    """Requests edited together in each step."""
    checkpoints: tuple[int, ...] = (10, 20, 50, 100)
    """Numbers of edits: it is measured after the first step that reaches one, and after the last."""
    untouched: tuple[EditRequest, ...] = ()
    """Requests that are never made: their facts' keys are those that edits should leave alone."""
    tasks: tuple[Task, ...] = ()
    """What the model should go on being able to do."""
    progress: Callable[[int], None] = field(default=lambda done: None)
    """Told how many edits are made."""

    def __post_init__(self) -> None:
        if not self.cases:
            raise EditError("expected at least one edit request, got none")

    def trace(
        self,
        name: str,
        copies: Mapping[str, Restraint] | None = None,
        *,
        during: Restraint | None = None,
        every: int = 1,
    ) -> "Traces":
        """Make the edits one on top of another, and measure.

        Args:
            copies: restraints of a copy of the sum at each checkpoint, by the names of their traces.
            during: the sequence itself is restrained after each ``every`` edits, and the edits that follow are made on the
                restrained model.

        Raises:
            EditError: a method that does not edit weights.
        """
        copies = copies or {}
        points: dict[str, list[TracePoint]] = {each: [] for each in (name, *copies)}
        edits: dict[str, WeightEdit] = {}
        kept: dict[str, list[tuple[Tensor, Tensor]]] = {}
        untouched: Mapping[str, Tensor] = {}
        done = 0
        for total in self._steps(kept, during, every):
            before, done = done, min(done + self.batch, len(self.cases))
            if before == 0:
                untouched = self._untouched(total)
                start = TracePoint(
                    0,
                    unedited_spectra(tuple(total.deltas), self.model),
                    tuple(Shares.of(case.unedited) for case in self.cases),
                    general=self.cases[0].unedited.general,
                    abilities=self._abilities(self.model),
                )
                for own in points.values():
                    own.append(start)
            if done == len(self.cases) or any(before < at <= done for at in self.checkpoints):
                edits = {name: total} | {each: restraint(total, self.model) for each, restraint in copies.items()}
                for each, edit in edits.items():
                    points[each].append(self.point(edit, done, untouched))
            self.progress(done)
        stored = {matrix: _stacked(pairs) for matrix, pairs in sorted(kept.items())}
        found = tuple(
            SequenceTrace(each, tuple(points[each]), _drift(edit, self.model, stored)) for each, edit in edits.items()
        )
        return Traces(found, edits, stored, untouched)

    def point(self, edit: WeightEdit, n: int, untouched: Mapping[str, Tensor]) -> TracePoint:
        """That edit, of the first ``n`` requests."""
        with edit.on(self.model) as edited:
            results = ask(edited, self.cases[:n], QUIET, written="nothing")
            abilities = self._abilities(edited)
        return TracePoint(
            n,
            spectra(edit, self.model),
            tuple(map(Shares.of, results)),
            perturbations(edit, self.model, untouched) if untouched else (),
            results[0].general,
            abilities,
        )

    def _abilities(self, model: Model) -> tuple[Score, ...]:
        return tuple(score for task in self.tasks for score in scores(model, task))

    def _steps(
        self, kept: dict[str, list[tuple[Tensor, Tensor]]], during: Restraint | None, every: int
    ) -> Iterator[WeightEdit]:
        """The sum after each step; each step's keys and values go to ``kept``, by matrix."""
        total: WeightEdit | None = None
        for start in range(0, len(self.cases), self.batch):
            requests = [case.request for case in self.cases[start : start + self.batch]]
            step, total = self._one_more(total, requests)
            with total.on(self.model) as edited:
                read = keys(edited, requests, tuple(self._layers(step).values()), _site(step))
                for name, layer in self._layers(step).items():
                    values = read[layer] @ edited.weight(name).to(read[layer])
                    kept.setdefault(name, []).append((read[layer], values))
            if during is not None and (start + len(requests)) // every > start // every:
                total = during(total, self.model)
            yield total

    def _one_more(self, total: WeightEdit | None, requests: Sequence[EditRequest]) -> tuple[WeightEdit, WeightEdit]:
        """One more edit on top of the sum, and the sum with it."""
        if total is None:
            step = _weights(self.make(self.model, requests))
            return step, step
        with total.on(self.model) as edited:
            step = _weights(self.make(edited, requests))
        return step, _weights(total + step)

    def _layers(self, edit: WeightEdit) -> dict[str, int]:
        return {name: layer_of(name, self.model.shape.n_layers) for name in edit.deltas}

    def _untouched(self, edit: WeightEdit) -> dict[str, Tensor]:
        """By matrix, the keys of facts that are left alone, as the unedited model has them."""
        if not self.untouched:
            return {}
        layers = self._layers(edit)
        read = keys(self.model, self.untouched, tuple(layers.values()), _site(edit))
        return {name: read[layer] for name, layer in layers.items()}


@dataclass(frozen=True)
class Traces:
    """A sequence that was made, and its restrained copies."""

    traces: tuple[SequenceTrace, ...]
    edits: Mapping[str, WeightEdit]
    """The sum of each, by its trace's name."""
    stored: Stored
    untouched: Mapping[str, Tensor]

    def projections(self, model: Model) -> tuple[ValuePlane, ...]:
        """What the first half of the edits stored: right after each edit, and under each of the sums (paper 1, Figure 5)."""
        weights = {name: edit.edited_weights(model) for name, edit in self.edits.items()}
        found = []
        for matrix, (made, values) in self.stored.items():
            half = max(2, len(made) // 2)
            later = {name: made[:half] @ own[matrix].to(made) for name, own in weights.items()}
            if len(made) > 1:
                found.append(projection(matrix, {"stored": values[:half], **later}))
        return tuple(found)


def _weights(edit: Edit) -> WeightEdit:
    if not edit.deltas:
        raise EditError(
            f"a trace is of edited matrices; expected an edit of weights, got one by {edit.provenance.method}"
        )
    return cast(WeightEdit, edit)


def _site(step: WeightEdit) -> Site:
    """Where values are stored. A method that stores none (fine-tuning) is asked about those at the subject, where stored facts
    are looked for."""
    return step.provenance.options.get("site", "subject")


def _stacked(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    made, values = zip(*pairs, strict=True)
    return torch.cat(made), torch.cat(values)


def _drift(edit: WeightEdit, model: Model, stored: Stored) -> tuple[Drift, ...]:
    weights = edit.edited_weights(model)
    return tuple(Drift.of(name, values, made @ weights[name].to(made)) for name, (made, values) in stored.items())


# ---- the study -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RestrainedEnd:
    """A restraint of a whole sequence at its end, and its controls."""

    restraint: str
    pruned: SequenceTrace
    scaled: SequenceTrace
    """The same sum scaled as a whole to the same Frobenius norm."""
    shrunk: SequenceTrace
    """The same sum scaled as a whole to the same largest singular value."""


@dataclass(frozen=True, slots=True)
class Traced:
    """One method's sequence."""

    method: str
    chosen: str
    """The restraint that is traced: `choose` took it by ``choice``, or it was the only one."""
    choice: tuple[SequenceTrace, ...]
    """On other facts, at the end: the free sequence, then each restraint. Empty where there was one."""
    traces: tuple[SequenceTrace, ...]
    """The free sequence; its copies restrained as chosen and scaled, at each checkpoint; the same on the way, where asked for."""
    ends: tuple[RestrainedEnd, ...]
    """Every restraint of the free sequence at its end."""
    projections: tuple[ValuePlane, ...]
    """One for each edited matrix."""


def choose(free: TracePoint, restrained: Mapping[str, TracePoint]) -> str:
    """Of the restraints that lose at most `MOST_LOST` of success, the one of the highest locality; if all lose more, the one that
    loses least. Of equals, the first."""
    lost = {name: free.share("success") - point.share("success") for name, point in restrained.items()}
    cheap = [name for name in restrained if lost[name] <= MOST_LOST + 1e-9]
    if not cheap:
        return min(restrained, key=lambda name: lost[name])
    return max(cheap, key=lambda name: restrained[name].share("locality"))


def _checkpoints(spec: TraceSpec) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in spec.checkpoints.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        raise AskedError(f"expected --checkpoints as numbers of edits such as 10,20,50,100, got {spec.checkpoints!r}")
    return found


def _contestants(spec: TraceSpec) -> tuple[Contestant, ...]:
    found = Contestant.parse_all(spec.method)
    for each in found:
        if each.regime.steps > 1 or each.restraint is not None:
            raise AskedError(
                f"expected methods whose steps edit one fact or a batch, such as rome,memit/batch:10, got {each}; the "
                "sequence is as long as --n, and restraints are --restrain's"
            )
        if find_method(each.method).makes != "weights":
            raise AskedError(
                f"a trace is of edited matrices, and {each.method} leaves them as they are; see `kcircuit edit eval`"
            )
    return found


def _open(spec: TraceSpec, watch: Watch | None) -> Unedited:
    _checkpoints(spec)
    contestants, restraints = _contestants(spec), Restraint.parse_all(spec.restrain)
    tasks_of(spec.tasks, library.profile_of(spec.model))
    model = load_asked(spec)
    for each in contestants:
        find_method(each.method).options(model, **spec.chosen)
    if len(restraints) > 1 and not spec.others:
        raise AskedError("expected --others above 0: of several restraints one is chosen on other facts")
    found = Unedited.of(model, spec, spec.n + spec.others, watch=watch or Watch())
    return found.beside(spec.general, spec.text, watch or Watch()) if spec.general else found


def _cases(spec: TraceSpec, unedited: Unedited) -> list[Case[Contestant]]:
    return [
        Case(each.method if each.regime.batch == 1 else f"{each.method} {each.regime}", each)
        for each in _contestants(spec)
    ]


def _run(spec: TraceSpec, case: Case[Contestant], unedited: Unedited, watch: Watch) -> Traced:
    asked, restraints = case.asked, {str(each): each for each in Restraint.parse_all(spec.restrain)}
    cases = unedited.first(spec.n)
    others = unedited.cases[len(cases) :]
    tasks = tasks_about_others(tasks_of(spec.tasks, unedited.model.profile), [one.request for one in cases])

    def sequencing(which: tuple[EditCase, ...], state: str, *, at: tuple[int, ...]) -> Sequencing:
        return Sequencing(
            unedited.model,
            which,
            maker(asked.method, settings=spec.chosen, resources=unedited.resources, seed=spec.seed),
            asked.regime.batch,
            at,
            tuple(other.request for other in others) if which is cases else (),
            tasks if which is cases else (),
            lambda done: watch.progress(done, len(which), f"{case.name}, {state}: {done} of {len(which)} edits"),
        )

    chosen, choice = next(iter(restraints)), ()
    if len(restraints) > 1:
        choice = _ends(sequencing(others, "to choose by", at=()).trace("free", restraints).traces)
        chosen = choose(choice[0].last, {trace.name: trace.last for trace in choice[1:]})
    pruning = restraints[chosen]
    pair = {str(each): each for each in (pruning, pruning.control("frobenius"))}
    free = sequencing(cases, "free", at=_checkpoints(spec))
    made = free.trace("free", pair)
    traces = made.traces
    for name, restraint in pair.items() if spec.every is not None else ():
        on_the_way = sequencing(cases, f"{name} every {spec.every}", at=_checkpoints(spec))
        traces += on_the_way.trace(f"{name} every {spec.every}", during=restraint, every=spec.every or 1).traces
    ends = tuple(_restrained(free, made, restraint) for restraint in restraints.values())
    return Traced(case.name, chosen, choice, traces, ends, made.projections(unedited.model))


def _restrained(free: Sequencing, made: Traces, restraint: Restraint) -> RestrainedEnd:
    """That restraint and its controls of the free sum, those that were traced already taken from there."""
    known = {trace.name: trace for trace in _ends(made.traces)}
    total, n = made.edits["free"], len(free.cases)

    def end(by: Restraint) -> SequenceTrace:
        if str(by) in known:
            return known[str(by)]
        edit = by(total, free.model)
        return SequenceTrace(str(by), (free.point(edit, n, made.untouched),), _drift(edit, free.model, made.stored))

    return RestrainedEnd(
        str(restraint), end(restraint), end(restraint.control("frobenius")), end(restraint.control("spectral"))
    )


def _ends(traces: Sequence[SequenceTrace]) -> tuple[SequenceTrace, ...]:
    return tuple(replace(trace, points=trace.points[-1:]) for trace in traces)


TRACE: Study[TraceSpec, Unedited, Contestant, Traced] = Study(
    "trace", Traced, _open, _cases, _run, algorithm=2, chooses=frozenset({"method"})
)

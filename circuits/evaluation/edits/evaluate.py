"""Make edits in a regime and evaluate them: the loop that every comparison of methods runs.

The unedited model is asked once, before anything is edited. It is the same object throughout: an edited model is another
one, which ends with its ``with``.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from circuits.editing import Edit, RoutedEdit
from circuits.evaluation.edits.cases import (
    CaseResult,
    EditCase,
    FluencySetting,
    ask,
    ask_success,
    edited_prompts,
    prepare,
)
from circuits.evaluation.edits.regimes import SINGLE, EvalAt, Regime, evaluated_steps
from circuits.evaluation.edits.retention import Retention
from circuits.facts import EditRequest
from circuits.model import Model


@runtime_checkable
class Make(Protocol):
    """Makes one edit of several requests for a model, which may be an edited one already."""

    def __call__(self, model: Model, requests: Sequence[EditRequest]) -> Edit: ...


@runtime_checkable
class GoesOn(Protocol):
    """Of what makes edits: it knows how one follows another."""

    def upon(self, so_far: Edit, model: Model, requests: Sequence[EditRequest]) -> Edit:
        """The edit so far and the requests, as one edit of a model that has neither on it."""
        ...


@runtime_checkable
class Restrain(Protocol):
    """An edit for the model, restrained: PRUNE's (paper 1, section 5), or none."""

    def __call__(self, edit: Edit, model: Model) -> Edit: ...


@dataclass(frozen=True, slots=True)
class Restrained:
    """What is evaluated is the restrained sum of the edits so far."""

    by: Restrain
    each: bool = False
    """The edits that follow are made on the restrained sum; otherwise on the sum as it is, as in paper 1, which restrains
    once, after the last edit."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All requests of all chains that had been made after so many steps, evaluated then."""

    step: int
    results: tuple[CaseResult, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """``results`` has one entry a request, in their order: after its own step (``eval_at`` immediate) or after the last."""

    regime: Regime
    eval_at: EvalAt
    results: tuple[CaseResult, ...]
    checkpoints: tuple[Checkpoint, ...]
    retention: tuple[Retention, ...]
    """One for each chain; empty for chains of a single step."""
    seconds: float
    """Spent on making the edits, in all; restraining and evaluating are not counted."""
    routed: tuple[tuple[RoutedEdit, tuple[EditRequest, ...]], ...] = ()
    """Every bypass with a router that a chain ends with, and those of the chain's requests that it was made of."""

    @property
    def seconds_per_request(self) -> float:
        return self.seconds / len(self.results)


def evaluate(
    model: Model,
    requests: Sequence[EditRequest],
    make: Make,
    regime: Regime = SINGLE,
    *,
    eval_at: EvalAt = "end",
    restrained: Restrained | None = None,
    fluency: FluencySetting | None = None,
    cases: Sequence[EditCase] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Edit ``requests`` in and ask about all of them.

    Args:
        restrained: how, and whether once or after each edit; by default not at all.
        cases: what `prepare` made of the same model, requests and fluency, to share it between methods.
        progress: told how many requests are edited and evaluated.

    Raises:
        ValueError: no requests; ``cases`` of other requests.
    """
    if not requests:
        raise ValueError("expected at least one edit request, got none")
    cases = prepare(model, requests, fluency) if cases is None else cases
    if [case.request for case in cases] != list(requests):
        raise ValueError("the prepared cases are of other requests")
    results: list[CaseResult] = []
    by_step: dict[int, list[CaseResult]] = {}
    retentions: list[Retention] = []
    routed: list[tuple[RoutedEdit, tuple[EditRequest, ...]]] = []
    seconds = 0.0
    for chain in regime.chains(tuple(cases), lambda case: case.request.case):
        steps = evaluated_steps(eval_at, len(chain))
        meant = edited_prompts([case.request for part in chain for case in part])
        edit: Edit | None = None
        chain_results: list[CaseResult] = []
        rows: list[tuple[int, Sequence[bool]]] = []
        for step, part in enumerate(chain, start=1):
            edit, spent = _extended(model, edit, [case.request for case in part], make)
            seconds += spent
            shown = edit
            if restrained is not None and (restrained.each or step in steps):
                shown = restrained.by(edit, model)
                edit = shown if restrained.each else edit
            if step in steps:
                made = [case for earlier in chain[:step] for case in earlier]
                with shown.on(model) as edited:
                    if eval_at == "immediate":
                        chain_results += ask(edited, part, fluency, edited_prompts=meant)
                        rows.append((step, ask_success(edited, made)))
                    else:
                        chain_results = list(ask(edited, made, fluency, edited_prompts=meant))
                        rows.append((step, [result.own.after.right.exact for result in chain_results]))
                        by_step.setdefault(step, []).extend(chain_results)
            progress(len(results) + sum(len(earlier) for earlier in chain[:step]))
        results += chain_results
        if edit is not None:
            routed += [(router, _taught(router, chain)) for router in edit.routers]
        if regime.steps > 1:
            retentions.append(Retention.of(rows, [len(part) for part in chain]))
    kept = by_step if eval_at == "checkpoints" and regime.steps > 1 else {}
    checkpoints = tuple(Checkpoint(step, tuple(kept[step])) for step in sorted(kept))
    return Evaluation(regime, eval_at, tuple(results), checkpoints, tuple(retentions), seconds, tuple(routed))


def _extended(model: Model, edit: Edit | None, requests: Sequence[EditRequest], make: Make) -> tuple[Edit, float]:
    """The edit with these requests too, and the seconds that making took. What does not say how it goes on makes an edit on
    the edited model, and it is added."""
    started = time.perf_counter()
    if edit is None:
        whole = make(model, requests)
    elif isinstance(make, GoesOn):
        whole = make.upon(edit, model, requests)
    else:
        with edit.on(model) as edited:
            new = make(edited, requests)
        whole = edit + new
    return whole, time.perf_counter() - started


def _taught(router: RoutedEdit, chain: Sequence[Sequence[EditCase]]) -> tuple[EditRequest, ...]:
    """The chain's requests that a router was made of, with their probes."""
    made = {(request.prompt, request.target) for request in router.provenance.requests}
    requests = (case.request for part in chain for case in part)
    return tuple(request for request in requests if (request.prompt, request.target) in made)

"""Several editing methods on the same facts, in one table."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circuits.editing import EditError, Resources, find_method
from circuits.editing.prune import parse_restraint
from circuits.evaluation.edits.cases import EditCase, FluencySetting, prepare
from circuits.evaluation.edits.evaluate import Evaluation, Make, Restrain, evaluate
from circuits.evaluation.edits.regimes import SINGLE, EvalAt, Regime
from circuits.evaluation.edits.report import EditMetric, failure_counts, find_metric, not_finite, scaled, tabulate
from circuits.facts import EditRequest
from circuits.model import Model
from circuits.studies.routing import pooled, routing_report

METRICS = ("success", "generality", "portability", "locality")


@dataclass(frozen=True, slots=True)
class Contestant:
    """One row: a method in a regime, its result restrained or not."""

    method: str
    """As `circuits.editing.find_method` reads it."""
    regime: Regime = SINGLE
    restraint: str | None = None

    @classmethod
    def parse(cls, text: str, regime: Regime | None = None) -> "Contestant":
        """``METHOD[@SITE][/REGIME][+RESTRAINT]``: ``rome@subject/sequential:100+prune:alpha=1.2``.

        Args:
            regime: for a method that names none.

        Raises:
            circuits.editing.EditError: no such method, site or restraint.
            circuits.evaluation.edits.RegimeError: no such regime.
        """
        match = re.fullmatch(r"([^/+]+)(?:/([^+]+))?(?:\+(.+))?", text.strip())
        if not match:
            raise EditError(f"expected METHOD[@SITE][/REGIME][+RESTRAINT], such as memit/batch:30, got {text!r}")
        find_method(match[1])
        if match[3] is not None:
            parse_restraint(match[3])
        return cls(match[1], Regime.parse(match[2]) if match[2] else regime or SINGLE, match[3])

    @classmethod
    def parse_all(cls, text: str, regime: Regime | None = None) -> "tuple[Contestant, ...]":
        """Several, separated by commas; a comma before an option such as ``kind=linear`` belongs to the restraint."""
        return tuple(cls.parse(part, regime) for part in re.split(r",(?!\w+=)", text))

    def __str__(self) -> str:
        return f"{self.method}/{self.regime}" + (f"+{self.restraint}" if self.restraint else "")

    def n_requests(self, n: int) -> int:
        """``n``, raised so that every chain of the regime is whole."""
        chain = self.regime.batch * self.regime.steps
        return -(-n // chain) * chain

    @property
    def restrain(self) -> Restrain | None:
        return None if self.restraint is None else _restrain(self.restraint)


def _restrain(text: str) -> Restrain:
    function = parse_restraint(text)
    return lambda edit, model: function(edit, model)


def maker(
    method: str,
    *,
    settings: Mapping[str, Any] | None = None,
    resources: Resources | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Make:
    """The method with its options set; those that are not named are the model's defaults.

    Raises:
        EditError: no such method.
    """
    found, chosen = find_method(method), dict(settings or {})
    return lambda model, requests: found(
        model, requests, options=found.options(model, **chosen), resources=resources, seed=seed, progress=progress
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """One contestant, evaluated."""

    contestant: Contestant
    evaluation: Evaluation
    rows: tuple[EditMetric, ...]
    routing: Mapping[str, float | None] | None = None
    """Of a method with a bypass: see `circuits.studies.routing.RoutingReport`."""

    @classmethod
    def of(cls, contestant: Contestant, evaluation: Evaluation, model: Model) -> "Standing":
        return cls(contestant, evaluation, tabulate(evaluation.results), routing(evaluation, model))

    def to_json(self) -> dict[str, Any]:
        """The row: shares in percent (all tokens exact), fluency in bits, seconds an edited fact. ``before`` is the
        unedited model. None where no request has such a question."""
        locality = {f"locality_{kind}": self._value("locality", kind) for kind in LOCAL_KINDS}
        before = {f"{metric}_before": self._value(metric, before=True) for metric in (*METRICS, "fluency")}
        # A regime's chains may need more requests than were asked for: this is how many there were.
        return {
            "method": self.contestant.method,
            "regime": str(self.contestant.regime),
            "restrain": self.contestant.restraint,
            "n": len(self.evaluation.results),
            **{metric: self._value(metric) for metric in METRICS},
            "fluency": self._value("fluency"),
            "seconds": round(self.evaluation.seconds_per_request, 3),
            **locality,
            "ES": self._value("success", way="probability"),
            "GS": self._value("generality", way="probability"),
            "LS": self._value("locality", "neighbour", way="probability"),
            **before,
            "eval_at": self.evaluation.eval_at,
            "not_finite": not_finite(self.evaluation.results),
            "failures": failure_counts(self.evaluation.results),
            **({} if self.routing is None else {"routing": dict(self.routing)}),
        }

    def _value(self, metric: str, kind: Any = None, *, way: Any = "exact", before: bool = False) -> float | None:
        row = find_metric(self.rows, metric, None if metric == "fluency" else way, kind)
        return None if row is None else scaled(row.before if before else row.after)


def routing(evaluation: Evaluation, model: Model) -> Mapping[str, float | None] | None:
    """The routing of the bypasses that were made beside ``model``, the unedited one; None where none was."""
    if not evaluation.routed:
        return None
    return pooled([routing_report(edit, model, requests) for edit, requests in evaluation.routed])


LOCAL_KINDS = ("neighbour", "same_subject", "unrelated")


def compare(
    model: Model,
    contestants: Sequence[Contestant],
    requests: Sequence[EditRequest],
    n: int,
    *,
    eval_at: EvalAt = "end",
    fluency: FluencySetting | None = None,
    resources: Resources | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Standing, ...]:
    """Every contestant on the first ``n`` requests, or as many more as its chains need; the unedited model is asked once.

    Raises:
        EditError: there are too few requests for a contestant's chains.
    """
    needed = max(contestant.n_requests(n) for contestant in contestants)
    if len(requests) < needed:
        raise EditError(f"expected {needed} edit requests for {', '.join(map(str, contestants))}, got {len(requests)}")
    cases: tuple[EditCase, ...] = prepare(model, requests[:needed], fluency)
    standings = []
    for contestant in contestants:
        count = contestant.n_requests(n)
        evaluation = evaluate(
            model,
            requests[:count],
            maker(contestant.method, resources=resources, seed=seed),
            contestant.regime,
            eval_at=eval_at,
            restrain=contestant.restrain,
            fluency=fluency,
            cases=cases[:count],
            progress=_counted(contestant, count, progress),
        )
        standings.append(Standing.of(contestant, evaluation, model))
    return tuple(standings)


def _counted(contestant: Contestant, count: int, progress: Callable[[str], None]) -> Callable[[int], None]:
    return lambda done: progress(f"{contestant}: {done} of {count}")

"""Editing methods on many facts, in every metric: one of them, or several on the same facts."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circuits.editing import Edit, EditError, Method, Resources, find_method
from circuits.editing.prune import Restraint
from circuits.evaluation.edits import GROUPS, EvalAt, FluencySetting, failure_counts, find_metric, tabulate
from circuits.evaluation.edits.cases import CaseResult
from circuits.evaluation.edits.evaluate import Checkpoint, Evaluation, Restrain, Restrained, evaluate
from circuits.evaluation.edits.failures import FailureClass
from circuits.evaluation.edits.prefixes import with_prefixes
from circuits.evaluation.edits.questions import QuestionKind
from circuits.evaluation.edits.regimes import SINGLE, Regime, parse_eval_at
from circuits.evaluation.edits.report import Way, by_case, case_value, failure_class, not_finite, scaled
from circuits.evaluation.edits.retention import Retention
from circuits.evaluation.edits.superficial import AfterPrefix, after_prefixes
from circuits.facts import PREFIXED, EditRequest
from circuits.model import Model
from circuits.records import to_json
from circuits.studies.edit_specs import CompareSpec, EvalSpec
from circuits.studies.loading import load_asked
from circuits.studies.requests import Unedited
from circuits.studies.routing import PooledRouting, pooled, routing_report
from circuits.studies.study import Case, Study, Watch

WITHOUT_WAYS = ("fluency", "perplexity", "kl", "agreement")
"""Metrics that no question is counted for."""
METRICS = ("success", "generality", "portability", "locality")
LOCAL_KINDS = GROUPS["locality"]
BY_CASE = ("instance_wise", "multi_hop")
"""Shares of cases, beside the share of edits."""
WRITTEN_METRICS = ("success", "generality", "portability", "generation")
"""Metrics of answers that are also written as text."""


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
            Restraint.parse(match[3])
        return cls(match[1], Regime.parse(match[2]) if match[2] else regime or SINGLE, match[3])

    @classmethod
    def parse_all(cls, text: str, regime: Regime | None = None) -> "tuple[Contestant, ...]":
        """Several, separated by commas; a comma before an option such as ``kind=linear`` belongs to the restraint."""
        return tuple(cls.parse(part, regime) for part in re.split(r",(?!\w+=)", text))

    def __str__(self) -> str:
        return f"{self.method}/{self.regime}" + (f"+{self.restraint}" if self.restraint else "")

    def n_cases(self, n: int) -> int:
        """``n``, raised so that every chain of the regime is whole."""
        chain = self.regime.batch * self.regime.steps
        return -(-n // chain) * chain

    @property
    def restrain(self) -> Restrain | None:
        return None if self.restraint is None else Restraint.parse(self.restraint)


@dataclass(frozen=True)
class MadeBy:
    """A method with its settings, resources and seed, as evaluations ask for it."""

    method: Method[Any, Any]
    settings: Mapping[str, Any]
    resources: Resources | None
    seed: int
    progress: Callable[[str], None]

    def __call__(self, model: Model, requests: Sequence[EditRequest]) -> Edit:
        return self.method(model, requests, **self._asked(model))

    def upon(self, so_far: Edit, model: Model, requests: Sequence[EditRequest]) -> Edit:
        return self.method.upon(so_far, model, requests, **self._asked(model))

    def _asked(self, model: Model) -> dict[str, Any]:
        options = self.method.options(model, **self.settings)
        return {"options": options, "resources": self.resources, "seed": self.seed, "progress": self.progress}


def maker(
    method: str,
    *,
    settings: Mapping[str, Any] | None = None,
    resources: Resources | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> MadeBy:
    """The method with its options set; those that are not named are the model's defaults.

    Raises:
        EditError: no such method.
    """
    return MadeBy(find_method(method), dict(settings or {}), resources, seed, progress)


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric of one kind of question (None: of all of its kinds), counted in one way: shares in percent, or bits. None
    where it is not finite."""

    metric: str
    kind: QuestionKind | None
    way: Way | None
    unit: str
    before: float | None
    """The unedited model's."""
    after: float | None
    interval: tuple[float, float] | None
    """Of 95 %, over requests; see `circuits.evaluation.edits.report.EditMetric`."""
    n: int
    """Requests that have such a question."""
    questions: int


Values = dict[str, str | bool | int | float | None]


@dataclass(frozen=True, slots=True)
class Standing:
    """One contestant, evaluated: all that pages, tables and files show of it."""

    contestant: Contestant
    eval_at: EvalAt
    n: int
    seconds: float
    """Of making the edits, an edited fact."""
    metrics: tuple[MetricRow, ...]
    by_case: dict[str, float | None]
    """See `circuits.evaluation.edits.report.ByCase`, in percent: its fields, and with ``_before`` the unedited model's. None
    where nothing asks."""
    prefixes: tuple[AfterPrefix, ...]
    """What is said after prefixes; empty where they were not asked about."""
    failures: dict[FailureClass, int]
    """Of the answers to the edited prompts."""
    paraphrase_failures: dict[FailureClass, int]
    not_finite: int
    """Questions that met logits that are not finite."""
    checkpoints: tuple[Values, ...]
    """The number of steps, of requests, and each metric then, in percent."""
    retention: tuple[Retention, ...]
    facts: tuple[Values, ...]
    """Each request with what became of it, in percent where a share."""
    routing: PooledRouting | None = None
    """Of a method with a router."""

    @classmethod
    def of(cls, contestant: Contestant, evaluation: Evaluation, model: Model) -> "Standing":
        """Args:
        model: the unedited one, beside which bypasses were made.
        """
        results = evaluation.results
        routed = [routing_report(edit, model, requests) for edit, requests in evaluation.routed]
        return cls(
            contestant=contestant,
            eval_at=evaluation.eval_at,
            n=len(results),
            seconds=round(evaluation.seconds_per_request, 3),
            metrics=tuple(MetricRow(**row.to_json()) for row in tabulate(results)),
            by_case=_by_case(results),
            prefixes=after_prefixes(results) if _asks_prefixes(results) else (),
            failures=failure_counts(results),
            paraphrase_failures=failure_counts(results, "paraphrase"),
            not_finite=not_finite(results),
            checkpoints=tuple(map(_checkpoint, evaluation.checkpoints)),
            retention=evaluation.retention,
            facts=tuple(map(_fact, results)),
            routing=pooled(routed) if routed else None,
        )

    def to_json(self) -> dict[str, Any]:
        """The row of a comparison: shares in percent (all tokens exact), fluency in bits, seconds an edited fact. ``before``
        is the unedited model. None where no request has such a question."""
        # A regime's chains may need more requests than were asked for: this is how many there were.
        return {
            "method": self.contestant.method,
            "regime": str(self.contestant.regime),
            "restrain": self.contestant.restraint,
            "n": self.n,
            **{metric: self.value(metric) for metric in (*METRICS, "fluency")},
            "intervals": {metric: self.interval(metric) for metric in METRICS},
            "seconds": self.seconds,
            **{f"locality_{kind}": self.value("locality", kind) for kind in LOCAL_KINDS},
            "attributes": self.value("attributes"),
            "free": self.free,
            "by_case": self.by_case,
            "prefixes": [to_json(row) for row in self.prefixes],
            **{name: self.value(name) for name in ("perplexity", "kl", "agreement")},
            "perplexity_before": self.value("perplexity", before=True),
            "ES": self.value("success", way="probability"),
            "GS": self.value("generality", way="probability"),
            "LS": self.value("locality", "neighbour", way="probability"),
            **{f"{metric}_before": self.value(metric, before=True) for metric in (*METRICS, "fluency")},
            "eval_at": self.eval_at,
            "not_finite": self.not_finite,
            "failures": self.failures,
            **({} if self.routing is None else {"routing": to_json(self.routing)}),
        }

    def in_full(self) -> dict[str, Any]:
        """Every metric in every way, and every fact."""
        return {
            "n": self.n,
            "seconds": self.seconds,
            "metrics": [to_json(row) for row in self.metrics],
            "free": self.free,
            "by_case": self.by_case,
            "prefixes": [to_json(row) for row in self.prefixes],
            "failures": {"edit": self.failures, "paraphrase": self.paraphrase_failures},
            "not_finite": self.not_finite,
            "checkpoints": list(self.checkpoints),
            "retention": [retention.to_json() for retention in self.retention],
            "facts": list(self.facts),
            "routing": None if self.routing is None else to_json(self.routing),
        }

    @property
    def free(self) -> dict[str, dict[str, float]]:
        """Of each metric that is measured: token accuracy (teacher-forced), the answer written as a sentence to its own end,
        and how much more the first is, in points. (Exact tokens are what greedy decoding writes, whatever comes after.)"""
        found: dict[str, dict[str, float]] = {}
        for metric in WRITTEN_METRICS:
            forced, alone = self.value(metric, way="tokens"), self.value(metric, way="alone")
            if forced is not None and alone is not None:
                found[metric] = {"tokens": forced, "alone": alone, "gap": round(forced - alone, 4)}
        return found

    def value(
        self, metric: str, kind: QuestionKind | None = None, *, way: Way = "exact", before: bool = False
    ) -> float | None:
        row = self._row(metric, kind, None if metric in WITHOUT_WAYS else way)
        return None if row is None else row.before if before else row.after

    def interval(self, metric: str) -> tuple[float, float] | None:
        """Of 95 %, of all kinds together, all tokens exact."""
        row = self._row(metric, None, "exact")
        return None if row is None else row.interval

    def _row(self, metric: str, kind: QuestionKind | None, way: Way | None) -> MetricRow | None:
        return next((row for row in self.metrics if (row.metric, row.kind, row.way) == (metric, kind, way)), None)


def _asks_prefixes(results: Sequence[CaseResult]) -> bool:
    return any(outcome.question.kind in PREFIXED for result in results for outcome in result.outcomes)


def _by_case(results: Sequence[CaseResult]) -> dict[str, float | None]:
    found = {"": by_case(results), "_before": by_case(results, "before")}
    shares = {f"{name}{when}": getattr(each, name) for when, each in found.items() for name in ("edit_wise", *BY_CASE)}
    return {name: scaled(share) if share.per_example else None for name, share in shares.items()}


def _checkpoint(point: Checkpoint) -> Values:
    rows = tabulate(point.results)
    found = {metric: find_metric(rows, metric) for metric in GROUPS}
    values = {metric: None if row is None else scaled(row.after) for metric, row in found.items()}
    return {"step": point.step, "n": len(point.results), **values}


def _fact(result: CaseResult) -> Values:
    shares = {name: case_value(result, GROUPS[name], "exact") for name in ("generality", "locality")}
    return {
        "prompt": result.request.prompt,
        "old": result.request.old,
        "target": result.request.target,
        "success": result.own.after.right.exact,
        **{name: None if share is None else round(100 * share, 4) for name, share in shares.items()},
        "says": result.own.after.text,
        "class": failure_class(result.own, result.request.old),
    }


# ---- the study -------------------------------------------------------------------------------------------------------


def _contestants(spec: CompareSpec | EvalSpec) -> list[tuple[Contestant, int]]:
    """Each with its number of cases: of several methods, as many as fill their chains."""
    if spec.alone:
        return [(Contestant.parse(spec.methods), spec.n)]
    found = Contestant.parse_all(spec.methods, Regime.parse(spec.regime))
    return [(each, each.n_cases(spec.n)) for each in found]


def _open(spec: CompareSpec | EvalSpec, watch: Watch | None) -> Unedited:
    contestants = _contestants(spec)
    parse_eval_at(spec.eval_at)
    chosen = spec.chosen
    model = load_asked(spec)
    for each, _ in contestants:
        find_method(each.method).options(model, **chosen)
    n = max(count for _, count in contestants)
    probed = with_prefixes if spec.prefixes else None
    found = Unedited.of(model, spec, n, _fluency(spec), written="changed", probed=probed, watch=watch or Watch())
    return found.beside(spec.general, spec.text, watch or Watch()) if spec.general else found


def _fluency(spec: CompareSpec | EvalSpec) -> FluencySetting:
    return FluencySetting(spec.fluency_samples, seed=spec.seed)


def _cases(spec: CompareSpec | EvalSpec, unedited: Unedited) -> list[Case[tuple[Contestant, int]]]:
    return [Case(str(each).replace("/", " "), (each, count)) for each, count in _contestants(spec)]


def _run(
    spec: CompareSpec | EvalSpec, case: Case[tuple[Contestant, int]], unedited: Unedited, watch: Watch
) -> Standing:
    (contestant, count), model = case.asked, unedited.model
    cases, restrain = unedited.first(count), contestant.restrain
    evaluation = evaluate(
        model,
        [one.request for one in cases],
        maker(contestant.method, settings=spec.chosen, resources=unedited.resources, seed=spec.seed),
        contestant.regime,
        eval_at=parse_eval_at(spec.eval_at),
        restrained=None if restrain is None else Restrained(restrain, spec.restrain_each),
        fluency=_fluency(spec),
        cases=cases,
        progress=lambda done: watch.progress(done, len(cases), f"{contestant}: {done} of {len(cases)} facts"),
    )
    return Standing.of(contestant, evaluation, model)


EDITS: Study[CompareSpec | EvalSpec, Unedited, tuple[Contestant, int], Standing] = Study(
    "edits", Standing, _open, _cases, _run, algorithm=4
)

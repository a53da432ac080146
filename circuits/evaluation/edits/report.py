"""Evaluated edits as a table of metrics: side by side, each beside the unedited model's value, each with its n.

A request's value is the mean over the kinds of question that it has of the mean over the questions of that kind; the metric
is the mean over requests (as KnowEdit aggregates). Requests without such a question are not counted. A logit that is not
finite fails every metric; nothing is dropped.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from circuits.evaluation.baseline import likely
from circuits.evaluation.edits.cases import CaseResult, QuestionOutcome, Reply
from circuits.evaluation.edits.failures import FAILURE_CLASSES, FailureClass, classify
from circuits.evaluation.edits.questions import GROUPS, QuestionKind
from circuits.evaluation.edits.regimes import in_cases
from circuits.evaluation.general import GeneralAbility
from circuits.metrics import Measurement
from circuits.records import Number

Way = Literal["exact", "tokens", "generated", "alone", "probability", "rival"]

WAYS: Mapping[Way, Callable[[QuestionOutcome, Reply], float | None]] = {
    "exact": lambda outcome, reply: float(reply.right.exact),
    "tokens": lambda outcome, reply: reply.right.token_accuracy,
    "generated": lambda outcome, reply: None if outcome.question.stays else float(reply.accepted),
    "alone": lambda outcome, reply: None if outcome.question.stays else float(reply.alone),
    "probability": lambda outcome, reply: None if reply.prefers_right is None else float(reply.prefers_right),
    "rival": lambda outcome, reply: None if reply.rival is None else float(reply.rival.exact),
}
"""How a reply counts. None: this question is not counted this way.

exact: all tokens of the right answer are the likeliest, which is to say that greedy decoding writes it.
tokens: the share of its tokens that are, teacher-forced; not 0 for answers that share a token with the right one.
generated: the greedily generated sentence holds the right answer, or an alias, as whole words.
alone: the same, and the model ends the sentence by itself and does not say the rival in it: free generation with a natural stop.
probability: the right answer is likelier, per token, than its rival: ES on the edit's prompt, GS on paraphrases, LS on
neighbours (paper 1, section 4.1; the published code also takes the mean over tokens).
rival: all tokens of the rival are the likeliest. Of the edit's prompt, after a prefix or without: the old object is given.
"""
WAY_NAMES: Mapping[Way, str] = {
    "exact": "all tokens exact",
    "tokens": "token accuracy",
    "generated": "generated answer",
    "alone": "generated to its end, alone",
    "probability": "likelier than its rival",
    "rival": "the rival given instead",
}


@dataclass(frozen=True, slots=True)
class EditMetric:
    """One metric, counted in one way: shares from 0 to 1, one a request; for fluency, bits; perplexity; KL, in nats."""

    metric: str
    way: Way | None
    kind: QuestionKind | None
    """The one kind of question, or None for all kinds of the metric."""
    before: Measurement
    after: Measurement
    n_questions: int

    @property
    def n(self) -> int:
        """Number of requests."""
        return len(self.after.per_example)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the edited model's mean over requests, as it is printed (`likely`); None where one is not finite. Requests that were
        edited together share a model, so of one batch it is too narrow."""
        values = self.after.per_example
        if not all(map(math.isfinite, values)):
            return None
        shares = self.after.unit == "%"
        low, high = likely(values, shares=shares)
        scale = 100 if shares else 1
        return round(scale * low, 4), round(scale * high, 4)

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "kind": self.kind,
            "way": self.way,
            "unit": self.after.unit,
            "before": scaled(self.before),
            "after": scaled(self.after),
            "interval": self.interval,
            "n": self.n,
            "questions": self.n_questions,
        }


def scaled(measurement: Measurement) -> float | None:
    """The value as it is printed: a share in percent, any other quantity as it is. None for NaN, which JSON cannot hold."""
    value = measurement.value * (100 if measurement.unit == "%" else 1)
    return round(value, 4) if math.isfinite(value) else None


def tabulate(results: Sequence[CaseResult]) -> tuple[EditMetric, ...]:
    """Every metric in every way that applies, for all its kinds together and, where it has several, for each; then fluency."""
    rows: list[EditMetric] = []
    for metric, kinds in GROUPS.items():
        choices: dict[QuestionKind | None, tuple[QuestionKind, ...]] = {None: kinds}
        if len(kinds) > 1:
            choices |= {kind: (kind,) for kind in kinds}
        for kind, chosen in choices.items():
            rows += [row for way in WAYS if (row := _row(results, metric, kind, chosen, way)) is not None]
    fluent = [result for result in results if math.isfinite(result.fluency_before)]
    if fluent:
        before = Measurement("fluency", "bits", tuple(result.fluency_before for result in fluent))
        after = Measurement("fluency", "bits", tuple(result.fluency_after for result in fluent))
        rows.append(EditMetric("fluency", None, None, before, after, len(fluent)))
    return (*rows, *_general([result.general for result in results if result.general is not None]))


def _general(found: Sequence[GeneralAbility]) -> Iterator[EditMetric]:
    """One value a request, of the model that it was asked of: requests of one chain share theirs."""
    sides = {
        "perplexity": ("", [(one.perplexity_before, one.perplexity) for one in found]),
        "kl": ("nats", [(0.0, one.kl) for one in found]),
        "agreement": ("%", [(1.0, one.agreement) for one in found]),
    }
    for name, (unit, pairs) in sides.items():
        if pairs:
            before, after = (Measurement(name, unit, tuple(side)) for side in zip(*pairs, strict=True))
            yield EditMetric(name, None, None, before, after, found[0].n_tokens)


def find_metric(
    rows: Sequence[EditMetric], metric: str, way: Way | None = "exact", kind: QuestionKind | None = None
) -> EditMetric | None:
    """The row of that metric, or None if no request has such a question."""
    return next((row for row in rows if (row.metric, row.way, row.kind) == (metric, way, kind)), None)


def case_value(
    result: CaseResult, kinds: Sequence[QuestionKind], way: Way, of: Literal["before", "after"] = "after"
) -> float | None:
    """One request's share: the mean over its kinds of the mean over their questions; None if it has none that counts."""
    by_kind: dict[QuestionKind, list[float]] = {}
    for outcome in result.outcomes:
        if outcome.question.kind in kinds:
            value = WAYS[way](outcome, outcome.before if of == "before" else outcome.after)
            if value is not None:
                by_kind.setdefault(outcome.question.kind, []).append(value)
    means = [math.fsum(values) / len(values) for values in by_kind.values()]
    return math.fsum(means) / len(means) if means else None


@dataclass(frozen=True, slots=True)
class Shares:
    """One request's answers all of whose tokens are the likeliest, as shares; NaN where it has no such question."""

    success: Number
    generality: Number
    locality: Number
    same_subject: Number
    """The one kind of locality."""

    @classmethod
    def of(cls, result: CaseResult) -> "Shares":
        groups: tuple[tuple[QuestionKind, ...], ...]
        groups = (GROUPS["success"], GROUPS["generality"], GROUPS["locality"], ("same_subject",))
        values = [case_value(result, kinds, "exact") for kinds in groups]
        return cls(*(math.nan if value is None else value for value in values))


def _row(
    results: Sequence[CaseResult], metric: str, kind: QuestionKind | None, kinds: tuple[QuestionKind, ...], way: Way
) -> EditMetric | None:
    before = [value for result in results if (value := case_value(result, kinds, way, "before")) is not None]
    after = [value for result in results if (value := case_value(result, kinds, way)) is not None]
    if not after:
        return None
    counted = sum(
        WAYS[way](outcome, outcome.after) is not None
        for result in results
        for outcome in result.outcomes
        if outcome.question.kind in kinds
    )
    name = f"{metric}, {WAY_NAMES[way]}"
    return EditMetric(
        metric, way, kind, Measurement(name, "%", tuple(before)), Measurement(name, "%", tuple(after)), counted
    )


def failure_class(outcome: QuestionOutcome, old: str | None = None) -> FailureClass:
    """Class of the edited model's generated answer; ``old`` is the old object, where the question's answer was that."""
    before = tuple(text for text in (old, outcome.before.text) if text)
    return classify(outcome.after.text, outcome.question.answers, before)


def failure_counts(results: Sequence[CaseResult], kind: QuestionKind = "edit") -> dict[FailureClass, int]:
    """How many generated answers to questions of that kind fall into each class."""
    counts = Counter(
        failure_class(outcome, result.request.old)
        for result in results
        for outcome in result.outcomes
        if outcome.question.kind == kind
    )
    return {name: counts[name] for name in FAILURE_CLASSES}


def not_finite(results: Sequence[CaseResult]) -> int:
    """Number of questions to which the edited model's logits were not finite: they count as failures."""
    return sum(not outcome.after.right.finite for result in results for outcome in result.outcomes)


@dataclass(frozen=True, slots=True)
class ByCase:
    """MQuAKE's three shares (Zhong et al. 2023, section 3.3), of what is written after its bare questions, without examples."""

    edit_wise: Measurement
    """Of edits: whether the edited prompt is answered with the new object."""
    instance_wise: Measurement
    """Of cases: whether all of its single hops are answered as they stand after its edits."""
    multi_hop: Measurement
    """Of cases: whether any of its questions is answered."""


def by_case(results: Sequence[CaseResult], of: Literal["before", "after"] = "after") -> ByCase:
    """Cases are counted where they ask; a request of no case is one of its own."""

    def right(outcomes: Sequence[QuestionOutcome]) -> list[bool]:
        return [(outcome.before if of == "before" else outcome.after).accepted for outcome in outcomes]

    instances, questions = [], []
    for case in in_cases(results, lambda result: result.request.case):
        asked = [outcome for result in case for outcome in result.outcomes]
        hops = [outcome for outcome in asked if outcome.question.kind == "hop"]
        multi = [outcome for outcome in asked if outcome.question.kind == "reasoning"]
        instances += [float(all(right(hops)))] if hops else []
        questions += [float(any(right(multi)))] if multi else []
    edits = right([result.own for result in results])
    return ByCase(
        Measurement("edit-wise accuracy", "%", tuple(map(float, edits))),
        Measurement("instance-wise accuracy", "%", tuple(instances)),
        Measurement("multi-hop accuracy", "%", tuple(questions)),
    )

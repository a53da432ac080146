"""The superficial-edit audit: is the old answer still given, or likelier than the new one, after prefixes; and by which heads.

Beside each share stands the unedited model's, and beside the prefixes the prompt without one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from circuits.evaluation.edits.cases import CaseResult, EditCase, FluencySetting, QuestionOutcome, Reply, ask
from circuits.evaluation.edits.questions import QuestionKind
from circuits.evaluation.edits.relapse import Relapse, Rivals, find_relapse, relapsed
from circuits.evaluation.edits.report import WAYS, Way
from circuits.facts import PREFIXED
from circuits.model import Model
from circuits.records import Number

KINDS: tuple[QuestionKind, ...] = ("edit", *PREFIXED)
NAMES: dict[QuestionKind, str] = {
    "edit": "no prefix",
    "neutral_prefix": "an unrelated fact",
    "subject_prefix": "another fact of the subject",
    "old_prefix": "the old object",
    "other_prefix": "a third object",
}


@dataclass(frozen=True, slots=True)
class AfterPrefix:
    """Shares from 0 to 1 of the prompts with one kind of prefix, in the unedited model and in the edited one."""

    prefix: str
    n: int
    new_given: tuple[float, float]
    """All tokens of the new object are the likeliest."""
    old_given: tuple[float, float]
    """All tokens of the old object are: OM of Xie et al. 2025."""
    old_likelier: tuple[float, float]
    """The old object is at least as likely as the new one, per token: their OP."""
    log_odds: tuple[Number, Number]
    """Mean of ln p(old) - ln p(new), per token, in nats; NaN if a logit is not finite."""


@dataclass(frozen=True, slots=True)
class Audit:
    """``relapse`` is None where the old answer does not come back after at least two prefixes, or no head brings it."""

    prefixes: tuple[AfterPrefix, ...]
    relapse: Relapse | None

    def told(self) -> tuple[str, ...]:
        """In sentences, each with its numbers."""
        lines = []
        if self.prefixes:
            shares = ", ".join(f"{row.prefix} {row.old_likelier[1]:.0%} of {row.n}" for row in self.prefixes)
            lines.append(
                f"The old answer is at least as likely as the new one, by what stands before the prompt: {shares}."
            )
        if self.relapse is not None:
            lines.append(str(self.relapse))
        return tuple(lines)


def after_prefixes(results: Sequence[CaseResult]) -> tuple[AfterPrefix, ...]:
    """The kinds that were asked, over all prompts of all requests whose old object is known."""
    found = []
    for kind in KINDS:
        outcomes = [
            outcome
            for result in results
            for outcome in result.outcomes
            if outcome.question.kind == kind and outcome.question.rival is not None
        ]

        if outcomes:
            likelier = _shares(outcomes, "probability")
            found.append(
                AfterPrefix(
                    NAMES[kind],
                    len(outcomes),
                    _shares(outcomes, "exact"),
                    _shares(outcomes, "rival"),
                    (1 - likelier[0], 1 - likelier[1]),
                    (_log_odds([one.before for one in outcomes]), _log_odds([one.after for one in outcomes])),
                )
            )
    return tuple(found)


def _shares(outcomes: Sequence[QuestionOutcome], way: Way) -> tuple[float, float]:
    """Before and after."""
    values = [(WAYS[way](one, one.before), WAYS[way](one, one.after)) for one in outcomes]
    before, after = (math.fsum(value or 0.0 for value in side) / len(values) for side in zip(*values, strict=True))
    return before, after


def _log_odds(replies: Sequence[Reply]) -> float:
    return math.fsum(one.right.nll - one.rival.nll for one in replies if one.rival is not None) / len(replies)


def audit(edited: Model, cases: Sequence[EditCase], *, seed: int = 0) -> Audit:
    """Ask an edited model the cases' own prompts and those with prefixes (`with_prefixes`), and find who brings back what was.

    Heads are sought at the prompts with a prefix after which the old object's first token is the likelier one.

    Args:
        seed: of the random heads.
    """
    results = ask(edited, cases, FluencySetting(n_samples=0), written="nothing")
    asked = [
        Rivals(question.right[0].prompt, question.rival.answer[0], question.right[0].answer[0])
        for case in cases
        for question in case.asked
        if question.question.kind in PREFIXED
        and question.rival is not None
        and question.rival.answer[0] != question.right[0].answer[0]
    ]
    return Audit(after_prefixes(results), find_relapse(edited, relapsed(edited, asked), seed=seed))

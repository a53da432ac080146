"""Edit requests with their questions, put to the unedited model once and to edited models as often as needed.

All questions of all requests share their forward passes (`read`), as do all generated answers.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from circuits.evaluation.continuations import Continuation, completion, read
from circuits.evaluation.edits.failures import answers, contains
from circuits.evaluation.edits.fluency import N_SAMPLES, N_TOKENS, sampled_fluency
from circuits.evaluation.edits.generation import greedy, most_likely
from circuits.evaluation.edits.questions import Question, questions
from circuits.evaluation.general import GeneralAbility, UnrelatedText
from circuits.facts import EditRequest
from circuits.model import Model, Tokens

Written = Literal["nothing", "changed", "all"]
"""Which answers are generated as text: none; those that the edit should change; or those too that must stay, for people to
read. What must stay is compared token by token, which needs no text."""
OWN_TOKENS = 5
"""Tokens of the unedited model's answer that must stay, where the data do not say how long the answer is."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One model's answer to one question."""

    right: Continuation
    """Of the right answer: of the one that fares best among those that the data accept, or of the unedited model's own."""
    rival: Continuation | None
    text: str
    """The answer as greedily generated, to the end of the sentence; nothing where none was written (`Written`). Of a
    question that must stay, before the edit: the tokens that are compared."""
    accepted: bool
    """Whether ``text`` holds one of the right answers. Where none was written, or the question must stay: whether the model
    gives the right answer, all of its tokens."""
    alone: bool
    """The same, and ``text`` has come to its own end and does not hold the rival."""

    @property
    def prefers_right(self) -> bool | None:
        """Whether the right answer is likelier than its rival, per token; None without a rival. NaN is a no."""
        return None if self.rival is None else self.right.nll < self.rival.nll


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question as ids, with the unedited model's reply."""

    question: Question
    right: tuple[Tokens, ...]
    rival: Tokens | None
    before: Reply


@dataclass(frozen=True, slots=True)
class FluencySetting:
    """How the texts are sampled whose entropy is fluency. No samples: it is not measured (NaN)."""

    n_samples: int = N_SAMPLES
    n_tokens: int = N_TOKENS
    seed: int = 0

    def measure(self, model: Model, requests: Sequence[EditRequest]) -> tuple[float, ...]:
        """In bits, of what the model writes after each request's generation prompts (as Meng et al. 2022), or after its own
        prompt where it has none (as paper 0); the mean over them."""
        if self.n_samples == 0:
            return (math.nan,) * len(requests)
        written = [
            [probe.prompt for probe in request.probes if probe.kind == "generation"] or [request.prompt]
            for request in requests
        ]
        prompts = [completion(model, prompt, ".").prompt for own in written for prompt in own]
        values = iter(sampled_fluency(model, prompts, seed=self.seed, n_tokens=self.n_tokens, n_samples=self.n_samples))
        return tuple(math.fsum(next(values) for _ in own) / len(own) for own in written)


@dataclass(frozen=True, slots=True)
class EditCase:
    """A request, ready to be asked about: the unedited model's replies, and its fluency in bits after the edit's prompt."""

    request: EditRequest
    asked: tuple[OpenQuestion, ...]
    fluency: float
    unrelated: UnrelatedText | None = None
    """What the edited model's general ability is measured on."""

    @property
    def unedited(self) -> "CaseResult":
        """What an edit that changes nothing comes to."""
        outcomes = tuple(QuestionOutcome(asked.question, asked.before, asked.before) for asked in self.asked)
        general = None if self.unrelated is None else self.unrelated.unedited
        return CaseResult(self.request, outcomes, self.fluency, self.fluency, general)


@dataclass(frozen=True, slots=True)
class QuestionOutcome:
    """One question before and after an edit."""

    question: Question
    before: Reply
    after: Reply


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One request, evaluated. ``outcomes`` begin with the edit's own question."""

    request: EditRequest
    outcomes: tuple[QuestionOutcome, ...]
    fluency_before: float
    fluency_after: float
    general: GeneralAbility | None = None
    """Of the edited model, whatever else was edited in it."""

    @property
    def own(self) -> QuestionOutcome:
        return self.outcomes[0]


def prepare(
    model: Model,
    requests: Sequence[EditRequest],
    fluency: FluencySetting | None = None,
    *,
    written: Written = "changed",
) -> tuple[EditCase, ...]:
    """Ask the unedited model everything."""
    fluency = fluency or FluencySetting()
    asked = [[(question, *_tokens(model, question)) for question in questions(request)] for request in requests]
    staying = [(question, right) for own in asked for question, right, _ in own if question.stays]
    own_answers = iter(
        most_likely(
            model,
            [right[0].prompt for _, right in staying],
            [len(right[0].answer) if question.answers else OWN_TOKENS for question, right in staying],
        )
    )
    open_cases: list[list[tuple[Question, tuple[Tokens, ...], Tokens | None]]] = []
    for own in asked:
        open_cases.append([])
        for question, right, rival in own:
            if question.stays:
                right = (Tokens(right[0].prompt, next(own_answers)),)
                # A model that takes the new object for a neighbour's already has no answer that could be lost to it.
                rival = None if rival is not None and rival.answer == right[0].answer else rival
            open_cases[-1].append((question, right, rival))
    replies = iter(_replies(model, [item for case in open_cases for item in case], written=written))
    measured = fluency.measure(model, requests)
    return tuple(
        EditCase(
            request,
            tuple(OpenQuestion(question, right, rival, next(replies)) for question, right, rival in case),
            value,
        )
        for request, case, value in zip(requests, open_cases, measured, strict=True)
    )


def ask(
    edited: Model,
    cases: Sequence[EditCase],
    fluency: FluencySetting | None = None,
    *,
    edited_prompts: Collection[str] = (),
    written: Written = "changed",
) -> tuple[CaseResult, ...]:
    """Ask an edited model everything.

    Args:
        edited_prompts: prompts that some edit in the model is meant to change. A question with such a prompt that this
            case's own edit must leave alone is left out.
    """
    fluency = fluency or FluencySetting()
    kept = [
        [asked for asked in case.asked if not (asked.question.stays and asked.question.prompt in edited_prompts)]
        for case in cases
    ]
    flat = [asked for case in kept for asked in case]
    replies = iter(
        _replies(edited, [(asked.question, asked.right, asked.rival) for asked in flat], after=True, written=written)
    )
    measured = fluency.measure(edited, [case.request for case in cases])
    texts = {case.unrelated for case in cases}
    general = {text: None if text is None else text.measure(edited) for text in texts}
    return tuple(
        CaseResult(
            case.request,
            tuple(QuestionOutcome(asked.question, asked.before, next(replies)) for asked in own),
            case.fluency,
            value,
            general[case.unrelated],
        )
        for case, own, value in zip(cases, kept, measured, strict=True)
    )


def ask_success(edited: Model, cases: Sequence[EditCase]) -> tuple[bool, ...]:
    """Whether each case's own prompt is answered with the new object, all of its tokens: the cheapest thing to ask."""
    readings = read(edited, [case.asked[0].right[0] for case in cases])
    return tuple(reading.exact for reading in readings)


def edited_prompts(requests: Sequence[EditRequest]) -> frozenset[str]:
    """The prompts that these edits are meant to change, as far as the requests name them."""
    return frozenset(
        question.prompt
        for request in requests
        for question in questions(request)
        # Some hops are changed and some are not; those that are changed are some request's own prompt.
        if not question.stays and question.kind != "hop"
    )


def _tokens(model: Model, question: Question) -> tuple[tuple[Tokens, ...], Tokens | None]:
    # A question without an answer of its own still has a prompt; the full stop only stands in for the answer.
    right = tuple(completion(model, question.prompt, answer) for answer in question.answers or (".",))
    return right, None if question.rival is None else completion(model, question.prompt, question.rival)


def _replies(
    model: Model,
    asked: Sequence[tuple[Question, tuple[Tokens, ...], Tokens | None]],
    *,
    after: bool = False,
    written: Written,
) -> list[Reply]:
    wanted: list[Tokens] = []
    for _, right, rival in asked:
        wanted += right if rival is None else (*right, rival)
    readings = iter(read(model, wanted))
    writes = [written == "all" or (written == "changed" and not question.stays) for question, _, _ in asked]
    prompts = [right[0].prompt for (_, right, _), write in zip(asked, writes, strict=True) if write]
    texts = iter(greedy(model, prompts))
    replies = []
    for (question, right, rival), write in zip(asked, writes, strict=True):
        own = [next(readings) for _ in right]
        best = max(own, key=lambda reading: (reading.exact, reading.token_accuracy, -reading.nll))
        other = None if rival is None else next(readings)
        free = next(texts) if write else None
        text = "" if free is None else model.vocabulary.decode(free.ids).strip()
        if question.stays and not after:
            text = model.vocabulary.decode(right[0].answer).strip()
        accepted = alone = best.exact
        if free is not None and not question.stays:
            accepted = answers(text, question.answers)
            alone = accepted and free.ended and not _strays(text, question)
        replies.append(Reply(best, other, text, accepted, alone))
    return replies


def _strays(text: str, question: Question) -> bool:
    """Whether the rival is said, too; it is not where a right answer holds it ("York" in "New York")."""
    rival = question.rival
    return rival is not None and contains(text, rival) and not any(contains(own, rival) for own in question.answers)

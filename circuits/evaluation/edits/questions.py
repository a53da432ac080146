"""What an edit is asked: its own prompt and its probes, each with the answer that would be right."""

from dataclasses import dataclass
from typing import Literal

from circuits.facts import PREFIXED, SHOULD_CHANGE, SHOULD_STAY, EditRequest, Probe, ProbeKind

QuestionKind = Literal["edit"] | ProbeKind

GROUPS: dict[str, tuple[QuestionKind, ...]] = {
    "success": ("edit",),
    "generality": ("paraphrase",),
    "portability": ("alias", "two_hop", "reasoning", "reverse"),
    "generation": ("generation",),
    "hops": ("hop",),
    "prefixed": PREFIXED,
    "locality": ("neighbour", "same_subject", "forgetfulness", "unrelated"),
    "attributes": ("attribute",),
}
"""Metric -> the kinds of question that it is measured on (paper 0, section 3.5).

CounterFact's attribute prompts are a metric of their own: their answer is the object that the edit makes likelier everywhere,
so an edit that leaks keeps them, and no published locality counts them. Nor are its generation prompts paraphrases: the new
object may come anywhere in what is written after them. MQuAKE's single hops hold some that no edit changes.
"""
ONE_STEP: tuple[QuestionKind, ...] = ("edit", "paraphrase", "alias", "generation", *PREFIXED, "attribute")
"""Questions whose answer is the new object itself, so that the old one is its rival."""

assert {kind for kinds in GROUPS.values() for kind in kinds} == {"edit", *SHOULD_CHANGE, *SHOULD_STAY}


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt put to the model before and after an edit.

    ``answers`` are what is right after the edit, any of them; for a question that the edit must leave alone they are what
    the data give, and right is what the unedited model says. ``rival`` is what must be less likely than the right answer:
    the old object, or for a neighbour the new one. None where there is none, or where it is a right answer itself.
    """

    kind: QuestionKind
    prompt: str
    answers: tuple[str, ...]
    rival: str | None = None

    @property
    def stays(self) -> bool:
        """Whether the edit must leave the answer as it was."""
        return self.kind in SHOULD_STAY


def questions(request: EditRequest) -> tuple[Question, ...]:
    """The edit's own question first, then the probes in their order."""
    own = Question("edit", request.prompt, (request.target,), request.old)
    return (own, *(_of_probe(request, probe) for probe in request.probes))


def _of_probe(request: EditRequest, probe: Probe) -> Question:
    given = () if probe.answer is None else (probe.answer, *probe.aliases)
    rival = request.old if probe.kind in ONE_STEP else request.target if probe.kind == "neighbour" else None
    # The rival of a right answer is another one: a neighbour may truly have the new object.
    return Question(probe.kind, probe.prompt, given, None if rival in given else rival)

"""KnowEdit (paper 0, section 3.4): the parts that state facts (WikiData recent and counterfact, ZsRE, WikiBio).

Its parts on sentiment (ConvSent) and on forgetting (Sanitation) hold no subject, relation and object, and are refused.
"""

from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field

from circuits.datasets.records import Record, RecordError, Skip, Words, flat, read_records, request, template_of
from circuits.facts import EditRequest, Probe, ProbeKind

PORTABILITY: dict[str, ProbeKind] = {
    "Subject_Aliasing": "alias",
    "Reasoning": "reasoning",
    "reasoning": "reasoning",
    "Logical_Generalization": "reverse",
}
LOCALITY: dict[str, ProbeKind] = {"Relation_Specificity": "same_subject", "Forgetfulness": "forgetfulness"}
"""Relation specificity asks for the subject's other relations, forgetfulness for its other objects in the edited one."""

Answers = str | list[str] | list[list[str]] | None
"""Published files nest answers none, one or two lists deep; the innermost list holds spellings of one answer."""


class _Question(Record):
    prompt: Words
    ground_truth: Answers = None


class _Case(Record):
    subject: Words = Field(validation_alias=AliasChoices("subject", "concept"))
    prompt: Words = Field(validation_alias=AliasChoices("prompt", "text"))
    target: Words = Field(validation_alias=AliasChoices("target_new", "labels"))
    ground_truth: Answers = None
    rephrase_prompt: Words | None = None
    rephrase: Words | list[Words] | None = None
    portability: dict[str, list[_Question]] = Field(default_factory=dict)
    locality: dict[str, list[_Question]] = Field(default_factory=dict)


def load_knowedit(path: Path, *, skip: Skip | None = None, limit: int | None = None) -> tuple[EditRequest, ...]:
    """The records as requests, with their portability and locality questions as probes.

    The old object is the first of a record's ``ground_truth``, where it has one.

    Raises:
        circuits.datasets.DatasetError: without ``skip``, for a record that makes no request.
    """
    return read_records(path, _schema, _request, skip, limit)


def _schema(raw: Any) -> type[_Case]:
    if isinstance(raw, dict) and not raw.keys() & {"target_new", "labels"}:
        raise RecordError(
            "target_new",
            f"expected a fact with subject, prompt and target_new, got a record with {', '.join(sorted(raw))}",
        )
    return _Case


def _request(case: _Case) -> EditRequest:
    rephrased = [case.rephrase_prompt, *([case.rephrase] if isinstance(case.rephrase, str) else case.rephrase or [])]
    probes = [Probe("paraphrase", prompt, case.subject, case.target) for prompt in rephrased if prompt is not None]
    for field, kinds, groups in (("portability", PORTABILITY, case.portability), ("locality", LOCALITY, case.locality)):
        for name, questions in groups.items():
            if name not in kinds:
                raise RecordError(f"{field}.{name}", f"expected one of {', '.join(kinds)}")
            for number, question in enumerate(questions):
                probes.append(_probe(kinds[name], question, f"{field}.{name}.{number}"))
    template = template_of(case.prompt, case.subject, "prompt")
    old = next(flat(case.ground_truth), None)
    # Some records state the object that they edit in as the old one as well: then the old one is not known.
    old = None if old == case.target else old
    return request("target_new", template, case.subject, case.target, old, None, probes)


def _probe(kind: ProbeKind, question: _Question, field: str) -> Probe:
    answer, *aliases = [*dict.fromkeys(flat(question.ground_truth)), None]
    spellings = tuple(alias for alias in aliases if alias is not None)
    try:
        return Probe(kind, question.prompt, None, answer, spellings)
    except ValueError as error:
        raise RecordError(f"{field}.ground_truth", str(error)) from error

"""zsRE, question answering (Levy et al. 2017), in the layout that model editing uses (Mitchell et al. 2022).

Projects edit in different objects, so their numbers do not compare: ``alt`` is a false answer, as KnowEdit's authors use it;
``true`` is the right one, as ROME, MEMIT and PRUNE use it, which a model may know already.
"""

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from circuits.datasets.records import Record, RecordError, Skip, Words, read_records, request, template_of
from circuits.facts import EditRequest, Probe

Target = Literal["alt", "true"]
TARGETS: tuple[Target, ...] = ("alt", "true")


class _Inference(Record):
    question: Words = Field(alias="New Question")
    answer: Words = Field(alias="New Answer")


class _Case(Record):
    subject: Words
    src: Words
    rephrase: Words | None = None
    alt: Words | None = None
    answers: tuple[Words, ...] = Field(min_length=1)
    loc: Words | None = None
    loc_ans: Words | None = None
    portability: _Inference | None = None


def load_zsre(
    path: Path, *, target: Target, skip: Skip | None = None, limit: int | None = None
) -> tuple[EditRequest, ...]:
    """The records as requests; ``target`` says whether the false or the true answer is edited in.

    With ``true`` the old object is not known (None): it is whatever the model says. A portability question, where a record
    has one, follows from the false answer and is read with ``alt`` alone.

    Raises:
        circuits.datasets.DatasetError: without ``skip``, for a record that makes no request.
        ValueError: another ``target``.
    """
    if target not in TARGETS:
        raise ValueError(f"expected target='alt' (the false answer) or 'true' (the right one), got {target!r}")
    return read_records(path, lambda raw: _Case, partial(_request, target=target), skip, limit)


def _request(case: _Case, *, target: Target) -> EditRequest:
    if target == "alt" and case.alt is None:
        raise RecordError("alt", "this record has no false answer; read the file with target='true'")
    true, aliases = case.answers[0], case.answers[1:]
    new = case.alt if target == "alt" and case.alt is not None else true
    probes = []
    if case.rephrase is not None:
        probes.append(Probe("paraphrase", case.rephrase, case.subject, new, () if target == "alt" else aliases))
    if case.portability is not None and target == "alt":
        probes.append(Probe("reasoning", case.portability.question, None, case.portability.answer))
    if case.loc is not None:
        probes.append(Probe("unrelated", case.loc, None, case.loc_ans))
    template = template_of(case.src, case.subject, "src")
    return request("alt", template, case.subject, new, true if target == "alt" else None, None, probes)

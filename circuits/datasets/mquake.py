"""MQuAKE (Zhong et al. 2023): questions of several hops that one or several edits answer anew."""

from dataclasses import replace
from pathlib import Path

from pydantic import Field

from circuits.datasets.records import Entity, Record, RecordError, Skip, Words, read_records, request
from circuits.facts import EditRequest, Probe


class _Rewrite(Record):
    prompt: Words
    subject: Words
    target_new: Entity
    target_true: Entity
    relation_id: str | None = None
    question: Words | None = None


class _Hop(Record):
    question: Words
    cloze: Words | None = None
    answer: Words
    answer_alias: tuple[Words, ...] = ()


class _Case(Record):
    case_id: int | None = None
    requested_rewrite: tuple[_Rewrite, ...] = Field(min_length=1)
    questions: tuple[Words, ...] = Field(min_length=1)
    new_answer: Words
    new_answer_alias: tuple[Words, ...] = ()
    single_hops: tuple[_Hop, ...] = ()
    new_single_hops: tuple[_Hop, ...] = ()


def load_mquake(
    path: Path, *, skip: Skip | None = None, limit: int | None = None
) -> tuple[tuple[EditRequest, ...], ...]:
    """One tuple of requests for each case, which they name: they are to be edited in together.

    The case's questions are ``reasoning`` probes of its last request, because they are right only when all its edits are
    in; the benchmark counts a case as answered if any one of them is. So are its new single hops, the edited ones and those
    that they lead to, as ``hop`` probes. Hops that no edit touches are ``unrelated`` probes too, which shall keep the
    model's own answers.

    Raises:
        circuits.datasets.DatasetError: without ``skip``, for a record that makes no request.
    """
    found = read_records(path, lambda raw: _Case, _requests, skip, limit)
    return tuple(tuple(replace(one, case=str(number)) for one in requests) for number, requests in enumerate(found))


def _requests(case: _Case) -> tuple[EditRequest, ...]:
    multi_hop = [
        Probe("reasoning", question, None, case.new_answer, case.new_answer_alias) for question in case.questions
    ]
    multi_hop += [
        Probe("hop", hop.cloze or hop.question, None, hop.answer, hop.answer_alias) for hop in case.new_single_hops
    ]
    edited = {rewrite.question for rewrite in case.requested_rewrite}
    kept = {hop.question: hop for hop in case.new_single_hops if hop in case.single_hops and hop.question not in edited}
    multi_hop += [
        Probe("unrelated", hop.cloze or hop.question, None, hop.answer, hop.answer_alias) for hop in kept.values()
    ]
    last = len(case.requested_rewrite) - 1
    return tuple(
        _request(rewrite, f"requested_rewrite.{number}", multi_hop if number == last else [])
        for number, rewrite in enumerate(case.requested_rewrite)
    )


def _request(rewrite: _Rewrite, field: str, multi_hop: list[Probe]) -> EditRequest:
    if rewrite.prompt.count("{}") != 1:
        raise RecordError(f"{field}.prompt", f"expected {{}} once, for the subject, got {rewrite.prompt!r}")
    new = rewrite.target_new.text
    asked = [] if rewrite.question is None else [Probe("paraphrase", rewrite.question, rewrite.subject, new)]
    old, relation = rewrite.target_true.text, rewrite.relation_id
    return request(f"{field}.target_new", rewrite.prompt, rewrite.subject, new, old, relation, [*asked, *multi_hop])

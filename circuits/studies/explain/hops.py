"""Which questions in two hops there are to ask a model, and what stands in them for the first hop.

"The official language of the country where Big Ben stands is": "the country where Big Ben stands" stands for the *bridge*, the United
Kingdom, of which the second relation gives the answer.
"""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from circuits.datasets.corpus import two_hop_prompt
from circuits.evaluation import distinct_beginnings, said
from circuits.facts import Fact, Relation, Relations
from circuits.model import Model
from circuits.model.spans import SpanError, spans
from circuits.studies.explain.cases import Ground
from circuits.studies.explain.verdict import BehaviourError


class TwoHopQuestion(NamedTuple):
    """What is asked, and whose states and names are the control."""

    first: str
    """The relations' names."""
    second: str
    subject: str
    other: str
    """A subject of the first relation with another bridge and another answer."""


def asked_in_two_hops(one: Relation, two: Relation, subject: str) -> tuple[Fact, str]:
    """(the question and its answer; the words in it that stand for the bridge).

    Raises:
        BehaviourError: the first relation has no such words, the second says nothing of the bridge, or nothing stands after
            the words, so that the first hop would end where the answer is predicted.
    """
    if not one.noun_phrases:
        raise BehaviourError(
            f"{one.name} has no noun phrase to build a question in two hops of; data/facts names those that have"
        )
    bridge = one.object_of(subject)
    if bridge not in two.subjects:
        raise BehaviourError(f"{two.name} says nothing of {bridge!r}, so there is no second hop to ask for")
    prompt, phrase = two_hop_prompt(one, two, subject), one.noun_phrases[0].format(subject)
    start = max(prompt.find(phrase), 0)
    phrase = prompt[start : start + len(phrase)]
    if not any(letter.isalnum() for letter in prompt[start + len(phrase) :]):
        raise BehaviourError(
            f"expected words after the first hop, got none in {prompt!r}: it ends where the answer is predicted"
        )
    return Fact(prompt, phrase, two.object_of(bridge), two.name), bridge


def questions(
    model: Model, relations: Relations, ground: Ground, *, first: str | None = None, second: str | None = None
) -> Iterator[TwoHopQuestion]:
    """Questions of which the model knows both hops by themselves, the pairs of relations in turn.

    Where a manifest says which questions training showed, those that it did not show: the others may be known by rote.
    """
    columns = [
        _of_pair(model, relations, hop.first, hop.second, hop.unrendered or hop.rendered, ground.seed)
        for hop in ground.two_hops()
        if first in (None, hop.first) and second in (None, hop.second)
    ]
    while columns:
        left = []
        for column in columns:
            if (found := next(column, None)) is not None:
                yield found
                left.append(column)
        columns = left


def _of_pair(
    model: Model, relations: Relations, first: str, second: str, subjects: Sequence[str], seed: int
) -> Iterator[TwoHopQuestion]:
    one, two = relations[first], relations[second]
    for subject in subjects:
        other = another_subject(model, one, two, subject, seed)
        both = (one.fact(subject), two.fact(one.object_of(subject)))
        if other is not None and all(said(model, each.prompt, (each.object,)) is not None for each in both):
            yield TwoHopQuestion(first, second, subject, other)


def another_subject(model: Model, one: Relation, two: Relation, subject: str, seed: int) -> str | None:
    """A subject with another bridge and another answer, drawn at random, that first tokens tell from this one's; None where there
    is none, or no question in two hops."""
    try:
        fact, bridge = asked_in_two_hops(one, two, subject)
        spans(model, fact)
    except (BehaviourError, SpanError):
        return None
    known, others = set(two.subjects), one.subjects
    for other in random.Random(f"{seed}/{one.name}/{two.name}/{subject}").sample(others, len(others)):
        its = one.object_of(other)
        names = (bridge, fact.object, its, two.object_of(its)) if its in known else ()
        if len(set(names)) == 4 and distinct_beginnings(model, fact.prompt, names):
            return other
    return None

"""Prompts for ablation: the same words about other subjects of the same relation."""

import random
from collections.abc import Sequence

from circuits.facts import Fact, Relations
from circuits.model import Model


class CorruptionError(ValueError):
    """A fact without the other prompts that an ablation needs."""


def _words(fact: Fact) -> str:
    """The fact's prompt with ``{}`` for its subject."""
    before, _, after = fact.prompt.rpartition(fact.subject)
    return f"{before}{{}}{after}"


def siblings(fact: Fact, relations: Relations) -> tuple[Fact, ...]:
    """The fact's own words about every other subject of its relation.

    Raises:
        CorruptionError: the fact belongs to no relation of the dataset.
    """
    if fact.relation is None or fact.relation not in relations:
        raise CorruptionError(
            f"{fact.prompt!r} is in the words of no relation of the dataset, so there are no other subjects to draw from; "
            "use zero ablation, or a prompt listed by `kcircuit facts`"
        )
    relation = relations[fact.relation]
    words = _words(fact)
    return tuple(
        Fact(words.format(subject), subject, object_, relation.name)
        for subject, object_ in relation.pairs
        if subject != fact.subject
    )


def corrupted(fact: Fact, relations: Relations, model: Model, seed: int = 0) -> Fact:
    """A prompt of as many tokens with another subject and another answer, drawn with ``seed``.

    Raises:
        CorruptionError: no subject of the relation gives a prompt of that length.
    """
    length = len(model.tokens(fact).prompt)
    candidates = [
        other
        for other in siblings(fact, relations)
        if other.object != fact.object and len(model.tokens(other).prompt) == length
    ]
    if not candidates:
        raise CorruptionError(
            f"no other subject of {fact.relation} gives a prompt of {length} tokens with another answer than {fact.object!r}; "
            "use mean or zero ablation"
        )
    return random.Random(f"{seed}/{fact.prompt}").choice(candidates)


def reference(facts: Sequence[Fact], relations: Relations) -> tuple[Fact, ...]:
    """The set that mean ablation averages over: the facts' relations, in the facts' own words, each prompt once."""
    return tuple(dict.fromkeys(other for fact in facts for other in (fact, *siblings(fact, relations))))

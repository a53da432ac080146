"""Prompts for ablation: the same words about other subjects of the same relation."""

import random
import re
from collections.abc import Callable, Sequence

from circuits.facts import Fact, Relation, Relations
from circuits.model import Model
from circuits.model.text import Tokens


class CorruptionError(ValueError):
    """A fact without the other prompts that an ablation needs."""


def _words(fact: Fact, relation: Relation) -> tuple[str, str]:
    """What stands before and after the subject in the fact's prompt.

    As the relation's template has it, where one gives the prompt: in "Here is one man, and over there are many" the
    subject occurs twice. Else the subject is where it last stands as a whole word.
    """
    for template in (*relation.templates, *relation.zero_shot_templates):
        before, _, after = template.partition("{}")
        if before + fact.subject + after == fact.prompt:
            return before, after
    found = list(re.finditer(rf"(?<!\w){re.escape(fact.subject)}(?!\w)", fact.prompt))
    if found:
        return fact.prompt[: found[-1].start()], fact.prompt[found[-1].end() :]
    before, _, after = fact.prompt.rpartition(fact.subject)
    return before, after


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
    before, after = _words(fact, relation)
    return tuple(
        Fact(before + subject + after, subject, object_, relation.name)
        for subject, object_ in relation.pairs
        if subject != fact.subject
    )


def corrupted(fact: Fact, relations: Relations, model: Model, seed: int = 0) -> Fact:
    """The same words about another subject, whose answer begins with another token: see `donors`."""
    return donors((fact,), relations, model, seed)[0]


def donors(facts: Sequence[Fact], relations: Relations, model: Model, seed: int = 0) -> tuple[Fact, ...]:
    """For each fact the same words about another subject, whose answer begins with another token; drawn with ``seed``.

    Of as many tokens where there is one, and else of a length as near to it as there is: the engine aligns the two
    (`circuits.engines.ablation.aligned`).

    Raises:
        CorruptionError: all subjects of the relation have an answer that begins so.
    """
    known: dict[Fact, Tokens] = {}

    def tokens(each: Fact) -> Tokens:
        # Facts in the same words have the same others: each is read once.
        if each not in known:
            known[each] = model.tokens(each)
        return known[each]

    return tuple(_donor(fact, siblings(fact, relations), tokens, seed) for fact in facts)


def _donor(fact: Fact, others: Sequence[Fact], tokens: Callable[[Fact], Tokens], seed: int) -> Fact:
    own = tokens(fact)
    far = {
        other: abs(len(tokens(other).prompt) - len(own.prompt))
        for other in others
        if tokens(other).answer[0] != own.answer[0]
    }
    if not far:
        raise CorruptionError(
            f"no other subject of {fact.relation} has an answer that begins otherwise than {fact.object!r}, as the one of "
            f"{fact.prompt!r} does; use mean or zero ablation"
        )
    nearest = min(far.values())
    return random.Random(f"{seed}/{fact.prompt}").choice([other for other in far if far[other] == nearest])


def reference(facts: Sequence[Fact], relations: Relations) -> tuple[Fact, ...]:
    """The set that mean ablation averages over: the facts' relations, in the facts' own words, each prompt once."""
    return tuple(dict.fromkeys(other for fact in facts for other in (fact, *siblings(fact, relations))))

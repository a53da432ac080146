"""Prompts for ablation: the same words about other subjects of the same relation."""

import random
import re
from collections.abc import Sequence

from circuits.facts import Fact, Relation, Relations
from circuits.model import Model


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
    """A prompt of as many tokens with another subject, whose answer begins with another token; drawn with ``seed``.

    Raises:
        CorruptionError: no subject of the relation gives such a prompt.
    """
    own = model.tokens(fact)
    length = len(own.prompt)
    others = [(other, model.tokens(other)) for other in siblings(fact, relations)]
    candidates = [
        other for other, tokens in others if len(tokens.prompt) == length and tokens.answer[0] != own.answer[0]
    ]
    if not candidates:
        raise CorruptionError(
            f"no other subject of {fact.relation} gives a prompt of {length} tokens, as {fact.prompt!r} has, with another "
            f"answer than {fact.object!r}; use mean or zero ablation"
        )
    return random.Random(f"{seed}/{fact.prompt}").choice(candidates)


def reference(facts: Sequence[Fact], relations: Relations) -> tuple[Fact, ...]:
    """The set that mean ablation averages over: the facts' relations, in the facts' own words, each prompt once."""
    return tuple(dict.fromkeys(other for fact in facts for other in (fact, *siblings(fact, relations))))

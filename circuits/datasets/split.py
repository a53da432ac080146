"""D_val and D_test: a relation's facts in two halves. D_val builds a circuit, D_test scores it."""

import random

from circuits.choices import Split
from circuits.facts import Fact, Relation


def split_facts(relation: Relation, split: Split, *, template: int | str = 0, seed: int = 0) -> tuple[Fact, ...]:
    """One half of the relation's facts, shuffled, in one of its templates or in any other.

    Which facts are in a half does not hang on the words. The two halves of one seed are disjoint and together are all facts.
    """
    facts = list(relation.facts(template))
    random.Random(f"{seed}/{relation.name}").shuffle(facts)
    half = (len(facts) + 1) // 2
    return tuple(facts[:half] if split == "val" else facts[half:])

"""A fact's other subjects: those that a circuit is built beside, and those that its certificate asks, never the same ones."""

import random

from circuits.datasets.corrupted import CorruptionError, siblings
from circuits.evaluation import known
from circuits.facts import Fact, FactError, Relations
from circuits.model import Model

N_SUBJECTS = 30
"""Other subjects that a certificate asks about, at most."""


def recalled_others(fact: Fact, relations: Relations, model: Model, seed: int = 0) -> tuple[Fact, ...]:
    """The fact's own words about the relation's other subjects with other answers, which the model puts first; shuffled by ``seed``.

    None for a fact of no relation.
    """
    try:
        others = [other for other in siblings(fact, relations) if other.object != fact.object]
    except CorruptionError:
        return ()
    recalled = list(known(model, others, rank=1))
    random.Random(f"{seed}/{fact.prompt}").shuffle(recalled)
    return tuple(recalled)


def beside(fact: Fact, relations: Relations, model: Model, n: int, seed: int = 0) -> tuple[Fact, ...]:
    """``n`` of `recalled_others` to build a circuit beside: the last, so that the first are left to ask (`asked`).

    Raises:
        FactError: there are not that many.
    """
    others = recalled_others(fact, relations, model, seed)
    if len(others) < n:
        raise FactError(
            f"expected {n} other subjects of {fact.relation or 'the relation'} that {model.name} answers in the words of "
            f"{fact.prompt!r}, got {len(others)}; ask for fewer --siblings"
        )
    return others[len(others) - n :]


def asked(fact: Fact, built_from: tuple[Fact, ...], relations: Relations, model: Model, seed: int = 0) -> list[Fact]:
    """The first `N_SUBJECTS` of `recalled_others` that the circuit was not built from."""
    used = {other.subject for other in built_from}
    others = recalled_others(fact, relations, model, seed)
    return [other for other in others if other.subject not in used][:N_SUBJECTS]

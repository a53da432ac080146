"""How a prompt should begin: the same facts after each token that a model's prompts may begin with."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from circuits.evaluation.answers import whole_model
from circuits.facts import Fact
from circuits.metrics import Measurement
from circuits.model import Model


@dataclass(frozen=True, slots=True)
class Beginning:
    """The answers to some facts where prompts begin with ``bos`` (None: with nothing)."""

    bos: str | None
    chosen: bool
    """It is what the model, as loaded, begins its prompts with."""
    habit: bool
    """It is what the tokenizer begins a text with of its own accord."""
    hit1: Measurement
    hit10: Measurement
    nll: Measurement


def beginnings(model: Model, facts: Sequence[Fact]) -> tuple[Beginning, ...]:
    """Every way to begin a prompt, the one that answers most facts within the first ten first."""
    found: list[Beginning] = []
    for bos in model.beginnings:
        other = model.with_bos(bos)
        answers = whole_model(other, facts)
        chosen, habit = bos == model.vocabulary.bos, bos == model.habit
        found.append(Beginning(other.bos, chosen, habit, answers.hit(1), answers.hit(10), answers.nll))
    return tuple(sorted(found, key=lambda row: (-row.hit10.value, row.nll.value)))


def sample_facts(facts: Sequence[Fact], n: int, seed: int = 0) -> tuple[Fact, ...]:
    """``n`` of the facts, or all where there are fewer; a larger ``n`` contains a smaller one's."""
    shuffled = list(facts)
    random.Random(seed).shuffle(shuffled)
    return tuple(shuffled[:n])

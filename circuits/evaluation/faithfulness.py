"""Faithfulness: how much of what the model does, beyond the model with every edge ablated, the circuit does alone.

f(C) = (m(C) - m(empty)) / (m(G) - m(empty)), the normalisation of the MIB benchmark (Mueller et al. 2025): 0 for no edge,
1 for all of them, above 1 where the circuit does more than the model. m is a mean over facts, larger for better answers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.circuit import Circuit
from circuits.engines.engine import Engine
from circuits.facts import Fact
from circuits.metrics import Measurement, match_nll
from circuits.model import Model


@dataclass(frozen=True, slots=True)
class Performance:
    """m: one number a fact, larger for better. ``of(i, logits)`` is that of fact i, from the logits at its answer's positions."""

    name: str
    unit: str
    of: Callable[[int, Float[Tensor, "answer d_vocab"]], float]


def log_probability(model: Model, facts: Sequence[Fact]) -> Performance:
    """-MatchNLL: the mean log-probability of the answer's tokens, in nats."""
    answers = [torch.tensor(model.tokens(fact).answer) for fact in facts]

    def of(fact: int, logits: Float[Tensor, "answer d_vocab"]) -> float:
        return -float(match_nll(logits[None], answers[fact][None].to(logits.device)))

    return Performance("log-probability", "nats", of)


def logit_difference(model: Model, facts: Sequence[Fact], foils: Sequence[Fact]) -> Performance:
    """The logit of the answer's first token less that of a foil's answer, in logits.

    Args:
        foils: one a fact, with another first token of the answer: `circuits.datasets.corrupted.corrupted` draws them.

    Raises:
        ValueError: not one foil a fact, or a foil whose answer begins as the fact's does.
    """
    if len(foils) != len(facts):
        raise ValueError(f"expected one foil for each of {len(facts)} facts, got {len(foils)}")
    pairs = [
        (model.tokens(fact).answer[0], model.tokens(foil).answer[0]) for fact, foil in zip(facts, foils, strict=True)
    ]
    for (right, wrong), fact, foil in zip(pairs, facts, foils, strict=True):
        if right == wrong:
            raise ValueError(
                f"expected a foil whose answer begins otherwise than {fact.object!r}, got {foil.object!r}: "
                "their difference is 0 in every circuit"
            )

    def of(fact: int, logits: Float[Tensor, "answer d_vocab"]) -> float:
        right, wrong = pairs[fact]
        return float(logits[0, right].double() - logits[0, wrong].double())

    return Performance("logit difference", "logits", of)


def perform(engine: Engine, kept: Bool[np.ndarray, "writer reader"], performance: Performance) -> Measurement:
    """m of a circuit on the engine's facts."""
    logits = engine.answer_logits(kept)
    values = tuple(performance.of(fact, rows) for fact, rows in enumerate(logits))
    return Measurement(performance.name, performance.unit, values)


@dataclass(frozen=True, slots=True)
class Scale:
    """The two ends of faithfulness: m with every edge ablated (0) and with none (1)."""

    empty: Measurement
    full: Measurement

    @classmethod
    def of(cls, engine: Engine, performance: Performance) -> "Scale":
        legal = engine.graph.legal
        return cls(perform(engine, np.zeros_like(legal), performance), perform(engine, legal, performance))

    @property
    def width(self) -> float:
        """m(G) - m(empty)."""
        return self.full.value - self.empty.value

    def place(self, value: float) -> float:
        """Faithfulness of a circuit whose m is ``value``; NaN where the model does no better than the ablated one."""
        return (value - self.empty.value) / self.width if self.width > 0 else math.nan


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """A circuit's m between the two ends. A ratio of means: a fact that the ablated model answers too weighs no more than others."""

    circuit: Measurement
    scale: Scale

    @property
    def value(self) -> float:
        return self.scale.place(self.circuit.value)

    def __str__(self) -> str:
        return (
            f"faithfulness {self.value:.3f} ({self.circuit}; every edge ablated {self.scale.empty.value:.4g}, "
            f"whole model {self.scale.full.value:.4g})"
        )


def faithfulness(engine: Engine, circuit: Circuit, performance: Performance) -> Faithfulness:
    """Faithfulness of the circuit on the engine's facts, under the engine's ablation."""
    return Faithfulness(perform(engine, circuit.kept, performance), Scale.of(engine, performance))

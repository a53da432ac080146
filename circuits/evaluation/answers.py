"""How well a model, or a circuit standing alone, answers.

Standalone means: every edge outside the circuit is ablated. Each set of facts is scored with its own answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.circuit import Circuit
from circuits.engines.engine import Engine, group_facts
from circuits.facts import Fact
from circuits.metrics import Measurement, hit, match_nll, probability, rank, require_finite
from circuits.model import Model

KNOWN_RANK = 10
"""A model knows a fact if the first token of its answer ranks this high or higher."""
CHUNK = 256
"""Prompts in one forward pass."""


@dataclass(frozen=True, slots=True)
class Answers:
    """How a set of facts was answered, fact by fact: NLL of the whole answer, rank and probability of its first token."""

    nll: Measurement
    rank: Measurement
    probability: Measurement

    @classmethod
    def of(cls, rows: Sequence[tuple[float, float, float]]) -> "Answers":
        """From (NLL, rank, probability) of each fact."""
        nlls, ranks, probabilities = zip(*rows, strict=True)
        return cls(
            Measurement("NLL", "nats", nlls),
            Measurement("rank", "", ranks),
            Measurement("probability", "", probabilities),
        )

    def hit(self, k: int) -> Measurement:
        """Hit@k: share of facts whose answer ranks among the first k (paper 2, Eq. 3)."""
        hits = hit(torch.tensor(self.rank.per_example).long(), k)
        return Measurement(f"Hit@{k}", "", tuple(hits.tolist()))

    @property
    def mrr(self) -> Measurement:
        """Mean reciprocal rank: the mean of 1 / rank."""
        return Measurement("MRR", "", tuple(1 / rank for rank in self.rank.per_example))


def _measure(logits: Float[Tensor, "answer d_vocab"], answer: Sequence[int]) -> tuple[float, float, float]:
    target = torch.tensor(answer, device=logits.device)
    return (
        float(match_nll(logits[None], target[None])),
        float(rank(logits[0], target[0])),
        float(probability(logits[0], target[0])),
    )


class NoRankError(ValueError):
    """A model whose output is a number was asked for probabilities and ranks."""


def _require_words(model: Model) -> None:
    if model.gives_numbers:
        raise NoRankError(
            f"{model.name} puts out a number, which has no probability and no rank; its engines measure the squared error"
        )


def standalone(model: Model, engine: Engine, circuit: Circuit, facts: Sequence[Fact]) -> Answers:
    """The answers of the circuit alone, on the engine's facts."""
    _require_words(model)
    logits = engine.answer_logits(circuit.kept)
    return Answers.of([_measure(row, model.tokens(fact).answer) for row, fact in zip(logits, facts, strict=True)])


def whole_model(model: Model, facts: Sequence[Fact]) -> Answers:
    """The answers of the model itself."""
    _require_words(model)
    rows: dict[int, tuple[float, float, float]] = {}
    for group in group_facts(model, facts):
        for start in range(0, len(group.rows), CHUNK):
            chunk = slice(start, start + CHUNK)
            logits = model.logits(group.ids[chunk])[:, -group.n_answer :]
            require_finite(logits, f"{model.name} on {facts[group.rows[start]].prompt!r}")
            for row, fact_logits, answer in zip(group.rows[chunk], logits, group.answer[chunk].tolist(), strict=True):
                rows[row] = _measure(fact_logits, answer)
    return Answers.of([rows[row] for row in range(len(facts))])

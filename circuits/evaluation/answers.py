"""How well a model, or a circuit standing alone, answers.

Standalone means: every edge outside the circuit is ablated. Each set of facts is scored with its own answers.
Two answers to one prompt are compared whole (`said`): first tokens tell them apart only where these differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.circuit import Circuit
from circuits.engines.engine import Engine
from circuits.evaluation.continuations import completion, read
from circuits.facts import Fact
from circuits.metrics import Measurement, hit, match_nll, probability, rank, require_finite
from circuits.model import Model

KNOWN_RANK = 10
"""A model knows a fact if the first token of its answer ranks this high or higher."""


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
    return answers_in(model, engine.answer_logits(circuit.kept), facts)


def answers_in(model: Model, logits: Sequence[Float[Tensor, "answer d_vocab"]], facts: Sequence[Fact]) -> Answers:
    """The answers that are in each fact's logits at its answer's positions."""
    _require_words(model)
    return Answers.of([_measure(row, model.tokens(fact).answer) for row, fact in zip(logits, facts, strict=True)])


def whole_model(model: Model, facts: Sequence[Fact]) -> Answers:
    """The answers of the model itself."""
    _require_words(model)
    found = read(model, [model.tokens(fact) for fact in facts])
    for fact, reading in zip(facts, found, strict=True):
        require_finite(torch.tensor(reading.nll), f"{model.name} on {fact.prompt!r}")
    return Answers.of([(each.nll, float(each.rank), each.probability) for each in found])


def known(model: Model, facts: Sequence[Fact], *, rank: int = KNOWN_RANK) -> tuple[Fact, ...]:
    """The facts that the model knows (DESIGN section 4): the first token of the answer ranks ``rank`` or higher."""
    if not facts:
        return ()
    ranks = whole_model(model, facts).rank.per_example
    return tuple(fact for fact, own in zip(facts, ranks, strict=True) if own <= rank)


# ---- two answers to one prompt -----------------------------------------------------------------------------------------


class AlikeAnswers(ValueError):
    """Answers that what is compared cannot tell apart."""


def said(model: Model, prompt: str, answers: Sequence[str]) -> str | None:
    """The one of ``answers`` that the model gives, every token of it the likeliest; the longest, where one begins another."""
    wanted = [completion(model, prompt, answer) for answer in answers]
    exact = [
        (len(tokens.answer), answer)
        for answer, tokens, reading in zip(answers, wanted, read(model, wanted), strict=True)
        if reading.exact
    ]
    return max(exact, key=lambda each: each[0])[1] if exact else None


def require_distinct_beginnings(model: Model, prompt: str, answers: Sequence[str]) -> None:
    """Ask for answers that their first tokens tell apart: for what reads first tokens only, such as a logit lens.

    Raises:
        AlikeAnswers: two of them begin with the same token.
    """
    first: dict[int, str] = {}
    for answer in dict.fromkeys(answers):
        token = completion(model, prompt, answer).answer[0]
        if token in first:
            raise AlikeAnswers(
                f"{first[token]!r} and {answer!r} begin with the same token {model.token_text(token)!r}, and what is read "
                "here are first tokens: it could not tell them apart; take an answer that begins otherwise"
            )
        first[token] = answer


def distinct_beginnings(model: Model, prompt: str, answers: Sequence[str]) -> bool:
    """Whether first tokens tell the answers apart."""
    try:
        require_distinct_beginnings(model, prompt, answers)
    except AlikeAnswers:
        return False
    return True

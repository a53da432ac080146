"""How a model takes given continuations: teacher-forced, all of them at once.

Two that feed the same ids (one prompt with two answers of one token each) share a row.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.facts import Fact
from circuits.metrics import match_nll, probability, rank
from circuits.model import Model, Tokens
from circuits.model.together import from_weights, read_together

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Continuation:
    """One continuation, as a model takes it. Logits that are not finite make every field a failure."""

    nll: float
    """-log p of the whole continuation over its number of tokens, in nats; NaN if a logit is not finite."""
    token_accuracy: float
    """Share of its tokens that are the likeliest next token, each with the right tokens before it."""
    exact: bool
    """All of its tokens are: then, and only then, greedy decoding writes it."""
    rank: int
    """Rank of its first token; the size of the vocabulary if a logit is not finite."""
    probability: float
    """Probability of its first token; NaN if a logit is not finite."""

    @property
    def finite(self) -> bool:
        return math.isfinite(self.nll)


def completion(model: Model, prompt: str, answer: str) -> Tokens:
    """``prompt`` and the ``answer`` that continues it after a space, as ids."""
    return model.tokens(Fact(prompt, prompt, answer))


def read(model: Model, completions: Sequence[Tokens]) -> tuple[Continuation, ...]:
    """Read each continuation. The same readings come back whatever else is read with them, up to float rounding."""
    rows: dict[tuple[Ids, int, int], list[int]] = defaultdict(list)
    for index, tokens in enumerate(completions):
        rows[tokens.forced, len(tokens.prompt), len(tokens.answer)].append(index)
    fed, asked = list(rows), list(rows.values())
    readings: dict[int, Continuation] = {}
    parts = read_together(from_weights(model.network), [(ids, n) for ids, n, _ in fed], [n for _, _, n in fed])
    for some, logits in parts:
        places = [(place, index) for place, row in enumerate(some) for index in asked[row]]
        answers = torch.tensor([completions[index].answer for _, index in places])
        found = measure(logits[[place for place, _ in places]], answers.to(logits.device))
        readings.update(zip((index for _, index in places), found, strict=True))
    return tuple(readings[index] for index in range(len(completions)))


def measure(
    logits: Float[Tensor, "batch answer d_vocab"], answers: Int[Tensor, "batch answer"]
) -> tuple[Continuation, ...]:
    """The readings of ``answers``, whose tokens i are predicted by ``logits[:, i]``."""
    finite = torch.isfinite(logits).all(-1).all(-1)
    # Rows that are not finite are read as zeros and then declared failures.
    logits = torch.where(finite[:, None, None], logits, torch.zeros_like(logits))
    hits = logits.argmax(-1) == answers
    columns = (
        finite.tolist(),
        match_nll(logits, answers).tolist(),
        hits.double().mean(-1).tolist(),
        hits.all(-1).tolist(),
        rank(logits[:, 0], answers[:, 0]).tolist(),
        probability(logits[:, 0], answers[:, 0]).tolist(),
    )
    failed = Continuation(math.nan, 0.0, False, logits.shape[-1], math.nan)
    return tuple(Continuation(*row) if ok else failed for ok, *row in zip(*columns, strict=True))

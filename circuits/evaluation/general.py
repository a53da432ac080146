"""General ability: how well an edited model still predicts text that its edits are not about (paper 1, section 5.4, asks tasks).

Perplexity exp(-1/T sum ln p(t | what is before it)) over the text's T tokens, in the unedited model and in the edited one, and
KL(unedited || edited), the mean over the same T positions. An edit that changes nothing has KL 0.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.metrics import DOUBLES_AT_ONCE
from circuits.model import Batch, Model
from circuits.model.together import from_weights
from circuits.records import Number

Ids = tuple[int, ...]
ROW_TOKENS = 128
"""A document is cut after so many tokens."""


@dataclass(frozen=True, slots=True)
class GeneralAbility:
    """Of one edited model; NaN where a logit is not finite."""

    n_tokens: int
    perplexity_before: Number
    perplexity: Number
    kl: Number
    """KL(unedited || edited), nats a token."""
    agreement: Number
    """Share of positions at which both models' likeliest next token is the same."""


@dataclass(frozen=True, eq=False)
class UnrelatedText:
    """Text as ids, and the model that edited ones are compared with on it."""

    name: str
    model: Model
    rows: tuple[Ids, ...]

    def __post_init__(self) -> None:
        if not any(len(row) > 1 for row in self.rows):
            raise ValueError(f"expected a text of at least two tokens to predict in {self.name}, got none")

    @classmethod
    def of(cls, name: str, model: Model, documents: Iterable[str], n: int) -> "UnrelatedText":
        """The first ``n`` documents.

        Raises:
            ValueError: there are none that are two tokens long.
        """
        bos = () if model.vocabulary.bos is None else (model.vocabulary.bos,)
        longest = min(model.n_ctx, ROW_TOKENS)
        rows = ((*bos, *model.vocabulary.encode(text))[:longest] for text in documents)
        kept = (row for row in rows if len(row) > 1)
        return cls(name, model, tuple(row for row, _ in zip(kept, range(n), strict=False)))

    @cached_property
    def unedited(self) -> GeneralAbility:
        return self.measure(self.model)

    @torch.no_grad()
    def measure(self, edited: Model) -> GeneralAbility:
        """Nothing is kept of the unedited model's logits, which are as many as its vocabulary at every token: they are computed
        again beside the edited model's."""
        ours, theirs = from_weights(self.model.network), from_weights(edited.network)
        sums, n_tokens = torch.zeros(4, dtype=torch.float64), 0
        for ids in _batches(self.rows, edited.network.d_vocab):
            batch, said = Batch.of_prompts(ids), ids[:, 1:]
            # Each position predicts the next token, and the last one none.
            before, after = (_log_p(net.run(batch)[:, :-1]) for net in (ours, theirs))
            said = said.to(before.device)
            sums[0] -= before.gather(-1, said[..., None]).sum().cpu()
            sums[1] -= after.gather(-1, said[..., None]).sum().cpu()
            sums[2] += (before.exp() * (before - after)).sum().cpu()
            sums[3] += (before.argmax(-1) == after.argmax(-1)).sum().cpu()
            n_tokens += said.numel()
        before_nll, nll, kl, same = (sums / n_tokens).tolist()
        if not math.isfinite(nll):
            return GeneralAbility(n_tokens, math.exp(before_nll), math.nan, math.nan, math.nan)
        return GeneralAbility(n_tokens, math.exp(before_nll), _exp(nll), kl, same)


def _log_p(logits: Float[Tensor, "batch pos d_vocab"]) -> Float[Tensor, "batch pos d_vocab"]:
    return logits.double().log_softmax(-1)


def _exp(value: float) -> float:
    """A model that says nothing of a text has a perplexity beyond any number."""
    return math.exp(value) if value < 700 else math.inf


def _batches(rows: Sequence[Ids], d_vocab: int) -> Iterator[Tensor]:
    """Rows of one length together, as few at once as their logits in float64 allow."""
    by_length: dict[int, list[Ids]] = defaultdict(list)
    for row in rows:
        by_length[len(row)].append(row)
    for length, alike in sorted(by_length.items()):
        step = max(1, DOUBLES_AT_ONCE // (length * d_vocab))
        for start in range(0, len(alike), step):
            yield torch.tensor(alike[start : start + step])

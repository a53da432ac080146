"""What a model writes after a prompt: greedily, or sampled with a seed.

Prompts of one length share a batch and nothing is padded; what is written after a prompt does not depend on the others.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.metrics import require_finite
from circuits.model import Batch, Model
from circuits.model.past import Past
from circuits.model.together import from_weights, reads_on

SENTENCE_END = (".", "!", "?", ";")
ABBREVIATED = re.compile(r"\b(?:[A-Z]|St|Mt|Ft|Mr|Mrs|Ms|Dr|Jr|Sr|Inc|Ltd|Co|Corp|vs|No)\.$")
"""A full stop after a capital letter or one of these ends no sentence: "Washington, D.C.", "St. Louis"."""
SENTENCE_TOKENS = 32
"""A sentence that has not ended by then is cut. It does not depend on the answer: a text that is cut where the right answer
would end hides what the model goes on to say (Yang et al. 2025, "The mirage of model editing")."""
TOP_K = 5
"""Tokens that are sampled from at each step, as ROME's and KnowEdit's fluency have it."""
ROWS_AT_ONCE = 64
"""Texts that are written side by side, at most: what is kept of each grows with its length."""

Ids = tuple[int, ...]


class Stop(Enum):
    """Why no more is written."""

    ENDED = "the text has come to its own end"
    CUT = "it was long enough, or cannot go on"


@dataclass(frozen=True, slots=True)
class FreeText:
    ids: Ids
    ended: bool
    """Whether the model came to an end by itself."""


@runtime_checkable
class _Rule(Protocol):
    """How each row of a text is written, and when it has ended."""

    def choose(self, model: Model, row: int, step: int, logits: Tensor) -> int | Stop:
        """The next token, or why there is none."""
        ...

    def ended(self, model: Model, row: int, written: Sequence[int]) -> bool:
        """Whether the text has ended with the last token."""
        ...


@dataclass(frozen=True, slots=True)
class _Sentence:
    limit: int

    def choose(self, model: Model, row: int, step: int, logits: Tensor) -> int | Stop:
        if step >= self.limit or not torch.isfinite(logits).all():
            return Stop.CUT
        token = int(logits.argmax())
        return Stop.ENDED if token == model.vocabulary.bos or "\n" in model.token_text(token) else token

    def ended(self, model: Model, row: int, written: Sequence[int]) -> bool:
        if not model.token_text(written[-1]).rstrip().endswith(SENTENCE_END):
            return False
        return ABBREVIATED.search(model.vocabulary.decode(written).rstrip()) is None


@dataclass(frozen=True, slots=True)
class _Length:
    lengths: Sequence[int]
    what: Sequence[str]

    def choose(self, model: Model, row: int, step: int, logits: Tensor) -> int | Stop:
        require_finite(logits, f"{model.name} on {self.what[row]!r}")
        return int(logits.argmax())

    def ended(self, model: Model, row: int, written: Sequence[int]) -> bool:
        return len(written) == self.lengths[row]


@dataclass(frozen=True, slots=True)
class _Drawn:
    uniform: Sequence[Sequence[float]]
    top_k: int

    def choose(self, model: Model, row: int, step: int, logits: Tensor) -> int | Stop:
        if step >= len(self.uniform[row]) or not torch.isfinite(logits).all():
            return Stop.CUT
        if model.vocabulary.bos is not None:
            logits = logits.clone()
            logits[model.vocabulary.bos] = -torch.inf
        return draw(logits, self.uniform[row][step], self.top_k)

    def ended(self, model: Model, row: int, written: Sequence[int]) -> bool:
        return False


def greedy(model: Model, prompts: Sequence[Ids], limit: int = SENTENCE_TOKENS) -> tuple[FreeText, ...]:
    """The likeliest next token, again and again, until the model ends its sentence.

    A sentence ends before a line break or the token that begins a document, and after a mark of `SENTENCE_END`. It is cut after
    ``limit`` tokens, where logits are not finite, and where the context ends.
    """
    return _write(model, prompts, _Sentence(limit))


def most_likely(model: Model, prompts: Sequence[Ids], lengths: Sequence[int]) -> tuple[Ids, ...]:
    """The likeliest ``lengths[i]`` next tokens after prompt i, whatever they are: greedy decoding that nothing stops.

    Raises:
        FloatingPointError: logits are not finite.
    """
    texts = _write(model, prompts, _Length(lengths, [model.vocabulary.decode(prompt) for prompt in prompts]))
    return tuple(text.ids for text in texts)


def sample(model: Model, prompts: Sequence[Ids], n_tokens: int, seed: int, top_k: int = TOP_K) -> tuple[Ids, ...]:
    """``n_tokens`` tokens after each prompt, each drawn from the ``top_k`` likeliest.

    The random numbers of a row depend on ``seed``, the prompt and how often it occurred before in ``prompts``, and on
    nothing else, so an edited model is sampled with the numbers of the unedited one. The token that begins a document is
    not drawn, so that a text is as long as was asked for; it is shorter only where logits are not finite or the context ends.
    """
    occurrence: dict[Ids, int] = defaultdict(int)
    uniform = []
    for prompt in prompts:
        rng = random.Random(f"{seed}/{prompt}/{occurrence[prompt]}")
        occurrence[prompt] += 1
        uniform.append([rng.random() for _ in range(n_tokens)])
    return tuple(text.ids for text in _write(model, prompts, _Drawn(uniform, top_k)))


def draw(logits: Float[Tensor, "d_vocab"], uniform: float, top_k: int) -> int:
    """The token at quantile ``uniform`` of the distribution over the ``top_k`` likeliest, likeliest first."""
    top = logits.double().topk(min(top_k, logits.shape[0]))
    cumulative = top.values.softmax(-1).cumsum(-1)
    place = int((cumulative <= uniform).sum().clamp(max=len(cumulative) - 1))
    return int(top.indices[place])


def _write(model: Model, prompts: Sequence[Ids], rule: _Rule) -> tuple[FreeText, ...]:
    written: dict[int, list[int]] = {row: [] for row in range(len(prompts))}
    ended: set[int] = set()
    next_logits = _next_logits(model)
    by_length: dict[int, list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        by_length[len(prompt)].append(row)
    for length, rows in sorted(by_length.items()):
        for start in range(0, len(rows), ROWS_AT_ONCE):
            active, step, past = rows[start : start + ROWS_AT_ONCE], 0, Past()
            while active and length + step <= model.n_ctx:
                ids = torch.tensor([(*prompts[row], *written[row]) for row in active])
                still = []
                for place, logits in enumerate(next_logits(Batch.continued(ids, length), past)):
                    row = active[place]
                    token = rule.choose(model, row, step, logits)
                    if not isinstance(token, Stop):
                        written[row].append(token)
                    if token is Stop.ENDED or (token is not Stop.CUT and rule.ended(model, row, written[row])):
                        ended.add(row)
                    elif token is not Stop.CUT:
                        still.append(place)
                if len(still) < len(active):
                    active, past = [active[place] for place in still], past.rows(still)
                step += 1
    return tuple(FreeText(tuple(written[row]), row in ended) for row in range(len(prompts)))


def _next_logits(model: Model) -> Callable[[Batch, Past], Tensor]:
    """Logits after each row's last id, given what was kept of the ids before it.

    With a bypass, which may look at any position at every step, and where tokens see those after them, the whole row is read each
    time.
    """
    network = from_weights(model.network)
    if reads_on(network):
        return lambda batch, past: network.read_on(batch.ids[:, past.length :], past)[:, -1]
    return torch.no_grad()(lambda batch, past: network.run(batch)[:, -1])

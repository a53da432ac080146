"""Logits to one number per example.

The answer's tokens are teacher-forced: ``logits[b, i]`` predicts ``answer[b, i]``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Real
from torch import Tensor

DOUBLES_AT_ONCE = 2**22
"""Logits held in float64 at once: 32 MB."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """A quantity with its name and unit, and the examples' values that it is the mean of."""

    name: str
    unit: str
    per_example: tuple[float, ...]

    @property
    def value(self) -> float:
        """Mean over the examples; NaN if there are none or any is NaN."""
        return math.fsum(self.per_example) / len(self.per_example) if self.per_example else math.nan

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4g} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Share:
    """``count`` of ``n``, with Wilson's interval of 95 % for the share that they are drawn from (Wilson 1927).

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.96: within 0 and 1, and not without width where all or none
    of few are counted.
    """

    count: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.n:
            raise ValueError(f"expected a count of 0 to {self.n}, got {self.count}")

    @classmethod
    def of(cls, outcomes: Sequence[bool]) -> "Share":
        return cls(sum(outcomes), len(outcomes))

    @property
    def value(self) -> float:
        """NaN of none."""
        return self.count / self.n if self.n else math.nan

    @property
    def low(self) -> float:
        return max(0.0, self._bound(-1)) if self.count else 0.0

    @property
    def high(self) -> float:
        return min(1.0, self._bound(1)) if self.count < self.n else 1.0

    def _bound(self, sign: int) -> float:
        p, n, z = self.value, self.n, 1.959963984540054
        return (p + z**2 / (2 * n) + sign * z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))) / (1 + z**2 / n)

    def __str__(self) -> str:
        return f"{self.count} of {self.n} [{self.low:.2f}, {self.high:.2f}]"


def match_nll(
    logits: Float[Tensor, "*trial batch answer d_vocab"], answer: Int[Tensor, "batch answer"]
) -> Float[Tensor, "*trial batch"]:
    """MatchNLL in nats: -log p(answer | prompt), averaged over the answer's tokens (DESIGN section 4; paper 2, 3.1).

    Computed in float64, so that the metric adds no rounding of its own to the logits.
    """
    return -_log_probability(logits, answer.expand(*logits.shape[:-1])).mean(-1)


def _log_probability(logits: Float[Tensor, "*rest d_vocab"], token: Int[Tensor, "*rest"]) -> Float[Tensor, "*rest"]:
    """log p of one token a row, in float64 of which a copy of `DOUBLES_AT_ONCE` logits, or of one row, is the most that is held."""
    d_vocab = logits.shape[-1]
    found = []
    step = max(1, DOUBLES_AT_ONCE // d_vocab)
    for rows, own in zip(logits.reshape(-1, d_vocab).split(step), token.reshape(-1).split(step), strict=True):
        # Relative to the largest: what is certain has a log-probability of 0, whatever its logit.
        relative = rows.double() - rows.detach().amax(-1, keepdim=True).double()
        found.append(relative.gather(-1, own.unsqueeze(-1)).squeeze(-1) - relative.logsumexp(-1))
    return torch.cat(found).reshape(token.shape)


def squared_error(
    outputs: Float[Tensor, "*trial batch answer d_vocab"], answer: Real[Tensor, "batch answer"]
) -> Float[Tensor, "*trial batch"]:
    """Squared distance from the right output, averaged over the answer's positions; in squared units of the output.

    For models that do not give next-token logits. An answer of numbers is compared with the only column; one of ids with
    1 in its own column and 0 in the others, which is what a transformer compiled from a program puts out. Unlike
    MatchNLL, it sees a change in any column.
    """
    target = F.one_hot(answer, outputs.shape[-1]) if not answer.is_floating_point() else answer[..., None]
    return (outputs.double() - target).square().sum(-1).mean(-1)


def kl_to_model(
    outputs: Float[Tensor, "*trial batch answer d_vocab"], own: Float[Tensor, "batch answer d_vocab"]
) -> Float[Tensor, "*trial batch"]:
    """KL(model || circuit) of the next token in nats, averaged over the answer's positions; ``own`` are the model's logits.

    What Conmy et al. 2023 search by: 0 for the whole model, and never below. It asks for all that the model says there, what
    speaks against the answer included. In float64, of which a copy of `DOUBLES_AT_ONCE` logits is the most that is held.
    """
    log_p = own.double().log_softmax(-1)
    trials = outputs.reshape(-1, *own.shape)
    step = max(1, DOUBLES_AT_ONCE // max(1, own.numel()))
    found = [(log_p.exp() * (log_p - some.double().log_softmax(-1))).sum(-1).mean(-1) for some in trials.split(step)]
    return torch.cat(found).reshape(outputs.shape[:-2])


def choice_nll(
    outputs: Float[Tensor, "*trial batch answer d_vocab"], choices: Int[Tensor, "batch answer choice"]
) -> Float[Tensor, "*trial batch"]:
    """-log p(answer | it is one of the objects that it is asked among), in nats, summed over the answer's tokens.

    Column 0 of ``choices`` is the answer's own token, the others are those with which another object goes on that began as
    the answer has so far; -1 stands for none. With one foil it is log(1 + exp(-logit difference)) (Wang et al. 2023,
    section 2, whose difference it generalises): what makes all objects of the relation likelier alike does not lower it.
    """
    index = choices.clamp(min=0).expand(*outputs.shape[:-1], -1)
    logits = outputs.gather(-1, index).double().masked_fill(choices < 0, -math.inf)
    return (logits.logsumexp(-1) - logits[..., 0]).sum(-1)


LEAST_NLL = 1e-9
"""Nats below which the log-odds of an answer are noise."""


def log_odds(nll: Float[np.ndarray, "*rest"], least: float = LEAST_NLL) -> Float[np.ndarray, "*rest"]:
    """log p / (1 - p) of an answer with NLL = -log p; an NLL below ``least`` counts as that."""
    return -np.log(np.expm1(np.clip(nll, least, 500.0)))


@dataclass(frozen=True, slots=True)
class Shown:
    """A group of facts as a metric may need it: the answers, the model's own outputs at their positions, and which facts they are."""

    answer: Real[Tensor, "batch answer"]
    own: Float[Tensor, "batch answer d_vocab"]
    rows: tuple[int, ...]
    """Positions of the facts in the list that the engine has."""


def _answer(shown: Shown) -> Tensor:
    return shown.answer


@dataclass(frozen=True, slots=True)
class Metric:
    """What an engine measures on each fact: 0 or more, smaller for better answers.

    ``of`` takes the outputs at an answer's positions (``*trial batch answer d_vocab``) and the target (``batch answer``, and
    what else it has) and gives a number for each of ``*trial batch``. Scores of edges are differences of it, in its unit.
    """

    name: str
    unit: str
    of: Callable[[Tensor, Tensor], Tensor]
    target: Callable[[Shown], Tensor] = _answer
    """What the outputs on a group of facts are measured against: by default, the answers."""
    unsaturated: Callable[[Tensor, Tensor], Float[np.ndarray, "*trial batch"]] | None = None
    """What rounding moves as far as the metric or farther, where the metric itself saturates at 0; None: nothing but itself.

    -log p of an answer counts by its log-odds, d = -log(exp(NLL) - 1): |change of NLL| <= |change of d|, and the two are close
    where NLL is large.
    """

    @property
    def relative(self) -> bool:
        """Whether it needs more than outputs and answers."""
        return self.target is not _answer


def _odds(nll: Tensor) -> Float[np.ndarray, "*trial batch"]:
    return log_odds(nll.double().cpu().numpy(), least=1e-12)


def _odds_of_answer(outputs: Tensor, answer: Tensor) -> Float[np.ndarray, "*trial batch"]:
    return _odds(match_nll(outputs, answer))


def _odds_of_choice(outputs: Tensor, choices: Tensor) -> Float[np.ndarray, "*trial batch"]:
    return _odds(choice_nll(outputs, choices))


def _odds_of_likeliest(outputs: Tensor, own: Tensor) -> Float[np.ndarray, "*trial batch"]:
    """Of a KL: the log-odds of what the model says, its likeliest tokens."""
    return _odds(match_nll(outputs, own.argmax(-1)))


NLL = Metric("NLL", "nats", match_nll, unsaturated=_odds_of_answer)
SQUARED_ERROR = Metric("squared error", "", squared_error)
KL = Metric("KL", "nats", kl_to_model, lambda shown: shown.own, _odds_of_likeliest)


def contrast(answers: Sequence[Sequence[int]], objects: Sequence[Sequence[Sequence[int]]]) -> Metric:
    """`choice_nll` of each fact among the objects that go with it.

    Args:
        answers: each fact's answer, in tokens.
        objects: for each fact, the objects that its answer is asked among, in tokens; the answer may be one of them.

    Raises:
        ValueError: not a list of objects for each fact, or a fact none of whose objects begins otherwise than its answer.
    """
    if len(answers) != len(objects):
        raise ValueError(f"expected objects for each of {len(answers)} facts, got {len(objects)}")
    choices = [_choices(answer, others) for answer, others in zip(answers, objects, strict=True)]
    for row, own in enumerate(choices):
        if all(len(tokens) == 1 for tokens in own):
            raise ValueError(f"expected an object that tokens tell from the answer, got none for fact {row}")
    width = max((len(tokens) for own in choices for tokens in own), default=1)

    def target(shown: Shown) -> Tensor:
        padded = [[[*tokens, *[-1] * (width - len(tokens))] for tokens in choices[row]] for row in shown.rows]
        return torch.tensor(padded, device=shown.own.device)

    return Metric("contrast", "nats", choice_nll, target, _odds_of_choice)


def _choices(answer: Sequence[int], objects: Sequence[Sequence[int]]) -> list[list[int]]:
    """At each of the answer's positions its own token, then those of the objects that begin as it does up to there."""
    found = []
    for at, own in enumerate(answer):
        going_on = {tuple(other)[at] for other in objects if len(other) > at and list(other[:at]) == list(answer[:at])}
        found.append([own, *sorted(going_on - {own})])
    return found


def rank(logits: Float[Tensor, "*rest d_vocab"], token: Int[Tensor, "*rest"]) -> Int[Tensor, "*rest"]:
    """The number of tokens whose logit is at least the token's own: 1 is the likeliest, d_vocab the last.

    Ties count against it, so that a circuit that tells no token from another ranks every answer last (DESIGN section 4).
    A logit that is NaN is below none: a token whose own is NaN is last.
    """
    own = logits.gather(-1, token.unsqueeze(-1))
    return logits.shape[-1] - (logits < own).sum(-1)


def probability(logits: Float[Tensor, "*rest d_vocab"], token: Int[Tensor, "*rest"]) -> Float[Tensor, "*rest"]:
    """Next-token probability of ``token``."""
    return _log_probability(logits, token).exp()


def kl_divergence(
    logits: Float[Tensor, "*rest d_vocab"], approximation: Float[Tensor, "*rest d_vocab"]
) -> Float[Tensor, "*rest"]:
    """KL(p || q) of the next token in nats, in float64: p from ``logits``, q from ``approximation``; 0 if they are alike."""
    log_p, log_q = logits.double().log_softmax(-1), approximation.double().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def hit(ranks: Int[Tensor, "batch"], k: int) -> Float[Tensor, "batch"]:
    """1 where the rank is at most k, else 0 (paper 2, Eq. 3, whose mean runs over the examples)."""
    return (ranks <= k).double()


def require_finite(logits: Float[Tensor, "..."], what: str) -> None:
    """Raise if a logit is NaN or infinite: no score computed from it would mean anything."""
    if not torch.isfinite(logits).all():
        bad = int((~torch.isfinite(logits)).sum())
        raise FloatingPointError(
            f"expected finite logits from {what}, got {bad} of {logits.numel()} that are NaN or infinite; "
            "try --dtype float32, and check the model's weights"
        )

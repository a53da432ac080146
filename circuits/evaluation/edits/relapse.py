"""Heads that bring the old answer back, found by ablating each and tested on prompts that they were not found on.

Of prompts after which an edited model prefers the old answer, every other one is searched. A head's effect there is how much
ln p(old) - ln p(new), of first tokens at the prompt's end, falls when the head writes nothing. The strongest heads are then
silenced together on the prompts that are left, beside sets of as many other heads, drawn at random.
"""

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.graph import Node, label_of
from circuits.model import Batch, Model
from circuits.model.bypassed import on_weights, shown
from circuits.model.taps import Projected, Taps
from circuits.records import Number

N_HEADS = 3
DRAWS = 20
"""Sets of random heads."""
ROWS_AT_ONCE = 32

Heads = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Rivals:
    """A prompt, and the first tokens of the old and the new answer to it."""

    prompt: tuple[int, ...]
    old: int
    new: int


@dataclass(frozen=True, slots=True)
class Standoff:
    """The old answer against the new one, over prompts."""

    log_odds: Number
    """Mean of ln p(old) - ln p(new), in nats."""
    old_likelier: float
    """Share of prompts at which the old one's first token is likelier."""
    old_given: float
    """Share at which it is the likeliest of all."""

    @classmethod
    def of(cls, asked: Sequence[Rivals], logits: Float[Tensor, "prompt d_vocab"]) -> "Standoff":
        odds = [float(row[one.old] - row[one.new]) for one, row in zip(asked, logits, strict=True)]
        given = [int(row.argmax()) == one.old for one, row in zip(asked, logits, strict=True)]
        return cls(math.fsum(odds) / len(odds), sum(each > 0 for each in odds) / len(odds), sum(given) / len(given))


@dataclass(frozen=True, slots=True)
class Relapse:
    """What brings the old answer back. ``heads`` are the strongest first, each with its effect in nats where it was found."""

    heads: tuple[tuple[str, float], ...]
    searched: int
    """Prompts that the heads were found on; all else is of the ``tested`` others."""
    tested: int
    whole: Standoff
    without: Standoff
    """With these heads silent."""
    random: tuple[Standoff, ...]
    """With as many others silent, one for each set that was drawn."""

    @property
    def as_strong(self) -> float:
        """Share of random sets that lower the log odds at least as much; NaN if none was drawn."""
        lower = [each.log_odds <= self.without.log_odds for each in self.random]
        return sum(lower) / len(lower) if lower else math.nan

    @property
    def at_random(self) -> float:
        """Mean log odds over the random sets, in nats; NaN if none was drawn."""
        return math.fsum(each.log_odds for each in self.random) / len(self.random) if self.random else math.nan

    def __str__(self) -> str:
        names = ", ".join(f"{label_of(name)} ({effect:.2f} nats)" for name, effect in self.heads)
        return (
            f"Heads that bring the old answer back, found on {self.searched} prompts: {names}. Silent at {self.tested} others, "
            f"they take its log odds from {self.whole.log_odds:.2f} to {self.without.log_odds:.2f} nats; as many heads at random "
            f"to {self.at_random:.2f} on average, and {self.as_strong:.0%} of {len(self.random)} sets as far."
        )


class _Silent(Taps):
    """In each row of a batch, other heads write nothing: their values are zero, biases included."""

    heads_apart = False

    def __init__(self, silent: Bool[Tensor, "batch layer head"]) -> None:
        self._silent = silent

    def projected(self, layer: int, value: Projected) -> Projected:
        q, k, v = value
        return q, k, v.masked_fill(self._silent[:, layer, :, None, None].to(v.device), 0.0)


def relapsed(edited: Model, asked: Sequence[Rivals]) -> tuple[Rivals, ...]:
    """Those at which the old answer is the likelier one."""
    readings = [silenced(edited, one.prompt, [()])[0] for one in asked]
    return tuple(one for one, logits in zip(asked, readings, strict=True) if logits[one.old] > logits[one.new])


@torch.no_grad()
def silenced(model: Model, prompt: Sequence[int], sets: Sequence[Collection[Node]]) -> Float[Tensor, "set d_vocab"]:
    """The logits after the prompt with each set of heads writing nothing (ablation by zero).

    Raises:
        circuits.model.transformer.UnsupportedArchitecture: the model does not show its weights.
    """
    network = on_weights(model.network, shown(model.network).components(len(prompt)))
    found = []
    for start in range(0, len(sets), ROWS_AT_ONCE):
        some = sets[start : start + ROWS_AT_ONCE]
        silent = torch.zeros(len(some), network.shape.n_layers, network.shape.n_heads, dtype=torch.bool)
        for row, heads in enumerate(some):
            for node in heads:
                silent[row, node.layer, node.head] = True
        ids = torch.tensor([list(prompt)] * len(some))
        found.append(network.run(Batch.of_prompts(ids), _Silent(silent))[:, -1].float())
    return torch.cat(found)


def find_relapse(
    edited: Model, asked: Sequence[Rivals], *, n_heads: int = N_HEADS, draws: int = DRAWS, seed: int = 0
) -> Relapse | None:
    """Who brings the old answer back at these prompts; None for fewer than two, or where no head does."""
    searched, tested = asked[::2], asked[1::2]
    if not tested:
        return None
    shape = edited.shape
    heads = tuple(Node(layer, "head", head) for layer in range(shape.n_layers) for head in range(shape.n_heads))
    falls = torch.stack([_falls(edited, one, heads) for one in searched]).mean(0)
    best = [int(i) for i in falls.argsort(descending=True, stable=True)[:n_heads] if falls[i] > 0]
    if not best:
        return None
    found = tuple(heads[i] for i in best)
    rng, others = random.Random(f"{seed}/relapse"), [head for head in heads if head not in found]
    n_drawn = draws if len(others) >= len(found) else 0
    sets: list[Heads] = [(), found, *(tuple(rng.sample(others, len(found))) for _ in range(n_drawn))]
    logits = torch.stack([silenced(edited, one.prompt, sets) for one in tested], 1)
    whole, without, *drawn = (Standoff.of(tested, own) for own in logits)
    effects = tuple((heads[i].name, float(falls[i])) for i in best)
    return Relapse(effects, len(searched), len(tested), whole, without, tuple(drawn))


def _falls(edited: Model, one: Rivals, heads: Heads) -> Float[Tensor, "head"]:
    """How much each head's silence lowers the log odds of the old answer, in nats."""
    logits = silenced(edited, one.prompt, [(), *((head,) for head in heads)]).double()
    odds = logits[:, one.old] - logits[:, one.new]
    return odds[0] - odds[1:]

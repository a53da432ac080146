"""Many rows of ids read together, from the weights alone: what rows begin with alike is read once, and nothing is padded.

Law: a row's logits are those of reading it by itself, up to rounding, whatever is read with it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import TypeIs

from circuits.model.batch import Batch
from circuits.model.bypassed import on_weights, shown
from circuits.model.network import ComponentNetwork, Network
from circuits.model.past import Past
from circuits.model.transformer import UnsupportedArchitecture

Ids = tuple[int, ...]

LOGITS_AT_ONCE = 2**24
"""Logits that are held at once: 64 MB in float32."""
TOKENS_AT_ONCE = 4096
"""Tokens that are read at once."""
TOKENS_A_PASS = 64
"""A beginning is read by itself where that saves so many tokens: a pass of its own has its price, and so have the smaller parts
that are left."""


def from_weights(network: Network) -> Network:
    """What runs the weights that a network shows, with its bypasses beside them; the network itself, where it shows none.

    The same logits up to rounding, several times sooner: the network itself says what each of its parts does.
    """
    try:
        parts = shown(network).components(network.n_ctx).shared()
    except UnsupportedArchitecture:
        return network
    return on_weights(network, parts)


def reads_on(network: Network) -> TypeIs[ComponentNetwork]:
    """Whether rows can be read in parts: no bypass looks at all of a row, and no token sees those after it."""
    return isinstance(network, ComponentNetwork) and all(block.attention.causal for block in network.parts.blocks)


@torch.no_grad()
def read_together(
    network: Network, rows: Sequence[tuple[Ids, int]], last: Sequence[int]
) -> Iterator[tuple[list[int], Float[Tensor, "row last d_vocab"]]]:
    """(which of the rows, the logits at their last positions), each row in one part; a part holds rows with as many of them.

    Args:
        rows: ids, and how many of them are the prompt.
        last: of how many of a row's last positions the logits are wanted.
    """
    if rows and reads_on(network):
        yield from _Reader(network, [ids for ids, _ in rows], last).read(range(len(rows)), Past())
        return
    alike: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for index, (ids, n_prompt) in enumerate(rows):
        alike[n_prompt, len(ids), last[index]].append(index)
    for (n_prompt, length, n), every in sorted(alike.items()):
        for some in _chunks(every, length, length * network.d_vocab):
            ids = torch.tensor([rows[index][0] for index in some])
            yield some, network.run(Batch.continued(ids, n_prompt))[:, length - n :]


class _Reader:
    def __init__(self, network: ComponentNetwork, rows: Sequence[Ids], last: Sequence[int]) -> None:
        self.network, self.rows, self.last = network, rows, last

    def read(self, which: Sequence[int], past: Past) -> Iterator[tuple[list[int], Tensor]]:
        """Rows that all begin with the one row that ``past`` has read."""
        if self._worth(which, past.length):
            shared, past = self._shared(which, past.length), past.rows([0])
            self.network.read_on(torch.tensor([self.rows[which[0]][past.length : shared]]), past)
        by_next: dict[int, list[int]] = defaultdict(list)
        for index in which:
            by_next[self.rows[index][past.length]].append(index)
        alone: dict[tuple[int, int], list[int]] = defaultdict(list)
        for some in by_next.values():
            if self._worth(some, past.length):
                yield from self.read(some, past)
            else:
                for index in some:
                    alone[len(self.rows[index]), self.last[index]].append(index)
        for (length, n), every in sorted(alone.items()):
            for some in _chunks(every, length - past.length, n * self.network.d_vocab):
                ids = torch.tensor([self.rows[index][past.length :] for index in some])
                yield some, self.network.read_on(ids, past.rows([0] * len(some)), n)

    def _worth(self, which: Sequence[int], known: int) -> bool:
        """Whether to read what the rows begin with by itself."""
        return (len(which) - 1) * (self._shared(which, known) - known) >= TOKENS_A_PASS

    def _shared(self, which: Sequence[int], known: int) -> int:
        """How many ids all rows begin with, of which the logits of none are wanted; ``known`` of them are known."""
        first, length = self.rows[which[0]], min(len(self.rows[index]) - self.last[index] for index in which)
        while known < length and all(self.rows[index][known] == first[known] for index in which):
            known += 1
        return known


def _chunks(rows: Sequence[int], n_tokens: int, n_logits: int) -> Iterator[list[int]]:
    """Parts of the rows, of so many tokens and logits each, that no more are read and held than at once."""
    step = max(1, min(TOKENS_AT_ONCE // n_tokens, LOGITS_AT_ONCE // n_logits))
    for start in range(0, len(rows), step):
        yield list(rows[start : start + step])

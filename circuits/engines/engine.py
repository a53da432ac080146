"""What discovery and evaluation ask of an engine: the model's answers with only some edges left clean.

An engine is bound to one model, one set of facts and one ablation. `HookEngine` is written to be read.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from circuits.facts import Fact
from circuits.graph import Graph
from circuits.model import Model, Tokens


@dataclass(frozen=True)
class Group:
    """Facts with prompts of one length and answers of one length: they share a batch, and nothing is padded."""

    rows: tuple[int, ...]
    """Positions of these facts in the list they come from."""
    ids: Int[Tensor, "batch pos"]
    """Prompt and all but the last token of the answer; of an aligned answer none."""
    answer: Real[Tensor, "batch answer"]
    """Token ids, or where the model's output is a number, numbers."""
    aligned: bool = False
    """See `circuits.model.Tokens.aligned`."""

    @property
    def n_answer(self) -> int:
        return self.answer.shape[1]

    @property
    def n_prompt(self) -> int:
        """How many of the ids are the prompt."""
        return self.ids.shape[1] - (0 if self.aligned else self.n_answer - 1)


def group_facts(model: Model, facts: Sequence[Fact]) -> tuple[Group, ...]:
    """The facts in groups of like length, in order of first occurrence."""
    if not facts:
        raise ValueError("expected at least one fact, got none")
    by_length: dict[tuple[int, int], list[tuple[int, Tokens]]] = defaultdict(list)
    for row, fact in enumerate(facts):
        tokens = model.tokens(fact)
        by_length[len(tokens.prompt), len(tokens.answer)].append((row, tokens))
    return tuple(
        Group(
            tuple(row for row, _ in members),
            torch.tensor([tokens.forced for _, tokens in members]),
            torch.tensor([tokens.numbers or tokens.answer for _, tokens in members]),
            members[0][1].aligned,
        )
        for members in by_length.values()
    )


@runtime_checkable
class Engine(Protocol):
    """Runs circuits: the model with every edge outside the circuit ablated, on the engine's facts."""

    name: str
    graph: Graph
    width: int
    """How many removals `nll_without` likes to be asked at once."""
    evaluations: int
    """Circuits run so far."""

    def answer_logits(self, kept: Bool[np.ndarray, "writer reader"]) -> tuple[Float[Tensor, "answer d_vocab"], ...]:
        """For each fact, the next-token logits at its answer's positions."""
        ...

    def nll(self, kept: Bool[np.ndarray, "writer reader"]) -> Float[np.ndarray, "fact"]:
        """What the engine measures of the circuit on each fact: MatchNLL in nats, unless it was made with another metric."""
        ...

    def nll_without(
        self, kept: Bool[np.ndarray, "writer reader"], reader: int, removals: Sequence[Sequence[int]]
    ) -> Float[np.ndarray, "removal fact"]:
        """`nll` of several variants of ``kept``: in each, one reader loses the writers of one removal."""
        ...


Cut = tuple[int, int]
"""(writer, reader) of an edge that may be removed."""


@runtime_checkable
class WideEngine(Engine, Protocol):
    """An engine that runs many variants of a circuit for little more than one, and can guess what they will show."""

    def nll_cutting(
        self,
        kept: Bool[np.ndarray, "writer reader"],
        edges: Sequence[Cut],
        cut: Bool[np.ndarray, "variant edge"],
    ) -> Float[np.ndarray, "variant fact"]:
        """`nll` of several variants of ``kept``: each lacks some of ``edges``. Readers of one depth go fastest."""
        ...

    def forecast(self, kept: Bool[np.ndarray, "writer reader"], edges: Sequence[Cut]) -> Float[np.ndarray, "edge fact"]:
        """A guess at each edge's score on each fact if it alone were removed from ``kept``, in nats. Only speed depends on it."""
        ...

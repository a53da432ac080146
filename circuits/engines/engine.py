"""What discovery and evaluation ask of an engine: the model's answers with only some edges left clean.

An engine is bound to one model, one set of facts and one ablation. `HookEngine` is written to be read.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.facts import Fact
from circuits.graph import Graph


@runtime_checkable
class Engine(Protocol):
    """Runs circuits: the model with every edge outside the circuit ablated, on the engine's facts."""

    name: str
    facts: tuple[Fact, ...]
    graph: Graph
    precision: str
    """The type of number that it computes in: float32, ..."""
    width: int
    """How many removals `nll_without` likes to be asked at once."""
    evaluations: int
    """Circuits run so far."""

    def noise(self) -> float:
        """How far rounding may move `nll`, in its unit: smaller differences mean nothing (`circuits.engines.noise`)."""
        ...

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

    def forget(self) -> None:
        """What follows depends on nothing that was asked before, to the last bit."""
        ...

    def forecast(self, kept: Bool[np.ndarray, "writer reader"], edges: Sequence[Cut]) -> Float[np.ndarray, "edge fact"]:
        """A guess at each edge's score on each fact if it alone were removed from ``kept``, in nats. Only speed depends on it."""
        ...

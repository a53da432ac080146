"""Information flow routes: how much of what a reader reads each sender wrote. No gradients, no ablation, no answer.

Ferrando and Voita 2024, "Information Flow Routes: Automatically Interpreting Language Models at Scale", section 2: with y the
sum of vectors z_j, the importance of z_j is its proximity to y,

    proximity(z_j, y) = max(0, |y|_1 - |y - z_j|_1),

divided by the sum of all proximities to y. Here y is what a reader reads before its norm, and the z_j what its senders
wrote, at each position; an edge's score is the mean over positions, and over facts. So the scores into one reader add up to
1 (to less where at some position no sender is close). Attention biases are part of y and no sender.

All that read one state score their senders alike: a layer's heads, and the slots of each, are told apart by where their
outputs go, and not by what they read. The paper weighs positions by following the routes from the last one down; the
graph here has no positions, so they count alike, but for ``logits``, which only the answer's positions read.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.discovery.method import DiscoveryMethod, NoOptions, Report
from circuits.discovery.problem import Problem
from circuits.graph import Graph, Node, Reader, Slot
from circuits.model.taps import ReaderKind, Taps, WriterKind

FACTS = 16
"""Facts in one forward pass."""


def _ifr(problem: Problem, options: NoOptions, report: Report) -> Float[np.ndarray, "writer reader"]:
    """Each sender's share of what each reader reads, from 0 to 1."""
    model, graph = problem.model, problem.graph
    total = np.zeros(graph.legal.shape)
    for group in model.batches(problem.facts):
        for some in group.pieces(FACTS):
            shares = _Shares(graph, group.n_answer)
            model.run(some, shares)
            total += shares.total
    return total / len(problem.facts)


ifr = DiscoveryMethod("ifr", _ifr, NoOptions, "the sender’s share of what the reader reads", has_unit=False)


def proximity(
    parts: Float[Tensor, "writer *rest d_model"], whole: Float[Tensor, "*rest d_model"]
) -> Float[Tensor, "writer *rest"]:
    """By how much each part brings the L1 norm of what is left of the whole down; at least 0 (the paper's Eq. 2)."""
    # A part at a time, so that memory does not hold all differences.
    left = torch.stack([(whole - part).abs().sum(-1) for part in parts])
    return (whole.abs().sum(-1) - left).clamp_min(0)


class _Shares(Taps):
    """Adds up every edge's importance over facts: ``total``."""

    def __init__(self, graph: Graph, n_answer: int) -> None:
        self._graph, self._n_answer = graph, n_answer
        self._writes: list[Float[Tensor, "batch pos d_model"]] = []
        self._of_state: dict[tuple[int, int], np.ndarray] = {}
        self.total = np.zeros(graph.legal.shape)

    def write(self, kind: WriterKind, layer: int, value: Tensor) -> None:
        self._writes += [*value.unbind(2)] if kind == "head" else [value]

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        heads = range(self._graph.shape.n_heads if kind == "head" else 1)
        slot = slot if self._graph.granularity == "qkv" else None
        readers = [self._graph.reader_index(Reader(Node(layer, kind, head), slot)) for head in heads]
        state = (layer, self._graph.upstream[readers[0]])
        if state not in self._of_state:
            self._of_state[state] = self._importance(value[:, :, 0] if kind == "head" else value, state[1])
        self.total[: state[1], readers] = self._of_state[state][:, None]
        return value

    def _importance(self, state: Float[Tensor, "batch pos d_model"], upstream: int) -> Float[np.ndarray, "writer"]:
        """Mean over positions, summed over facts."""
        near = proximity(torch.stack(self._writes[:upstream]), state).double()
        if upstream == len(self._graph.writers):
            near = near[..., -self._n_answer :]
        shares = near / near.sum(0, keepdim=True).clamp_min(torch.finfo(near.dtype).tiny)
        return shares.mean(-1).sum(-1).cpu().numpy()

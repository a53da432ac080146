"""What a pass will compute, decided before any arithmetic: which readers see something new, and in which positions.

Pure index work on the circuit's mask, so that the pass itself is a short list of large tensor operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from circuits.engines.layout import Index, Layout, Q
from circuits.engines.positions import DEAD, FULL


@dataclass(frozen=True)
class Reads:
    """Readers that take the same sum: a run of consecutive rows of the pass' table of readers."""

    first: int
    readers: tuple[int, ...]
    n_fresh: int
    """How many of the writers that this pass computes come before them."""

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + len(self.readers))


@dataclass(frozen=True)
class Projection:
    """Rows of ``W_slots`` to compute, slot-major; ``row_of`` is each row's place in ``reads``."""

    reads: Reads
    rows: Index
    row_of: Index


@dataclass(frozen=True)
class Heads:
    """Heads that write at the same positions, with their writer indices."""

    heads: Index
    writers: Index
    tail: bool


@dataclass(frozen=True)
class LayerPlan:
    layer: int
    full: Projection | None
    tail: Projection | None
    heads: tuple[Heads, ...]
    mlp: Reads | None
    mlp_tail: bool
    bypass: Reads | None
    """Always at all positions."""


@dataclass(frozen=True)
class Plan:
    """``full`` is all positions, ``tail`` the answer's alone. A writer computed in full is among the tail's as well."""

    layers: tuple[LayerPlan, ...]
    logits: Reads
    full_readers: Index
    tail_readers: Index
    full_writers: Index
    tail_writers: Index


def plan(
    layout: Layout,
    kept: Bool[np.ndarray, "writer reader"],
    need: Int[np.ndarray, "writer"],
    changed: Sequence[int],
) -> Plan:
    """What changes, and matters, once these readers read something new."""
    reached = np.zeros(kept.shape[1], dtype=bool)
    reached[list(changed)] = True
    full, tail = _Table(), _Table()
    layers = []
    first = min(changed, default=layout.logits)
    for layer in range(layout.n_layers):
        if layout.last_readers[layer] < first:
            continue
        readers, writers = layout.head_readers[layer], layout.head_writers[layer]
        at = need[writers]
        slots = reached[readers].reshape(3, -1) & (at > DEAD)
        in_full = in_tail = None
        groups: list[Heads] = []
        if slots.any():
            queries = np.zeros_like(slots)
            if layout.split:
                queries[Q] = slots[Q] & (at != FULL)
            in_full, in_tail = full.projection(readers, slots & ~queries), tail.projection(readers, queries)
            some = slots.any(0)
            for is_tail in (False, True):
                heads = np.flatnonzero(some & ((at != FULL) if is_tail else (at == FULL)))
                if len(heads):
                    groups.append(Heads(heads, writers[heads], is_tail))
                    reached |= kept[writers[heads]].any(0)
            for group in groups:
                tail.writers += group.writers.tolist()
                if not group.tail:
                    full.writers += group.writers.tolist()
        mlp, reader = layout.mlp_writers[layer], layout.mlp_readers[layer]
        reads = None
        if reached[reader] and need[mlp] != DEAD:
            table = full if need[mlp] == FULL else tail
            reads = table.reads(np.array([reader]))
            reached |= kept[mlp]
            tail.writers.append(mlp)
            if need[mlp] == FULL:
                full.writers.append(mlp)
        beside = None
        x, reader = layout.bypass_writers[layer], layout.bypass_readers[layer]
        if x is not None and reached[reader] and need[x] != DEAD:
            beside = full.reads(np.array([reader]))
            reached |= kept[x]
            tail.writers.append(x)
            full.writers.append(x)
        if groups or reads or beside:
            layers.append(LayerPlan(layer, in_full, in_tail, tuple(groups), reads, bool(need[mlp] != FULL), beside))
    logits = tail.reads(np.array([layout.logits]))
    return Plan(tuple(layers), logits, full.index, tail.index, np.array(full.writers, int), np.array(tail.writers, int))


class _Table:
    """Readers and fresh writers at one kind of position, in the order in which they come up."""

    def __init__(self) -> None:
        self.readers: list[int] = []
        self.writers: list[int] = []

    @property
    def index(self) -> Index:
        return np.array(self.readers, int)

    def reads(self, readers: Index) -> Reads:
        reads = Reads(len(self.readers), tuple(readers.tolist()), len(self.writers))
        self.readers += reads.readers
        return reads

    def projection(self, readers: Index, slots: Bool[np.ndarray, "3 head"]) -> Projection | None:
        rows = np.flatnonzero(slots)
        if not len(rows):
            return None
        distinct, row_of = np.unique(readers[rows], return_inverse=True)
        if len(distinct) == len(rows):
            # One reader a row: keep the rows' order, so that no input need be moved.
            return Projection(self.reads(readers[rows]), rows, np.arange(len(rows)))
        return Projection(self.reads(distinct), rows, row_of)

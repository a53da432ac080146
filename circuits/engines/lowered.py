"""A plan as the device needs it: which rows of which tensors a pass gathers, all decided before its first product."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from circuits.engines.layout import Index, K, Layout, Q, V
from circuits.engines.plan import Heads, LayerPlan, Plan, Projection, Reads

Rows = Int[Tensor, "_"]


@dataclass(frozen=True)
class Choice:
    """Rows of a stack, by number and on the device. As many as the stack has are the stack itself, in its order."""

    numbers: tuple[int, ...]
    rows: Rows

    def each(self, stack: Tensor) -> Tensor | list[Tensor]:
        """One by one, so that large matrices are not copied."""
        return stack if len(self.numbers) == len(stack) else [stack[number] for number in self.numbers]

    def of(self, stack: Tensor) -> Tensor:
        return stack if len(self.numbers) == len(stack) else stack[self.rows]


@dataclass(frozen=True)
class SlotRows:
    """Rows of ``W_slots`` to compute; ``inputs`` says of each which of ``reads`` it takes."""

    reads: Reads
    slots: Choice
    inputs: Choice
    keys: slice
    """Where the keys stand among them: queries before, values after."""
    tail: bool


@dataclass(frozen=True)
class Taken:
    """``rows`` of what the layer's projection ``part`` gives are the heads ``to``; None is all of them."""

    part: int
    rows: slice | Rows
    to: Rows | None


@dataclass(frozen=True)
class Source:
    """Where heads find their q, k or v: computed in this pass, else rows ``current`` of the current circuit's slots.

    ``current`` is empty where all are computed in this pass.
    """

    current: Rows
    taken: tuple[Taken, ...]


@dataclass(frozen=True)
class HeadGroup:
    heads: Choice
    writers: Rows
    qkv: tuple[Source, Source, Source]
    tail: bool


@dataclass(frozen=True)
class ModuleRows:
    """An MLP, or what stands beside it."""

    reads: Reads
    writers: Rows
    tail: bool


@dataclass(frozen=True)
class LayerRows:
    layer: int
    projections: tuple[SlotRows, ...]
    heads: tuple[HeadGroup, ...]
    mlp: ModuleRows | None
    bypass: ModuleRows | None


@dataclass(frozen=True)
class SideRows:
    """Readers, each with its row of `values.Values.constant`, and fresh writers at one kind of position."""

    readers: Rows
    depths: Rows
    fresh: Rows
    stale: Rows
    """Writers whose value in the current circuit does not hold here."""
    tail: bool


@dataclass(frozen=True)
class Lowered:
    full: SideRows
    tail: SideRows
    layers: tuple[LayerRows, ...]
    logits: Reads


def lower(todo: Plan, layout: Layout, device: torch.device) -> Lowered:
    return _Lowering(layout, device).plan(todo)


@dataclass(frozen=True)
class _Lowering:
    layout: Layout
    device: torch.device

    def plan(self, todo: Plan) -> Lowered:
        stale = self._rows(todo.tail_writers)
        full = self._side(todo.full_readers, self._rows(todo.full_writers), stale, tail=False)
        tail = self._side(todo.tail_readers, stale, stale, tail=True)
        return Lowered(full, tail, tuple(map(self._layer, todo.layers)), todo.logits)

    def _rows(self, index: Index) -> Rows:
        return torch.from_numpy(index).to(self.device)

    def _choice(self, index: Index) -> Choice:
        return Choice(tuple(index.tolist()), self._rows(index))

    def _side(self, readers: Index, fresh: Rows, stale: Rows, *, tail: bool) -> SideRows:
        return SideRows(self._rows(readers), self._rows(self.layout.depth[readers]), fresh, stale, tail)

    def _layer(self, todo: LayerPlan) -> LayerRows:
        parts = [(part, tail) for part, tail in ((todo.full, False), (todo.tail, True)) if part is not None]
        projections = tuple(self._projection(part, tail) for part, tail in parts)
        heads = tuple(self._heads(group, [part.rows for part, _ in parts]) for group in todo.heads)
        mlp = self._module(todo.mlp, self.layout.mlp_writers[todo.layer], todo.mlp_tail)
        bypass = self._module(todo.bypass, self.layout.bypass_writers[todo.layer], tail=False)
        return LayerRows(todo.layer, projections, heads, mlp, bypass)

    def _projection(self, todo: Projection, tail: bool) -> SlotRows:
        n_heads = self.layout.n_heads
        keys = slice(*np.searchsorted(todo.rows, [n_heads * K, n_heads * V]).tolist())
        return SlotRows(todo.reads, self._choice(todo.rows), self._choice(todo.row_of), keys, tail)

    def _heads(self, group: Heads, computed: Sequence[Index]) -> HeadGroup:
        q, k, v = (self._source(group.heads + slot * self.layout.n_heads, computed) for slot in (Q, K, V))
        return HeadGroup(self._choice(group.heads), self._rows(group.writers), (q, k, v), group.tail)

    def _source(self, wanted: Index, computed: Sequence[Index]) -> Source:
        taken = []
        for part, rows in enumerate(computed):
            place = np.searchsorted(rows, wanted)
            found = rows[np.minimum(place, len(rows) - 1)] == wanted
            if found.all():
                start, stop = int(place[0]), int(place[-1]) + 1
                run = slice(start, stop) if stop - start == len(place) else self._rows(place)
                return Source(self._rows(wanted[:0]), (Taken(part, run, None),))
            if found.any():
                taken.append(Taken(part, self._rows(place[found]), self._rows(np.flatnonzero(found))))
        return Source(self._rows(wanted), tuple(taken))

    def _module(self, reads: Reads | None, writer: int | None, tail: bool) -> ModuleRows | None:
        return None if reads is None else ModuleRows(reads, self._rows(np.array([writer])), tail)

"""What a pass reads from and writes to, at one kind of position: sums over the unchanged writers, and over those of this pass.

A `PassSide` is all positions or the answer's alone. Two kinds: `ScratchSide` writes into memory that lives from pass to pass,
`TracedSide` keeps what autograd needs.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engines.lowered import SideRows
from circuits.engines.plan import Reads
from circuits.engines.sums import sums
from circuits.engines.values import Values
from circuits.model.products import each_times


class Scratch:
    """Large buffers that live from pass to pass: fresh memory from the system costs more than the sums written to it."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name] = like.new_empty(size)
        return buffer[:size].view(*shape)


class PassSide:
    """Readers and fresh writers stand in the order in which the pass comes to them."""

    def __init__(self, values: Values, weights: Float[Tensor, "writer reader"], rows: SideRows) -> None:
        """``weights`` is the circuit's mask as numbers."""
        first_pos = values.n_pos - values.n_answer if rows.tail else 0
        self.n_pos, self.n_fresh = values.n_pos - first_pos, 0
        self.shape = (len(rows.readers), values.delta.shape[1], self.n_pos, values.delta.shape[3])
        if not len(rows.readers):
            return
        self.delta = values.delta[:, :, first_pos:].flatten(1)
        static = weights.index_select(1, rows.readers)
        self._fresh_weights = static.index_select(0, rows.fresh).T
        static.index_fill_(0, rows.stale, 0.0)
        constant = values.constant
        if constant.shape[2] > 1:
            constant = constant[:, :, first_pos:]
        constant = constant.index_select(0, rows.depths)
        self._static = sums(static.T, self.delta).view(self.shape).add_(constant)

    def static(self, reads: Reads) -> Float[Tensor, "reader 1 batch pos d_model"]:
        """What the readers get from writers that this pass leaves as they are."""
        return self._static[reads.rows].unsqueeze(1)

    def sum(self, reads: Reads, n_variants: int) -> Float[Tensor, "reader #variant batch pos d_model"]:
        """What the readers get, all in all."""
        if not reads.n_fresh:
            return self.static(reads)
        weights = self._fresh_weights[reads.rows, : reads.n_fresh]
        return self._over_fresh(weights, (len(reads.readers), n_variants, *self.shape[1:])).add_(self.static(reads))

    def _over_fresh(
        self, weights: Float[Tensor, "reader writer"], shape: tuple[int, ...]
    ) -> Float[Tensor, "reader variant batch pos d_model"]:
        raise NotImplementedError

    def write(
        self,
        inner: Float[Tensor, "writer rows d_inner"],
        weight: Float[Tensor, "writer d_inner d_model"] | Sequence[Float[Tensor, "d_inner d_model"]] | None,
        shape: tuple[int, ...],
    ) -> Tensor:
        """The next writers' values in that shape, to be changed in place: ``inner @ weight``, or ``inner`` without a weight."""
        raise NotImplementedError

    def show(self, writes: Tensor) -> None:
        """The next writers' values, computed on another side."""
        raise NotImplementedError


class ScratchSide(PassSide):
    """Without gradients."""

    def __init__(
        self,
        scratch: Scratch,
        n_variants: int,
        values: Values,
        weights: Float[Tensor, "writer reader"],
        rows: SideRows,
    ) -> None:
        super().__init__(values, weights, rows)
        self._scratch = scratch
        shape = (len(rows.fresh), n_variants, *self.shape[1:])
        self._buffer = scratch.take("tail" if rows.tail else "full", shape, values.delta)

    def _over_fresh(self, weights: Tensor, shape: tuple[int, ...]) -> Tensor:
        total = self._scratch.take("inputs", shape, self._buffer)
        sums(weights, self._buffer[: weights.shape[1]].flatten(1), out=total.view(len(total), -1))
        return total

    def write(self, inner: Tensor, weight: Tensor | Sequence[Tensor] | None, shape: tuple[int, ...]) -> Tensor:
        writes = self._buffer[self.n_fresh : self.n_fresh + shape[0]]
        if weight is None:
            writes.copy_(inner.view(shape))
        else:
            each_times(inner, weight, out=writes.view(shape[0], -1, shape[-1]))
        self.n_fresh += shape[0]
        return writes

    def show(self, writes: Tensor) -> None:
        self._buffer[self.n_fresh : self.n_fresh + len(writes)] = writes
        self.n_fresh += len(writes)


class TracedSide(PassSide):
    """Differentiable: every value stays what it was when it was read."""

    def __init__(self, values: Values, weights: Float[Tensor, "writer reader"], rows: SideRows) -> None:
        super().__init__(values, weights, rows)
        self._blocks: list[Tensor] = []

    def _over_fresh(self, weights: Tensor, shape: tuple[int, ...]) -> Tensor:
        return (weights @ torch.cat(self._blocks)[: weights.shape[1]].flatten(1)).view(shape)

    def write(self, inner: Tensor, weight: Tensor | Sequence[Tensor] | None, shape: tuple[int, ...]) -> Tensor:
        writes = (inner.clone() if weight is None else each_times(inner, weight)).view(shape)
        self.show(writes)
        return writes

    def show(self, writes: Tensor) -> None:
        self._blocks.append(writes)
        self.n_fresh += len(writes)

"""One pass over the nodes that a change can reach: many variants of a circuit at once.

Notation: a writer's *delta* is what it writes minus what its ablated edges carry, so that reader r reads

    x[r] = constant[r] + sum over kept edges (w, r) of delta[w]

where the constant is the sum of what all legal ablated edges would carry, and of the attention biases. A pass starts
from the values of the current circuit (`Values`), changes some readers, and computes anew only what these changes reach
through kept edges and what the answer needs (`plan`). Sums are always taken over the writers themselves, never updated
in place, so that no rounding error accumulates from pass to pass.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engines.folding import Folded
from circuits.engines.layout import K, Layout, Q, V
from circuits.engines.plan import LayerPlan, Plan, Projection, Reads
from circuits.engines.products import each_times
from circuits.model import Batch
from circuits.model.network import Bypass
from circuits.model.transformer import attend


@dataclass
class Values:
    """What every node of the current circuit computes, for one group of facts of like length."""

    delta: Float[Tensor, "writer batch pos d_model"]
    slots: Float[Tensor, "layer slot_head batch pos d_head"]
    """Queries, keys and values as attention compares and mixes them (normed and rotated)."""
    ablated: Float[Tensor, "writer #batch #pos d_model"] | None
    """None for zero ablation."""
    constant: Float[Tensor, "depth #batch #pos d_model"]
    """What a reader at each depth (`layout.Layout.depth`) reads if every edge is ablated."""
    n_answer: int
    batch: Batch

    @property
    def n_pos(self) -> int:
        return self.delta.shape[2]


@dataclass(frozen=True)
class Change:
    """What a pass starts from: readers that lose writers, differently in each variant.

    ``removed[r]`` [variant, writer] is 1 where reader r's edge is cut in that variant (relative to the kept edges);
    readers in ``dirty`` are only read anew. All readers of ``removed`` are at one depth: none reads another's node.
    """

    n_variants: int = 1
    removed: Mapping[int, Float[Tensor, "variant writer"]] = field(default_factory=dict)
    dirty: tuple[int, ...] = ()
    probed: tuple[int, ...] = ()
    """Readers whose input gets a leaf tensor of zeros added, for gradients."""

    @property
    def readers(self) -> tuple[int, ...]:
        return (*self.removed, *self.dirty, *self.probed)


@dataclass
class Outcome:
    """A pass's results, with all that is needed to make one of its variants the current circuit.

    Its tensors may lie in the scratch memory of the pass: they hold until the next one.
    """

    slots: list[tuple[int, Tensor, Float[Tensor, "slot_head variant batch pos d_head"]]] = field(default_factory=list)
    writes: list[tuple[Tensor, Float[Tensor, "writer variant batch pos d_model"]]] = field(default_factory=list)
    probes: dict[int, Float[Tensor, "batch pos d_model"]] = field(default_factory=dict)

    def adopt(self, variant: int, values: Values) -> None:
        """Overwrite ``values`` with this variant's."""
        for layer, rows, slots in self.slots:
            values.slots[layer].narrow(2, values.n_pos - slots.shape[3], slots.shape[3])[rows] = slots[:, variant]
        for writers, writes in self.writes:
            values.delta.narrow(2, values.n_pos - writes.shape[3], writes.shape[3])[writers] = writes[:, variant]


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


class _Side:
    """One kind of position, all or the answer's: sums over the unchanged writers, and over those of this pass."""

    def __init__(
        self,
        values: Values,
        layout: Layout,
        weights: Float[Tensor, "writer reader"],
        readers: np.ndarray,
        fresh: np.ndarray,
        every: Tensor,
        first_pos: int,
    ) -> None:
        self.n_pos = values.n_pos - first_pos
        device = values.delta.device
        self.n_fresh = 0
        self.blocks: list[Tensor] = []
        self.buffer: Tensor | None = None
        self.shape = (len(readers), values.delta.shape[1], self.n_pos, values.delta.shape[3])
        self.writers = torch.from_numpy(fresh).to(device)
        if not len(readers):
            return
        self.delta = values.delta[:, :, first_pos:].flatten(1)
        index = torch.from_numpy(readers).to(device)
        self._weights = weights.index_select(1, index)
        self._fresh_weights = self._weights.index_select(0, self.writers).T
        if len(every):
            self._weights.index_fill_(0, every, 0.0)
        constant = values.constant
        if constant.shape[2] > 1:
            constant = constant[:, :, first_pos:]
        constant = constant.index_select(0, torch.from_numpy(layout.depth[readers]).to(device))
        self.static = (self._weights.T @ self.delta).view(self.shape).add_(constant)

    def sum(
        self, reads: Reads, n_variants: int, scratch: Scratch | None
    ) -> Float[Tensor, "reader #variant batch pos d_model"]:
        static = self.static[reads.rows].unsqueeze(1)
        if not reads.n_fresh:
            return static
        weights = self._fresh_weights[reads.rows, : reads.n_fresh]
        shape = (len(reads.readers), n_variants, *self.shape[1:])
        if scratch is None or self.buffer is None:
            return (weights @ torch.cat(self.blocks).flatten(1)).view(shape) + static
        total = scratch.take("inputs", shape, static)
        torch.mm(weights, self.buffer[: reads.n_fresh].flatten(1), out=total.view(len(total), -1))
        return total.add_(static)


class Pass:
    """One forward pass over a plan; ``final`` is what ``logits`` reads at the answer's positions."""

    final: Float[Tensor, "variant batch answer d_model"]

    def __init__(
        self,
        folded: Folded,
        bypasses: Mapping[int, tuple[Bypass, ...]],
        layout: Layout,
        values: Values,
        weights: Float[Tensor, "writer reader"],
        todo: Plan,
        change: Change,
        scratch: Scratch | None,
    ) -> None:
        """``weights`` is the circuit's mask as numbers, on the device. Without ``scratch`` the pass is differentiable."""
        self._folded, self._bypasses, self._layout, self._values = folded, bypasses, layout, values
        self._change, self._scratch = change, scratch
        self.outcome = Outcome()
        first_tail = values.n_pos - values.n_answer
        every = torch.from_numpy(todo.tail_writers).to(values.delta.device)
        self._full = _Side(values, layout, weights, todo.full_readers, todo.full_writers, every, 0)
        self._tail = _Side(values, layout, weights, todo.tail_readers, todo.tail_writers, every, first_tail)
        if scratch is not None:
            for name, side in (("full", self._full), ("tail", self._tail)):
                shape = (len(side.writers), change.n_variants, *side.shape[1:])
                side.buffer = scratch.take(name, shape, values.delta)
        for layer in todo.layers:
            self._layer(layer)
        n_batch, n_pos, d_model = self._tail.shape[1:]
        self.final = self._read(self._tail, todo.logits)[0].expand(change.n_variants, n_batch, n_pos, d_model)

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _read(self, side: _Side, reads: Reads) -> Float[Tensor, "reader #variant batch pos d_model"]:
        total = side.sum(reads, self._change.n_variants, self._scratch)
        rows = [row for row, reader in enumerate(reads.readers.tolist()) if reader in self._change.removed]
        if rows:
            total = self._without(side, reads, rows, total)
        return self._with_probes(reads, total) if self._change.probed else total

    def _without(self, side: _Side, reads: Reads, rows: list[int], total: Tensor) -> Tensor:
        n_variants = self._change.n_variants
        upstream = self._layout.graph.upstream[reads.readers[0]]
        removed = torch.stack([self._change.removed[int(reads.readers[row])] for row in rows])[..., :upstream]
        shape = (len(rows), n_variants, *side.shape[1:])
        lost = (removed.flatten(0, 1) @ side.delta[:upstream]).view(shape)
        if len(rows) == len(reads.readers):
            return total - lost
        total = total.expand(-1, n_variants, -1, -1, -1).clone()
        total[rows] -= lost
        return total

    def _with_probes(self, reads: Reads, total: Tensor) -> Tensor:
        parts = list(total.unbind(0))
        for row, reader in enumerate(reads.readers.tolist()):
            if reader in self._change.probed:
                probe = torch.zeros_like(parts[row][0], requires_grad=True)
                self.outcome.probes[reader] = probe
                parts[row] = parts[row] + probe
        return torch.stack(parts)

    # ---- nodes -----------------------------------------------------------------------------------------------------

    def _layer(self, todo: LayerPlan) -> None:
        computed = [(part, self._project(todo.layer, side, part)) for side, part in self._projections(todo)]
        for group in todo.heads:
            side = self._tail if group.tail else self._full
            q, k, v = (self._slot(todo.layer, slot, group.heads, side, computed) for slot in (Q, K, V))
            attention = self._folded.layers[todo.layer].attention
            visible = attention.visible(side.n_pos, self._values.n_pos, q.device)
            mixed = attend(q, k, v, visible, attention.scale)
            every = len(group.heads) == self._layout.n_heads
            index = torch.from_numpy(group.heads).to(mixed.device)
            W_O = self._folded.layers[todo.layer].W_O
            self._write(mixed.flatten(1, 3), W_O if every else W_O[index], group.writers, group.tail)
        if todo.mlp is not None:
            side = self._tail if todo.mlp_tail else self._full
            x = self._read(side, todo.mlp)[0]
            weights = self._folded.layers[todo.layer]
            flat = x.reshape(-1, x.shape[-1])
            hidden = weights.hidden(flat, self._folded.rstd(flat, weights.eps[1]))
            writer = np.array([self._layout.mlp_writers[todo.layer]])
            self._write(hidden[None], weights.W_out[None], writer, todo.mlp_tail, weights.b_out)
        if todo.bypass is not None:
            self._bypass(todo.layer, self._read(self._full, todo.bypass)[0])

    def _bypass(self, layer: int, x: Float[Tensor, "#variant batch pos d_model"]) -> None:
        """What the modules beside that layer's MLP write, all variants as one batch."""
        writer, batch = self._layout.bypass_writers[layer], self._values.batch.repeat(len(x))
        assert writer is not None
        outputs = [bypass(x.flatten(0, 1), batch) for bypass in self._bypasses[layer]]
        written = sum(outputs[1:], start=outputs[0]).reshape(1, -1, x.shape[-1]).to(x.dtype)
        self._write(written, None, np.array([writer]), is_tail=False)

    def _projections(self, todo: LayerPlan) -> list[tuple[_Side, Projection]]:
        sides = ((self._full, todo.full), (self._tail, todo.tail))
        return [(side, part) for side, part in sides if part is not None]

    def _project(
        self, layer: int, side: _Side, todo: Projection
    ) -> Float[Tensor, "slot_head #variant batch pos d_head"]:
        """Queries, keys and values of these rows of ``W_slots``, as attention uses them."""
        weights, n_heads = self._folded.layers[layer], self._layout.n_heads
        x = self._read(side, todo.reads)
        flat = x.flatten(1, 3)
        rstd = self._folded.rstd(flat, weights.eps[0])
        index = torch.from_numpy(todo.rows).to(x.device)
        if len(todo.reads.readers) < len(todo.rows):
            order = torch.from_numpy(todo.row_of).to(x.device)
            flat, rstd = flat[order], None if rstd is None else rstd[order]
        every = len(todo.rows) == len(weights.W_slots)
        bias = weights.b_slots if every else weights.b_slots[index]
        out = each_times(flat, weights.W_slots if every else weights.W_slots[index])
        out = out + bias if rstd is None else torch.addcmul(bias, out, rstd)
        out = out.view(len(todo.rows), *x.shape[1:-1], -1)
        attention = weights.attention
        if attention.acts_on_queries:
            bounds = np.searchsorted(todo.rows, [n_heads, 2 * n_heads])
            q, k, v = out[: bounds[0]], out[bounds[0] : bounds[1]], out[bounds[1] :]
            out = torch.cat((attention.query(q, self._values.n_pos - side.n_pos), attention.key(k), v))
        self.outcome.slots.append((layer, index, out))
        return out

    def _slot(
        self,
        layer: int,
        which: int,
        heads: np.ndarray,
        side: _Side,
        computed: Sequence[tuple[Projection, Tensor]],
    ) -> Float[Tensor, "head #variant batch pos d_head"]:
        """These heads' q, k or v: as computed in this pass, else as in the current circuit."""
        wanted = heads + which * self._layout.n_heads
        n_pos = side.n_pos if which == Q else self._values.n_pos
        total: Tensor | None = None
        for part, out in computed:
            place = np.searchsorted(part.rows, wanted)
            found = (place < len(part.rows)) & (part.rows[np.minimum(place, len(part.rows) - 1)] == wanted)
            if not found.any():
                continue
            out = out[..., out.shape[3] - n_pos :, :]
            if found.all():
                start = int(place[0])
                run = place[-1] - start + 1 == len(place)
                return out[start : start + len(place)] if run else out[torch.from_numpy(place).to(out.device)]
            if total is None:
                total = self._current(layer, wanted, n_pos).expand(-1, out.shape[1], -1, -1, -1).clone()
            to = torch.from_numpy(np.flatnonzero(found)).to(out.device)
            total[to] = out[torch.from_numpy(place[found]).to(out.device)]
        return self._current(layer, wanted, n_pos) if total is None else total

    def _current(self, layer: int, rows: np.ndarray, n_pos: int) -> Float[Tensor, "head 1 batch pos d_head"]:
        slots = self._values.slots[layer]
        return slots[torch.from_numpy(rows).to(slots.device), :, self._values.n_pos - n_pos :][:, None]

    def _write(
        self,
        inner: Float[Tensor, "writer rows d_inner"],
        weight: Float[Tensor, "writer d_inner d_model"] | None,
        writers: np.ndarray,
        is_tail: bool,
        bias: Tensor | None = None,
    ) -> None:
        """Compute these nodes' deltas, ``inner @ weight + bias - ablated``, and show them to the readers after them.

        Without a weight ``inner`` is what they write.
        """
        values, side = self._values, self._tail if is_tail else self._full
        start, end = side.n_fresh, side.n_fresh + len(writers)
        shape = (len(writers), self._change.n_variants, *side.shape[1:])
        index = torch.from_numpy(writers).to(inner.device)
        offset = None
        if values.ablated is not None:
            offset = values.ablated[index][:, None]
            if is_tail and offset.shape[3] > 1:
                offset = offset[:, :, :, -values.n_answer :]
        if inner.shape[1] < shape[1] * shape[2] * shape[3]:
            # Every slot is as in the current circuit, for all variants alike.
            inner = inner.view(len(writers), 1, -1, inner.shape[-1]).expand(-1, shape[1], -1, -1).flatten(1, 2)
        if side.buffer is None:
            writes = (inner if weight is None else each_times(inner, weight)).view(shape)
            writes = writes if bias is None else writes + bias
            writes = writes if offset is None else writes - offset
            side.blocks.append(writes)
        else:
            writes = side.buffer[start:end]
            if weight is None:
                writes.copy_(inner.view(shape))
            else:
                each_times(inner, weight, out=writes.view(len(writers), -1, shape[-1]))
            if bias is not None:
                writes += bias
            if offset is not None:
                writes -= offset
        side.n_fresh = end
        self.outcome.writes.append((index, writes))
        if not is_tail:
            last = writes[:, :, :, -values.n_answer :]
            if self._tail.buffer is None:
                self._tail.blocks.append(last)
            else:
                self._tail.buffer[self._tail.n_fresh : self._tail.n_fresh + len(writers)] = last
            self._tail.n_fresh += len(writers)

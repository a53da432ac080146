"""One pass over the nodes that a change can reach: many variants of a circuit at once.

Notation: a writer's *delta* is what it writes minus what its ablated edges carry, so that reader r reads

    x[r] = constant[r] + sum over kept edges (w, r) of delta[w]

where the constant is the sum of what all legal ablated edges would carry, and of the attention biases. A pass starts
from the values of the current circuit (`values.Values`), changes some readers, and computes anew only what these changes
reach through kept edges and what the answer needs (`plan`). Sums are always taken over the writers themselves, never updated
in place, so that no rounding error accumulates from pass to pass.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engines.folding import Folded
from circuits.engines.layout import K, Layout, Q, V
from circuits.engines.plan import Heads, LayerPlan, Plan, Projection, Reads
from circuits.engines.sides import PassSide, Scratch, ScratchSide
from circuits.engines.sums import sums
from circuits.engines.values import Change, PassOutcome, Values
from circuits.model.bypassed import Bypass
from circuits.model.products import each_times, times
from circuits.model.transformer import attend


class Pass:
    """One forward pass over a plan; ``final`` is what `read_out` makes logits of, at the answer's positions."""

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
        scratch: Scratch,
    ) -> None:
        """``weights`` is the circuit's mask as numbers, on the device."""
        self._folded, self._bypasses, self._layout, self._values = folded, bypasses, layout, values
        self._change, self._scratch = change, scratch
        self.outcome = PassOutcome()
        self._full = self._side(weights, todo, tail=False)
        self._tail = self._side(weights, todo, tail=True)
        for layer in todo.layers:
            self._layer(layer)
        n_batch, n_pos, d_model = self._tail.shape[1:]
        self.final = self._read(self._tail, todo.logits)[0].expand(change.n_variants, n_batch, n_pos, d_model)

    def logits(self) -> Float[Tensor, "variant batch answer d_vocab"]:
        rows = self.final.reshape(-1, self.final.shape[-1])
        product = self._folded.product_out(rows)
        return self._folded.readout(rows, product).view(*self.final.shape[:-1], -1)

    def _side(self, weights: Float[Tensor, "writer reader"], todo: Plan, *, tail: bool) -> PassSide:
        n_variants = self._change.n_variants
        return ScratchSide(self._scratch, n_variants, self._values, self._layout, weights, todo, tail=tail)

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _read(self, side: PassSide, reads: Reads) -> Float[Tensor, "reader #variant batch pos d_model"]:
        total = side.sum(reads, self._change.n_variants)
        rows = [row for row, reader in enumerate(reads.readers.tolist()) if reader in self._change.removed]
        return self._without(side, reads, rows, total) if rows else total

    def _without(self, side: PassSide, reads: Reads, rows: list[int], total: Tensor) -> Tensor:
        lost = self._lost(side, reads, rows)
        if len(rows) == len(reads.readers):
            return total - lost
        total = total.expand(-1, self._change.n_variants, -1, -1, -1).clone()
        total[rows] -= lost
        return total

    def _lost(self, side: PassSide, reads: Reads, rows: list[int]) -> Float[Tensor, "row variant batch pos d_model"]:
        """What these readers no longer get."""
        upstream = self._layout.graph.upstream[reads.readers[0]]
        removed = torch.stack([self._change.removed[int(reads.readers[row])] for row in rows])[..., :upstream]
        lost = sums(removed.flatten(0, 1), side.delta[:upstream])
        return lost.view(len(rows), self._change.n_variants, *side.shape[1:])

    # ---- nodes -----------------------------------------------------------------------------------------------------

    def _layer(self, todo: LayerPlan) -> None:
        computed = [(part, self._project(todo.layer, side, part)) for side, part in self._projections(todo)]
        for group in todo.heads:
            side = self._tail if group.tail else self._full
            q, k, v = (self._slot(todo.layer, slot, group.heads, side, computed) for slot in (Q, K, V))
            attention = self._folded.layers[todo.layer].attention
            visible = attention.visible(side.n_pos, self._values.n_pos, q.device)
            self._heads(todo.layer, group, attend(q, k, v, visible, attention.scale))
        if todo.mlp is not None:
            self._mlp(todo.layer, self._tail if todo.mlp_tail else self._full, todo.mlp, todo.mlp_tail)
        if todo.bypass is not None:
            self._bypass(todo.layer, self._read(self._full, todo.bypass)[0])

    def _heads(self, layer: int, group: Heads, mixed: Float[Tensor, "head #variant batch pos d_head"]) -> None:
        """What these heads write of what their attention mixes."""
        W_O = self._folded.layers[layer].W_O
        if len(group.heads) < len(W_O):
            W_O = [W_O[head] for head in group.heads.tolist()]
        self._write(mixed.flatten(1, 3), W_O, group.writers, group.tail)

    def _mlp(self, layer: int, side: PassSide, reads: Reads, is_tail: bool) -> None:
        x, weights = self._read(side, reads)[0], self._folded.layers[layer]
        flat = x.reshape(-1, x.shape[-1])
        into = times(flat, weights.W_in)
        hidden = weights.hidden(into, self._folded.rstd(flat, weights.eps[1]))
        writer = np.array([self._layout.mlp_writers[layer]])
        self._write(hidden[None], weights.W_out[None], writer, is_tail, weights.b_out)

    def _bypass(self, layer: int, x: Float[Tensor, "#variant batch pos d_model"]) -> None:
        """What the modules beside that layer's MLP write, all variants as one batch."""
        writer, batch = self._layout.bypass_writers[layer], self._values.batch.repeat(len(x))
        assert writer is not None
        outputs = [bypass(x.flatten(0, 1), batch) for bypass in self._bypasses[layer]]
        written = sum(outputs[1:], start=outputs[0]).reshape(1, -1, x.shape[-1]).to(x.dtype)
        self._write(written, None, np.array([writer]), is_tail=False)

    def _projections(self, todo: LayerPlan) -> list[tuple[PassSide, Projection]]:
        sides = ((self._full, todo.full), (self._tail, todo.tail))
        return [(side, part) for side, part in sides if part is not None]

    def _project(
        self, layer: int, side: PassSide, todo: Projection
    ) -> Float[Tensor, "slot_head #variant batch pos d_head"]:
        """Queries, keys and values of these rows of ``W_slots``, as attention uses them."""
        weights = self._folded.layers[layer]
        x = self._read(side, todo.reads)
        flat = x.flatten(1, 3)
        rstd = self._folded.rstd(flat, weights.eps[0])
        index = torch.from_numpy(todo.rows).to(x.device)
        inputs, W, bias = flat, weights.W_slots, weights.b_slots
        if len(todo.reads.readers) < len(todo.rows):
            order = todo.row_of.tolist()
            inputs, rstd = [flat[row] for row in order], None if rstd is None else rstd[order]
        if len(todo.rows) < len(W):
            W, bias = [W[row] for row in todo.rows.tolist()], bias[index]
        out = each_times(inputs, W)
        out = out + bias if rstd is None else torch.addcmul(bias, out, rstd)
        return self._compared(layer, side, todo, out.view(len(todo.rows), *x.shape[1:-1], -1))

    def _compared(self, layer: int, side: PassSide, todo: Projection, out: Tensor) -> Tensor:
        """Projections as attention uses them: queries and keys normed and rotated."""
        attention, n_heads = self._folded.layers[layer].attention, self._layout.n_heads
        if attention.acts_on_queries:
            bounds = np.searchsorted(todo.rows, [n_heads, 2 * n_heads])
            q, k, v = out[: bounds[0]], out[bounds[0] : bounds[1]], out[bounds[1] :]
            out = torch.cat((attention.query(q, self._values.n_pos - side.n_pos), attention.key(k), v))
        self.outcome.slots.append((layer, torch.from_numpy(todo.rows).to(out.device), out))
        return out

    def _slot(
        self,
        layer: int,
        which: int,
        heads: np.ndarray,
        side: PassSide,
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
        weight: Float[Tensor, "writer d_inner d_model"] | Sequence[Float[Tensor, "d_inner d_model"]] | None,
        writers: np.ndarray,
        is_tail: bool,
        bias: Tensor | None = None,
    ) -> None:
        """Compute these nodes' deltas, ``inner @ weight + bias - ablated``, and show them to the readers after them.

        Without a weight ``inner`` is what they write.
        """
        side = self._tail if is_tail else self._full
        shape = (len(writers), self._change.n_variants, *side.shape[1:])
        if inner.shape[1] < shape[1] * shape[2] * shape[3]:
            # Every slot is as in the current circuit, for all variants alike.
            inner = inner.view(len(writers), 1, -1, inner.shape[-1]).expand(-1, shape[1], -1, -1).flatten(1, 2)
        index = torch.from_numpy(writers).to(inner.device)
        writes = side.write(inner, weight, shape)
        if bias is not None:
            writes += bias
        if self._values.ablated is not None:
            writes -= self._of(self._values.ablated, index, is_tail)
        self.outcome.writes.append((index, writes))
        if not is_tail:
            self._tail.show(writes[:, :, :, -self._values.n_answer :])

    def _of(self, values: Float[Tensor, "writer #batch #pos d_model"], index: Tensor, is_tail: bool) -> Tensor:
        """These writers' rows, as all variants have them, at the positions of one side."""
        own = values[index][:, None]
        return own[:, :, :, -self._values.n_answer :] if is_tail and own.shape[3] > 1 else own

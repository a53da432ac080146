"""One pass over the nodes that a change can reach: many variants of a circuit at once.

Notation: a writer's *delta* is what it writes minus what its ablated edges carry, so that reader r reads

    x[r] = constant[r] + sum over kept edges (w, r) of delta[w]

where the constant is the sum of what all legal ablated edges would carry, and of the attention biases. A pass starts
from the values of the current circuit (`values.Values`), changes some readers, and computes anew only what these changes
reach through kept edges and what the answer needs (`plan`, and as rows on the device `lowered`). Sums are always taken
over the writers themselves, never updated in place, so that no rounding error accumulates from pass to pass.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engines.folding import Folded
from circuits.engines.layout import Layout
from circuits.engines.lowered import HeadGroup, LayerRows, Lowered, ModuleRows, Rows, SideRows, SlotRows, Source
from circuits.engines.plan import Reads
from circuits.engines.sides import PassSide, Scratch, ScratchSide
from circuits.engines.sums import sums
from circuits.engines.values import Change, PassOutcome, Values
from circuits.model.attention import attend
from circuits.model.bypassed import Bypass
from circuits.model.products import each_times, times


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
        todo: Lowered,
        change: Change,
        scratch: Scratch,
    ) -> None:
        """``weights`` is the circuit's mask as numbers, on the device."""
        self._folded, self._bypasses, self._layout, self._values = folded, bypasses, layout, values
        self._change, self._scratch = change, scratch
        self.outcome = PassOutcome()
        self._full = self._side(weights, todo.full)
        self._tail = self._side(weights, todo.tail)
        for layer in todo.layers:
            self._layer(layer)
        n_batch, n_pos, d_model = self._tail.shape[1:]
        self.final = self._read(self._tail, todo.logits)[0].expand(change.n_variants, n_batch, n_pos, d_model)

    def logits(self) -> Float[Tensor, "variant batch answer d_vocab"]:
        rows = self.final.reshape(-1, self.final.shape[-1])
        product = self._folded.product_out(rows)
        return self._folded.readout(rows, product).view(*self.final.shape[:-1], -1)

    def _side(self, weights: Float[Tensor, "writer reader"], rows: SideRows) -> PassSide:
        return ScratchSide(self._scratch, self._change.n_variants, self._values, weights, rows)

    def _at(self, tail: bool) -> PassSide:
        return self._tail if tail else self._full

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _read(self, side: PassSide, reads: Reads) -> Float[Tensor, "reader #variant batch pos d_model"]:
        total = side.sum(reads, self._change.n_variants)
        rows = [row for row, reader in enumerate(reads.readers) if reader in self._change.removed]
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
        removed = torch.stack([self._change.removed[reads.readers[row]] for row in rows])[..., :upstream]
        lost = sums(removed.flatten(0, 1), side.delta[:upstream])
        return lost.view(len(rows), self._change.n_variants, *side.shape[1:])

    # ---- nodes -----------------------------------------------------------------------------------------------------

    def _layer(self, todo: LayerRows) -> None:
        computed = [self._project(todo.layer, part) for part in todo.projections]
        attention = self._folded.layers[todo.layer].attention
        for group in todo.heads:
            n_pos = self._at(group.tail).n_pos
            of_q, of_k, of_v = group.qkv
            q = self._slot(todo.layer, of_q, n_pos, computed)
            k, v = (self._slot(todo.layer, source, self._values.n_pos, computed) for source in (of_k, of_v))
            visible = attention.visible(n_pos, self._values.n_pos, q.device)
            self._heads(todo.layer, group, attend(q, k, v, visible, attention.scale))
        if todo.mlp is not None:
            self._mlp(todo.layer, todo.mlp)
        if todo.bypass is not None:
            self._bypass(todo.layer, todo.bypass)

    def _heads(self, layer: int, group: HeadGroup, mixed: Float[Tensor, "head #variant batch pos d_head"]) -> None:
        """What these heads write of what their attention mixes."""
        W_O = group.heads.each(self._folded.layers[layer].W_O)
        self._write(mixed.flatten(1, 3), W_O, group.writers, group.tail)

    def _mlp(self, layer: int, todo: ModuleRows) -> None:
        x, weights = self._read(self._at(todo.tail), todo.reads)[0], self._folded.layers[layer]
        flat = x.reshape(-1, x.shape[-1])
        into = times(flat, weights.W_in)
        hidden = weights.hidden(into, self._folded.rstd(flat, weights.eps[1]))
        self._write(hidden[None], weights.W_out[None], todo.writers, todo.tail, weights.b_out)

    def _bypass(self, layer: int, todo: ModuleRows) -> None:
        """What the modules beside that layer's MLP write, all variants as one batch."""
        x = self._read(self._at(todo.tail), todo.reads)[0]
        batch = self._values.batch.repeat(len(x))
        outputs = [bypass(x.flatten(0, 1), batch) for bypass in self._bypasses[layer]]
        written = sum(outputs[1:], start=outputs[0]).reshape(1, -1, x.shape[-1]).to(x.dtype)
        self._write(written, None, todo.writers, todo.tail)

    def _project(self, layer: int, todo: SlotRows) -> Float[Tensor, "slot_head #variant batch pos d_head"]:
        """Queries, keys and values as attention uses them: queries and keys normed and rotated."""
        side, weights = self._at(todo.tail), self._folded.layers[layer]
        x = self._read(side, todo.reads)
        flat = x.flatten(1, 3)
        rstd, bias = self._folded.rstd(flat, weights.eps[0]), todo.slots.of(weights.b_slots)
        out = each_times(todo.inputs.each(flat), todo.slots.each(weights.W_slots))
        out = out + bias if rstd is None else torch.addcmul(bias, out, todo.inputs.of(rstd))
        out = out.view(len(out), *x.shape[1:-1], -1)
        if weights.attention.acts_on_queries:
            q, k, v = out[: todo.keys.start], out[todo.keys], out[todo.keys.stop :]
            q = weights.attention.query(q, self._values.n_pos - side.n_pos)
            out = torch.cat((q, weights.attention.key(k), v))
        self.outcome.slots.append((layer, todo.slots.rows, out))
        return out

    def _slot(
        self, layer: int, source: Source, n_pos: int, computed: Sequence[Tensor]
    ) -> Float[Tensor, "head #variant batch pos d_head"]:
        """Heads' q, k or v at the last positions: as computed in this pass, else as in the current circuit."""
        total: Tensor | None = None
        for taken in source.taken:
            out = computed[taken.part]
            out = out[..., out.shape[3] - n_pos :, :]
            if taken.to is None:
                return out[taken.rows]
            if total is None:
                total = self._current(layer, source.current, n_pos).expand(-1, out.shape[1], -1, -1, -1).clone()
            total[taken.to] = out[taken.rows]
        return self._current(layer, source.current, n_pos) if total is None else total

    def _current(self, layer: int, rows: Rows, n_pos: int) -> Float[Tensor, "head 1 batch pos d_head"]:
        return self._values.slots[layer][rows, :, self._values.n_pos - n_pos :][:, None]

    def _write(
        self,
        inner: Float[Tensor, "writer rows d_inner"],
        weight: Float[Tensor, "writer d_inner d_model"] | Sequence[Float[Tensor, "d_inner d_model"]] | None,
        writers: Rows,
        is_tail: bool,
        bias: Tensor | None = None,
    ) -> None:
        """Compute these nodes' deltas, ``inner @ weight + bias - ablated``, and show them to the readers after them.

        Without a weight ``inner`` is what they write.
        """
        side = self._at(is_tail)
        shape = (len(writers), self._change.n_variants, *side.shape[1:])
        if inner.shape[1] < shape[1] * shape[2] * shape[3]:
            # Every slot is as in the current circuit, for all variants alike.
            inner = inner.view(len(writers), 1, -1, inner.shape[-1]).expand(-1, shape[1], -1, -1).flatten(1, 2)
        writes = side.write(inner, weight, shape)
        if bias is not None:
            writes += bias
        if self._values.ablated is not None:
            writes -= self._of(self._values.ablated, writers, is_tail)
        self.outcome.writes.append((writers, writes))
        if not is_tail:
            self._tail.show(writes[:, :, :, -self._values.n_answer :])

    def _of(self, values: Float[Tensor, "writer #batch #pos d_model"], writers: Rows, is_tail: bool) -> Tensor:
        """These writers' rows, as all variants have them, at the positions of one side."""
        own = values[writers][:, None]
        return own[:, :, :, -self._values.n_answer :] if is_tail and own.shape[3] > 1 else own

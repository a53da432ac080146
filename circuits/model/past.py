"""What a forward pass keeps of the tokens that it has read, so that those after them can be read without reading these again.

Law: reading a row in parts gives the logits of reading it whole, up to rounding, for every attention that looks only back.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

GROWTH = 64
"""Positions for which room is made at a time."""


class Past:
    """Each layer's keys, as queries are compared with them, and values, at the positions read so far: rows of one length."""

    def __init__(self) -> None:
        self.length = 0
        """Positions read by every layer."""
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(
        self, layer: int, key: Float[Tensor, "batch head pos d_head"], value: Float[Tensor, "batch head pos d_value"]
    ) -> tuple[Float[Tensor, "batch head all d_head"], Float[Tensor, "batch head all d_value"]]:
        """A layer's keys and values at all positions, these being the last; what is given back is good until the next call."""
        end = self.length + key.shape[2]
        kept = self._kept.get(layer)
        if kept is None or kept[0].shape[2] < end:
            # More are to come where they come one by one; a prompt takes what it needs.
            room = -(-end // GROWTH) * GROWTH if key.shape[2] == 1 else end
            old_key, old_value = (None, None) if kept is None else kept
            kept = (self._roomy(key, old_key, room), self._roomy(value, old_value, room))
        for new, all_ in zip((key, value), kept, strict=True):
            all_[:, :, self.length : end] = new
        self._kept[layer] = kept
        return kept[0][:, :, :end], kept[1][:, :, :end]

    def advance(self, n_pos: int) -> None:
        """Every layer has read ``n_pos`` positions more."""
        self.length += n_pos

    def rows(self, rows: Sequence[int]) -> "Past":
        """What is kept of some of the rows, in that order; a row may be taken several times."""
        past = Past()
        past.length = self.length
        past._kept = {
            layer: (self._taken(key, rows), self._taken(value, rows)) for layer, (key, value) in self._kept.items()
        }
        return past

    def _taken(self, kept: Tensor, rows: Sequence[int]) -> Tensor:
        """A single row taken several times is seen, not copied; without room for more, so that nothing is written into it."""
        if len(kept) > 1:
            return kept[list(rows)]
        return kept[:, :, : self.length].expand(len(rows), -1, -1, -1)

    def _roomy(self, new: Tensor, old: Tensor | None, room: int) -> Tensor:
        made = new.new_empty(*new.shape[:2], room, new.shape[3])
        if old is not None:
            made[:, :, : self.length] = old[:, :, : self.length]
        return made

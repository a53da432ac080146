"""What may watch a forward pass, or change it."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Slot

WriterKind = Literal["input", "head", "mlp", "bypass"]
ReaderKind = Literal["head", "mlp", "bypass", "logits"]
Projected = tuple[
    Float[Tensor, "batch head pos d_head"],
    Float[Tensor, "batch head pos d_head"],
    Float[Tensor, "batch head pos d_head"],
]
"""A layer's queries, keys and values as projected, before they are normed and rotated."""


class Taps:
    """Told of every write, asked at every read, in the order of the forward pass. This one changes nothing.

    Every network has writes and reads. Only a pass over shown weights (`circuits.model.transformer`) has the rest.
    """

    heads_apart = True
    """Whether each head's slots are read by themselves. If not, a layer's heads read the stream as it is, through one norm,
    and `read` is not asked about them: several times less work."""

    def write(self, kind: WriterKind, layer: int, value: Tensor) -> None:
        """``value``: of ``input`` (layer -1; batch pos d_model), of a layer's heads (batch pos head d_model), of its MLP or of
        a bypass beside it (batch pos d_model)."""

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        """What shall be read in the place of ``value``: for a head slot (batch pos head d_model), for the MLP, a bypass and
        ``logits`` (batch pos d_model)."""
        return value

    def before(self, layer: int, value: Float[Tensor, "batch pos d_model"]) -> None:
        """``value``: the residual stream before a layer's attention."""

    def projected(self, layer: int, value: Projected) -> Projected:
        """What shall stand in the place of a layer's queries, keys and values as projected."""
        return value

    def compared(self, layer: int, key: Tensor, value: Tensor) -> None:
        """A layer's keys as queries are compared with them, and its values; both batch head pos d_head."""

    def pattern(self, layer: int, value: Float[Tensor, "batch head query key"]) -> None:
        """What each head's queries give its keys; rows sum to 1."""


class Recorder(Taps):
    """Keeps every node's write: ``outputs`` [writer, batch, pos, d_model], in the graph's order."""

    def __init__(self) -> None:
        self._writes: list[Tensor] = []

    def write(self, kind: WriterKind, layer: int, value: Tensor) -> None:
        self._writes += [*value.unbind(2)] if kind == "head" else [value]

    @property
    def outputs(self) -> Float[Tensor, "writer batch pos d_model"]:
        return torch.stack(self._writes)

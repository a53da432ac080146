"""What a pass starts from, what it changes, and what it gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from circuits.model import Batch


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
class PassOutcome:
    """A pass's results, with all that is needed to make one of its variants the current circuit.

    Its tensors may lie in the scratch memory of the pass: they hold until the next one.
    """

    slots: list[tuple[int, Tensor, Float[Tensor, "slot_head variant batch pos d_head"]]] = field(default_factory=list)
    writes: list[tuple[Tensor, Float[Tensor, "writer variant batch pos d_model"]]] = field(default_factory=list)

    def adopt(self, variant: int, values: Values) -> None:
        """Overwrite ``values`` with this variant's."""
        for layer, rows, slots in self.slots:
            values.slots[layer].narrow(2, values.n_pos - slots.shape[3], slots.shape[3])[rows] = slots[:, variant]
        for writers, writes in self.writes:
            values.delta.narrow(2, values.n_pos - writes.shape[3], writes.shape[3])[writers] = writes[:, variant]

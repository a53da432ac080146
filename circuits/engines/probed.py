"""A pass that can be differentiated by what readers read: the slope of the metric by every edge into them."""

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engines.kernel import Pass
from circuits.engines.lowered import SideRows
from circuits.engines.plan import Reads
from circuits.engines.sides import PassSide, TracedSide


class ProbedPass(Pass):
    """One variant, the current circuit itself; ``probes`` are zeros added to what the readers of `Change.probed` read."""

    probes: dict[int, Float[Tensor, "batch pos d_model"]]

    def _side(self, weights: Float[Tensor, "writer reader"], rows: SideRows) -> PassSide:
        self.probes = {}
        return TracedSide(self._values, weights, rows)

    def _read(self, side: PassSide, reads: Reads) -> Float[Tensor, "reader #variant batch pos d_model"]:
        parts = list(super()._read(side, reads).unbind(0))
        for row, reader in enumerate(reads.readers):
            if reader in self._change.probed:
                probe = torch.zeros_like(parts[row][0], requires_grad=True)
                self.probes[reader] = probe
                parts[row] = parts[row] + probe
        return torch.stack(parts)

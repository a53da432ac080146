"""What readers get of writers: sums over the few writers that each has.

As a matrix product every writer is read for every reader, and multiplied by a weight that is mostly 0: circuits are sparse.
Added row by row, only kept edges cost anything.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

FEW = 2.5
"""Up to so many rows added for each writer that there is, adding is faster than a product that reads each writer once ..."""
FEW_FOR_READERS = 0.18
"""... and up to so many times the readers, than one that is bound by arithmetic."""

LARGE = 2**22
"""From so many multiplications on it is worth while to look for the weights that are not 0."""


def sums(
    weights: Float[Tensor, "reader writer"],
    values: Float[Tensor, "writer d"],
    out: Float[Tensor, "reader d"] | None = None,
) -> Float[Tensor, "reader d"]:
    """weights @ values, written into ``out`` where that is given."""
    n_readers, n_writers = weights.shape
    if values.device.type == "cpu" and values.dtype == torch.float32 and weights.numel() * values.shape[1] >= LARGE:
        reader, writer = weights.nonzero(as_tuple=True)
        if len(reader) <= n_writers * max(FEW, FEW_FOR_READERS * n_readers):
            starts = torch.searchsorted(reader, torch.arange(n_readers))
            total = F.embedding_bag(writer, values, starts, mode="sum", per_sample_weights=weights[reader, writer])
            return total if out is None else out.copy_(total)
    # Never through oneDNN, which compiles a kernel for each new shape: no two sums have the same.
    return weights @ values if out is None else torch.mm(weights, values, out=out)

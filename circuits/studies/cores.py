"""How many processes a study is worth, and how many threads each."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuits.model import Model

BASE_BYTES = 10**9
"""What a process takes before it has a model."""
SMALL = 20_000_000
"""Parameters of blocks. Below it a matrix product costs less to do than to share out among threads."""


def share_cores(threads: int) -> None:
    """This process, one of several, uses no more than so many. Torch, if it does not work here, need not be loaded for that."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)


def fit_threads(model: "Model") -> None:
    """Where the model is small and runs on the processor, torch gets one thread for it.

    That is faster on an idle machine and many times so on a busy one, where threads wait for each other at every small
    product; and sums come out the same however many cores there are. ``OMP_NUM_THREADS``, if set, decides instead.
    """
    if "OMP_NUM_THREADS" not in os.environ and 12 * model.shape.n_layers * model.network.d_model**2 < SMALL:
        import torch

        torch.set_num_threads(1)


def fitting(jobs: int | None, model: "Model") -> int:
    """At most ``jobs`` processes (one a core, by default): as many as there is memory for, and one for a model that is not
    on the processor."""
    from circuits.engines.memory import available_memory

    device = model.biases.device
    if device.type != "cpu":
        return 1
    return max(1, min(jobs or os.cpu_count() or 1, available_memory(device) // process_bytes(model)))


def process_bytes(model: "Model") -> int:
    """About what a process takes that works on the model."""
    network, n_layers = model.network, model.shape.n_layers
    # A block holds some 12 d_model^2 weights; loading keeps the weights and a copy, and a search has values of its own.
    n_weights = 12 * n_layers * network.d_model**2 + 2 * network.d_vocab * network.d_model
    return BASE_BYTES + 4 * 4 * n_weights

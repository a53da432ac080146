"""How much is held at once: the largest tensor that torch makes, how many large ones, and the most that numpy holds."""

import tracemalloc
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Largest(TorchDispatchMode):
    """While it is on, ``bytes`` grows to the size of the largest tensor that any operation returns. Views count by their own elements."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        sizes = (each.numel() * each.element_size() for each in tree_leaves(made) if isinstance(each, Tensor))
        self.bytes = max(self.bytes, *sizes, 0)
        return made


def held(work: Callable[[], object]) -> tuple[int, int]:
    """(bytes of the largest tensor, most bytes that numpy and Python held beyond what there was) while ``work`` ran."""
    largest = Largest()
    tracemalloc.start()
    try:
        with largest:
            work()
        return largest.bytes, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class Matrices(TorchDispatchMode):
    """While it is on, ``most`` grows to the largest number of float64 tensors of at least ``n_numbers`` numbers that exist at once.

    Tensors that share their numbers count once. What an operation holds inside is not seen.
    """

    def __init__(self, n_numbers: int) -> None:
        super().__init__()
        self.most = 0
        self._n_numbers = n_numbers
        self._made: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor) and each.dtype == torch.float64 and each.numel() >= self._n_numbers:
                self._made.append(weakref.ref(each))
        alive = [tensor for ref in self._made if (tensor := ref()) is not None]
        self._made = [weakref.ref(tensor) for tensor in alive]
        self.most = max(self.most, len({tensor.untyped_storage().data_ptr() for tensor in alive}))
        return made

"""How much is held at once: the largest tensor that torch makes, and the most that numpy holds."""

import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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

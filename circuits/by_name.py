"""Tables of names: what each stands for is in a module of its own, which is imported when it is asked for.

So a command can list the names without loading what they stand for, and a new one is a new file and a line.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


class ByName(Mapping[str, T]):
    """By name, what stands at each ``module:attribute``, in that order."""

    def __init__(self, homes: dict[str, str]) -> None:
        self.homes = homes

    def __getitem__(self, name: str) -> T:
        module, _, attribute = self.homes[name].partition(":")
        found: Any = getattr(import_module(module), attribute)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.homes)

    def __len__(self) -> int:
        return len(self.homes)

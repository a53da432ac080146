"""How much a search may take before it gives what it has.

A search that is stopped at its budget has decided its edges from the logits back, exactly, and keeps the others untested. In
seconds a budget buys more on a faster machine, and the same machine decides more when it is idle: two searches of one budget
need not be one circuit. In circuits run it buys the same everywhere.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600}


class BudgetError(ValueError):
    """No amount of time or of circuits."""


class Enough(Exception):
    """Raised by whoever is told of a search's progress: it ends there, and what it has not decided stays."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one search may take; it is asked between batches, so that the last one may end a little later."""

    amount: float
    unit: Literal["seconds", "circuits"]
    text: str
    """As it was asked for."""

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """``60s``, ``30m``, ``8h``; or ``20000 circuits``.

        Raises:
            BudgetError: nothing of the kind.
        """
        count = re.fullmatch(r"(\d+)\s*circuits?", text.strip())
        if count is not None and int(count[1]):
            return cls(float(count[1]), "circuits", f"{int(count[1])} circuits")
        if not (amount := seconds(text)):
            raise _no_budget(text)
        return cls(amount, "seconds", "".join(text.split()))

    def __str__(self) -> str:
        return self.text


def seconds(text: str) -> float:
    """``90s``, ``30m`` or ``8h``; a plain number is of seconds. ``0s`` is a time too: what is under way then is the last.

    Raises:
        BudgetError: no time.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip())
    unit = None if match is None else UNITS.get(match[2] or "s")
    if match is None or unit is None:
        raise _no_budget(text)
    return float(match[1]) * unit


def _no_budget(text: str) -> BudgetError:
    return BudgetError(f"expected --budget as a time such as 90s, 30m or 8h, got {text!r}")


class Meter:
    """What is left of a budget, which each search has anew."""

    def __init__(
        self, budget: Budget, circuits: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            circuits: how many were run so far.
            clock: in seconds.
        """
        self._amount, self._read = budget.amount, circuits if budget.unit == "circuits" else clock
        self._began: float = self._read()

    def begin(self) -> None:
        """A search begins."""
        self._began = self._read()

    def note(self) -> None:
        """Called between batches.

        Raises:
            Enough: the budget is spent.
        """
        if self._read() - self._began >= self._amount:
            raise Enough

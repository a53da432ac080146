"""How the fields of a row are shown: each says its name, unit and format once, for every table in every medium.

@dataclass(frozen=True)
class Row:
    method: Annotated[str, Column("method")]
    success: Annotated[Number, Column("success", digits=1)]
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

NOTHING = "–"
"""What stands where there is no number."""


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    unit: str = ""
    """Stands after each number, as in ``5.0 %``."""
    digits: int = 2
    """Decimals of a number that is none of a count."""
    scale: int = 1
    """What a number is multiplied by: 100 for a share in percent."""

    def text(self, value: Any) -> str:
        """The value as a cell shows it."""
        match value:
            case None:
                return NOTHING
            case bool():
                return "yes" if value else ""
            case float() if not math.isfinite(value):
                return NOTHING
            case float():
                number = f"{self.scale * value:.{self.digits}f}"
            case tuple() | list():
                return ", ".join(str(part) for part in value)
            case _:
                number = str(value)
        return f"{number} {self.unit}" if self.unit else number


def columns(row: type) -> dict[str, Column]:
    """Each field that is shown, and how, in the order of the row's fields."""
    hints = get_type_hints(row, include_extras=True)
    found = {}
    for name, hint in hints.items():
        for mark in getattr(hint, "__metadata__", ()):
            if isinstance(mark, Column):
                found[name] = mark
    return found


def cells(row: Any, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """The row's cells under those fields' columns; under all of them by default."""
    shown = columns(type(row))
    return tuple(shown[name].text(getattr(row, name)) for name in names or shown)


def number(value: float | None, digits: int = 1) -> str:
    """A number of no row, as a cell shows it."""
    return Column("", digits=digits).text(None if value is None else float(value))

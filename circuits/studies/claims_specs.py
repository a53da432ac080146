"""What the study of published claims is asked: see `circuits.studies.specs`."""

from typing import Annotated

from circuits.studies.edit_specs import TauOfSearches
from circuits.studies.options import Option
from circuits.studies.specs import DEFAULT_TAU, OnModel


class ClaimsSpec(OnModel):
    """Claims of the papers, each put to so many cases."""

    n: Annotated[int, Option("Cases of each claim, at most.", least=1)] = 30
    only: Annotated[
        str | None, Option("Names of claims, or of groups of them, with commas between; all by default.")
    ] = None
    tau: TauOfSearches = DEFAULT_TAU
    seed: Annotated[int, Option("Of splits, matched facts, random heads and circuits, and intervals.", least=0)] = 0

    @property
    def names(self) -> tuple[str, ...]:
        """What ``only`` names; none: all."""
        return tuple(dict.fromkeys(part.strip() for part in (self.only or "").split(",") if part.strip()))


class RoleErrorsSpec(OnModel):
    """Labels of heads where there is nothing to label."""

    n: Annotated[int, Option("Scrambled models.", least=1)] = 100
    seed: Annotated[int, Option("Of scrambles, tests and splits of ranges.", least=0)] = 0

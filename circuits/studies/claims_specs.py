"""What the study of published claims is asked: see `circuits.studies.specs`."""

from typing import Annotated

from circuits.paths import FACTLM
from circuits.studies.edit_specs import TauOfSearches
from circuits.studies.options import Asked, Device, ModelName, Option
from circuits.studies.specs import DEFAULT_TAU


class ClaimsSpec(Asked):
    """Claims of the papers, each put to so many cases."""

    model: ModelName = FACTLM
    n: Annotated[int, Option("Cases of each claim, at most.", least=1)] = 30
    only: Annotated[
        str | None, Option("Names of claims, or of groups of them, with commas between; all by default.")
    ] = None
    tau: TauOfSearches = DEFAULT_TAU
    device: Device = "cpu"
    seed: Annotated[int, Option("Of splits, matched facts, random heads and circuits, and intervals.", least=0)] = 0

    @property
    def names(self) -> tuple[str, ...]:
        """What ``only`` names; none: all."""
        return tuple(dict.fromkeys(part.strip() for part in (self.only or "").split(",") if part.strip()))


class RoleErrorsSpec(Asked):
    """Labels of heads where there is nothing to label."""

    model: ModelName = FACTLM
    n: Annotated[int, Option("Scrambled models.", least=1)] = 100
    device: Device = "cpu"
    seed: Annotated[int, Option("Of scrambles, tests and splits of ranges.", least=0)] = 0

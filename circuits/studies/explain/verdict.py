"""How an explanation ends: in a conclusion with the numbers that it rests on, or in "inconclusive" with the reason."""

from collections.abc import Iterable
from itertools import islice
from typing import Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict

INCONCLUSIVE = "inconclusive"


class Evidence(BaseModel):
    """One measured number, and what it is compared with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: float
    unit: str = ""
    against: float | None = None
    against_name: str = ""

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        compared = "" if self.against is None else f" ({self.against_name} {self.against:.3g}{unit})"
        return f"{self.name}: {self.value:.3g}{unit}{compared}"


class Verdict(BaseModel):
    """``conclusion`` is one of a few names, ``sentence`` says it in words, ``evidence`` backs it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    conclusion: str
    sentence: str
    evidence: tuple[Evidence, ...]

    @property
    def conclusive(self) -> bool:
        return self.conclusion != INCONCLUSIVE

    def __str__(self) -> str:
        return "\n".join([f"{self.conclusion}: {self.sentence}", *(f"  {each}" for each in self.evidence)])


@runtime_checkable
class Judged(Protocol):
    """A case that was explained."""

    @property
    def verdict(self) -> Verdict: ...


Explained = TypeVar("Explained", bound=Judged)


class BehaviourError(ValueError):
    """A question that the model at hand, or the dataset, gives no ground for."""


def first_conclusive(cases: Iterable[Explained], limit: int, none: str) -> Explained:
    """The first of ``limit`` cases whose verdict is one; else the first case.

    Raises:
        BehaviourError: there is no case; ``none`` says of what.
    """
    found = None
    for case in islice(cases, limit):
        if case.verdict.conclusive:
            return case
        found = found or case
    if found is None:
        raise BehaviourError(none)
    return found


class Claim(BaseModel):
    """One of the paper's claims, and whether it holds here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: str
    holds: bool
    numbers: str

    def __str__(self) -> str:
        return f"{'Holds' if self.holds else 'Does not hold'}: {self.claim} ({self.numbers})."

"""How an explanation ends: in a conclusion with the numbers that it rests on, or in "inconclusive" with the reason."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict

from circuits.evaluation.claims import Pair, Ruling, judged

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
    """One of the paper's claims, and what the cases at hand come to by the rule of `circuits.evaluation.claims`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: str
    verdict: Ruling
    numbers: str

    @classmethod
    def of(cls, claim: str, pairs: Sequence[Pair], numbers: str) -> "Claim":
        """Of cases each beside its control; ``numbers`` says in words what was counted."""
        found = judged(pairs)
        shown = f"{found.effect:+.2f} [{found.low:+.2f}, {found.high:+.2f}] beyond its control, n {found.n}"
        return cls(claim=claim, verdict=found.verdict, numbers=f"{numbers}; {shown if found.n else 'no control'}")

    def __str__(self) -> str:
        return f"{self.verdict.capitalize()}: {self.claim} ({self.numbers})."

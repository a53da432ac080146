"""How an explanation ends: in a conclusion with the numbers that it rests on, or in "inconclusive" with the reason."""

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

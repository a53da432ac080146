"""What studies of what circuits are worth are asked: see `circuits.studies.specs`."""

from typing import Annotated, get_args

from pydantic import model_validator

from circuits.choices import AblationKind, Dtype, MetricName, Split
from circuits.studies.options import (
    A_MODEL,
    A_RELATION,
    FLOATS,
    Asked,
    Device,
    Engine,
    FactInWords,
    Object,
    Option,
    Subject,
    WithEdit,
)
from circuits.studies.specs import DEFAULT_TAU, RunSpec, Searched, TauInNats

SIX = "country_language,country_capital_city,book_author,athlete_sport,company_headquarters,person_occupation"


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ValueError(f"expected whole numbers with commas between, such as 0,5,20, got {text!r}") from None


class CriteriaSpec(Searched):
    """Single facts searched by every criterion: a metric, an ablation, and how many siblings it is built beside."""

    relations: Annotated[str, Option("Whose facts, in turn; names with commas between.")] = SIX
    n: Annotated[int, Option("How many facts.", least=1)] = 20
    split: Annotated[Split, Option("Half of the facts: val or test.")] = "test"
    metrics: Annotated[str, Option("What is measured: matchnll, kl, contrast.")] = "matchnll,kl"
    ablations: Annotated[str, Option("What an ablated edge carries: zero, mean, resample.")] = "zero,resample"
    numbers: Annotated[str, Option("Numbers of other known subjects whose own answers must stay.", flag="siblings")] = (
        "0,5,20"
    )
    tau: TauInNats = DEFAULT_TAU
    seed: Annotated[int, Option("Of splits, siblings, other subjects and random circuits.", least=0)] = 0

    @model_validator(mode="after")
    def _sensible(self) -> "CriteriaSpec":
        if not self.names:
            raise ValueError("expected at least one relation, got none")
        if min(self.counts) < 0:
            raise ValueError(f"expected numbers of siblings from 0 on, got {self.numbers}")
        for asked, words in ((self.metrics, get_args(MetricName)), (self.ablations, get_args(AblationKind))):
            if not _words(asked) or not set(_words(asked)) <= set(words):
                raise ValueError(f"expected words of {', '.join(words)}, got {asked!r}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return _words(self.relations)

    @property
    def counts(self) -> tuple[int, ...]:
        return _counts(self.numbers)

    @property
    def criteria(self) -> tuple[tuple[MetricName, AblationKind, int], ...]:
        """Every (metric, ablation, siblings)."""
        found = [
            (metric, ablation, n)
            for ablation in _words(self.ablations)
            for n in self.counts
            for metric in _words(self.metrics)
        ]
        return tuple(found)  # type: ignore[return-value]  # the validator holds them to be words of these


class EvaluateSpec(Asked):
    """A circuit of a file on facts, on those that it was found from by default."""

    fact: FactInWords = None
    subject: Subject = None
    object: Object = None
    relation: Annotated[str | None, Option(f"Facts of this relation: {A_RELATION}.")] = None
    split: Annotated[Split, Option("Half of the relation's facts: val or test.")] = "test"
    n: Annotated[int, Option("How many facts of the relation, known to the model or not.", least=1)] = 20
    model: Annotated[str | None, Option(f"{A_MODEL} [default: the one that the circuit was found in]", short="m")] = (
        None
    )
    device: Device = "cpu"
    dtype: Annotated[Dtype | None, Option(f"{FLOATS} [default: what the circuit was found in]")] = None
    with_edit: WithEdit = None
    ablation: Annotated[
        AblationKind | None, Option("zero, mean or resample. [default: what the circuit was found under]")
    ] = None
    tau: Annotated[float, Option("An edge worth fewer nats in the circuit counts as superfluous.", least=0)] = 0.01
    draws: Annotated[int, Option("Random circuits of each kind, and knockouts of each size.", least=1)] = 10
    engine: Engine = "sparse"
    seed: Annotated[int, Option("Of splits, corrupted prompts, random circuits and knockouts.", least=0)] = 0

    @model_validator(mode="after")
    def _one_or_none(self) -> "EvaluateSpec":
        if self.fact is not None and self.relation is not None:
            raise ValueError("expected at most one of --fact and --relation, got both")
        return self


class CertifySpec(Asked):
    """The full certificate of one circuit of a single fact."""

    run: RunSpec
    """What the circuit was found by; its searches are repeated so."""
    circuit: str
    """The circuit's digest."""
    draws: Annotated[int, Option("Bootstrap draws of facts and wordings, each a search.", flag="n", least=2)] = 100
    random: Annotated[int, Option("Random circuits and cuts of each control.", least=1)] = 40
    others: Annotated[int, Option("Other relations whose circuits are run on this fact.", least=1)] = 10
    seed: Annotated[int, Option("Of draws, random circuits and other relations.", least=0)] = 0

"""An explanation as it is told: one sentence first, the questions that were put, the heads that it hangs on, then the story."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from circuits.studies.diffs import CircuitDiff, Side
from circuits.studies.explain.verdict import Verdict

WRITERS = (("edited", "the edited nodes"), ("movers", "mover heads"), ("heads", "other heads"), ("mlps", "MLPs"))
"""Who writes an answer: the field of `circuits.studies.diffs.WriteShares`, and its name in a sentence."""


@dataclass(frozen=True, slots=True)
class Put:
    """One question that was put, and what was answered."""

    name: str
    prompt: str
    answer: str
    detail: str
    right: bool | None = None
    """Whether the answer is the right one; None where neither word fits."""


@dataclass(frozen=True, slots=True)
class HeadTold:
    head: str
    numbers: tuple[float, ...]
    """One a column of `HeadsTold`."""
    does: str
    marked: bool = False
    """Whether the verdict hangs on this head before the others."""


@dataclass(frozen=True, slots=True)
class HeadsTold:
    heading: str
    caption: str
    columns: tuple[tuple[str, str], ...]
    """What each number is, and its unit: numbers of one unit are drawn to one scale."""
    rows: tuple[HeadTold, ...]
    none: str
    """Said where there are no rows."""
    does: str = "What it does"


@dataclass(frozen=True, slots=True)
class Told:
    question: str
    title: str
    verdict: str
    """One sentence, which needs no other to be understood."""
    put: tuple[Put, ...]
    heads: HeadsTold
    story: tuple[str, ...]


@runtime_checkable
class Tells(Protocol):
    """A case that was explained by two circuits."""

    @property
    def diff(self) -> CircuitDiff: ...
    @property
    def verdict(self) -> Verdict: ...
    @property
    def told(self) -> Told: ...


def model_of(diff: CircuitDiff) -> str:
    return diff.before.circuit.provenance.model


def probability(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p {value:.3f}"


def ending(side: Side, answer: str) -> str:
    """The answer's rank and probability at the model's end: "rank 14, p 0.012"."""
    path = side.path(answer)
    return f"rank {path.ranks[-1]:,}, {probability(path.probabilities[-1])}"


def first(side: Side, answer: str) -> bool:
    """Whether the model puts the answer first."""
    return side.path(answer).ranks[-1] == 1


def course(side: Side, answer: str) -> str:
    """Where the answer comes first on the way through the model, and who writes it."""
    path, shares = side.path(answer), side.shares(answer)
    where = (
        f"is first from {path.decided} on"
        if path.decided
        else f"is never first to stay and ends at {ending(side, answer)}"
    )
    parts = [(name, getattr(shares, field)) for field, name in WRITERS]
    parts = sorted(((name, value) for name, value in parts if value), key=lambda each: -each[1])
    written = ", ".join(f"{name} {value:+.1f}" for name, value in parts)
    return f"{answer!r} {where}; of its logit, {shares.total:.1f}, {written}."


def overlap(diff: CircuitDiff) -> str:
    """How many edges either circuit has, and how many they share, beside what the floors share."""
    before, after = diff.before, diff.after
    floors = ", ".join(f"{floor.name} {floor.edge_jaccard:.0%}" for floor in diff.floors)
    return (
        f"The circuit “{before.label}” has {before.circuit.n_edges:,} edges, “{after.label}” {after.circuit.n_edges:,}; "
        f"{len(diff.kept):,} are in both, {diff.edge_jaccard:.0%} of all" + (f" ({floors})." if floors else ".")
    )

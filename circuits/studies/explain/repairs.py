"""What many questions in two hops come to: where bridge, relation and answer are readable, and which patches repair how many.

By the rule of `circuits.evaluation.claims`: the effect is a share of cases less the share of a control, with an interval, and the
bar, `BAR`, was fixed before anything was measured.

Of the questions that are answered wrongly, one half *chooses* and the other *reports*. The points of a kind of patch are those
that repair most questions of the first half beyond the control; all numbers are of the second.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from circuits.evaluation.claims import Judgement, Pair, judged
from circuits.metrics import Share
from circuits.studies.explain.diagnosis import (
    PATCHES,
    READABLE,
    WHERES,
    Diagnosis,
    Patch,
    TwoHopRow,
    What,
    Where,
)

BAR = 0.1
"""The least difference of two shares that means something, as of a published claim."""
Control = Literal[
    "another question's state", "other layers", "another question's state, any layers", "the other way round"
]
CONTROLS: tuple[Control, ...] = ("another question's state", "other layers", "another question's state, any layers")
"""Of one kind of patch."""
Group = Literal["wrong", "signal too weak", "bridge readable"]
GROUPS: tuple[Group, ...] = ("wrong", "signal too weak", "bridge readable")
DIAGNOSES: tuple[Diagnosis, ...] = ("answered", "signal too weak", "not routed", "not repaired")
NAMES: tuple[tuple[What, What], ...] = (
    ("bridge", "another bridge"),
    ("relation", "another relation"),
    ("answer", "another answer"),
)


@dataclass(frozen=True, slots=True)
class PairCount:
    """Questions of one pair of relations, or of all."""

    first: str
    second: str
    n: int
    diagnoses: tuple[int, ...]
    """How many of each of `DIAGNOSES`."""


@dataclass(frozen=True, slots=True)
class ReadableShare:
    """In how many questions something is readable at a place, against its control."""

    what: What
    where: Where
    answered: bool
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class RepairShare:
    """How many questions a kind of patch repairs, against a control.

    * *Another question's state*: put from and to the chosen points, as the question's own is.
    * *Other layers*: the question's own, from and to other points; the share of all others of the kind that give the answer.
    * *Another question's state, any layers*: whether some points are there from and to which its own state gives the answer, as
      repairs are often counted; and the same of the other's.
    * *The other way round*, of all kinds of patch together: whether its own state gives the answer from and to some points where
      the other's does not, on which a diagnosis hangs; and whether the other's does where its own does not.
    """

    patch: Patch | None
    """None: of any kind."""
    group: Group
    control: Control
    points: tuple[int, int] | None
    """(from, to); None: any."""
    judgement: Judgement


def pair_counts(rows: Sequence[TwoHopRow]) -> tuple[PairCount, ...]:
    """One for each pair of relations in order of occurrence, and if they are several, one for all."""
    pairs = list(dict.fromkeys((row.first, row.second) for row in rows))
    found = [_counted(*pair, [row for row in rows if (row.first, row.second) == pair]) for pair in pairs]
    return (*found, _counted("all", "", rows)) if len(found) > 1 else tuple(found)


def _counted(first: str, second: str, rows: Sequence[TwoHopRow]) -> PairCount:
    counts = Counter(row.diagnosis for row in rows)
    return PairCount(first, second, len(rows), tuple(counts[each] for each in DIAGNOSES))


def readable_shares(rows: Sequence[TwoHopRow], *, seed: int = 0) -> tuple[ReadableShare, ...]:
    """Of the questions that are answered wrongly, then of those answered rightly, by name and place."""
    found = []
    for answered in (False, True):
        own = [row for row in rows if row.answered == answered]
        for what, control in NAMES:
            for where in WHERES if own else ():
                pairs = [_seen(row, what, control, where) for row in own]
                found.append(ReadableShare(what, where, answered, judged(pairs, BAR, seed=seed)))
    return tuple(found)


def _seen(row: TwoHopRow, what: What, control: What, where: Where) -> Pair:
    beside = row.readable(control, where)
    return Pair(float(row.readable(what, where) or False), None if beside is None else float(beside))


def readable_by_point(rows: Sequence[TwoHopRow], what: What, where: Where) -> tuple[float, ...]:
    """At each point the share of the rows where it is readable; of those that have it read."""
    ranks = [each.ranks for row in rows for each in row.lens if (each.what, each.where) == (what, where)]
    return tuple(sum(rank <= READABLE for rank in at) / len(ranks) for at in zip(*ranks, strict=True))


def turned_by_point(rows: Sequence[TwoHopRow], where: Where) -> dict[int, Share]:
    """Point by point, of the questions that are answered as the other question is too, how many give the other's answer with its
    state at that place; empty without such a question."""
    own = [each for row in rows for each in row.turned if each.where == where]
    points = range(rows[0].every, rows[0].n_layers, rows[0].every) if own else ()
    return {point: Share.of([point in each.points for each in own]) for point in points}


def halves(rows: Sequence[TwoHopRow]) -> tuple[tuple[TwoHopRow, ...], tuple[TwoHopRow, ...]]:
    """(those that choose, those that report) of the questions answered wrongly: of each pair of relations every second one, by no
    more than their order."""
    wrong = [row for row in rows if not row.answered]
    pairs = list(dict.fromkeys((row.first, row.second) for row in wrong))
    # Where each pair has few, not all pairs begin with the same half.
    seen = {pair: i for i, pair in enumerate(pairs)}
    chooses: list[TwoHopRow] = []
    reports: list[TwoHopRow] = []
    for row in wrong:
        pair = (row.first, row.second)
        (reports if seen[pair] % 2 else chooses).append(row)
        seen[pair] += 1
    return tuple(chooses), tuple(reports)


def chosen_points(rows: Sequence[TwoHopRow], patch: Patch) -> tuple[int, int] | None:
    """The points that repair most of these questions beyond another question's state; the first, of several. None without a row."""
    found = [each for row in rows for each in row.patches if each.patch == patch]
    if not found:
        return None
    gain: Counter[tuple[int, int]] = Counter()
    for each in found:
        gain.update(each.own)
        gain.subtract(each.other)
    return max(rows[0].places(patch), key=lambda points: gain[points])


def repair_shares(rows: Sequence[TwoHopRow], *, seed: int = 0) -> tuple[RepairShare, ...]:
    """Of the half that reports, every group, kind of patch and control of which there is a case; other layers for all together."""
    chooses, reports = halves(rows)
    found = []
    for group in GROUPS:
        own = [row for row in reports if group == "wrong" or row.signal == (group == "bridge readable")]
        if not own:
            continue
        for patch in PATCHES:
            if (points := chosen_points(chooses, patch)) is None:
                continue
            for control in CONTROLS if group == "wrong" else (CONTROLS[0], CONTROLS[-1]):
                pairs = [pair for row in own if (pair := _against(row, patch, points, control)) is not None]
                at = None if control == CONTROLS[-1] else points
                found.append(RepairShare(patch, group, control, at, judged(pairs, BAR, seed=seed)))
        both = [
            Pair(float(any(e.beyond for e in row.patches)), float(any(e.behind for e in row.patches))) for row in own
        ]
        found.append(RepairShare(None, group, "the other way round", None, judged(both, BAR, seed=seed)))
    return tuple(found)


def _against(row: TwoHopRow, patch: Patch, points: tuple[int, int], control: Control) -> Pair | None:
    """None where the question has no patch of that kind."""
    each = next((each for each in row.patches if each.patch == patch), None)
    if each is None:
        return None
    if control == "another question's state, any layers":
        return Pair(float(bool(each.own)), float(bool(each.other)))
    if control == "another question's state":
        return Pair(float(points in each.own), float(points in each.other))
    others = len(row.places(patch)) - 1
    return Pair(float(points in each.own), len({*each.own} - {points}) / others if others else None)

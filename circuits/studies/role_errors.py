"""How often a label is given that should not be, in trials that can fail: on models that know nothing, and for ranges of other relations.

* **Scrambled models**: the entries of each of the model's weight tensors are dealt anew (`circuits.studies.false_labels`), and the
  heads labelled by the function that labels a run's. Each model is another draw, the relations taken in turn: trials are
  independent, and any number of them can be labelled.
* **Ranges split apart**: of the ranges of other relations some, drawn at random, are the null, and the others are tried against it
  alone. Where each range is tried against all others instead, as many pass as the level allows, whatever the heads do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from circuits.analysis.attribution import read_shares, readout, targets
from circuits.analysis.cuts import cut_readings
from circuits.analysis.ranges import compare, directions_of, disjoint_ranges, unembedding_rows
from circuits.analysis.roles import ALPHA, MIN_EFFECT, MIN_READING, RELATION_ALPHA
from circuits.analysis.tracing import open_parts, traces
from circuits.datasets import relations_for
from circuits.evaluation.baseline import bootstrap
from circuits.evaluation.roles import ROLE_FACTS, known_facts, other_ranges
from circuits.facts import Relation, Relations
from circuits.metrics import Share
from circuits.model import Model, library
from circuits.model.spans import spans
from circuits.records import Number
from circuits.studies.claims_specs import RoleErrorsSpec
from circuits.studies.false_labels import false_labels
from circuits.studies.loading import load_asked
from circuits.studies.study import Case, Study, Watch

Kind = Literal["scrambled", "ranges"]
NULL_RANGES = math.ceil(1 / RELATION_ALPHA)
"""As many as give a p of `RELATION_ALPHA` or less where the tried range is above them all: its chance is 1 in one more."""
Standing = Literal["within", "above", "undecided"]


@dataclass(frozen=True, slots=True)
class Trials:
    """Trials of one kind on one relation: of one scrambled model, or of the ranges that were not the null."""

    kind: Kind
    relation: str
    n: int
    labelled: int
    by_intervals: int
    """The control, of scrambled models: labelled if an interval off 0 were enough."""


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """The share of trials that gave a label, against the level that is claimed."""

    kind: Kind
    n: int
    labelled: int
    low: Number
    high: Number
    level: float
    by_intervals: int

    @property
    def standing(self) -> Standing:
        """Whether the interval is within the level, above it, or on both its sides."""
        if not self.n:
            return "undecided"
        return "within" if self.high <= self.level else "above" if self.low > self.level else "undecided"


@dataclass(frozen=True)
class Labelled:
    """The model whose labels are tried."""

    model: Model
    relations: Relations


def ranges_apart(model: Model, relation: Relation, relations: Relations, *, seed: int = 0) -> Trials | None:
    """The ranges of other relations that pass as the relation's own, against `NULL_RANGES` others drawn at random; None where
    there are not so many, or where too few facts are known.

    Held to the same bars as a label: effect and reading. Intervals and span tests would only lower the share.
    """
    facts = known_facts(model, relation, n=ROLE_FACTS)
    if not facts:
        return None
    parts, found = open_parts(model, facts), [spans(model, fact) for fact in facts]
    wanted, followed = targets(model, facts, relation.objects, found), traces(model, facts, parts)
    ranges = disjoint_ranges(model, wanted, other_ranges(relation, relations))
    if len(ranges) <= NULL_RANGES:
        return None
    order = np.random.default_rng([seed, *relation.name.encode()]).permutation(len(ranges))
    _, read = cut_readings(model, parts, followed, found, readout(parts, wanted))
    unembedding, eligible = (
        unembedding_rows(parts),
        read_shares(parts, followed, found, "relation").mean(1) >= MIN_READING,
    )
    null = directions_of(unembedding, [ranges[i] for i in order[:NULL_RANGES]])
    tried = [directions_of(unembedding, [ranges[i]]) for i in order[NULL_RANGES:]]
    p = [compare(read.stream, own, null, least=MIN_EFFECT, eligible=eligible) for own in tried]
    return Trials("ranges", relation.name, len(p), sum(bool((each <= RELATION_ALPHA).any()) for each in p), 0)


def error_rates(trials: Sequence[Trials], seed: int = 0) -> tuple[ErrorRate, ...]:
    """Of each kind the share with its interval of 95 %: Wilson's of scrambled models, which are independent; of ranges a bootstrap
    over relations, because those of one relation share their null."""
    found = []
    levels: dict[Kind, float] = {"scrambled": ALPHA, "ranges": RELATION_ALPHA}
    for kind, level in levels.items():
        own = [each for each in trials if each.kind == kind and each.n]
        n, labelled = sum(each.n for each in own), sum(each.labelled for each in own)
        share = Share(labelled, n)
        low, high = share.low, share.high if n else math.nan
        if kind == "ranges" and own:
            # Relations have about as many each: the mean of their shares.
            mean = bootstrap([each.labelled / each.n for each in own], seed=seed)
            low, high = mean.low, max(mean.high, share.high if not labelled else 0.0)
        found.append(ErrorRate(kind, n, labelled, low, high, level, sum(each.by_intervals for each in own)))
    return tuple(found)


def _open(spec: RoleErrorsSpec, _: Any) -> Labelled:
    return Labelled(load_asked(spec), relations_for(library.profile_of(spec.model)))


def _cases(spec: RoleErrorsSpec, at: Labelled) -> list[Case[tuple[Kind, int]]]:
    scrambled: Sequence[Case[tuple[Kind, int]]] = [Case(f"scrambled {i:04}", ("scrambled", i)) for i in range(spec.n)]
    ranges: Sequence[Case[tuple[Kind, int]]] = [
        Case(f"ranges {name}", ("ranges", i)) for i, name in enumerate(sorted(at.relations))
    ]
    return [*scrambled, *ranges]


def _run(spec: RoleErrorsSpec, case: Case[tuple[Kind, int]], at: Labelled, watch: Watch) -> Trials:
    kind, i = case.asked
    names = sorted(at.relations)
    relation = at.relations[names[i % len(names)]]
    try:
        if kind == "ranges":
            found = ranges_apart(at.model, relation, at.relations, seed=spec.seed)
            return found or Trials(kind, relation.name, 0, 0, 0)
        one = false_labels(at.model, relation, at.relations, seed=spec.seed, which=i)
    except ValueError as error:
        watch.notice(f"{relation.name} is left out: {error}")
        return Trials(kind, relation.name, 0, 0, 0)
    return Trials(kind, relation.name, one.n_models, one.labelled, one.by_intervals)


ROLE_ERRORS: Study[RoleErrorsSpec, Labelled, tuple[Kind, int], Trials] = Study(
    "role-errors", Trials, _open, _cases, _run, chooses=frozenset({"n"})
)

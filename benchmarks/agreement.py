"""Every decision of both engines, with each ablation and threshold."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from circuits.circuit import Provenance
from circuits.datasets import corrupted as corruption
from circuits.discovery.acdc import AcdcOptions
from circuits.discovery.acdc import search as acdc
from circuits.discovery.state import State, fingerprint
from circuits.engines.ablation import Ablation, AblationKind
from circuits.engines.hook import HookEngine
from circuits.engines.sparse import SparseEngine
from circuits.facts import Fact, Relations
from circuits.graph import Granularity
from circuits.model import Model


@dataclass(frozen=True)
class Agreement:
    """One search by both engines: how many of its decisions differ."""

    fact: str
    ablation: AblationKind
    tau: float
    decisions: int
    """Edges of the graph; each is kept or not."""
    tried: int
    kept: int
    differing: int
    first_differing: float | None
    """How far the first decision that differs was from tau in the reference, in nats: all that follow are of another circuit."""
    near_ties: int
    largest_score_difference: float
    """In nats, over the edges tried before any decision differed."""


def agreement(
    model: Model,
    facts: Sequence[Fact],
    relations: Relations,
    *,
    taus: Sequence[float],
    granularity: Granularity,
    references: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Agreement]:
    """Both engines on each fact, with each ablation and threshold.

    The reference's decisions depend on the model and the search alone, and take nearly all the time: they are kept in the folder
    ``references``, a state file a search (`circuits.discovery.state.State`), where the next call finds them.
    """
    references.mkdir(parents=True, exist_ok=True)
    for kind, fact in itertools.product(get_args(AblationKind), facts):
        ablation = ablation_of(kind, fact, relations, model)
        slow = HookEngine(model, (fact,), ablation=ablation, granularity=granularity)
        fast = SparseEngine(model, (fact,), ablation=ablation, granularity=granularity)
        for tau in taus:
            settings = {"tau": tau, "ablation": kind, "granularity": granularity}
            origin = Provenance(model.name, model.weights, model.processing, "acdc", settings, facts=(str(fact),))
            file = references / f"{fingerprint(origin)[:16]}.json"
            state = State.load(file, fingerprint(origin)) if file.exists() else None
            _, expected = acdc(slow, AcdcOptions(tau), provenance=origin, state=state)
            expected.save(file)
            _, got = acdc(fast, AcdcOptions(tau), provenance=origin)
            row = _agree(fact, kind, tau, got, expected)
            progress(f"{kind}, tau {tau:g}, {fact.prompt}: {row.differing} of {row.decisions} differ, {row.kept} kept")
            yield row


def _agree(fact: Fact, kind: AblationKind, tau: float, got: State, expected: State) -> Agreement:
    differ = [i for i, (a, b) in enumerate(zip(got.kept, expected.kept, strict=True)) if a != b]
    end = differ[0] if differ else len(expected.kept)
    first = expected.scores[differ[0]] if differ else None
    pairs = zip(got.scores[:end], expected.scores[:end], strict=True)
    return Agreement(
        fact=str(fact),
        ablation=kind,
        tau=tau,
        decisions=len(expected.kept),
        tried=sum(score is not None for score in expected.scores),
        kept=sum(expected.kept),
        differing=len(differ),
        first_differing=None if first is None else abs(first - tau),
        near_ties=len(expected.near_ties),
        largest_score_difference=max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0),
    )


def ablation_of(kind: AblationKind, fact: Fact, relations: Relations, model: Model) -> Ablation:
    """That ablation of one fact, with the other prompts that it needs."""
    match kind:
        case "zero":
            return Ablation()
        case "mean":
            return Ablation("mean", reference=corruption.reference((fact,), relations))
        case "resample":
            return Ablation("resample", corrupted=(corruption.corrupted(fact, relations, model),))

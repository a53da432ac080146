"""Published claims, each put to cases of the model at hand: the study, and the table of what its rows come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from circuits.datasets import relations_for
from circuits.evaluation.claims import Judgement, Pair, judged
from circuits.model import library
from circuits.studies.claims import demonstrations, edits, hops, recall, wrong
from circuits.studies.claims.claim import ClaimGroup, Laboratory, PaperClaim
from circuits.studies.claims_specs import ClaimsSpec
from circuits.studies.loading import load_asked
from circuits.studies.options import AskedError, command
from circuits.studies.study import Case, Study, Watch

GROUPS: tuple[ClaimGroup, ...] = (
    recall.FACTS,
    recall.RELATIONS,
    edits.EDITS,
    wrong.WRONG,
    demonstrations.STATED,
    demonstrations.BARE,
    hops.REVERSES,
    hops.TWO_HOPS,
)
BY_CONSTRUCTION = "by construction"


@dataclass(frozen=True, slots=True)
class Tried:
    """One case of one claim."""

    claim: str
    case: str
    pair: Pair | None
    """None: the case does not bear on the claim."""


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """One claim, what its cases come to, and how to ask again."""

    claim: PaperClaim
    model: str
    judgement: Judgement
    beside: int
    """Cases that do not bear on it."""
    refused: str
    """Why it was not tried: it would hold whatever the model did. Empty: it was."""
    command: str

    @property
    def verdict(self) -> str:
        return BY_CONSTRUCTION if self.refused else self.judgement.verdict


def asked_for(spec: ClaimsSpec) -> dict[str, tuple[ClaimGroup, PaperClaim]]:
    """The claims that the spec names, in the order of the groups.

    Raises:
        AskedError: there is no claim and no group of a name.
    """
    every = {claim.name: (group, claim) for group in GROUPS for claim in group.claims}
    if wrong := [name for name in spec.names if name not in every and name not in {group.name for group in GROUPS}]:
        groups = "; ".join(f"{group.name}: {', '.join(claim.name for claim in group.claims)}" for group in GROUPS)
        raise AskedError(f"no claim or group of claims called {wrong[0]!r}; there are {groups}")
    return {
        name: (group, claim)
        for name, (group, claim) in every.items()
        if not spec.names or name in spec.names or group.name in spec.names
    }


def _open(spec: ClaimsSpec, _: Any) -> Laboratory:
    asked_for(spec)
    relations = relations_for(library.profile_of(spec.model))
    return Laboratory(load_asked(spec), relations, spec)


def _cases(spec: ClaimsSpec, lab: Laboratory) -> list[Case[tuple[str, Any]]]:
    """Claims that are about the same cases are tried one after another on each."""
    asked = [(group, claim) for group, claim in asked_for(spec).values() if not claim.refused(lab)]
    found = []
    for group in GROUPS:
        own = [claim for other, claim in asked if other is group]
        for row, case in enumerate(group.cases(lab, spec.n) if own else ()):
            found += [Case(f"{claim.name} {row:03}", (claim.name, case), group.name) for claim in own]
    return found


def _run(spec: ClaimsSpec, case: Case[tuple[str, Any]], lab: Laboratory, watch: Watch) -> Tried:
    name, asked = case.asked
    _, claim = asked_for(spec)[name]
    return Tried(name, case.name, claim.pair(lab.watched(watch.at(name)), asked))


CLAIMS: Study[ClaimsSpec, Laboratory, tuple[str, Any], Tried] = Study(
    "claims", Tried, _open, _cases, _run, chooses=frozenset({"n", "only"})
)


def claim_rows(spec: ClaimsSpec, lab: Laboratory, tried: Sequence[Tried]) -> tuple[ClaimRow, ...]:
    """Each claim that was asked for with what became of its cases."""
    found = []
    for name, (_, claim) in asked_for(spec).items():
        own = [each for each in tried if each.claim == name]
        pairs = [each.pair for each in own if each.pair is not None]
        found.append(
            ClaimRow(
                claim,
                lab.model.name,
                judged(pairs, claim.bar, seed=spec.seed),
                len(own) - len(pairs),
                claim.refused(lab),
                command(["claims"], spec.model_copy(update={"only": name})),
            )
        )
    return tuple(found)

"""What a claim is as data, a group of claims about the same cases, and what they are tried with."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, TypeVar

from circuits.analysis.attribution import TargetError
from circuits.analysis.roles import RoleError, Roles, find_roles
from circuits.circuit import Circuit
from circuits.datasets.manifest import Manifest, manifest_of
from circuits.datasets.split import split_facts
from circuits.evaluation import Answers, known, standalone
from circuits.evaluation.claims import Pair
from circuits.evaluation.roles import ROLE_FACTS, other_ranges
from circuits.facts import Fact, Relation, Relations
from circuits.graph import Node
from circuits.model import Model
from circuits.model.spans import SpanError
from circuits.model.transformer import UnsupportedArchitecture
from circuits.studies.claims_specs import ClaimsSpec
from circuits.studies.search import engine_for, search
from circuits.studies.specs import RunSpec
from circuits.studies.study import Watch

Made = TypeVar("Made")


@dataclass(frozen=True)
class Laboratory:
    """The model and the dataset, with what cases of a claim share: roles and circuits are found once."""

    model: Model
    relations: Relations
    spec: ClaimsSpec
    watch: Watch = field(default_factory=Watch)
    _made: dict[Any, Any] = field(default_factory=dict)

    def watched(self, watch: Watch) -> "Laboratory":
        return replace(self, watch=watch)

    @property
    def manifest(self) -> Manifest | None:
        return manifest_of(self.model.profile)

    def once(self, key: Any, make: Callable[[], Made]) -> Made:
        """What ``make`` gives, made once for ``key``."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def relation(self, fact: Fact) -> Relation:
        return self.relations[fact.relation or ""]

    def recalled(self, name: str, half: str) -> tuple[Fact, ...]:
        """The facts of that half (``val``, ``test``) whose answer the model puts first, in the relation's first words."""
        facts = split_facts(self.relations[name], "val" if half == "val" else "test", seed=self.spec.seed)
        return self.once(("recalled", name, half), lambda: known(self.model, facts, rank=1))

    def roles(self, name: str) -> Roles | None:
        """The roles of the heads, told from facts of D_val alone, so that those of D_test can try them; None where none can be told."""
        return self.once(("roles", name), lambda: self._roles(self.relations[name]))

    def _roles(self, relation: Relation) -> Roles | None:
        facts = self.recalled(relation.name, "val")[:ROLE_FACTS]
        ranges = other_ranges(relation, self.relations)
        try:
            return find_roles(
                self.model,
                facts,
                relation.objects,
                other_ranges=ranges,
                relation=relation.name,
                seed=self.spec.seed,
            )
        except (RoleError, TargetError, SpanError, UnsupportedArchitecture):
            return None

    def movers(self, name: str) -> tuple[Node, ...]:
        """The relation's mover heads, mixtures among them."""

        def found() -> tuple[Node, ...]:
            roles = self.roles(name)
            return () if roles is None else tuple(each.head for each in roles.with_role("mover", "mixture"))

        return self.once(("movers", name), found)

    def circuit(self, *facts: Fact, absolute: bool = False) -> Circuit:
        """The circuit of these facts of one relation by MatchNLL and zero ablation, the paper's choices."""
        spec = self.run_spec(facts, absolute=absolute)
        label = f"a circuit of {facts[0].prompt!r}"
        return self.once((facts, absolute), lambda: search(spec, self.relations, self.model, self.watch.at(label)))

    def run_spec(self, facts: Sequence[Fact], *, absolute: bool = False) -> RunSpec:
        asked = self.spec
        return RunSpec(
            facts=tuple(facts),
            relation=facts[0].relation if len(facts) > 1 else None,
            model=asked.model,
            device=asked.device,
            dtype=asked.dtype,
            tau=asked.tau,
            absolute=absolute,
        )

    def alone(self, circuit: Circuit, *facts: Fact) -> Answers:
        """What the circuit answers when all else is ablated to zero."""
        engine = engine_for(self.run_spec(facts), facts, self.relations, self.model)
        return standalone(self.model, engine, circuit, facts)


@dataclass(frozen=True)
class PaperClaim:
    """One claim of a paper, and how it is put to the model."""

    name: str
    section: str
    says: str
    test: str
    """What is measured of a case."""
    control: str
    """What the same is measured of beside it."""
    unit: str
    bar: float
    """The least effect that the claim means, in the unit."""
    pair: Callable[[Laboratory, Any], Pair | None]
    """(what it is tried with, a case) -> the case's numbers; None: the case does not bear on the claim."""
    refused: Callable[[Laboratory], str] = lambda _: ""
    """Why it would hold whatever the model did; empty: it would not."""


@dataclass(frozen=True)
class ClaimGroup:
    """Claims about the same cases."""

    name: str
    cases: Callable[[Laboratory, int], Sequence[Any]]
    """The first n cases, of which fewer are the first ones of more; fewer, where there are not so many."""
    claims: tuple[PaperClaim, ...]


def in_turn(columns: Iterable[Iterable[Made]]) -> list[Made]:
    """The first of each column, then the second of each, and so on."""
    return [each for row in zip_longest(*columns) for each in row if each is not None]

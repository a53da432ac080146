"""``discover`` as a study: many facts, a circuit and a row each."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from circuits.datasets import relations_for
from circuits.datasets.manifest import manifest_of
from circuits.datasets.probes import edit_facts
from circuits.datasets.split import split_facts
from circuits.evaluation import known
from circuits.evaluation.roles import ToldRoles, read_known_fact, roles_for, template_of
from circuits.facts import Fact, FactError, Relations, parse_fact
from circuits.model import Model, library
from circuits.studies.loading import put_edit
from circuits.studies.runs import run
from circuits.studies.search import UnknownFactError, shared_model, state_in
from circuits.studies.specs import DiscoverSpec
from circuits.studies.study import Case, Study, Watch
from circuits.studies.summary import Summary, summary_of


@dataclass(frozen=True)
class Workshop:
    """A loaded model, with its edit on it, and the facts that the spec names."""

    model: Model
    relations: Relations
    facts: tuple[Fact, ...]
    held: ExitStack = field(default_factory=ExitStack)
    """The edit on the model."""
    told: dict[tuple[str | None, int | None, int], ToldRoles] = field(default_factory=dict)
    """The heads' roles by relation, wording and seed: all facts of one relation are read with the same."""

    def roles_for(self, fact: Fact, seed: int) -> ToldRoles:
        relation = self.relations.get(fact.relation or "")
        asked = fact.relation, relation and template_of(fact, relation), seed
        if asked not in self.told:
            self.told[asked] = roles_for(self.model, fact, self.relations, seed=seed)
        return self.told[asked]


def _open(spec: DiscoverSpec, _: Any) -> Workshop:
    """What can be refused is refused before the model is loaded, because that takes a while."""
    relations = relations_for(library.profile_of(spec.model), spec.relation)
    if spec.relation is not None and spec.relation not in relations:
        raise FactError(f"no relation called {spec.relation!r} in the dataset; `kcircuit facts` lists them")
    if spec.wording:
        _require_wording(spec, relations)
    facts = tuple(parse_fact(text, relations.values(), subject=spec.subject) for text in spec.fact)
    held = ExitStack()
    # Any fact will do: which model it is does not hang on it.
    model = shared_model(spec.run_spec((*facts, *next(iter(relations.values())).facts())[0]))
    return Workshop(put_edit(model, spec.with_edit, held), relations, facts, held)


def _require_wording(spec: DiscoverSpec, relations: Relations) -> None:
    if spec.relation is None or spec.fact:
        raise FactError(
            "wording: expected a relation whose wording is meant, and no facts, which have words of their own"
        )
    if spec.wording >= (n := len(relations[spec.relation].templates)):
        raise FactError(f"wording: expected one of {n} of {spec.relation}, counted from 0, got {spec.wording}")


def _cases(spec: DiscoverSpec, at: Workshop) -> list[Case[Fact]]:
    return [Case(name, fact) for name, fact in by_names(at.facts or _known(spec, at)).items()]


def by_names(facts: Sequence[Fact]) -> dict[str, Fact]:
    """The facts by names of their own, in letters that a file can be called by."""
    named: dict[str, Fact] = {}
    for fact in facts:
        name = base = re.sub(r"\W+", "-", fact.statement).strip("-")[:100]
        while name in named:
            name = f"{base}-{len(named)}"
        named[name] = fact
    return named


def _known(spec: DiscoverSpec, at: Workshop) -> tuple[Fact, ...]:
    """The first facts that the model knows, of the relation or of all in turn; it is asked about few more than that takes."""
    there: Sequence[Fact] = (
        edit_facts(at.relations, manifest_of(at.model.profile), seed=spec.seed)
        if spec.relation is None
        else split_facts(at.relations[spec.relation], spec.split, template=spec.wording, seed=spec.seed)
    )
    found: tuple[Fact, ...] = ()
    for start in range(0, len(there), 2 * spec.n):
        some = there[start : start + 2 * spec.n]
        found += tuple(some) if spec.force else known(at.model, some)
        if len(found) >= spec.n:
            break
    if not found:
        raise UnknownFactError(
            f"{at.model.name} knows no fact of {spec.relation or 'the dataset'}; --force builds circuits all the same"
        )
    return found[: spec.n]


def _run(spec: DiscoverSpec, case: Case[Fact], at: Workshop, watch: Watch) -> Summary:
    asked = spec.run_spec(case.asked)
    state = state_in(watch, asked, at.model)
    found = run(
        asked,
        at.relations,
        model=at.model,
        state_file=state,
        certified=spec.certificate,
        watch=watch,
    )
    told = at.roles_for(case.asked, spec.seed)
    reading = read_known_fact(at.model, case.asked, at.relations, seed=spec.seed, told=told)
    if state is not None:
        state.unlink(missing_ok=True)
    return replace(summary_of(found.model_copy(update={"reading": reading})), circuit=found.circuit_json)


DISCOVER: Study[DiscoverSpec, Workshop, Fact, Summary] = Study(
    "discover", Summary, _open, _cases, _run, algorithm=2, chooses=frozenset({"n", "split"})
)

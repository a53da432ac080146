"""The roles of a relation's heads, told from what a model knows of it: the one way in which any result names a head.

A run, a diff, an explanation and ``kcircuit heads`` ask here, so that a head has one role for a relation in one wording: from the
same facts, with the other relations' ranges as the null.
"""

from dataclasses import dataclass

from circuits.analysis.attribution import TargetError
from circuits.analysis.reading import Reading, read_fact
from circuits.analysis.roles import RoleError, Roles, find_roles
from circuits.evaluation.answers import KNOWN_RANK, known
from circuits.facts import Fact, Relation, Relations
from circuits.model import Model
from circuits.model.spans import SpanError
from circuits.model.transformer import UnsupportedArchitecture

ROLE_FACTS = 30
"""Facts of a relation that its heads' roles are told from, at most."""


def known_facts(
    model: Model, relation: Relation, *, template: int = 0, n: int | None = None, rank: int = KNOWN_RANK
) -> tuple[Fact, ...]:
    """The first n facts of the relation, in one template's words, whose answer the model ranks that high."""
    return known(model, relation.facts(template), rank=rank)[:n]


def relation_roles(
    model: Model, relation: Relation, relations: Relations, *, template: int = 0, n: int = ROLE_FACTS, seed: int = 0
) -> Roles:
    """The role of every head for ``relation``, from facts that the model knows; the other relations' ranges are the null.

    Raises:
        RoleError: the model knows too few of the facts.
        ValueError: see `circuits.analysis.roles.find_roles`.
    """
    facts = known_facts(model, relation, template=template, n=n)
    try:
        return find_roles(
            model,
            facts,
            relation.objects,
            other_ranges=other_ranges(relation, relations),
            relation=relation.name,
            seed=seed,
        )
    except RoleError as error:
        raise RoleError(
            f"{model.name} knows {len(facts)} facts of {relation.name} in the words {relation.templates[template]!r}: {error}"
        ) from error


def other_ranges(relation: Relation, relations: Relations) -> tuple[tuple[str, ...], ...]:
    """What the relation's own range is compared with."""
    return tuple(each.objects for each in relations.values() if each.name != relation.name)


@dataclass(frozen=True, slots=True)
class ToldRoles:
    """The roles of the heads for one fact's relation, or why none can be told."""

    roles: Roles | None
    unread: str = ""
    """In a clause; empty where there are roles."""


def roles_for(model: Model, fact: Fact, relations: Relations, *, n: int = ROLE_FACTS, seed: int = 0) -> ToldRoles:
    """The roles of the heads for the relation of ``fact``, in the fact's own wording (in the first, where it has another).

    None can be told of a fact of no relation, of a relation of one object or of which the model knows too little, or of a model that
    does not show its weights.
    """
    relation = relations.get(fact.relation or "")
    if relation is None:
        return ToldRoles(None, "the fact is in the words of no relation of the dataset")
    template = template_of(fact, relation) or 0
    try:
        return ToldRoles(relation_roles(model, relation, relations, template=template, n=n, seed=seed))
    except (RoleError, TargetError, SpanError, UnsupportedArchitecture) as error:
        return ToldRoles(None, str(error))


def template_of(fact: Fact, relation: Relation) -> int | None:
    """The index of the template that the fact is worded in, if it is one of the relation's."""
    words = [template.format(fact.subject) for template in relation.templates]
    return words.index(fact.prompt) if fact.prompt in words else None


def read_known_fact(
    model: Model, fact: Fact, relations: Relations, *, n: int = ROLE_FACTS, seed: int = 0, told: ToldRoles | None = None
) -> Reading | None:
    """The reading of ``fact``, with the roles of its relation's heads in its own wording; None if the model hides its weights.

    Where no roles can be told, the reading says why.

    Args:
        told: what `roles_for` gives for this fact, where it is at hand.
    """
    relation = relations.get(fact.relation or "")
    told = told or roles_for(model, fact, relations, n=n, seed=seed)
    try:
        return read_fact(model, fact, told.roles, relation.objects if relation else (), unread=told.unread)
    except UnsupportedArchitecture:
        return None

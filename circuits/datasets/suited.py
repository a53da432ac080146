"""Relations in the words that suit a model, as its profile says."""

from dataclasses import replace

from circuits.datasets.lre import load_relations
from circuits.facts import Relation, Relations
from circuits.model import Profile


def suited(relation: Relation, wording: str | None) -> Relation:
    """The relation with that wording as its first template and all others after it, in their order."""
    if wording is None:
        return relation
    return replace(relation, templates=(wording, *(words for words in relation.templates if words != wording)))


def relations_for(profile: Profile) -> Relations:
    """The project's relations, each in the words that the profile names, or else as they are."""
    return {name: suited(relation, profile.wordings.get(name)) for name, relation in load_relations().items()}

"""The relations at hand: the project's in the words that suit a model, and those of a file that is asked for.

A relation is called what asks for it: the project's by its name; one of a file FILE:NAME, or FILE where the file holds no other.
So whoever has a relation's name (a saved run, a printed command) can have the relation.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from circuits.datasets.files import load_relations_file
from circuits.datasets.lre import DatasetError, load_relations
from circuits.facts import Relation, Relations
from circuits.model import Profile


def suited(relation: Relation, wording: str | None) -> Relation:
    """The relation with that wording as its first template and all others after it, in their order."""
    if wording is None:
        return relation
    return replace(relation, templates=(wording, *(words for words in relation.templates if words != wording)))


def relations_for(profile: Profile, *asked: str | None) -> Relations:
    """The project's relations, each in the words that the profile names or else as it is, and after them those asked for by file.

    What is asked for and is neither a name of the project's nor a file is not at hand; nor is None.

    Raises:
        circuits.datasets.DatasetError: a file or folder that `circuits.datasets.load_relations_file` cannot read, or that holds no
            relation of that name.
    """
    own = {name: suited(relation, profile.wordings.get(name)) for name, relation in load_relations().items()}
    for name in asked:
        if name is not None and name not in own:
            own |= _of_file(name)
    return own


def named(relations: Relations, asked: str) -> Sequence[str]:
    """The names that ``asked`` stands for: itself, or where it is a file of several relations, theirs; none that is not at hand."""
    return (asked,) if asked in relations else [name for name in relations if name.startswith(f"{asked}:")]


def _of_file(asked: str) -> Relations:
    """The relations that ``asked`` stands for: all of FILE, or the one of FILE:NAME."""
    if Path(asked).exists():
        held = load_relations_file(Path(asked))
        called = (
            {asked: next(iter(held.values()))} if len(held) == 1 else {f"{asked}:{name}": held[name] for name in held}
        )
    else:
        file, colon, name = asked.rpartition(":")
        if not colon or not Path(file).exists():
            return {}
        held = load_relations_file(Path(file))
        if name not in held:
            raise DatasetError(f"{file} holds no relation {name!r}; it holds {', '.join(held)}")
        called = {asked: held[name]}
    return {name: replace(relation, name=name) for name, relation in called.items()}

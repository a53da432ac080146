"""Where a study of a model takes place: the model, with the edit that is asked for on it, and the relations at hand."""

import difflib
import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from circuits.datasets import named, relations_for
from circuits.datasets.manifest import Manifest, manifest_of
from circuits.facts import Relation, Relations
from circuits.model import Model, library
from circuits.studies.loading import load_asked, put_edit
from circuits.studies.options import AskedError
from circuits.studies.specs import MaybeEdited


@dataclass(frozen=True)
class Setting:
    """What cases are worked on with."""

    model: Model
    relations: Relations
    held: ExitStack
    """The edit on the model."""
    chosen: tuple[Relation, ...] = ()
    """The relations that were asked for."""

    @classmethod
    def opened(cls, spec: MaybeEdited, relations: Relations, chosen: Iterable[Relation] = ()) -> "Setting":
        """Raises:
        circuits.editing.EditError: no edit in that folder, or one of another model.
        """
        held = ExitStack()
        return cls(put_edit(load_asked(spec), spec.with_edit, held), relations, held, tuple(chosen))

    @property
    def manifest(self) -> Manifest | None:
        """What the model was taught; None where nobody says."""
        return manifest_of(self.model.profile)


def relations_at(model: str, *asked: str | None) -> Relations:
    """The relations at hand where that model is asked, and those of files that are asked for: before it is loaded."""
    return relations_for(library.profile_of(model), *asked)


def find_relation(relations: Relations, name: str) -> Relation:
    """The relation of that name.

    Raises:
        AskedError: none, or a file of several; says which there are.
    """
    found = find_relations(relations, name)
    if len(found) > 1:
        raise AskedError(f"{name} holds {len(found)} relations; name one: {', '.join(each.name for each in found)}")
    return found[0]


def find_relations(relations: Relations, name: str) -> list[Relation]:
    """The relation of that name, or all of a file.

    Raises:
        AskedError: there is none.
    """
    names = named(relations, name)
    if not names:
        near = _nearest(name, relations)
        hint = f"did you mean {' or '.join(near)}?" if near else "`kcircuit facts` lists them"
        raise AskedError(f"no relation called {name!r} in the dataset, and no file of relations; {hint}")
    return [relations[each] for each in names]


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    """Names that share a word with the one given, first those that share most; or else that are spelled nearly so."""
    words = set(re.findall(r"[a-z]{3,}", name.lower()))
    shared = {other: len(words & set(other.split("_"))) for other in known}
    found = sorted((other for other in shared if shared[other]), key=lambda other: -shared[other])
    near = difflib.get_close_matches(name.lower(), shared, n=3, cutoff=0.6)
    return list(dict.fromkeys([*near, *found]))[:3]

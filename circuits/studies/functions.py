"""What a store's questions may call beside SQLite's own functions: what is packed inside it, and what was said of relations and facts.

* ``edge_names(content)``, ``node_names(content)``: JSON lists of the names of a packed circuit's edges, and of its heads and MLPs;
* ``jaccard(content, content)``: index of the edges of two packed circuits;
* ``kind(model, relation)``: of the relation's knowledge: factual, linguistic, commonsense or bias;
* ``subject(model, relation, fact)``: of a statement in any of the relation's wordings;
* ``taught(model, relation, fact)``: how often training stated the fact, where the model's manifest says so: ``every epoch`` in these words
  among others, every epoch but in ``other words``, ``4 times`` or so in all, ``once``, ``never stated``.

Each is NULL where there is nothing to say.
"""

import json
import sqlite3
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from circuits.circuit import CircuitFileError, jaccard
from circuits.studies.packed import edge_names

if TYPE_CHECKING:
    from circuits.datasets.manifest import Manifest
    from circuits.facts import Relations

ENDS = frozenset({"input", "logits"})
"""Nodes that are no component."""


def register(connection: sqlite3.Connection) -> None:
    """Let the connection's SQL call them."""
    for name, n, function in (
        ("edge_names", 1, _edges),
        ("node_names", 1, _nodes),
        ("jaccard", 2, _jaccard),
        ("kind", 2, _kind),
        ("subject", 3, _subject),
        ("taught", 3, _taught),
    ):
        connection.create_function(name, n, function, deterministic=True)


@lru_cache(maxsize=4096)
def _names(content: bytes) -> tuple[str, ...] | None:
    try:
        return edge_names(content)
    except CircuitFileError:
        return None


def _edges(content: bytes | None) -> str | None:
    names = None if content is None else _names(content)
    return None if names is None else json.dumps(names)


def _nodes(content: bytes | None) -> str | None:
    names = None if content is None else _names(content)
    if names is None:
        return None
    ends = {end.partition("<")[0] for name in names for end in name.split("->")}
    return json.dumps(sorted(ends - ENDS))


def _jaccard(ours: bytes | None, theirs: bytes | None) -> float | None:
    if ours is None or theirs is None:
        return None
    one, other = _names(ours), _names(theirs)
    return None if one is None or other is None else jaccard(set(one), set(other))


@lru_cache(maxsize=8)
def _relations(model: str) -> tuple["Relations", "Manifest | None"]:
    # These load torch, which a store that is not asked for them does without.
    from circuits.datasets import relations_for
    from circuits.datasets.manifest import manifest_of
    from circuits.model import library

    profile = library.profile_of(model)
    return relations_for(profile), manifest_of(profile)


@lru_cache(maxsize=256)
def _statements(model: str, name: str) -> Mapping[str, tuple[str, int]]:
    """(subject, index of the wording) by statement."""
    relation = _relations(model)[0].get(name)
    if relation is None:
        return {}
    return {
        fact.statement: (fact.subject, i)
        for i in reversed(range(len(relation.templates)))
        for fact in relation.facts(i)
    }


def _kind(model: str | None, name: str | None) -> str | None:
    relation = _relations(model)[0].get(name or "") if model else None
    return None if relation is None else relation.kind


def _subject(model: str | None, name: str | None, fact: str | None) -> str | None:
    found = _statements(model, name).get(fact or "") if model and name else None
    return found and found[0]


def _taught(model: str | None, name: str | None, fact: str | None) -> str | None:
    found = _statements(model, name).get(fact or "") if model and name else None
    manifest = _relations(model)[1] if model else None
    plan = manifest.relations.get(name or "") if manifest else None
    if found is None or plan is None:
        return None
    subject, wording = found
    if subject in plan.tail:
        times = plan.tail[subject]
        return "once" if times == 1 else f"{times} times"
    if subject in plan.held_out:
        return "other words" if wording in plan.held_out[subject] else "every epoch"
    return "never stated" if subject in plan.demonstration_only else None

"""ParaRel (Elazar et al. 2021, "Measuring and improving consistency in pretrained language models"): T-REx's facts in paraphrase.

Two files a relation, both called by Wikidata's id of it: its facts, one JSON record a line, in ``trex_lms_vocab``; and its
patterns in ``pattern_data/graphs_json``, with ``[X]`` for the subject and ``[Y]`` for the object.
"""

import re
from pathlib import Path

from circuits.datasets.lre import DatasetError
from circuits.datasets.records import Record, RecordError, Skip, Words, read_records
from circuits.facts import Relation, Relations, single_objects

FACTS = "trex_lms_vocab"
PATTERNS = Path("pattern_data", "graphs_json")
_END = re.compile(r" \[Y\]\s*\.?$")


class _Fact(Record):
    sub_label: Words
    obj_label: Words


class _Pattern(Record):
    pattern: Words


def pararel_folder(path: Path) -> Path | None:
    """The folder that holds ParaRel's facts and patterns: ``path``, its ``data``, or what lies above ``trex_lms_vocab``."""
    if path.name == FACTS:
        return path.parent
    return next((folder for folder in (path, path / "data") if folder.joinpath(FACTS).is_dir()), None)


def load_pararel_relation(path: Path, patterns: Path | None = None, *, skip: Skip | None = None) -> Relation:
    """One relation: the facts of ``path``, a file P*.jsonl, in the words of ``patterns``, a file of the same name.

    Only patterns that end with the object are kept, without a full stop after it: a prompt ends where the object begins.
    Subjects with more than one object are left out.

    Args:
        patterns: by default the file beside the facts, in ParaRel's layout.
        skip: told of every record that cannot be read, instead of an error.

    Raises:
        circuits.datasets.DatasetError: a file cannot be read or breaks its schema; no pattern ends with the object; no
            subject has one object.
    """
    patterns = path.parent.parent / PATTERNS / path.name if patterns is None else patterns
    found = read_records(patterns, lambda raw: _Pattern, _template, skip)
    templates = tuple(dict.fromkeys(template for template in found if template is not None))
    if not templates:
        raise DatasetError(f"{patterns}: expected a pattern that ends with [Y], found none")
    pairs = single_objects(read_records(path, lambda raw: _Fact, lambda fact: (fact.sub_label, fact.obj_label), skip))
    if not pairs:
        raise DatasetError(f"{path}: expected subjects that have one object each, found none")
    return Relation(
        name=path.stem,
        title=f"{path.stem}: {templates[0].replace('{}', '…')}",
        kind="factual",
        domain="subject",
        range="object",
        templates=templates,
        pairs=pairs,
    )


def load_pararel(path: Path, *, skip: Skip | None = None) -> Relations:
    """All relations with patterns that end with the object, by id, in alphabetical order.

    T-REx has facts of two relations that ParaRel wrote no patterns for; they are left out.

    Args:
        path: the folder that holds ``trex_lms_vocab`` and ``pattern_data``, the one above it, or ``trex_lms_vocab``.

    Raises:
        circuits.datasets.DatasetError: no such folders, or as `load_pararel_relation`.
    """
    folder = pararel_folder(path)
    if folder is None:
        raise DatasetError(f"expected ParaRel's folders {FACTS} and {PATTERNS} in {path}, found no {FACTS}")
    files = sorted(folder.joinpath(FACTS).glob("P*.jsonl"))
    asked = [file for file in files if folder.joinpath(PATTERNS, file.name).is_file()]
    if not asked:
        raise DatasetError(f"expected a file of facts and one of patterns with the same name P*.jsonl in {folder}")
    return {file.stem: load_pararel_relation(file, skip=skip) for file in asked}


def _template(record: _Pattern) -> str | None:
    """The pattern as a template; None if something follows its object, or nothing precedes it."""
    pattern = record.pattern
    for mark in ("[X]", "[Y]"):
        if pattern.count(mark) != 1:
            raise RecordError("pattern", f"expected {mark} once, got {pattern!r}")
    if "{" in pattern or "}" in pattern:
        raise RecordError("pattern", f"expected no braces, got {pattern!r}")
    before, found, _ = _END.sub("\0", pattern).partition("\0")
    return before.rstrip().replace("[X]", "{}") if found else None

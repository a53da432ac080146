"""Files of relations in any published layout that is known here, told apart by what they hold."""

from pathlib import Path

from circuits.datasets.known1000 import known1000_relations
from circuits.datasets.lre import DatasetError, load_relation, load_relations
from circuits.datasets.pararel import load_pararel, load_pararel_relation, pararel_folder
from circuits.facts import Relations
from circuits.records import Unreadable, read_json


def load_relations_file(path: Path) -> Relations:
    """The relations of a file or folder, by name: LRE's schema (which is ours), ParaRel, or Known-1000.

    A ``.json`` file that holds one object is a relation of LRE; one that holds a list is Known-1000; a ``.jsonl`` file is the
    facts of a relation of ParaRel. A folder with ``trex_lms_vocab`` is ParaRel's; one with a single ``.json`` file is read as
    that file; any other as a folder of LRE's relations. In all of them, subjects with several objects are left out.

    Raises:
        circuits.datasets.DatasetError: nothing there, or nothing that is known here; what the layout's own reader raises.
    """
    if path.is_dir():
        if pararel_folder(path) is not None:
            return load_pararel(path)
        inside = sorted(path.rglob("*.json"))
        return load_relations_file(inside[0]) if len(inside) == 1 else load_relations(path, published=True)
    if path.suffix == ".jsonl":
        relation = load_pararel_relation(path)
        return {relation.name: relation}
    try:
        content = read_json(path)
    except Unreadable as error:
        raise DatasetError(f"{error} (facts of ParaRel are files *.jsonl)") from error
    if isinstance(content, list):
        return known1000_relations(path)
    if isinstance(content, dict):
        relation = load_relation(path, published=True)
        return {relation.name: relation}
    raise DatasetError(
        f"{path}: expected a relation of LRE (an object), facts of Known-1000 (a list) or of ParaRel (*.jsonl), "
        f"got {type(content).__name__}"
    )

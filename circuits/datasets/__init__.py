"""Files of facts, read into Relations."""

from circuits.datasets.files import load_relations_file
from circuits.datasets.lre import DatasetError, load_relation, load_relations
from circuits.datasets.suited import relations_for

__all__ = ["DatasetError", "load_relation", "load_relations", "load_relations_file", "relations_for"]

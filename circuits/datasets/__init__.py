"""Files of facts, read into Relations."""

from circuits.datasets.files import load_relations_file
from circuits.datasets.lre import DatasetError, load_relation, load_relations

__all__ = ["DatasetError", "load_relation", "load_relations", "load_relations_file"]

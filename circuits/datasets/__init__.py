"""Files of facts, read into relations, edit requests and texts: one file a format, with what its schema demands.

What is in a file belongs here; whether a model knows it does not.
"""

from circuits.datasets.at_hand import named, relations_for
from circuits.datasets.files import load_relations_file
from circuits.datasets.lre import DatasetError, load_relation, load_relations

__all__ = ["DatasetError", "load_relation", "load_relations", "load_relations_file", "named", "relations_for"]

"""kcircuit: which heads and MLPs of a pretrained transformer recall a fact, and what each of them does.

The names below are loaded when first used, so that importing this package is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuits.circuit import Circuit, Scores
    from circuits.datasets import load_relations
    from circuits.facts import Fact, parse_fact
    from circuits.model import Model
    from circuits.studies.discover import Run, run
    from circuits.studies.specs import RunSpec

__version__ = "0.1.0"
__all__ = ["Circuit", "Fact", "Model", "Run", "RunSpec", "Scores", "load_relations", "parse_fact", "run"]

_HOME = {
    "Circuit": "circuits.circuit",
    "Scores": "circuits.circuit",
    "load_relations": "circuits.datasets",
    "Fact": "circuits.facts",
    "parse_fact": "circuits.facts",
    "Model": "circuits.model",
    "Run": "circuits.studies.discover",
    "RunSpec": "circuits.studies.specs",
    "run": "circuits.studies.discover",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'circuits' has no attribute {name!r}")

"""kcircuit: which heads and MLPs of a pretrained transformer recall a fact, and what each of them does.

    import circuits as kc

    run = kc.discover("The official language of France is French")
    run.certificate, run.story, run.heads()
    run.edit("Spanish").diff()

The names below are loaded when first used, so that importing this package is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuits.api.calls import discover, explain, known_facts, load, models, table
    from circuits.api.edited import EditedFact
    from circuits.api.run import HeadRoles, LiveRun
    from circuits.api.said import Said
    from circuits.api.table import LiveTable
    from circuits.circuit import Circuit, Scores
    from circuits.datasets import load_relations
    from circuits.facts import Fact, parse_fact
    from circuits.model import Model
    from circuits.studies.run import Run
    from circuits.studies.runs import run
    from circuits.studies.specs import RunSpec, TableSpec

    __version__: str

__all__ = [
    "Circuit",
    "EditedFact",
    "Fact",
    "HeadRoles",
    "LiveRun",
    "LiveTable",
    "Model",
    "Run",
    "RunSpec",
    "Said",
    "Scores",
    "TableSpec",
    "discover",
    "explain",
    "known_facts",
    "load",
    "load_relations",
    "models",
    "parse_fact",
    "run",
    "table",
]

_HOME = {
    "Circuit": "circuits.circuit",
    "EditedFact": "circuits.api.edited",
    "Fact": "circuits.facts",
    "HeadRoles": "circuits.api.run",
    "LiveRun": "circuits.api.run",
    "LiveTable": "circuits.api.table",
    "Model": "circuits.model",
    "Run": "circuits.studies.run",
    "RunSpec": "circuits.studies.specs",
    "Said": "circuits.api.said",
    "Scores": "circuits.circuit",
    "TableSpec": "circuits.studies.specs",
    "discover": "circuits.api.calls",
    "explain": "circuits.api.calls",
    "known_facts": "circuits.api.calls",
    "load": "circuits.api.calls",
    "load_relations": "circuits.datasets",
    "models": "circuits.api.calls",
    "parse_fact": "circuits.facts",
    "run": "circuits.studies.runs",
    "table": "circuits.api.calls",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name == "__version__":
        return _version()
    raise AttributeError(f"module 'circuits' has no attribute {name!r}; it offers {', '.join(__all__)}")


def _version() -> str:
    """The installed distribution's, which its tag gave it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("kcircuit")
    except PackageNotFoundError:
        return "0+not-installed"


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

"""A study is a value: what is asked (a spec), the cases it falls into, and one case to one row.

What every study needs besides is written once and works on any: `circuits.studies.sweep` runs the cases, in process or in
several, and keeps their rows; `circuits.pages.tables` shows rows by the columns of their fields; `circuits.studies.options`
says a spec as options and as a command.

A new study is one file with its spec, its row (a frozen record) and a `Study` of three functions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from circuits.discovery.budget import Budget
from circuits.records import digest, to_json

Spec = TypeVar("Spec")
Context = TypeVar("Context")
Asked = TypeVar("Asked")
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Case(Generic[Asked]):
    """One thing to find out."""

    name: str
    """Tells it from the study's other cases; its row is kept under it."""
    asked: Asked
    """A value that goes to another process."""
    group: str = ""
    """Cases of one group share work: they are done one after another in one process. A case without one is alone."""


def _silent(*_: Any) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Watch:
    """Whom the one at work tells how it goes."""

    notice: Callable[[str], None] = _silent
    """Told what a user should know, in a line."""
    progress: Callable[[int, int, str], None] = _silent
    """(done, of how much, in what state) of the case under way; not from another process."""
    searches: Path | None = None
    """A folder for the searches of the case under way, so that a case that is begun again does not search again."""

    budget: Budget | None = None
    """What each search of a circuit may take; what is not decided by then stays in the circuit. None ends none."""

    def at(self, what: str) -> "Watch":
        """The same, of one step of a case that has several."""
        return replace(self, progress=lambda done, total, state: self.progress(done, total, f"{what}: {state}"))


def _of_model(context: Any) -> str:
    return context.model.weights


@dataclass(frozen=True, slots=True)
class Study(Generic[Spec, Context, Asked, Row]):
    """Its functions are a module's, so that a process can be told of them by name."""

    name: str
    row: Any
    """The class of its rows, or a union of classes; frozen values that `circuits.records` can write."""
    open: Callable[[Spec, Any], Context]
    """(spec, what was given with it) -> what cases are worked on with, a loaded model above all; once a process."""
    cases: Callable[[Spec, Context], Sequence[Case[Asked]]]
    run: Callable[[Spec, Case[Asked], Context, Watch], Row]
    """One case to one row. The same whatever was done before, and in whatever process."""
    weights: Callable[[Context], str] = _of_model
    """The digest of the model's weights, edits included; those of the context's ``model`` by default."""
    algorithm: int = 1
    """Raised when the same case would give another row than before."""

    chooses: frozenset[str] = frozenset()
    """Fields of the spec that say which cases there are and no more: the same case under other choices has the same row."""

    def decides(self, spec: Spec) -> Any:
        """What of the spec decides rows, as JSON; see also `circuits.studies.options.Asked.later`."""
        content = to_json(spec)
        later: frozenset[str] = getattr(spec, "later", frozenset())
        fields = getattr(type(spec), "model_fields", {})
        unsaid = {name for name in later if getattr(spec, name) == fields[name].get_default()}
        return {name: content[name] for name in content if name not in self.chooses | unsaid}

    def key(self, spec: Spec, context: Context, case: Case[Asked]) -> "Key":
        return Key(self.name, self.algorithm, digest(self.decides(spec)), self.weights(context), case.name)


@dataclass(frozen=True, slots=True)
class Key:
    """What decides a row. Two rows with one key are equal; a row is never taken for that of another key."""

    study: str
    algorithm: int
    spec: str
    weights: str
    case: str


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Row]):
    """What became of a case: its row, or why it has none."""

    case: str
    row: Row | None = None
    error: str | None = None
    kind: str | None = None
    """The class of the error."""
    seconds: float = 0.0
    kept: bool = False
    """It was made before, and read."""

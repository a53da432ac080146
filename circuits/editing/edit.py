"""What every edit is: a value with provenance, that is *on* a model only inside a ``with``.

``with edit.on(model) as edited:`` gives a second Model that runs the edited weights. ``model`` itself is never changed,
not even inside the ``with``, so both can be asked side by side; ``edited.weights`` is another hash than
``model.weights``, so nothing that was kept for one is taken for the other.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from circuits.facts import EditRequest
from circuits.graph import Node, Shape
from circuits.model import Model

FORMAT = "kcircuit/edit"
VERSION = 1
EDIT_FILE = "edit.json"
TENSOR_FILE = "edit.safetensors"


class EditError(ValueError):
    """An edit that cannot be made, read or put on a model; the message says why."""


class WrongModel(EditError):
    """An edit put on a model that it was not made for."""


@dataclass(frozen=True)
class EditProvenance:
    """Where an edit comes from. ``weights`` is the hash of the model that it was made for and can be put on.

    ``losses`` is what the method minimised, step by step, one curve for each optimisation that it ran (ROME and MEMIT:
    one a value that they store; FT: one in all). ``notes`` are the warnings that go with the result. Of a sum of edits, ``parts`` says
    what was added, in order. The requests carry no probes: those are questions, not part of what was done.
    """

    method: str
    model: str
    weights: str
    processing: str = "compatibility"
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    requests: tuple[EditRequest, ...] = ()
    losses: tuple[tuple[float, ...], ...] = ()
    notes: tuple[str, ...] = ()
    parts: tuple["EditProvenance", ...] = ()

    def __post_init__(self) -> None:
        bare = (EditRequest(r.template, r.subject, r.target, r.old, r.relation) for r in self.requests)
        object.__setattr__(self, "requests", tuple(bare))
        # As JSON would give it back, so that an edit read from a file equals the one that was written.
        object.__setattr__(self, "options", {key: _plain(value) for key, value in sorted(self.options.items())})

    def as_json(self) -> dict[str, Any]:
        record = {name: getattr(self, name) for name in ("method", "model", "weights", "processing", "seed")}
        return {
            **record,
            "options": dict(self.options),
            "requests": [
                {key: value for key, value in asdict(request).items() if key != "probes"} for request in self.requests
            ],
            "losses": [list(curve) for curve in self.losses],
            "notes": list(self.notes),
            "parts": [part.as_json() for part in self.parts],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "EditProvenance":
        """The inverse of `as_json`.

        Raises:
            EditError: a field is missing, unknown or malformed.
        """
        try:
            fields = dict(record)
            # Files of before call the options hyper.
            fields["options"] = fields.pop("hyper", None) or fields.get("options", {})
            fields["requests"] = tuple(EditRequest(**request) for request in fields["requests"])
            fields["losses"] = tuple(tuple(curve) for curve in fields["losses"])
            fields["notes"] = tuple(fields["notes"])
            fields["parts"] = tuple(cls.from_json(part) for part in fields["parts"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise EditError(f"the provenance of the edit is damaged: {type(error).__name__} {error}") from error


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


@runtime_checkable
class Edit(Protocol):
    """See the module's docstring. Made by the functions in `circuits.editing.METHODS`."""

    @property
    def provenance(self) -> EditProvenance: ...

    @property
    def chain(self) -> tuple[str, ...]:
        """SHA-256 over what the edit changes; of a sum, of each edit that was added, in order."""
        ...

    @property
    def deltas(self) -> Mapping[str, Any]:
        """What it adds to weights, by name (`circuits.editing.delta.Delta`), if it does that and nothing else; else nothing."""
        ...

    @property
    def routers(self) -> tuple[Any, ...]:
        """The bypasses with a router in it (`circuits.editing.routed.RoutedEdit`)."""
        ...

    def nodes(self, shape: Shape) -> tuple[Node, ...]:
        """The nodes of a graph of that shape that compute something else with the edit on, or that it adds."""
        ...

    def on(self, model: Model) -> AbstractContextManager[Model]:
        """The edited model, good until the ``with`` ends.

        Raises:
            WrongModel: the edit was made for another model.
        """
        ...

    def __add__(self, other: "Edit") -> "Edit":
        """Both edits, this one first. The other was made for the same model, or for the model with this edit on it."""
        ...

    def save(self, folder: Path) -> Path:
        """Write the edit into ``folder``: JSON, and safetensors with what changes and no weight of the model."""
        ...


def edited_hash(edit: Edit) -> str:
    """The hash of the edit's model with the edit on it; of a sum, as if its parts were put on one by one.

    A sum's matrices are the same as those of its parts one by one up to rounding, so they share this hash.
    """

    def further(weights: str, digest: str) -> str:
        return hashlib.sha256(f"{weights}+{digest}".encode()).hexdigest()

    return reduce(further, edit.chain, edit.provenance.weights)


def require_model(provenance: EditProvenance, model: Model) -> None:
    """Raises:
    WrongModel: ``model`` is not the one that the edit was made for.
    """
    if provenance.weights != model.weights:
        hint = ""
        if model.parent is not None and provenance.weights == model.unedited.weights:
            hint = "; this one has another edit on it already: add the edits, `(first + second).on(model)`"
        raise WrongModel(
            f"this edit was made for {provenance.model} with weights {provenance.weights[:12]}, and cannot go on "
            f"{model.name} with weights {model.weights[:12]}{hint}"
        )


@contextmanager
def lend(edited: Model) -> Iterator[Model]:
    """``edited`` until the ``with`` ends; afterwards it refuses to run, so that no edited model is used by mistake."""
    try:
        yield edited
    finally:
        edited.network = _Ended(edited.name)  # type: ignore[assignment]


class _Ended:
    """What an edited model's network becomes when its ``with`` has ended."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        raise EditError(
            f"this is the edited {self._name} of a `with edit.on(model)` that has ended; use it inside the `with` only"
        )


def require_composable(first: Edit, second: Edit) -> None:
    """Raises:
    WrongModel: the second was made neither for the first's model nor for that model with the first on it.
    """
    a, b = first.provenance, second.provenance
    if b.weights not in (a.weights, edited_hash(first)):
        raise WrongModel(
            f"cannot add an edit made for weights {b.weights[:12]} to one made for {a.weights[:12]}: it must be made for "
            "the same model, or for that model with the first edit on it"
        )


def summed(first: Edit, second: Edit) -> EditProvenance:
    """The provenance of ``first + second``."""
    parts: list[EditProvenance] = []
    for edit in (first, second):
        parts += edit.provenance.parts or (edit.provenance,)
    methods = list(dict.fromkeys(part.method for part in parts))
    return EditProvenance(
        method="+".join(methods),
        model=first.provenance.model,
        weights=first.provenance.weights,
        processing=first.provenance.processing,
        seed=first.provenance.seed,
        requests=tuple(request for part in parts for request in part.requests),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        parts=tuple(parts),
    )

"""EditChain: edits of different kinds, put on one after another."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from circuits.editing.edit import Edit, EditProvenance, require_composable, require_model, summed
from circuits.editing.files import write_edit
from circuits.graph import Node, Shape
from circuits.model import Model


class NoWeights:
    """What edits share that change no weight, one by one: they have a ``digest``, and added to another they make a chain."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all that the edit does."""
        raise NotImplementedError

    @property
    def chain(self) -> tuple[str, ...]:
        return (self.digest,)

    @property
    def deltas(self) -> Mapping[str, Any]:
        return {}

    @property
    def routers(self) -> tuple[Any, ...]:
        return ()

    def __add__(self, other: Edit) -> "EditChain":
        return EditChain.of(cast(Edit, self), other)


@dataclass(frozen=True, eq=False)
class EditChain:
    """What ``weight_edit + adapter_edit`` gives. See `circuits.editing.edit.Edit`."""

    parts: tuple[Edit, ...]
    provenance: EditProvenance

    @classmethod
    def of(cls, first: Edit, second: Edit) -> "EditChain":
        """Raises:
        WrongModel: they do not go together.
        """
        require_composable(first, second)
        parts = [part for edit in (first, second) for part in (edit.parts if isinstance(edit, cls) else (edit,))]
        return cls(tuple(parts), summed(first, second))

    @property
    def chain(self) -> tuple[str, ...]:
        return tuple(digest for part in self.parts for digest in part.chain)

    @property
    def deltas(self) -> Mapping[str, Any]:
        return {}

    @property
    def routers(self) -> tuple[Any, ...]:
        return tuple(router for part in self.parts for router in part.routers)

    def nodes(self, shape: Shape) -> tuple[Node, ...]:
        return tuple(dict.fromkeys(node for part in self.parts for node in part.nodes(shape)))

    @contextmanager
    def on(self, model: Model) -> Iterator[Model]:
        require_model(self.provenance, model)
        with ExitStack() as stack:
            edited = model
            for part in self.parts:
                edited = stack.enter_context(_made_for(part, edited).on(edited))
            yield edited

    def __add__(self, other: Edit) -> "EditChain":
        return EditChain.of(self, other)

    def save(self, folder: Path) -> Path:
        """One folder for each part, inside ``folder``."""
        names = [f"{i:03}" for i in range(len(self.parts))]
        for name, part in zip(names, self.parts, strict=True):
            part.save(folder / name)
        digest = hashlib.sha256("+".join(self.chain).encode()).hexdigest()
        return write_edit(folder, "chain", self.provenance, {"parts": names}, {}, digest)


def _made_for(part: Edit, model: Model) -> Edit:
    """The same edit for a model with earlier parts of the chain on it; that they go together was checked."""
    provenance = replace(part.provenance, weights=model.weights)
    return cast(Edit, replace(cast(Any, part), provenance=provenance))

"""Edits that add a bypass beside one MLP and leave every weight as it is.

The bypass is the node ``x{l}`` of the edited model's graph: it reads what MLP l reads and writes to the residual stream,
so that circuits found on the edited model run through it. What it computes is a module's matter, which is shown the MLP: its
norm, and what it writes to what the bypass reads.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.editing.chain import NoWeights
from circuits.editing.edit import EditError, EditProvenance, edited_hash, lend, require_model
from circuits.editing.files import EditFile, digest_of, write_edit
from circuits.graph import Node, Shape
from circuits.model import Batch, Model
from circuits.model.bypassed import Bypass, BypassedNetwork, shown
from circuits.model.network import OpenNetwork
from circuits.model.transformer import Mlp, UnsupportedArchitecture


class BesideMlp(NoWeights):
    """What edits with a bypass share. They say which ``layer``, and what `bypass` computes there."""

    layer: int
    provenance: EditProvenance

    def bypass(self, model: Model) -> Bypass:
        """The bypass as this model runs it."""
        raise NotImplementedError

    def nodes(self, shape: Shape) -> tuple[Node, ...]:
        return (Node(self.layer, "bypass"),)

    @contextmanager
    def on(self, model: Model) -> Iterator[Model]:
        """See `Edit.on`.

        Raises:
            WrongModel: the edit was made for another model.
            UnsupportedArchitecture: the model does not show the MLP, which the bypass is shown.
        """
        require_model(self.provenance, model)
        network = BypassedNetwork.around(model.network, self.layer, self.bypass(model))
        with lend(model.with_network(network, edited_hash(self))) as edited:
            yield edited

    def save(self, folder: Path) -> Path:
        raise NotImplementedError


@runtime_checkable
class Module(Protocol):
    """What a bypass computes, apart from the model that it stands in."""

    @property
    def kind(self) -> str:
        """Its name in `MODULES`."""
        ...

    def tensors(self) -> Mapping[str, Tensor]: ...

    def as_json(self) -> dict[str, Any]:
        """What it is made from besides its tensors."""
        ...

    def beside(self, mlp: Mlp) -> Bypass:
        """What it computes beside that MLP."""
        ...


@dataclass(frozen=True, eq=False)
class BypassEdit(BesideMlp):
    """A module beside the MLP of ``layer``. See `circuits.editing.edit.Edit`."""

    layer: int
    module: Module
    provenance: EditProvenance

    def __post_init__(self) -> None:
        if not all(torch.isfinite(tensor).all() for tensor in self.module.tensors().values()):
            raise EditError(f"the bypass of layer {self.layer} is not finite; a smaller learning rate may help")

    @cached_property
    def digest(self) -> str:
        return digest_of(json.dumps(self._content(), sort_keys=True), dict(sorted(self.module.tensors().items())))

    def _content(self) -> dict[str, Any]:
        return {"layer": self.layer, "module": self.module.kind, **self.module.as_json()}

    def bypass(self, model: Model) -> Bypass:
        return self.module.beside(innermost(model).components(1).blocks[self.layer].mlp)

    def save(self, folder: Path) -> Path:
        """Write ``edit.json`` (layer and module) and ``edit.safetensors`` (its tensors) into ``folder``."""
        return write_edit(folder, "bypass", self.provenance, self._content(), self.module.tensors(), self.digest)

    @classmethod
    def read(cls, file: EditFile) -> "BypassEdit":
        """The inverse of `save`.

        Raises:
            EditError: the file is damaged, or its module is not known here.
        """
        content = dict(file.content)
        try:
            layer, kind = int(content.pop("layer")), content.pop("module")
            if kind not in MODULES:
                raise EditError(f"{file.source} holds a bypass of kind {kind!r}; known: {', '.join(MODULES)}")
            edit = cls(layer, MODULES[kind](content, file.tensors), file.provenance)
        except (KeyError, TypeError, AttributeError) as error:
            raise EditError(f"{file.source} is damaged: {type(error).__name__} {error}") from error
        if edit.digest != file.digest:
            raise EditError(f"{file.source} is damaged: it holds something else than was written")
        return edit


Sees = Literal["input", "write"]
"""What the MLP reads, after its norm; or what it writes to that."""


@dataclass(frozen=True, eq=False)
class Affine:
    """x W + b, of what the MLP reads or of what it writes. With W = -1 and b a value, of the write, the MLP is silenced at every
    position and says the value in its place."""

    W: Float[Tensor, "d_model d_model"]
    b: Float[Tensor, "d_model"]
    sees: Sees = "input"

    def __post_init__(self) -> None:
        if self.sees not in get_args(Sees):
            raise EditError(f"expected sees to be one of {', '.join(get_args(Sees))}, got {self.sees!r}")

    @property
    def kind(self) -> str:
        return "affine"

    def tensors(self) -> dict[str, Tensor]:
        return {"W": self.W, "b": self.b}

    def as_json(self) -> dict[str, Any]:
        return {"sees": self.sees}

    def beside(self, mlp: Mlp) -> Bypass:
        return _AffineBypass(self, mlp)


@dataclass(frozen=True, eq=False)
class _AffineBypass:
    module: Affine
    mlp: Mlp

    def __call__(
        self, residual: Float[Tensor, "batch pos d_model"], batch: Batch
    ) -> Float[Tensor, "batch pos d_model"]:
        x = self.mlp.norm(residual) if self.module.sees == "input" else self.mlp(residual)
        return x @ self.module.W.to(x) + self.module.b.to(x)


MODULES: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Tensor]], Module]] = {
    "affine": lambda content, tensors: Affine(tensors["W"], tensors["b"], content["sees"]),
}
"""Kind of module -> what makes it from its JSON and its tensors."""


def innermost(model: Model) -> OpenNetwork:
    """The model's network without bypasses.

    Raises:
        UnsupportedArchitecture: it does not show its weights.
    """
    try:
        return shown(model.network)
    except UnsupportedArchitecture as error:
        raise UnsupportedArchitecture(f"a bypass reads the MLP's norm and the token embedding, and {error}") from None

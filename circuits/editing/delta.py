"""WeightEdit: an edit that adds something to weights, most often to value matrices.

A weight is named and oriented as in TransformerLens whatever the checkpoint does (`circuits.model.weights`). A value matrix is
``blocks.{l}.mlp.W_out`` [d_mlp, d_model], the MLP writing ``hidden @ W_out + bias``: its rows belong to hidden units (keys), its
columns to the residual stream (values). Weights of attention have a head along their first axis. A delta has its weight's
orientation, always.

The weight edited is the one that the model runs with. In compatibility mode (LayerNorm folded, writes centred) a value matrix is
still the trained one up to the mean of each row, which no reader with a LayerNorm sees; hidden units are the same numbers
either way. So an edit of value matrices serves both modes, and lens, engines and logits all read the edited matrix.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.editing.chain import EditChain
from circuits.editing.edit import (
    Edit,
    EditError,
    EditProvenance,
    edited_hash,
    lend,
    require_composable,
    require_model,
    summed,
)
from circuits.editing.files import EditFile, digest_of, write_edit
from circuits.graph import Node, Shape
from circuits.model import Model
from circuits.model.weights import nodes_of


@dataclass(frozen=True, eq=False)
class LowRank:
    """``left @ right``: rank-1 of ROME, a few of MEMIT's requests or of a sum."""

    left: Float[Tensor, "*head rows rank"]
    right: Float[Tensor, "*head rank columns"]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.left.shape[:-1], self.right.shape[-1])

    @property
    def rank(self) -> int:
        """Number of outer products that are added up; at least the matrix's rank."""
        return self.left.shape[-1]

    def dense(self) -> Float[Tensor, "..."]:
        """The delta itself, in float64."""
        return self.left.double() @ self.right.double()

    def rows(self, start: int, stop: int) -> Float[Tensor, "some columns"]:
        """Some rows of a matrix's delta, in float64, without the rest being laid out."""
        return self.left[start:stop].double() @ self.right.double()

    def tensors(self) -> dict[str, Tensor]:
        return {"left": self.left, "right": self.right}


@dataclass(frozen=True, eq=False)
class Dense:
    """A delta of full size: what fine-tuning leaves."""

    delta: Float[Tensor, "..."]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.delta.shape)

    @property
    def rank(self) -> int:
        """Of a matrix, or of each head's; 1 of a vector."""
        return min(self.shape[-2:]) if len(self.shape) > 1 else 1

    def dense(self) -> Float[Tensor, "..."]:
        """The delta itself, in float64."""
        return self.delta.double()

    def rows(self, start: int, stop: int) -> Float[Tensor, "some columns"]:
        """Some rows of a matrix's delta, in float64."""
        return self.delta[start:stop].double()

    def tensors(self) -> dict[str, Tensor]:
        return {"delta": self.delta}


Delta = LowRank | Dense


def add(first: Delta, second: Delta) -> Delta:
    """Their sum: factored as long as that is smaller than the matrix.

    Raises:
        EditError: the deltas are for matrices of different shapes.
    """
    if first.shape != second.shape:
        raise EditError(f"cannot add deltas of shapes {first.shape} and {second.shape}")
    if isinstance(first, LowRank) and isinstance(second, LowRank) and first.rank + second.rank < min(first.shape[-2:]):
        return LowRank(torch.cat((first.left, second.left), -1), torch.cat((first.right, second.right), -2))
    dtype = torch.promote_types(_dtype(first), _dtype(second))
    return Dense((first.dense() + second.dense()).to(dtype))


def _dtype(delta: Delta) -> torch.dtype:
    return next(iter(delta.tensors().values())).dtype


@dataclass(frozen=True, eq=False)
class WeightEdit:
    """What to add to which weight (`circuits.model.weights` names them). See `circuits.editing.edit.Edit`."""

    deltas: Mapping[str, Delta]
    provenance: EditProvenance
    steps: tuple[str, ...] = ()
    """Of a sum: the digests of what was added, in order."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "deltas", {name: self.deltas[name] for name in sorted(self.deltas)})
        for name, delta in self.deltas.items():
            if not all(torch.isfinite(tensor).all() for tensor in delta.tensors().values()):
                raise EditError(
                    f"the edit of {name} is not finite: {self.provenance.method} diverged; "
                    "a smaller learning rate or clamp may help"
                )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the names, kinds, shapes and bytes of the deltas."""
        parts = {
            f"{name} {part}": tensor for name, delta in self.deltas.items() for part, tensor in delta.tensors().items()
        }
        return digest_of("", parts)

    @property
    def chain(self) -> tuple[str, ...]:
        return self.steps or (self.digest,)

    @property
    def of_value_matrices(self) -> Mapping[str, Delta]:
        """The deltas whose rows belong to hidden units and whose columns belong to the residual stream."""
        return {name: delta for name, delta in self.deltas.items() if name.endswith(".mlp.W_out")}

    @property
    def routers(self) -> tuple[Any, ...]:
        return ()

    def nodes(self, shape: Shape) -> tuple[Node, ...]:
        """Whose weights change: of attention's, the heads in which they do."""
        touched = (node for name, delta in self.deltas.items() for node in nodes_of(name, delta.dense(), shape))
        return tuple(sorted(set(touched)))

    @contextmanager
    def on(self, model: Model) -> Iterator[Model]:
        """See `Edit.on`. The new matrices are computed in float64 and rounded once to the model's type.

        Raises:
            WrongModel: the edit was made for another model.
            EditError: the model's matrices have other shapes, which its hash should have shown.
        """
        require_model(self.provenance, model)
        with lend(model.with_weights(self.edited_weights(model), edited_hash(self))) as edited:
            yield edited

    @torch.no_grad()
    def edited_weights(self, model: Model) -> dict[str, Float[Tensor, "..."]]:
        """The model's weights with the deltas added, by name."""
        weights = {}
        for name, delta in self.deltas.items():
            weight = model.weight(name)
            if delta.shape != tuple(weight.shape):
                raise EditError(f"expected a delta of shape {tuple(weight.shape)} for {name}, got {delta.shape}")
            weights[name] = (weight.double() + delta.dense().to(weight.device)).to(weight.dtype)
        return weights

    def __add__(self, other: Edit) -> Edit:
        if not isinstance(other, WeightEdit):
            return EditChain.of(self, other)
        require_composable(self, other)
        deltas = dict(self.deltas)
        for name, delta in other.deltas.items():
            deltas[name] = add(deltas[name], delta) if name in deltas else delta
        return WeightEdit(deltas, summed(self, other), (*self.chain, *other.chain))

    # ---- files -----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> Path:
        """Write ``edit.json`` and ``edit.safetensors`` into ``folder``: kilobytes for a low-rank edit."""
        tensors = {
            f"{name}.{part}": tensor for name, delta in self.deltas.items() for part, tensor in delta.tensors().items()
        }
        deltas = {
            name: {"kind": "low-rank" if isinstance(delta, LowRank) else "dense", "shape": list(delta.shape)}
            for name, delta in self.deltas.items()
        }
        content = {
            "orientation": "as TransformerLens lays weights out; of a value matrix, a row a hidden unit",
            "deltas": deltas,
            "steps": list(self.steps),
        }
        return write_edit(folder, "weights", self.provenance, content, tensors, self.digest)

    @classmethod
    def read(cls, file: EditFile) -> "WeightEdit":
        """The inverse of `save`.

        Raises:
            EditError: the file is damaged.
        """
        deltas: dict[str, Delta] = {}
        try:
            for name, record in file.content["deltas"].items():
                if record["kind"] == "low-rank":
                    deltas[name] = LowRank(file.tensors[f"{name}.left"], file.tensors[f"{name}.right"])
                else:
                    deltas[name] = Dense(file.tensors[f"{name}.delta"])
            edit = cls(deltas, file.provenance, tuple(file.content["steps"]))
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise EditError(f"{file.source} is damaged: {type(error).__name__} {error}") from error
        if edit.digest != file.digest:
            raise EditError(f"{file.source} is damaged: its tensors are not the ones that were written")
        return edit

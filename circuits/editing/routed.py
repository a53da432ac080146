"""RoutedEdit: a bypass with a router, which decides token by token which of its experts are heard (paper 3).

MEMoE makes one (`circuits.editing.methods.memoe`); how the experts and the router were trained is the method's matter.
"""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.editing.anchors import AnchorReader, AnchorRule, Recogniser, recogniser_from_json
from circuits.editing.bypass import BesideMlp, innermost
from circuits.editing.edit import EditError, EditProvenance
from circuits.editing.experts import Experts, mixture, route, top_gate
from circuits.editing.files import EditFile, digest_of, write_edit
from circuits.model import Batch, Model
from circuits.model.norm import Norm


@dataclass(frozen=True, slots=True)
class Routing:
    """How a trained mixture is run. ``strength`` is lambda of paper 3, Eq. 11; ``names`` is what the edit is about."""

    strength: float
    top_k: int
    renormalise: bool
    anchors: AnchorRule
    scoped: bool
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RoutedEdit(BesideMlp):
    """A mixture of experts beside the MLP of ``layer``, with a router that sends each token to some of them.

    See `circuits.editing.edit.Edit`.
    """

    layer: int
    experts: Experts
    routing: Routing
    recogniser: Recogniser
    provenance: EditProvenance

    def __post_init__(self) -> None:
        if not all(torch.isfinite(tensor).all() for tensor in self.experts.tensors().values()):
            raise EditError(f"the experts of layer {self.layer} are not finite; a smaller learning rate may help")

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the layer, the routing, the recogniser and the bytes of the tensors."""
        said = {"layer": self.layer, "routing": asdict(self.routing), "recogniser": self._recogniser_record()}
        return digest_of(json.dumps(said, sort_keys=True), dict(sorted(self.experts.tensors().items())))

    def _recogniser_record(self) -> object:
        try:
            return self.recogniser.as_json()
        except EditError:
            # One's own recogniser has no file, yet the edit works while this process lives.
            return repr(self.recogniser)

    @property
    def routers(self) -> "tuple[RoutedEdit, ...]":
        return (self,)

    def bypass(self, model: Model) -> "RoutedBypass":
        """The bypass as this model runs it."""
        norm, anchors = bypass_inputs(model, self.layer, self.routing, self.recogniser)
        return RoutedBypass(self.experts, self.routing, norm, anchors)

    # ---- files -----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> Path:
        """Write ``edit.json`` (layer, routing, recogniser) and ``edit.safetensors`` (the experts) into ``folder``."""
        content = {
            "layer": self.layer,
            "routing": {**asdict(self.routing), "names": list(self.routing.names)},
            "recogniser": self.recogniser.as_json(),
        }
        return write_edit(folder, "routed", self.provenance, content, self.experts.tensors(), self.digest)

    @classmethod
    def read(cls, file: EditFile) -> "RoutedEdit":
        """The inverse of `save`.

        Raises:
            EditError: the file is damaged, or its recogniser cannot be loaded here.
        """
        try:
            routing = file.content["routing"]
            edit = cls(
                int(file.content["layer"]),
                Experts.of(file.tensors),
                Routing(**{**routing, "names": tuple(routing["names"])}),
                recogniser_from_json(file.content["recogniser"]),
                file.provenance,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise EditError(f"{file.source} is damaged: {type(error).__name__} {error}") from error
        if edit.digest != file.digest:
            raise EditError(f"{file.source} is damaged: it holds something else than was written")
        return edit


@dataclass(frozen=True, eq=False)
class RoutedBypass:
    """h = lambda * sum over e of G_e W_e x: what the mixture adds to MLP(x) (paper 3, Eq. 11).

    x is the MLP's own input: what it reads, after its norm. With ``routing.scoped`` the gate is 0 at every position none
    of whose anchors the edit is about, so that there the model is the base model exactly.
    """

    experts: Experts
    routing: Routing
    norm: Norm
    anchors: AnchorReader

    def __call__(
        self, residual: Float[Tensor, "batch pos d_model"], batch: Batch
    ) -> Float[Tensor, "batch pos d_model"]:
        x = self.norm(residual)
        gate = self.gate(x, batch)
        return self.routing.strength * mixture(x, gate.to(x), _like(self.experts, x))

    def wanted(self, x: Float[Tensor, "batch pos d_model"], batch: Batch) -> Float[Tensor, "batch pos expert"]:
        """softmax(W_g [x ; embed(anchor)]) (paper 3, Eq. 9 and 12)."""
        anchored = self.anchors(batch)
        features = torch.cat((x, anchored.vectors.to(x)), -1)
        return route(features, self.experts.router.to(x))

    def gate(self, x: Float[Tensor, "batch pos d_model"], batch: Batch) -> Float[Tensor, "batch pos expert"]:
        """The gate decision G, 0 out of scope."""
        gate = top_gate(self.wanted(x, batch), self.routing.top_k, renormalise=self.routing.renormalise)
        if self.routing.scoped:
            gate = gate * self.anchors(batch).in_scope.to(gate.device)[..., None]
        return gate


def _like(experts: Experts, x: Tensor) -> Experts:
    return Experts.of({name: tensor.to(x) for name, tensor in experts.tensors().items()})


def bypass_inputs(model: Model, layer: int, routing: Routing, recogniser: Recogniser) -> tuple[Norm, AnchorReader]:
    """(the norm of the layer's MLP, a reader of anchors in the model's own embedding).

    Raises:
        UnsupportedArchitecture: the model does not show them.
    """
    network = innermost(model)
    parts = network.components(1)
    reader = AnchorReader(model.vocabulary, parts.W_E, recogniser, routing.names, routing.anchors)
    return parts.blocks[layer].mlp.norm, reader

"""The forward pass that edits are computed with: the model's own weights, run so that gradients flow and layers can be
left out."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.editing.edit import EditError
from circuits.graph import Slot
from circuits.model import Batch, Model
from circuits.model.agreement import disagreement
from circuits.model.bypassed import bypasses_of, shown
from circuits.model.network import ComponentNetwork
from circuits.model.taps import ReaderKind, Taps
from circuits.model.transformer import UnsupportedArchitecture


def open_network(model: Model, *prompts: Int[Tensor, "_ _"]) -> ComponentNetwork:
    """The model as a network of its weights, good for prompts as long as the longest of these (rows of ids); compared with
    the model on the first row of each.

    Weights in half precision are taken to float32: neither the targets nor the keys of an edit stand less.

    Raises:
        EditError: the model does not show its weights, is not causal, or its weights, as they are read here, give other
            logits than the model.
    """
    if bypasses_of(model.network):
        raise EditError(f"{model.name} cannot be edited here: a weight edit comes before a bypass, not after it")
    try:
        parts = shown(model.network).components(max(ids.shape[1] for ids in prompts))
    except UnsupportedArchitecture as error:
        raise EditError(f"{model.name} cannot be edited: {error}") from error
    if not all(block.attention.causal for block in parts.blocks):
        raise EditError(f"{model.name} cannot be edited: its tokens see those after them")
    network = ComponentNetwork(parts, model.n_ctx)
    for ids in prompts:
        batch = Batch.of_prompts(ids[:1])
        # In the model's own type: in half precision a first position's massive activation rounds to other logits.
        with torch.no_grad():
            off = disagreement(network.run(batch), model.logits(batch))
        if off:
            raise EditError(
                f"{model.name} cannot be edited: its weights, as they are read here, give other logits than the model: {off}"
            )
    half = parts.W_U.dtype in (torch.bfloat16, torch.float16)
    return ComponentNetwork(parts.to(torch.float32), model.n_ctx) if half else network


class MlpReads(Taps):
    """Keeps what some layers' MLPs read, before their norm."""

    def __init__(self, layers: Sequence[int]) -> None:
        self.values: dict[int, Float[Tensor, "row pos d_model"]] = {}
        self._layers = set(layers)

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        if kind == "mlp" and layer in self._layers:
            self.values[layer] = value
        return value


@torch.no_grad()
def before_layer(
    network: ComponentNetwork, ids: Int[Tensor, "row pos"], layer: int
) -> Float[Tensor, "row pos d_model"]:
    """The residual stream before ``layer``."""
    return network.resume(network.parts.embed(ids), 0, stop=layer)


@torch.no_grad()
def hidden_units(
    network: ComponentNetwork, ids: Int[Tensor, "row pos"], layers: Sequence[int]
) -> dict[int, Float[Tensor, "row pos d_mlp"]]:
    """The hidden units of those layers' MLPs: what their value matrices read, hence the keys of edits."""
    reads = MlpReads(layers)
    network.resume(network.parts.embed(ids), 0, reads, stop=max(layers) + 1)
    return {layer: network.parts.blocks[layer].mlp.hidden(value) for layer, value in reads.values.items()}


def at_rows(values: Float[Tensor, "row pos d"], positions: Int[Tensor, "row"]) -> Float[Tensor, "row d"]:
    """One position of each row."""
    return values[torch.arange(len(values), device=values.device), positions.to(values.device)]


def answer_logits(
    network: ComponentNetwork, final: Float[Tensor, "row pos d_model"], at: Int[Tensor, "row answer"]
) -> Float[Tensor, "row answer d_vocab"]:
    """The logits at some positions of each row, from the residual stream after the last layer."""
    at = at.to(final.device)
    return network.readout(final[torch.arange(len(final), device=final.device)[:, None], at])


def require_layers(model: Model, layers: Sequence[int]) -> tuple[int, ...]:
    """The layers, ascending.

    Raises:
        EditError: none, one twice, or one that the model does not have.
    """
    n_layers = model.shape.n_layers
    if not layers or len(set(layers)) != len(layers) or not all(0 <= layer < n_layers for layer in layers):
        raise EditError(f"expected distinct layers of 0 to {n_layers - 1} of {model.name}, got {tuple(layers)}")
    return tuple(sorted(layers))

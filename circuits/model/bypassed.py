"""A network and what stands beside its MLPs: modules that hear what an MLP hears (or writes) and add their own write."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Shape, Slot
from circuits.model.batch import Batch
from circuits.model.errors import UnknownWeight
from circuits.model.network import ComponentNetwork, EditableNetwork, Network, OpenNetwork
from circuits.model.taps import Projected, ReaderKind, Taps, WriterKind
from circuits.model.transformer import Components, UnsupportedArchitecture


@runtime_checkable
class Bypass(Protocol):
    """A module beside one MLP: it reads what the MLP reads, and what it gives is added to the residual stream."""

    def __call__(
        self, residual: Float[Tensor, "batch pos d_model"], batch: Batch
    ) -> Float[Tensor, "batch pos d_model"]:
        """
        Args:
            residual: what the MLP reads, before its norm.
            batch: the tokens of the run, on the residual's device, and where the prompt ends.
        """
        ...


@dataclass(frozen=True)
class BypassedNetwork:
    """Another network with bypasses beside some of its MLPs, whose own weights and code stay as they are.

    What a bypass writes is added to every later read, which is the same as adding it to the residual stream.
    """

    inner: Network
    bypasses: Mapping[int, tuple[Bypass, ...]]
    """By layer; several at one layer are one node of the graph, which writes their sum."""

    @classmethod
    def around(cls, network: Network, layer: int, bypass: Bypass) -> "BypassedNetwork":
        """``network`` with one bypass more."""
        if not 0 <= layer < network.shape.n_layers:
            raise ValueError(f"expected a layer of 0 to {network.shape.n_layers - 1} for the bypass, got {layer}")
        inner, bypasses = (network.inner, network.bypasses) if isinstance(network, cls) else (network, {})
        return cls(inner, {**bypasses, layer: (*bypasses.get(layer, ()), bypass)})

    @property
    def shape(self) -> Shape:
        return replace(self.inner.shape, bypasses=tuple(sorted(self.bypasses)))

    @property
    def d_model(self) -> int:
        return self.inner.d_model

    @property
    def d_vocab(self) -> int:
        return self.inner.d_vocab

    @property
    def n_ctx(self) -> int:
        return self.inner.n_ctx

    @property
    def biases(self) -> Float[Tensor, "layer d_model"]:
        return self.inner.biases

    def run(self, batch: Batch, taps: Taps | None = None) -> Float[Tensor, "batch pos d_vocab"]:
        return self.inner.run(batch, _WithBypasses(self.bypasses, batch, taps or Taps()))

    def readout(self, vectors: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest d_vocab"]:
        return self.inner.readout(vectors)

    def weight(self, name: str) -> Float[Tensor, "..."]:
        return self._editable.weight(name)

    def with_weights(self, weights: Mapping[str, Float[Tensor, "..."]]) -> "BypassedNetwork":
        return BypassedNetwork(self._editable.with_weights(weights), self.bypasses)

    @property
    def _editable(self) -> EditableNetwork:
        if not isinstance(self.inner, EditableNetwork):
            raise UnknownWeight(f"{type(self.inner).__name__} does not let its weights be edited")
        return self.inner


class _WithBypasses(Taps):
    """Runs the bypasses, and tells other taps of them as of any node."""

    def __init__(self, bypasses: Mapping[int, tuple[Bypass, ...]], batch: Batch, outer: Taps) -> None:
        self._bypasses, self._batch, self._outer = bypasses, batch, outer
        self._written: dict[int, Tensor] = {}

    def write(self, kind: WriterKind, layer: int, value: Tensor) -> None:
        self._outer.write(kind, layer, value)
        if kind == "mlp" and layer in self._written:
            self._outer.write("bypass", layer, self._written[layer])

    def before(self, layer: int, value: Tensor) -> None:
        self._outer.before(layer, self._heard(layer, value))

    def projected(self, layer: int, value: Projected) -> Projected:
        return self._outer.projected(layer, value)

    def compared(self, layer: int, key: Tensor, value: Tensor) -> None:
        self._outer.compared(layer, key, value)

    def pattern(self, layer: int, value: Tensor) -> None:
        self._outer.pattern(layer, value)

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        # What comes after a layer reads its bypass, as it reads its MLP: in a parallel block the heads of that layer do not.
        value = self._heard(layer, value)
        if kind == "mlp" and layer in self._bypasses:
            residual = self._outer.read("bypass", layer, None, value)
            batch = self._batch.to(residual.device)
            outputs = [bypass(residual, batch) for bypass in self._bypasses[layer]]
            self._written[layer] = torch.stack(outputs).sum(0) if len(outputs) > 1 else outputs[0]
        return self._outer.read(kind, layer, slot, value)

    def _heard(self, layer: int, value: Tensor) -> Tensor:
        for earlier, written in self._written.items():
            if earlier < layer:
                value = value + (written.unsqueeze(2) if value.dim() == 4 else written)
        return value


# ---- a network and what stands beside its weights ---------------------------------------------------------------------


def bypasses_of(network: Network) -> Mapping[int, tuple[Bypass, ...]]:
    """The bypasses of a network, by layer."""
    return network.bypasses if isinstance(network, BypassedNetwork) else {}


def shown(network: Network) -> OpenNetwork:
    """The network without its bypasses.

    Raises:
        UnsupportedArchitecture: it does not show its weights.
    """
    inner = network.inner if isinstance(network, BypassedNetwork) else network
    if not isinstance(inner, OpenNetwork):
        raise UnsupportedArchitecture(f"{type(inner).__name__} does not show its weights")
    return inner


def on_weights(network: Network, parts: Components) -> Network:
    """A network that runs these weights, with the same bypasses beside them."""
    plain = ComponentNetwork(parts, network.n_ctx)
    return BypassedNetwork(plain, network.bypasses) if isinstance(network, BypassedNetwork) else plain

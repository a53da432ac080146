"""States put elsewhere: what a model says when its residual stream at one place is what it was at another, or in another run.

*Back-patching* puts the state of a later layer into an earlier one at the same position, so that layers that had their turn
before it was there read it too (Biran et al. 2024, section 5). A state may as well be put at another position, or come from
another prompt: which it is, is for the caller to say.

*Point* l is the place before layer l, and point L, in a model of L layers, the one after the last.

Law: a state put where it was changes nothing.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.graph import Slot
from circuits.metrics import rank
from circuits.model import Batch, Model
from circuits.model.agreement import disagreement
from circuits.model.bypassed import on_weights, shown
from circuits.model.network import ComponentNetwork, Network
from circuits.model.past import Past
from circuits.model.taps import ReaderKind, Taps
from circuits.model.together import reads_on
from circuits.model.transformer import UnsupportedArchitecture

LOGITS_AT_ONCE = 2**22
"""Logits held at once, as a count of numbers."""


class PatchMismatch(ValueError):
    """A model that gives other logits than its weights, as they are read here."""


def opened(model: Model) -> Network:
    """What runs the model's weights in float32, with an edit's bypasses beside them.

    Raises:
        UnsupportedArchitecture: the model does not show its weights.
    """
    try:
        parts = shown(model.network).components(model.n_ctx)
    except UnsupportedArchitecture as error:
        raise UnsupportedArchitecture(f"no state of {model.name} can be put elsewhere: {error}") from None
    return on_weights(model.network, parts.to(torch.float32).shared())


def require_agreement(model: Model, network: Network, batch: Batch) -> None:
    """Raises:
    PatchMismatch: ``network`` gives other logits than the model.
    """
    if off := disagreement(network.run(batch)[:, -1], model.logits(batch)[:, -1]):
        raise PatchMismatch(
            f"{model.name} cannot be patched: its weights, as they are read here, give other logits: {off}"
        )


@torch.no_grad()
def residual_stream(network: Network, batch: Batch) -> Float[Tensor, "point pos d_model"]:
    """The state at every point and position of one row."""
    points = _Points()
    network.run(batch, points)
    return torch.stack(points.states)[:, 0]


class _Points(Taps):
    heads_apart = False

    def __init__(self) -> None:
        self.states: list[Float[Tensor, "batch pos d_model"]] = []

    def before(self, layer: int, value: Tensor) -> None:
        self.states.append(value)

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        if kind == "logits":
            self.states.append(value)
        return value


@torch.no_grad()
def patched(
    network: Network, batch: Batch, at: int, states: Sequence[Float[Tensor, "_ d_model"]]
) -> Float[Tensor, "patch rest d_model"]:
    """What ``logits`` reads from position ``at`` on, once for every patch: ``states[l]`` holds those of point l, and each
    stands there in the place of the row's own state at ``at``.

    Patches come back point by point, in their order. All go through the layers together: a layer is run once, with the
    patches of its point and of those before it, on the positions that can see them.

    Args:
        batch: one row.
        states: for each layer.

    Raises:
        ValueError: more rows than one, no such position, or not as many points as layers.
    """
    n_pos, n_layers = batch.ids.shape[1], network.shape.n_layers
    if len(batch.ids) != 1 or not 0 <= at < n_pos or len(states) != n_layers:
        raise ValueError(
            f"expected one row, a position of its {n_pos} and states for each of {n_layers} layers, "
            f"got {len(batch.ids)} rows, position {at} and states for {len(states)}"
        )
    if reads_on(network):
        return _patched_together(network, batch.ids, at, states)
    return patched_by_running(network, batch, at, states)


@torch.no_grad()
def patched_by_running(
    network: Network, batch: Batch, at: int, states: Sequence[Float[Tensor, "_ d_model"]]
) -> Float[Tensor, "patch rest d_model"]:
    """`patched`, by a whole run for each patch: written to be read, and good for any network that tells of its states."""
    own, found = residual_stream(network, batch), list[Tensor]()
    for point, some in enumerate(states):
        for state in some:
            put = _Put(point, at, state - own[point, at])
            network.run(batch, put)
            found.append(put.final[0, at:])
    return torch.stack(found) if found else own.new_zeros(0, own.shape[1] - at, own.shape[2])


class _Put(Taps):
    """The residual stream is a sum: a state is put at a point by adding, for all that reads after it, what it has more."""

    final: Float[Tensor, "batch pos d_model"]

    def __init__(self, point: int, at: int, more: Float[Tensor, "d_model"]) -> None:
        self._point, self._at, self._more = point, at, more

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        if layer >= self._point:
            value = value.clone()
            value[:, self._at] += self._more
        if kind == "logits":
            self.final = value
        return value


def _patched_together(
    network: ComponentNetwork, ids: Int[Tensor, "1 pos"], at: int, states: Sequence[Float[Tensor, "_ d_model"]]
) -> Float[Tensor, "patch rest d_model"]:
    parts, before = network.parts, Past()
    if at:
        parts.forward(parts.embed(ids[:, :at]), past=before)
    # The row without a patch leads: it says what each patch finds there.
    going = parts.embed(ids[:, at:], at)
    for layer, some in enumerate(states):
        new = going[:1].repeat(len(some), 1, 1)
        new[:, 0] = some
        going = torch.cat((going, new))
        going = parts.forward(going, start=2 * layer, stop=2 * layer + 2, past=before.rows([0] * len(going)))
    return going[1:]


@torch.no_grad()
def gives(
    network: Network, final: Float[Tensor, "patch rest d_model"], answer: Int[Tensor, "answer"]
) -> Bool[Tensor, "patch"]:
    """Whether each patch makes the whole answer the likeliest, token by token; the last positions are where it is predicted."""
    each = max(1, LOGITS_AT_ONCE // (network.d_vocab * len(answer)))
    wanted = answer.to(final.device)
    found = [
        (rank(network.readout(some), wanted.expand(len(some), -1)) == 1).all(1)
        for some in final[:, -len(answer) :].contiguous().split(each)
        if len(some)
    ]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.bool, device=final.device)

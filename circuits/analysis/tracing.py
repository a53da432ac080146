"""A prompt's forward pass taken apart at its last position: what each head reads from where, and what follows if it does not.

Only the last position's state can be changed by what a head writes there, since no earlier position sees it. So a cut
is followed downstream exactly by computing the last position of the later layers anew, against the keys and values that
the earlier positions had.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.facts import Fact
from circuits.graph import Node, Slot
from circuits.model import Batch, Model
from circuits.model.agreement import disagreement
from circuits.model.attention import Attention, attend_beside
from circuits.model.bypassed import on_weights, shown
from circuits.model.taps import ReaderKind, Taps, WriterKind
from circuits.model.transformer import Components, UnsupportedArchitecture

CHUNK_NUMBERS = 2**26
"""Node outputs held at once, as a count of numbers."""


@dataclass(frozen=True)
class Trace:
    """Facts with prompts of one length, at the position where their answer is predicted."""

    rows: tuple[int, ...]
    """Positions of these facts in the list they come from."""
    ids: Int[Tensor, "batch pos"]
    writes: Float[Tensor, "writer batch d_model"]
    """What every node adds to the last position, in the graph's order of writers."""
    states: Float[Tensor, "layer batch d_model"]
    """What each layer's heads read at the last position."""
    final: Float[Tensor, "batch d_model"]
    """What ``logits`` reads."""
    attention: Float[Tensor, "layer batch head pos"]
    """What each head gives each source position, from the last one; sums to 1."""
    keys: Float[Tensor, "layer batch head pos d_head"]
    values: Float[Tensor, "layer batch head pos d_value"]

    @property
    def n_pos(self) -> int:
        return self.ids.shape[1]

    def take(self, batch: slice) -> "Trace":
        """The trace of some of its facts."""
        return Trace(
            rows=self.rows[batch],
            ids=self.ids[batch],
            writes=self.writes[:, batch],
            states=self.states[:, batch],
            final=self.final[batch],
            attention=self.attention[:, batch],
            keys=self.keys[:, batch],
            values=self.values[:, batch],
        )


class TraceMismatch(ValueError):
    """A model that gives other logits than its weights, as they are read here."""


def open_parts(model: Model, facts: Sequence[Fact]) -> Components:
    """The weights of the model's own nodes, in float32, good for these prompts. Bypasses of an edit are not among them.

    Raises:
        UnsupportedArchitecture: the model does not show them, or its positions see later ones.
    """
    try:
        network = shown(model.network)
    except UnsupportedArchitecture as error:
        raise UnsupportedArchitecture(f"what {model.name}'s heads read cannot be told apart: {error}") from None
    parts = network.components(max(len(model.tokens(fact).forced) for fact in facts)).to(torch.float32)
    if not all(block.attention.causal for block in parts.blocks):
        raise UnsupportedArchitecture(f"{model.name} lets positions see later ones: a cut there is not followed here")
    return parts


@torch.no_grad()
def traces(model: Model, facts: Sequence[Fact], parts: Components) -> tuple[Trace, ...]:
    """The facts' traces in groups of like length, nothing padded: a run of the model from these weights.

    Raises:
        TraceMismatch: they give other logits than the model.
    """
    found = []
    for group in model.batches(facts):
        n_numbers = len(model.graph().writers) * group.n_prompt * model.network.d_model
        some = max(1, CHUNK_NUMBERS // n_numbers)
        for chunk in group.pieces(some):
            found.append(_trace(model, parts, chunk.rows, chunk.prompts))
    return tuple(found)


def _trace(model: Model, parts: Components, rows: tuple[int, ...], prompts: Batch) -> Trace:
    last = _Last()
    own = on_weights(model.network, parts).run(prompts, last)
    if off := disagreement(own[:, -1], model.logits(prompts)[:, -1]):
        raise TraceMismatch(
            f"{model.name} cannot be followed: its weights, as they are read here, give other logits: {off}"
        )
    return Trace(
        rows=rows,
        ids=prompts.ids,
        writes=torch.stack(last.writes),
        states=torch.stack(last.states),
        final=last.final,
        attention=torch.stack(last.patterns),
        keys=torch.stack(last.keys),
        values=torch.stack(last.values),
    )


class _Last(Taps):
    """Keeps what happens at the last position, layer by layer."""

    final: Float[Tensor, "batch d_model"]

    def __init__(self) -> None:
        self.writes: list[Tensor] = []
        self.states: list[Tensor] = []
        self.patterns: list[Tensor] = []
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def write(self, kind: WriterKind, layer: int, value: Tensor) -> None:
        self.writes += [*value[:, -1].unbind(1)] if kind == "head" else [value[:, -1]]

    def before(self, layer: int, value: Tensor) -> None:
        self.states.append(value[:, -1])

    def compared(self, layer: int, key: Tensor, value: Tensor) -> None:
        self.keys.append(key)
        self.values.append(value)

    def pattern(self, layer: int, value: Tensor) -> None:
        self.patterns.append(value[:, :, -1])

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        if kind == "logits":
            self.final = value[:, -1]
        return value


def source_parts(trace: Trace, parts: Components, layer: int) -> Float[Tensor, "batch head pos d_model"]:
    """Each head's write at the last position, split over what it reads: attention times (value times W_O).

    Law: the sum over source positions is the head's write.
    """
    weighted = trace.attention[layer].unsqueeze(-1) * trace.values[layer]
    return torch.einsum("bhpe,hed->bhpd", weighted, parts.blocks[layer].attention.W_O)


def head_nodes(parts: Components) -> tuple[Node, ...]:
    """All heads, layer by layer."""
    shape = parts.shape
    return tuple(Node(layer, "head", head) for layer in range(shape.n_layers) for head in range(shape.n_heads))


# ---- cuts ------------------------------------------------------------------------------------------------------------


def replay(
    model: Model, trace: Trace, parts: Components, cuts: Sequence[Float[Tensor, "_ batch d_model"]]
) -> Float[Tensor, "cut batch d_model"]:
    """What ``logits`` reads at the last position when something that a layer's heads write there is taken away.

    ``cuts[layer]`` holds that layer's variants: each takes its vectors from the residual stream right after the layer's
    attention, and everything downstream is computed anew. Variants come back layer by layer, in their order.
    """
    if model.shape.bypasses:
        return replay_by_running(model, trace, cuts)
    return _replay_last(model, trace, parts, cuts)


@torch.no_grad()
def replay_by_running(
    model: Model, trace: Trace, cuts: Sequence[Float[Tensor, "_ batch d_model"]]
) -> Float[Tensor, "cut batch d_model"]:
    """`replay`, by a whole run of the model for each variant: written to be read, and good for any network."""
    finals = []
    for layer, removed in enumerate(cuts):
        for vectors in removed:
            cut = _Cut(layer, vectors, model.shape.parallel)
            model.run(Batch.of_prompts(trace.ids), cut)
            finals.append(cut.final)
    return torch.stack(finals) if finals else trace.final.new_zeros(0, *trace.final.shape)


class _Cut(Taps):
    """Taps that takes vectors out of the last position, for all that reads it after a layer's attention."""

    final: Float[Tensor, "batch d_model"]

    def __init__(self, layer: int, vectors: Float[Tensor, "batch d_model"], parallel: bool) -> None:
        self._layer, self._vectors, self._parallel = layer, vectors, parallel

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        after_own_heads = kind in ("mlp", "bypass") and not self._parallel
        if layer > self._layer or (layer == self._layer and after_own_heads):
            value = value.clone()
            value[:, -1] -= (self._vectors[:, None] if kind == "head" else self._vectors).to(value)
        if kind == "logits":
            self.final = value[:, -1].float()
        return value


@torch.no_grad()
def _replay_last(
    model: Model, trace: Trace, parts: Components, cuts: Sequence[Float[Tensor, "_ batch d_model"]]
) -> Float[Tensor, "cut batch d_model"]:
    n_heads, graph, rest = parts.shape.n_heads, model.graph(), trace.states.shape[1:]
    state = trace.states.new_zeros(0, *rest)
    for layer, block in enumerate(parts.blocks):
        first = graph.writer_index(Node(layer, "head", 0))
        clean = trace.writes[first : first + n_heads].sum(0) - cuts[layer]
        before = torch.cat((state, trace.states[layer].expand(len(cuts[layer]), *rest)))
        after = before + torch.cat((_attend_last(state, trace, block.attention, layer), clean)) + parts.b_O[layer]
        state = after + block.mlp(before if parts.shape.parallel else after)
    return state


def _attend_last(
    state: Float[Tensor, "variant batch d_model"], trace: Trace, attention: Attention, layer: int
) -> Float[Tensor, "variant batch d_model"]:
    """What a layer's heads write together at the last position if they read ``state`` there."""
    last, (n_variants, n_batch, _) = trace.n_pos - 1, state.shape
    projected = attention.projected(state.flatten(0, 1)[:, None], last)
    q, k, v = (each.view(n_variants, n_batch, each.shape[1], each.shape[3]) for each in projected)
    earlier = trace.keys[layer][:, :, :last], trace.values[layer][:, :, :last]
    mixed = attend_beside((q, k, v), *earlier, attention.visible(1, trace.n_pos, q.device)[0], attention.scale)
    return attention.write(mixed.flatten(0, 1)[:, :, None]).view_as(state)

"""How steeply the NLL rises with what each reader reads: one forward and one backward pass for a batch of facts.

(Or the squared error, where that is what the model is measured by: `circuits.model.Model.metric`.)

A reader's *slope* is d NLL / d (its input), everything after it following. What a sender's edge would carry if it were
ablated, less what it carries, times the slope is the first-order estimate of the edge's score (`circuits.discovery.eap`).

A *point* is a place between the sub-layers: 2 l before the attention of layer l, 2 l + 1 before its MLP, 2 L before the
logits. In a parallel block the MLP reads at 2 l too. Slopes can be asked for with the residual stream shifted from a point
on: that is the model with some earlier node's output replaced.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.discovery.problem import Problem
from circuits.graph import SLOTS, Granularity, Graph, Node, Reader, Shape, Slot
from circuits.metrics import Metric, require_finite
from circuits.model import Model
from circuits.model.agreement import disagreement
from circuits.model.batch import Group
from circuits.model.bypassed import bypasses_of, shown
from circuits.model.norm import Norm
from circuits.model.taps import Projected, ReaderKind, Recorder, Taps
from circuits.model.transformer import Components, UnsupportedArchitecture

BYTES = 2**28
"""What the largest tensor of a batch may take: facts beyond it wait for the next batch."""
POSITIONS = 512
"""Points of a path share a pass while facts x points x positions stay below this."""

Slope = tuple[list[int], Float[Tensor, "reader batch pos d_model"]]
"""Indices of some readers, and the slope at what each of them reads."""


@runtime_checkable
class Slopes(Protocol):
    """The slopes of one batch of facts of like length."""

    writes: Float[Tensor, "writer batch pos d_model"]
    """What every writer writes in the whole model."""

    def at(self, point: int, shifts: Float[Tensor, "step #batch #pos #d_model"]) -> Iterator[Slope]:
        """The slopes of the readers at ``point`` and after it, summed over runs in each of which the residual stream is
        shifted from ``point`` on."""
        ...


@dataclass(frozen=True)
class Attribution:
    """Facts of like length, their slopes, and what ablation changes.

    ``change[w]`` is what writer w's ablated edges carry less what it writes.
    """

    slopes: Slopes
    change: Float[Tensor, "writer batch pos d_model"]
    n_readers: int
    most_rows: int
    """Facts, times points of a path, that fit into one pass."""

    def scores(self) -> Float[np.ndarray, "writer reader"]:
        """Change times slope at the clean run, summed over facts and positions."""
        return self._times(self.change, self.slopes.at(0, self.change.new_zeros(1, 1, 1, 1)))

    def along(
        self, path: Float[Tensor, "batch pos d_model"], point: int, senders: slice, steps: int
    ) -> Float[np.ndarray, "sender reader"]:
        """`scores` of the edges out of some senders, with the mean slope over a path of runs.

        On the path, the residual stream from ``point`` on is shifted by 0 up to the whole of ``path``. The mean is taken at
        the middle of each of ``steps`` equal steps.
        """
        middles = (torch.arange(steps).to(path) + 0.5) / steps
        n_facts, n_pos = path.shape[:2]
        at_once = max(1, min(self.most_rows // n_facts, POSITIONS // (n_facts * n_pos)))
        change = self.change[senders]
        total = np.zeros((len(change), self.n_readers))
        for some in middles.split(at_once):
            total += self._times(change, self.slopes.at(point, some[:, None, None, None] * path))
        return total / steps

    def _times(
        self, change: Float[Tensor, "sender batch pos d_model"], slopes: Iterator[Slope]
    ) -> Float[np.ndarray, "sender reader"]:
        flat = change.flatten(1).to(torch.promote_types(change.dtype, torch.float32))
        scores = np.zeros((len(change), self.n_readers))
        for readers, slope in slopes:
            scores[:, readers] = (flat @ slope.flatten(1).to(flat).T).double().cpu().numpy()
        return scores


def batches(problem: Problem) -> Iterator[Attribution]:
    """All facts, in batches that fit into memory. Readers are those of the ``qkv`` graph; the metric is differentiated.

    Raises:
        circuits.engines.ablation.AblationError: the ablation lacks the prompts it needs.
        FloatingPointError: logits that are not finite.
        ValueError: a metric that is relative to the model's own outputs, or to other objects.
    """
    model, facts, ablation = problem.model, problem.facts, problem.ablation
    metric = problem.metric or model.metric
    if metric.relative:
        raise ValueError(f"expected a metric of outputs and answers alone to differentiate, got {metric.name}")
    graph, groups = model.graph(), model.batches(facts)
    n_pos = max(group.ids.shape[1] for group in groups)
    parts = _parts(model, n_pos)
    # Resampled values are as large as what the nodes write: taken a batch at a time.
    shared = [None] * len(groups) if ablation.kind == "resample" else ablation.values(model, facts, groups)
    for group, values in zip(groups, shared, strict=True):
        per_position = 4 * len(graph.writers if parts else graph.readers) * model.network.d_model
        most = max(1, BYTES // (per_position * group.ids.shape[1]))
        for part in group.pieces(most):
            carried = ablation.values(model, facts, [part])[0] if values is None else values
            slopes = _slopes(model, graph, part, parts, metric)
            yield Attribution(slopes, carried.to(slopes.writes) - slopes.writes, len(graph.readers), most)


def merged(
    values: Float[np.ndarray, "writer reader"], shape: Shape, granularity: Granularity
) -> Float[np.ndarray, "writer merged"]:
    """Scores of the ``qkv`` graph for a graph of that granularity: an edge into a head is its edges into q, k and v."""
    if granularity == "qkv":
        return values
    split, whole = Graph(shape, "qkv"), Graph(shape, granularity)
    total = np.zeros((len(values), len(whole.readers)))
    for column, reader in zip(values.T, split.readers, strict=True):
        total[:, whole.readers_of(reader.node)[0]] += column
    return total


def point_after(node: Node, shape: Shape) -> int:
    """The first point at which what this node wrote is read."""
    if node.kind == "head" and not shape.parallel:
        return 2 * node.layer + 1
    return 2 * node.layer + 2


def _point_of(kind: ReaderKind, layer: int, shape: Shape) -> int:
    return 2 * layer + (kind in ("mlp", "bypass") and not shape.parallel)


def _parts(model: Model, n_pos: int) -> Components | None:
    """The model's weights, where they can be had."""
    if bypasses_of(model.network):
        return None
    try:
        return shown(model.network).components(n_pos)
    except UnsupportedArchitecture:
        return None


def _slopes(model: Model, graph: Graph, group: Group, parts: Components | None, metric: Metric) -> Slopes:
    """From the weights; from the model's own hooks, more slowly, where the weights do not give the model's logits."""
    expected = model.logits(group)[:, -group.n_answer :]
    require_finite(expected, model.name)
    if parts is not None:
        slopes = WeightSlopes(parts, graph, group, metric)
        if disagreement(slopes.logits, expected) is None:
            return slopes
    return HookSlopes(model, graph, group, metric)


# ---- from the weights ------------------------------------------------------------------------------------------------


class WeightSlopes:
    """See `Slopes`. All heads of a layer read one state, so its norm is taken, and differentiated, once for all of them."""

    def __init__(self, parts: Components, graph: Graph, group: Group, metric: Metric) -> None:
        self._parts, self._graph, self._metric = parts, graph, metric
        self._answer = group.answer.to(parts.W_U.device)
        with torch.no_grad():
            embedded = parts.embed(group.ids)
            watch = _Clean()
            watch.write("input", -1, embedded)
            self.logits = self._run(embedded, 0, watch)
        self._states, self.writes = watch.states, watch.outputs

    def at(self, point: int, shifts: Float[Tensor, "step #batch #pos #d_model"]) -> Iterator[Slope]:
        taps = _Tap()
        with torch.enable_grad():
            state = (self._states[point] + shifts).flatten(0, 1)
            logits = self._run(state.detach().requires_grad_(), point, taps)
            loss = self._metric.of(logits, self._answer.repeat(len(shifts), 1)).sum()
            flat = [tensor for _, _, tensors in taps.reads for tensor in tensors]
            gradients = iter(torch.autograd.grad(loss, flat))
        for node, state, tensors in taps.reads:
            own = [next(gradients) for _ in tensors]
            if node.kind == "head":
                readers, slope = self._into_heads(node.layer, state, own)
            else:
                readers, slope = [self._graph.reader_index(Reader(node))], own[0][None]
            yield readers, slope.unflatten(1, (len(shifts), -1)).sum(1)

    def _into_heads(self, layer: int, state: Tensor, gradients: list[Tensor]) -> Slope:
        """From the gradients by projected queries, keys and values to those by what each head's slots read."""
        attention = self._parts.blocks[layer].attention
        matrices = (attention.W_Q, attention.W_K, attention.W_V)
        by_normed = [torch.einsum("bhpe,hde->hbpd", g, w) for g, w in zip(gradients, matrices, strict=True)]
        readers = [
            self._graph.reader_index(Reader(Node(layer, "head", head), slot))
            for slot in SLOTS
            for head in range(self._graph.shape.n_heads)
        ]
        return readers, through_norm(attention.norm, state, torch.cat(by_normed))

    def _run(self, x: Tensor, point: int, taps: Taps) -> Float[Tensor, "batch answer d_vocab"]:
        """The answer's logits, from the residual stream at a point on."""
        final = taps.read("logits", len(self._parts.blocks), None, self._parts.forward(x, taps, start=point))
        return self._parts.readout(final[:, -self._answer.shape[1] :])


class _Clean(Recorder):
    """Keeps every write of the clean pass, and the residual stream at every point: ``states``."""

    heads_apart = False

    def __init__(self) -> None:
        super().__init__()
        self.states: list[Tensor] = []

    def before(self, layer: int, value: Tensor) -> None:
        self.states.append(value)

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        self.states.append(value)
        return value


class _Tap(Taps):
    """Keeps what gradients are wanted by, of a pass that will be differentiated."""

    heads_apart = False

    def __init__(self) -> None:
        self.reads: list[tuple[Node, Tensor, list[Tensor]]] = []
        """For each reader, or for the heads of a layer: the state read, and what it became."""
        self._before: Tensor | None = None

    def before(self, layer: int, value: Tensor) -> None:
        self._before = value.detach()

    def projected(self, layer: int, value: Projected) -> Projected:
        assert self._before is not None
        self.reads.append((Node(layer, "head"), self._before, [*value]))
        return value

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        # A tensor of its own, for the gradient through this reader alone.
        own = value.view_as(value)
        self.reads.append((Node(layer, kind), value.detach(), [own]))
        return own


def through_norm(
    norm: Norm, x: Float[Tensor, "*rest d"], gradient: Float[Tensor, "reader *rest d"]
) -> Float[Tensor, "reader *rest d"]:
    """The gradient by x, from that by norm(x): for several readers of one x.

    With y = (x - mean) / scale, it is (g - mean(g) - y mean(g y)) / scale, g being the gradient times the norm's weight;
    without the means of x and g for an RMS norm.
    """
    if norm.kind == "none":
        return gradient
    wide = torch.promote_types(x.dtype, torch.float32)
    x, gradient = x.to(wide), gradient.to(wide)
    if norm.weight is not None:
        gradient = gradient * norm.weight
    if norm.kind == "layer":
        x = x - x.mean(-1, keepdim=True)
    rstd = torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps)
    y = x * rstd
    gradient = gradient - y * (gradient * y).mean(-1, keepdim=True)
    if norm.kind == "layer":
        gradient = gradient - gradient.mean(-1, keepdim=True)
    return gradient * rstd


# ---- from the model's own hooks --------------------------------------------------------------------------------------


class HookSlopes:
    """See `Slopes`: on any model, by differentiating through every read that it shows. The reference for `WeightSlopes`."""

    def __init__(self, model: Model, graph: Graph, group: Group, metric: Metric) -> None:
        self._model, self._graph, self._group, self._metric = model, graph, group, metric
        record = Recorder()
        model.run(group, record)
        self.writes = record.outputs

    def at(self, point: int, shifts: Float[Tensor, "step #batch #pos #d_model"]) -> Iterator[Slope]:
        tap = _HookTap(self._graph, point, shifts.flatten(0, 1))
        batch = self._group.repeat(len(shifts))
        logits = self._model.run_differentiably(batch, tap)[:, -batch.n_answer :]
        with torch.enable_grad():
            loss = self._metric.of(logits, batch.answer.to(logits.device)).sum()
            gradients = torch.autograd.grad(loss, [value for _, value in tap.reads])
        for (readers, _), gradient in zip(tap.reads, gradients, strict=True):
            slope = gradient.movedim(2, 0) if gradient.dim() == 4 else gradient[None]
            yield readers, slope.unflatten(1, (len(shifts), -1)).sum(1)


class _HookTap(Taps):
    """Taps that shifts what is read from a point on, and keeps it for its gradient."""

    def __init__(self, graph: Graph, point: int, shift: Tensor) -> None:
        self._graph, self._point, self._shift = graph, point, shift
        self.reads: list[tuple[list[int], Tensor]] = []

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        shape = self._graph.shape
        if _point_of(kind, layer, shape) < self._point:
            return value
        value = value + (self._shift.unsqueeze(2) if kind == "head" else self._shift)
        own = value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
        heads = range(shape.n_heads if kind == "head" else 1)
        self.reads.append(([self._graph.reader_index(Reader(Node(layer, kind, h), slot)) for h in heads], own))
        return own

"""What happens to the answer, and to the relation's whole range, when a head does not read some positions.

A cut takes from the head's write the part that it read at these positions (attention times value times W_O), and everything
downstream is computed anew (`circuits.analysis.tracing.replay`): an intervention, not a direct-effect estimate.
Positive effects mean that the reading helps: without it, the measured quantity falls by so much.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.analysis.attribution import Readout, RelationTokens, class_mask, read_from
from circuits.analysis.tracing import Trace, replay, source_parts
from circuits.graph import Node
from circuits.model import Model
from circuits.model.spans import Spans
from circuits.model.transformer import Components

CHUNK_NUMBERS = 2**25
"""Hidden units held at once while cuts are followed, as a count of numbers."""


@dataclass(frozen=True)
class CutEffects:
    """For each head and each fact, what cutting one reading takes away, in logits."""

    answer: Float[np.ndarray, "head fact object"]
    """For each object in the answer's place: fall of its logit against the mean of the relation's other objects."""
    range: Float[np.ndarray, "head fact"]
    """Fall of the mean logit of the relation's objects against that of the whole vocabulary."""
    stream: Float[np.ndarray, "head d_model"]
    """Fall of the normed stream before the unembedding, averaged over the facts: any set of tokens' mean fall is linear in it."""


def cut_readings(
    model: Model,
    parts: Components,
    followed: Sequence[Trace],
    found: Sequence[Spans],
    directions: Readout,
) -> tuple[CutEffects, CutEffects]:
    """Cut each head's reading of the subject's positions, and (apart from that) of the relation's, one head at a time."""
    n_heads, n_facts = parts.shape.n_layers * parts.shape.n_heads, len(found)
    answer = np.zeros((2, n_heads, n_facts, directions.objects.shape[1]))
    range_, stream = np.zeros((2, n_heads, n_facts)), np.zeros((2, n_heads, parts.d_model))
    for trace in followed:
        masks = class_mask(found, "subject", trace), class_mask(found, "relation", trace)
        layers = range(parts.shape.n_layers)
        cuts = [torch.cat([read_from(trace, parts, layer, mask) for mask in masks]) for layer in layers]
        lost = lost_stream(model, parts, trace, cuts)
        # Layer by layer: the layer's heads with their first reading cut, then with their second.
        lost = lost.view(parts.shape.n_layers, 2, parts.shape.n_heads, *lost.shape[1:]).transpose(0, 1).flatten(1, 2)
        rows = list(trace.rows)
        answer[:, :, rows] = directions.versus_others(lost).cpu().numpy()
        range_[:, :, rows] = (lost @ directions.range).cpu().numpy()
        stream += lost.sum(2).cpu().numpy() / n_facts
    subject, relation = (CutEffects(*each) for each in zip(answer, range_, stream, strict=True))
    return subject, relation


def lost_stream(
    model: Model, parts: Components, trace: Trace, cuts: Sequence[Float[Tensor, "_ batch d_model"]]
) -> Float[Tensor, "cut batch d_model"]:
    """What the normed stream before the unembedding loses by each cut. Layer by layer, as `replay` has it."""
    d_hidden = max(block.mlp.W_in.shape[1] for block in parts.blocks)
    n_cuts = sum(len(each) for each in cuts)
    step = max(1, CHUNK_NUMBERS // max(1, n_cuts * d_hidden))
    clean, lost = parts.final(trace.final), []
    for start in range(0, len(trace.rows), step):
        rows = slice(start, start + step)
        finals = replay(model, trace.take(rows), parts, [each[:, rows] for each in cuts])
        lost.append(clean[rows] - parts.final(finals))
    return torch.cat(lost, 1)


def cut_windows(
    model: Model,
    parts: Components,
    followed: Sequence[Trace],
    found: Sequence[Spans],
    directions: Readout,
    wanted: RelationTokens,
    head: Node,
) -> tuple[list[Float[np.ndarray, "window"]], list[int]]:
    """For each fact: the effect on its answer of cutting the head's reading of every window of tokens as long as the
    subject, among subject and relation positions; and which window is the subject's own."""
    values: dict[int, np.ndarray] = {}
    for trace in followed:
        split = source_parts(trace, parts, head.layer)[:, head.head]
        windows = [_windows(found[row]) for row in trace.rows]
        removed = split.new_zeros(max(len(each) for each in windows), len(trace.rows), parts.d_model)
        for i, runs in enumerate(windows):
            for w, run in enumerate(runs):
                removed[w, i] = split[i, list(run)].sum(0)
        cuts = [removed if layer == head.layer else removed[:0] for layer in range(parts.shape.n_layers)]
        fall = directions.versus_others(lost_stream(model, parts, trace, cuts)).cpu().numpy().astype(float)
        for i, row in enumerate(trace.rows):
            values[row] = fall[: len(windows[i]), i, wanted.answers[row]]
    return [values[row] for row in range(len(found))], [_windows(each).index(each.subject) for each in found]


def _windows(found: Spans) -> list[tuple[int, ...]]:
    """All runs of readable positions as long as the subject; the subject's own is one of them."""
    positions, width = found.readable, len(found.subject)
    return [positions[start : start + width] for start in range(len(positions) - width + 1)]

"""What a head's write says, split exactly over what it reads (direct logit attribution by source position).

A head's write at the last position is a sum over source positions of attention times value times W_O. Each part is read
through the final norm, whose scale is held at what the whole stream has, so that parts of a sum read as parts of a sum
(after Chughtai et al. 2024, arXiv:2402.07321; the norm's and the unembedding's biases belong to no part):

(a) ``answer``: logit of the answer minus the mean logit of the relation's other objects;
(b) ``range``: mean logit of all the relation's objects minus that of the whole vocabulary;
(c) ``words``: mean logit of the relation's words minus that of the whole vocabulary.

Objects count by their first token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.analysis.tracing import Trace, open_parts, source_parts, traces
from circuits.facts import Fact
from circuits.graph import Node
from circuits.model import Model
from circuits.model.spans import Spans, spans
from circuits.model.transformer import Components

PositionClass = Literal["first", "subject", "relation", "last"]

_LISTED = """
a an the this that these those of in on at by for from to with as into about over under and or but nor not no is are was were be
been being am has have had do does did it its he him his she her they them their we us our you your i me my who whom whose which
what when where how there here s
"""
SINK = 0
"""The position where attention rests whatever stands there: a prompt's first (Xiao et al. 2024, arXiv:2309.17453)."""
FUNCTION_WORDS = frozenset(_LISTED.split())
"""English words that name no relation."""
TINY = 1e-12
"""A length below which a head writes nothing."""


class TargetError(ValueError):
    """A relation in which no answer can be told from others."""


@dataclass(frozen=True)
class RelationTokens:
    """The tokens that a relation's heads may write."""

    objects: tuple[int, ...]
    """First tokens of the relation's objects, each once."""
    answers: tuple[int, ...]
    """For each fact, the index of its answer among ``objects``."""
    words: tuple[int, ...]
    """Tokens of the prompts' relation positions that are no function words, in order of first use."""


def targets(
    model: Model, facts: Sequence[Fact], objects: Sequence[str], found: Sequence[Spans] | None = None
) -> RelationTokens:
    """The targets of facts of one relation, whose range is ``objects`` (the facts' own answers are added).

    ``found`` holds the spans of each fact's prompt, if the caller has them already.

    Raises:
        TargetError: all answers begin with the same token.
    """
    found = [spans(model, fact) for fact in facts] if found is None else found
    tokens = [model.tokens(fact) for fact in facts]
    own = [each.at_end for each in tokens]
    range_ = [model.vocabulary.encode(" " + name)[0] for name in objects]
    distinct = tuple(dict.fromkeys((*own, *range_)))
    if len(distinct) < 2:
        raise TargetError(
            f"expected a relation with at least two objects that begin with different tokens, got {len(distinct)}: "
            "an answer cannot be told from the others"
        )
    used = [each.prompt[i] for own_spans, each in zip(found, tokens, strict=True) for i in own_spans.relation]
    words = dict.fromkeys(token for token in used if _is_word(model.token_text(token)))
    return RelationTokens(distinct, tuple(distinct.index(token) for token in own), tuple(words or dict.fromkeys(used)))


def _is_word(text: str) -> bool:
    return text.strip().isalpha() and text.strip().lower() not in FUNCTION_WORDS


@dataclass(frozen=True)
class Readout:
    """The unembedding as seen by parts of the stream: which directions stand for (a), (b) and (c).

    All in logits per unit of the normed stream. ``objects`` are their W_U columns, ``vocabulary`` the mean of all.
    """

    objects: Float[Tensor, "d_model object"]
    range: Float[Tensor, "d_model"]
    words: Float[Tensor, "d_model"]
    vocabulary: Float[Tensor, "d_model"]

    def versus_others(self, normed: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest object"]:
        """(a) for each object in the answer's place: its logit minus the mean of the others'."""
        logits = normed @ self.objects
        return (logits - logits.mean(-1, keepdim=True)) * (logits.shape[-1] / (logits.shape[-1] - 1))


def readout(parts: Components, wanted: RelationTokens) -> Readout:
    vocabulary = parts.W_U.mean(1)
    objects = parts.W_U[:, list(wanted.objects)]
    words = parts.W_U[:, list(wanted.words)].mean(1) if wanted.words else vocabulary
    return Readout(objects, objects.mean(1) - vocabulary, words - vocabulary, vocabulary)


@dataclass(frozen=True, slots=True)
class SourceReading:
    """One head on one prompt, by source position: attention from the last position, and what that part adds to the logits."""

    head: Node
    tokens: tuple[str, ...]
    classes: tuple[PositionClass, ...]
    attention: tuple[float, ...]
    write: tuple[float, ...]
    """The share of the head's write that it draws from each position (`written_shares`)."""
    answer: tuple[float, ...]
    """(a), in logits."""
    range: tuple[float, ...]
    """(b), in logits."""
    words: tuple[float, ...]
    """(c), in logits."""


@torch.no_grad()
def read_sources(
    model: Model, facts: Sequence[Fact], heads: Sequence[Node], objects: Sequence[str]
) -> tuple[tuple[SourceReading, ...], ...]:
    """For each fact, each of ``heads`` by source position. ``objects`` is the range of the facts' relation.

    Raises:
        TargetError, SpanError, UnsupportedArchitecture: see `targets`, `spans`, `open_parts`.
    """
    parts, found = open_parts(model, facts), [spans(model, fact) for fact in facts]
    wanted = targets(model, facts, objects, found)
    directions, rows = readout(parts, wanted), dict[int, tuple[SourceReading, ...]]()
    for trace in traces(model, facts, parts):
        split = {layer: source_parts(trace, parts, layer) for layer in sorted({head.layer for head in heads})}
        drawn = {layer: written_shares(trace, parts, layer) for layer in split}
        for i, row in enumerate(trace.rows):
            ids, classes = trace.ids[i].tolist(), position_classes(found[row])
            tokens = tuple(model.token_text(token) for token in ids)
            readings = []
            for head in heads:
                share = parts.final.share(split[head.layer][i, head.head], trace.final[i])
                answer = directions.versus_others(share)[:, wanted.answers[row]]
                readings.append(
                    SourceReading(
                        head,
                        tokens,
                        classes,
                        tuple(trace.attention[head.layer, i, head.head].tolist()),
                        tuple(drawn[head.layer][i, head.head].tolist()),
                        tuple(answer.tolist()),
                        tuple((share @ directions.range).tolist()),
                        tuple((share @ directions.words).tolist()),
                    )
                )
            rows[row] = tuple(readings)
    return tuple(rows[row] for row in range(len(facts)))


def position_classes(found: Spans) -> tuple[PositionClass, ...]:
    """The class of every position up to the last; ``first`` is the BOS token."""
    return tuple(_class(found, position) for position in range(found.last + 1))


def apart_from_sink(found: Spans) -> tuple[PositionClass, ...]:
    """`position_classes`, with the first position ``first``, BOS token or not: attention rests there whatever it says.

    It stays the subject's where the subject has no other position: the two cannot be told apart there.
    """
    classes = position_classes(found)
    return classes if found.subject == (SINK,) else ("first", *classes[1:])


def _class(found: Spans, position: int) -> PositionClass:
    if position == found.last:
        return "last"
    if position in found.subject:
        return "subject"
    return "relation" if position in found.relation else "first"


def read_from(
    trace: Trace, parts: Components, layer: int, mask: Float[Tensor, "batch pos"]
) -> Float[Tensor, "head batch d_model"]:
    """The sum of `source_parts` over the positions where ``mask`` is 1."""
    weights = trace.attention[layer] * mask[:, None]
    mixed = torch.einsum("bhp,bhpe->hbe", weights, trace.values[layer])
    return mixed @ parts.blocks[layer].attention.W_O


def written_shares(trace: Trace, parts: Components, layer: int) -> Float[Tensor, "batch head pos"]:
    """The share of each head's write that it draws from each position: of the lengths of `source_parts`. Sums to 1, or is 0 throughout."""
    lengths = source_parts(trace, parts, layer).norm(dim=-1)
    return lengths / lengths.sum(-1, keepdim=True).clamp_min(TINY)


@torch.no_grad()
def read_shares(
    parts: Components, followed: Sequence[Trace], found: Sequence[Spans], which: Literal["subject", "relation"]
) -> Float[np.ndarray, "head fact"]:
    """The share of every head's write that comes of one class of positions: of the lengths of `source_parts`, summed over positions.

    A weight says how a head mixes values, and values differ in length by orders of magnitude: a head may draw most of what it
    writes from a token to which it gives a few per cent of its attention (Kobayashi et al. 2020, arXiv:2004.10102).
    """
    shares = np.zeros((parts.shape.n_layers * parts.shape.n_heads, len(found)))
    for trace in followed:
        mask = class_mask(found, which, trace)
        for layer in range(parts.shape.n_layers):
            own = (written_shares(trace, parts, layer) * mask[:, None]).sum(-1)
            first = layer * parts.shape.n_heads
            shares[first : first + parts.shape.n_heads, list(trace.rows)] = own.T.double().cpu().numpy()
    return shares


def class_mask(
    found: Sequence[Spans], which: Literal["subject", "relation"], trace: Trace
) -> Float[Tensor, "batch pos"]:
    """1 at the positions of that class, for each fact of the trace; ``found`` has the spans of all facts."""
    mask = torch.zeros(trace.ids.shape)
    for i, row in enumerate(trace.rows):
        mask[i, list(getattr(found[row], which))] = 1
    return mask.to(trace.final.device)

"""What a head's write is made of: the part read from subject and relation in the logits, and where its attention rests."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from circuits.analysis.attribution import SINK, RelationTokens, class_mask, read_from, read_shares, readout
from circuits.analysis.tracing import Trace
from circuits.model.spans import Spans
from circuits.model.transformer import Components


@dataclass(frozen=True)
class Direct:
    """What parts add to the logits by themselves, through the final norm's scale."""

    answer: Float[np.ndarray, "head fact object"]
    range: Float[np.ndarray, "head fact"]
    words: Float[np.ndarray, "head fact"]
    stream: Float[np.ndarray, "head d_model"]


@torch.no_grad()
def direct_shares(
    parts: Components, followed: Sequence[Trace], found: Sequence[Spans], wanted: RelationTokens
) -> tuple[Direct, Direct]:
    n_heads, n_facts = parts.shape.n_layers * parts.shape.n_heads, len(found)
    directions, results = readout(parts, wanted), []
    for which in ("subject", "relation"):
        shares = torch.zeros(n_heads, n_facts, parts.d_model)
        for trace in followed:
            mask = class_mask(found, which, trace)
            own = [read_from(trace, parts, layer, mask) for layer in range(parts.shape.n_layers)]
            shares[:, list(trace.rows)] = parts.final.share(torch.cat(own), trace.final).cpu()
        shares = shares.to(parts.W_U.device)
        results.append(
            Direct(
                directions.versus_others(shares).double().cpu().numpy(),
                (shares @ directions.range).double().cpu().numpy(),
                (shares @ directions.words).double().cpu().numpy(),
                shares.mean(1).double().cpu().numpy(),
            )
        )
    return results[0], results[1]


@dataclass(frozen=True)
class AttentionShares:
    subject: Float[np.ndarray, "head fact"]
    relation: Float[np.ndarray, "head fact"]
    sink: Float[np.ndarray, "head fact"]
    last: Float[np.ndarray, "head fact"]
    reading_subject: Float[np.ndarray, "head fact"]
    reading_relation: Float[np.ndarray, "head fact"]
    windows: list[list[Float[np.ndarray, "window"]]]
    """For each head and fact, attention to every run of readable tokens as long as the subject."""
    own: list[int]


def attention_shares(parts: Components, followed: Sequence[Trace], found: Sequence[Spans]) -> AttentionShares:
    n_heads = parts.shape.n_layers * parts.shape.n_heads
    shares = np.zeros((4, n_heads, len(found)))
    rows: list[Float[np.ndarray, "head window"]] = [np.zeros((n_heads, 0))] * len(found)
    for trace in followed:
        for i, row in enumerate(trace.rows):
            own, weights = found[row], trace.attention[:, i].flatten(0, 1).double().cpu().numpy()
            classes = own.subject, own.relation, (SINK,), (own.last,)
            shares[:, :, row] = [weights[:, list(positions)].sum(1) for positions in classes]
            width = len(own.subject)
            runs = range(len(own.readable) - width + 1)
            rows[row] = np.stack([weights[:, list(own.readable[s : s + width])].sum(1) for s in runs], 1)
    return AttentionShares(
        *shares,
        reading_subject=read_shares(parts, followed, found, "subject"),
        reading_relation=read_shares(parts, followed, found, "relation"),
        windows=[[each[head] for each in rows] for head in range(n_heads)],
        own=[own.readable.index(own.subject[0]) for own in found],
    )

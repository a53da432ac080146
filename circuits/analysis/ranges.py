"""Is an effect on a relation's range of objects more than heads do to other ranges?

A set of tokens is the direction along which its mean logit grows against the vocabulary's. Effects along directions of unlike length are
compared per unit of length, because a range of many unlike tokens has a short direction and moves little.

A head that works on a cluster of related tokens works on some cluster or other by chance, so sets of unrelated tokens are no
fair comparison: the ranges of other relations are, and failing these, sets as alike in the unembedding as the range is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from circuits.analysis.attribution import RelationTokens
from circuits.analysis.nulls import TINY, against_sets, lookalike_sets
from circuits.model import Model
from circuits.model.transformer import Components

MIN_RANGES = 24
"""Fewer ranges of other relations cannot show a chance of 4 %, of 1 in 25."""


@dataclass(frozen=True)
class Directions:
    """Mean logit of sets of tokens against the vocabulary's, as directions of the normed stream."""

    vectors: Float[np.ndarray, "set d_model"]

    @property
    def lengths(self) -> Float[np.ndarray, "set"]:
        return np.linalg.norm(self.vectors, axis=1) + TINY


def unembedding_rows(parts: Components) -> Float[np.ndarray, "token d_model"]:
    """W_U, a row a token: a view where the weights lie in this machine's memory, never a copy in another precision.

    A vocabulary may be large: what is done with it here takes sums in float64, and rows of no more tokens than sets are drawn from.
    """
    return parts.W_U.T.detach().cpu().numpy()


def directions_of(unembedding: Float[np.ndarray, "token d_model"], sets: Sequence[Sequence[int]]) -> Directions:
    mean = unembedding.mean(0, dtype=np.float64)
    return Directions(np.stack([unembedding[list(tokens)].mean(0, dtype=np.float64) - mean for tokens in sets]))


def disjoint_ranges(model: Model, wanted: RelationTokens, ranges: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
    """First tokens of the ranges that share none with the relation's own; empty if they are too few to compare with."""
    own, found = set(wanted.objects), dict[tuple[int, ...], None]()
    first = {name: model.vocabulary.encode(" " + name)[0] for name in sorted({n for each in ranges for n in each})}
    for objects in ranges:
        tokens = tuple(sorted({first[name] for name in objects}))
        if tokens and not own & set(tokens):
            found[tokens] = None
    return list(found) if len(found) >= MIN_RANGES else []


def lookalikes(
    unembedding: Float[np.ndarray, "token d_model"], tokens: Sequence[int], draws: int, rng: np.random.Generator
) -> Directions:
    """Random sets as many and as alike as ``tokens``."""
    sets = lookalike_sets(unembedding, np.array(tokens, dtype=int), draws, rng)
    return directions_of(unembedding, sets.tolist()) if sets.size else Directions(np.zeros((0, 0)))


def compare(
    streams: Float[np.ndarray, "head d_model"],
    own: Directions,
    others: Directions,
    *,
    least: float = -np.inf,
    eligible: Bool[np.ndarray, "head"] | None = None,
) -> Float[np.ndarray, "head"]:
    """Corrected p of each head's effect along ``own``, against all heads' effects along ``others``, per unit of length.

    Effects below ``least`` logits, and heads that are not eligible, count for nothing on either side.
    """
    if not others.vectors.size:
        return np.ones(len(streams))
    return against_sets(_scores(streams, own, least, eligible)[:, 0], _scores(streams, others, least, eligible))


def _scores(
    streams: Float[np.ndarray, "head d_model"],
    directions: Directions,
    least: float,
    eligible: Bool[np.ndarray, "head"] | None,
) -> Float[np.ndarray, "head set"]:
    effects = streams @ directions.vectors.T
    counts = effects >= least if eligible is None else (effects >= least) & eligible[:, None]
    return np.where(counts, effects / directions.lengths, -np.inf)

"""What chance would give: permutations, bootstrap intervals and look-alike sets of tokens. Arrays in, arrays out.

Corrections for the number of heads are by the largest statistic over heads (Westfall and Young 1993): a head's corrected
p is the share of draws in which any head did as well. So the chance that chance alone passes a single head at level alpha
is at most alpha.
"""

import numpy as np
from jaxtyping import Float, Int

TINY = 1e-9
"""What keeps a statistic finite where nothing varies, in the unit of the values."""
TRIED = 50
"""Sets drawn to see how alike such sets are."""
MAX_POOL = 8192
"""Tokens of a large vocabulary that look-alike sets are drawn from."""


def shuffles(n: int, draws: int, rng: np.random.Generator) -> Int[np.ndarray, "draw n"]:
    """Random orders of n things."""
    return rng.permuted(np.tile(np.arange(n), (draws, 1)), axis=1)


def permuted_answers(
    effects: Float[np.ndarray, "head fact object"],
    answers: Int[np.ndarray, "fact"],
    orders: Int[np.ndarray, "draw fact"],
) -> tuple[Float[np.ndarray, "head"], Float[np.ndarray, "head"]]:
    """(z, corrected two-sided p) of each head's mean effect on the facts' own answers, against shuffled answers.

    ``effects[h, i, o]`` is head h's effect on fact i if o were its answer. Under the hypothesis that the head knows nothing
    of which answer belongs to which fact, every order of the answers is as likely: the test is exact.
    """
    n_heads, n_facts, n_objects = effects.shape
    # One matrix product for all orders: column k picks, for every fact, the object that order k gives it.
    drawn = answers[np.concatenate((np.arange(n_facts)[None], orders))]
    picked = np.zeros((len(drawn), n_facts, n_objects))
    picked[np.arange(len(drawn))[:, None], np.arange(n_facts), drawn] = 1
    picked = picked.reshape(len(drawn), -1).T / n_facts
    means = effects.reshape(n_heads, -1) @ picked
    # Each head on the scale that its own effects have over all orders, the true one among them: the test stays exact.
    z = (means - means.mean(1, keepdims=True)) / (means.std(1, keepdims=True) + TINY)
    return z[:, 0], _share_reaching(np.abs(z[:, 1:]).max(0), np.abs(z[:, 0]))


def against_sets(
    observed: Float[np.ndarray, "head"], drawn: Float[np.ndarray, "head draw"]
) -> Float[np.ndarray, "head"]:
    """Corrected one-sided p of each head's value on one set of tokens, against all heads' values on other sets."""
    return _share_reaching(drawn.max(0, initial=-np.inf), observed)


def _share_reaching(drawn: Float[np.ndarray, "draw"], observed: Float[np.ndarray, "head"]) -> Float[np.ndarray, "head"]:
    """(1 + number of draws at or above) / (1 + number of draws); rounding makes no difference between equals."""
    slack = np.where(np.isfinite(observed), 1e-9 * np.abs(observed), 0)
    reached = drawn[:, None] >= observed - slack
    return (1 + reached.sum(0)) / (1 + len(drawn))


def intervals(
    values: Float[np.ndarray, "head fact"], rng: np.random.Generator, draws: int = 2000, level: float = 0.95
) -> Float[np.ndarray, "head 2"]:
    """Percentile bootstrap intervals of the means over facts."""
    n = values.shape[1]
    weights = rng.multinomial(n, np.full(n, 1 / n), size=draws) / n
    tail = (1 - level) / 2
    return np.quantile(values @ weights.T, [tail, 1 - tail], axis=1).T


def shuffled_windows(
    windows: list[Float[np.ndarray, "window"]], own: list[int], draws: int, rng: np.random.Generator
) -> float | None:
    """One-sided p of the mean, over facts, of the value at each fact's own window, against windows drawn at random.

    ``windows[i]`` has fact i's values at all windows of its subject's length, ``own[i]`` the subject's. None if there are so
    few windows that no p below 0.05 could come out.
    """
    if np.log([len(each) for each in windows]).sum() < np.log(20):
        return None
    observed = np.mean([each[i] for each, i in zip(windows, own, strict=True)])
    drawn = np.mean([each[rng.integers(len(each), size=draws)] for each in windows], axis=0)
    return float(_share_reaching(drawn, np.array([observed]))[0])


def lookalike_sets(
    vectors: Float[np.ndarray, "token d"],
    members: Int[np.ndarray, "member"],
    draws: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "draw size"]:
    """Random sets of tokens as many and as alike as ``members``.

    A relation's objects are neighbours in the unembedding, so whatever moves one moves the others, and sets of unrelated
    tokens would be too easy a comparison. Each set is drawn from the nearest neighbours (cosine) of a random token, among
    as many of them as makes such sets at least as alike as the members are. Members may be drawn like all others: without
    them the sets would lie on the other side of the vocabulary's mean.
    """
    pool = np.arange(len(vectors))
    if len(pool) > MAX_POOL:
        pool = np.sort(rng.choice(pool, size=MAX_POOL, replace=False))
    size = min(len(members), len(pool) // 2)
    if size < 1:
        return np.zeros((draws, 0), dtype=int)
    mean = vectors.mean(0, dtype=np.float64)

    def unit(rows: Int[np.ndarray, "row"]) -> Float[np.ndarray, "row d"]:
        centred = vectors[rows] - mean
        return centred / (np.linalg.norm(centred, axis=1, keepdims=True) + TINY)

    pooled = unit(pool)
    alike, seeds = _likeness(unit(members)), rng.choice(pool, size=draws)
    nearness = unit(seeds).astype(np.float32) @ pooled.astype(np.float32).T
    reach = len(pool)
    if size > 1:
        ranked = np.argsort(-nearness[:TRIED], axis=1, kind="stable")
        reach = size
        while reach < len(pool):
            wider = min(2 * reach, len(pool))
            tried = [_likeness(pooled[row[rng.permutation(wider)[:size]]]) for row in ranked]
            if np.mean(tried) < alike:
                break
            reach = wider
    near = np.argpartition(-nearness, reach - 1, axis=1)[:, :reach] if reach < len(pool) else None
    picks = np.argsort(rng.random((draws, reach)), axis=1)[:, :size]
    return pool[picks] if near is None else pool[np.take_along_axis(np.sort(near, axis=1), picks, axis=1)]


def _likeness(unit: Float[np.ndarray, "token d"]) -> float:
    """Mean cosine between different tokens."""
    n = len(unit)
    return float(((unit.sum(0) ** 2).sum() - n) / (n * (n - 1))) if n > 1 else 0.0

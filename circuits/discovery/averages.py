"""How the facts' NLL become the one number that a search compares with its threshold."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

Average = Callable[[Float[np.ndarray, "fact"]], float]


def mean(nll: Float[np.ndarray, "fact"]) -> float:
    return float(np.add.reduce(nll)) / len(nll)


def diluted(prompt_lengths: Sequence[int], answer_lengths: Sequence[int]) -> Average:
    """``compat="kc"``: the published code's metric, whose mean runs over *all* predicted positions.

    Its answer positions' NLL is divided by the length of the longest padded prompt, so that the effective tau grows with it.
    """
    longest = max(p + a for p, a in zip(prompt_lengths, answer_lengths, strict=True)) - 1

    def mean(nll: Float[np.ndarray, "fact"]) -> float:
        return float((nll * np.array(answer_lengths)).mean() / longest)

    return mean

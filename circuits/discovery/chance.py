"""The control: scores drawn by chance. A method is worth no more than its lead over them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuits.discovery.method import DiscoveryMethod, Report
from circuits.discovery.problem import Problem


@dataclass(frozen=True, slots=True)
class ChanceOptions:
    """The same seed, the same scores."""

    seed: int = 0


def _chance(problem: Problem, options: ChanceOptions, report: Report) -> Float[np.ndarray, "writer reader"]:
    """Each edge's score is uniform between 0 and 1, independent of all others."""
    return np.random.default_rng(options.seed).random(problem.graph.legal.shape)


chance = DiscoveryMethod("random", _chance, ChanceOptions, "drawn by chance", has_unit=False)

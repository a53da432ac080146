"""The three tests of Shi et al. 2024, "Hypothesis Testing the Circuit Hypothesis in LLMs": what an ideal circuit would be.

* Equivalence: on examples x, circuit and model outdo each other equally often: P(C better than M) = 1/2. A two-sided exact
  binomial (sign) test; a small p-value refutes it.
* Independence: what the rest of the model does without the circuit tells nothing of what the whole model does: their scores
  are independent. A permutation test of HSIC (Gretton et al. 2005) with Gaussian kernels of median width; a small p-value
  refutes it.
* Minimality: no edge is superfluous: each changes the score more than an edge of a random path would that is added to the
  circuit. Edges within the quantile of those are superfluous.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuits.circuit import Circuit
from circuits.engines.engine import Engine
from circuits.evaluation.baseline import random_circuit

LEVEL = 0.05
"""p-values below it refute a hypothesis."""
LEAST = 8
"""Examples below which no test could refute its hypothesis, or hardly."""
PERMUTATIONS = 2_000


@dataclass(frozen=True, slots=True)
class Tested:
    """A hypothesis on ``n`` examples: its statistic, and how likely one as far off would be if it held."""

    statistic: float
    p: float
    n: int


def sign_test(ahead: int, n: int) -> float:
    """The two-sided exact p-value of ``ahead`` of ``n`` fair coins: twice the smaller tail, at most 1."""
    tail = sum(math.comb(n, k) for k in range(min(ahead, n - ahead) + 1)) / 2**n
    return min(1.0, 2 * tail)


def equivalence(circuit: Sequence[float], model: Sequence[float]) -> Tested:
    """Of NLLs: how often the circuit's is the lower; ties count for neither."""
    pairs = [(ours, theirs) for ours, theirs in zip(circuit, model, strict=True) if ours != theirs]
    ahead = sum(ours < theirs for ours, theirs in pairs)
    return Tested(ahead / len(pairs) if pairs else 0.5, sign_test(ahead, len(pairs)), len(pairs))


def independence(rest: Sequence[float], model: Sequence[float], *, seed: int = 0) -> Tested:
    """HSIC of the scores of the model without the circuit and with it; p by permutation, the given order among them."""
    n = len(rest)
    centre = np.eye(n) - 1 / n
    ours, theirs = (centre @ _kernel(values) @ centre for values in (rest, model))
    rng, found = np.random.default_rng(seed), float((ours * theirs).sum())
    orders = [rng.permutation(n) for _ in range(PERMUTATIONS)]
    # Sums of the same numbers in another order differ in their last bits.
    least = found - 1e-9 * max(1.0, abs(found))
    as_far = sum(float((ours * theirs[np.ix_(order, order)]).sum()) >= least for order in orders)
    return Tested(found / max(1, n) ** 2, (1 + as_far) / (1 + PERMUTATIONS), n)


def _kernel(values: Sequence[float]) -> Float[np.ndarray, "example example"]:
    apart = np.abs(np.subtract.outer(np.asarray(values), np.asarray(values)))
    off = apart[~np.eye(len(values), dtype=bool)] if len(values) > 1 else np.ones(1)
    width = float(np.median(off)) or float(off.mean()) or 1.0
    return np.exp(-((apart / width) ** 2) / 2)


def inflated_worth(engine: Engine, circuit: Circuit, *, draws: int = 20, seed: int = 0) -> tuple[float, ...]:
    """|NLL change| when one edge of random paths is cut again that were added to the circuit; in nats, one for each draw.

    The paths are random live edges, a tenth of the circuit's number, that it lacks.
    """
    rng, found = np.random.default_rng(seed), []
    for draw in range(draws):
        size = max(2, circuit.n_edges // 10)
        paths = random_circuit(circuit.graph, size, seed=(seed, draw), draw="connected", provenance=circuit.provenance)
        added = np.argwhere(paths.kept & ~circuit.kept)
        if not len(added):
            continue
        larger = circuit.kept | paths.kept
        writer, reader = (int(index) for index in added[rng.integers(len(added))])
        (without,) = engine.nll_without(larger, reader, [[writer]])
        found.append(float(abs((without - engine.nll(larger)).mean())))
    return tuple(found)


def superfluous(worth: Sequence[float], reference: Sequence[float], *, quantile: float = 1 - LEVEL) -> int:
    """How many edges change the score no more than that quantile of what edges of random paths do."""
    bound = float(np.quantile(np.asarray(reference), quantile)) if reference else 0.0
    return sum(abs(each) <= bound for each in worth)

"""Attribution patching of edges: every edge's score to first order, from one backward pass a batch; and its integrals.

EAP (Syed, Rager and Conmy 2023; Nanda's attribution patching, edge by edge): with ``change`` what an ablated edge carries
less what its sender writes,

    S(e) = mean over facts, sum over positions, of  change[sender] . d NLL / d (what the reader reads)

at the clean run: the derivative of the NLL by a mask that ablates the edge, so an estimate of NLL(without e) - NLL in nats,
positive for an edge that helps. EAP-IG (Hanna, Pezzelle and Belinkov 2024) averages the slope over a path of runs instead of taking it at
the clean run alone, where a saturated softmax may hide what matters.

Averages are taken at the middle of equal steps, whose error falls with the square of their number; the published code
takes one end of each step.
"""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float

from circuits.discovery.method import DiscoveryMethod, NoOptions, Report
from circuits.discovery.problem import Problem
from circuits.discovery.slopes import batches, merged, point_after
from circuits.discovery.table import MethodError
from circuits.graph import Node
from circuits.model import Model


@dataclass(frozen=True, slots=True)
class IntegrationOptions:
    """``steps`` are the points on the path of integrated gradients."""

    steps: int = 20

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError(f"integrated gradients need at least one step, got {self.steps}")


def _eap(problem: Problem, options: NoOptions, report: Report) -> Float[np.ndarray, "writer reader"]:
    """Attribution patching at the clean run, in nats."""
    total = _nothing(problem)
    for batch in batches(problem):
        total += batch.scores()
    return _mean(problem, total)


def _eap_ig(problem: Problem, options: IntegrationOptions, report: Report) -> Float[np.ndarray, "writer reader"]:
    """EAP with slopes averaged while what ``input`` writes goes from its clean to its ablated value, in nats.

    Law (completeness): as ``steps`` grow, the scores of the edges out of ``input`` add up to the NLL with all of them
    ablated less the whole model's.

    Under zero ablation the path ends where the first layer norm divides by zero but for its epsilon, and most of what it
    shows happens there: `eap_ig_activations` or resample ablation say more.
    """
    total = _nothing(problem)
    for batch in batches(problem):
        total += batch.along(batch.change[0], 0, slice(None), options.steps)
    return _mean(problem, total)


def _eap_ig_activations(
    problem: Problem, options: IntegrationOptions, report: Report
) -> Float[np.ndarray, "writer reader"]:
    """EAP with each sender's slopes averaged while its sub-layer's output goes from clean to ablated, in nats.

    A sub-layer is ``input``, all heads of a layer, or an MLP; the others are not touched. (The published code lets every
    sub-layer's path count for every sender, so that its scores add up to nothing in particular.)

    Law (completeness): as ``steps`` grow, the scores of the edges out of one sub-layer add up to the NLL with all of them
    ablated less the whole model's.
    """
    total = _nothing(problem)
    for batch in batches(problem):
        for senders, point in _sublayers(problem.model):
            total[senders] += batch.along(batch.change[senders].sum(0), point, senders, options.steps)
    return _mean(problem, total)


_RISE = "the rise of the answer’s negative log-likelihood if the edge is cut, "
eap = DiscoveryMethod("eap", _eap, NoOptions, _RISE + "to first order at the clean run")
eap_ig = DiscoveryMethod(
    "eap-ig",
    _eap_ig,
    IntegrationOptions,
    _RISE + "estimated from its slope on the way from the clean to the ablated input",
)
eap_ig_activations = DiscoveryMethod(
    "eap-ig-activations",
    _eap_ig_activations,
    IntegrationOptions,
    _RISE + "estimated from its slope on the way from the sender’s clean to its ablated output",
)


def _nothing(problem: Problem) -> Float[np.ndarray, "writer reader"]:
    return np.zeros(problem.model.graph().legal.shape)


def _mean(problem: Problem, total: Float[np.ndarray, "writer reader"]) -> Float[np.ndarray, "writer merged"]:
    """Over the facts, for the edges of the problem's graph."""
    return merged(total / len(problem.facts), problem.model.shape, problem.granularity)


def _sublayers(model: Model) -> list[tuple[slice, int]]:
    """For each sub-layer its writers, and the point from which on they are read."""
    runs, first = [], 0
    for _, members in groupby(model.graph().writers, lambda node: (node.layer, node.kind)):
        nodes: list[Node] = list(members)
        runs.append((slice(first, first + len(nodes)), point_after(nodes[0], model.shape)))
        first += len(nodes)
    return runs

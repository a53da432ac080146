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

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from jaxtyping import Float

from circuits.circuit import Provenance, Scores
from circuits.discovery.slopes import batches, merged, point_after
from circuits.engines.ablation import Ablation
from circuits.facts import Fact
from circuits.graph import Granularity, Node
from circuits.metrics import Metric
from circuits.model import Model

STEPS = 20
"""Points on the path of integrated gradients."""


def eap(
    model: Model,
    facts: Sequence[Fact],
    *,
    ablation: Ablation | None = None,
    granularity: Granularity = "qkv",
    metric: Metric | None = None,
    provenance: Provenance,
) -> Scores:
    """Attribution patching at the clean run, in nats.

    Raises:
        circuits.engines.ablation.AblationError: the ablation lacks the prompts it needs.
    """
    total = _nothing(model)
    for batch in batches(model, facts, ablation or Ablation(), metric):
        total += batch.scores()
    return _result(model, total / len(facts), granularity, provenance)


def eap_ig_inputs(
    model: Model,
    facts: Sequence[Fact],
    *,
    ablation: Ablation | None = None,
    granularity: Granularity = "qkv",
    steps: int = STEPS,
    metric: Metric | None = None,
    provenance: Provenance,
) -> Scores:
    """EAP with slopes averaged while what ``input`` writes goes from its clean to its ablated value, in nats.

    Law (completeness): as ``steps`` grow, the scores of the edges out of ``input`` add up to the NLL with all of them
    ablated less the whole model's.

    Under zero ablation the path ends where the first layer norm divides by zero but for its epsilon, and most of what it
    shows happens there: `eap_ig_activations` or resample ablation say more.
    """
    total = _nothing(model)
    for batch in batches(model, facts, ablation or Ablation(), metric):
        total += batch.along(batch.change[0], 0, slice(None), steps)
    return _result(model, total / len(facts), granularity, provenance)


def eap_ig_activations(
    model: Model,
    facts: Sequence[Fact],
    *,
    ablation: Ablation | None = None,
    granularity: Granularity = "qkv",
    steps: int = STEPS,
    metric: Metric | None = None,
    provenance: Provenance,
) -> Scores:
    """EAP with each sender's slopes averaged while its sub-layer's output goes from clean to ablated, in nats.

    A sub-layer is ``input``, all heads of a layer, or an MLP; the others are not touched. (The published code lets every
    sub-layer's path count for every sender, so that its scores add up to nothing in particular.)

    Law (completeness): as ``steps`` grow, the scores of the edges out of one sub-layer add up to the NLL with all of them
    ablated less the whole model's.
    """
    total = _nothing(model)
    for batch in batches(model, facts, ablation or Ablation(), metric):
        for senders, point in _sublayers(model):
            total[senders] += batch.along(batch.change[senders].sum(0), point, senders, steps)
    return _result(model, total / len(facts), granularity, provenance)


def _nothing(model: Model) -> Float[np.ndarray, "writer reader"]:
    return np.zeros(model.graph().legal.shape)


def _sublayers(model: Model) -> list[tuple[slice, int]]:
    """For each sub-layer its writers, and the point from which on they are read."""
    runs, first = [], 0
    for _, members in groupby(model.graph().writers, lambda node: (node.layer, node.kind)):
        nodes: list[Node] = list(members)
        runs.append((slice(first, first + len(nodes)), point_after(nodes[0], model.shape)))
        first += len(nodes)
    return runs


def _result(
    model: Model, values: Float[np.ndarray, "writer reader"], granularity: Granularity, provenance: Provenance
) -> Scores:
    return Scores(model.graph(granularity), merged(values, model.shape, granularity), provenance)

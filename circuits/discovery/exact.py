"""Every edge's own effect: the whole model without that one edge, measured.

S(e) = NLL(G without e) - NLL(G), in nats: what ACDC's score of an edge would be if no other edge were ever removed, and
what attribution patching (`circuits.discovery.eap`) estimates. One run of the model an edge, many in a batch.
"""

from collections.abc import Iterator
from itertools import groupby

import numpy as np
from jaxtyping import Float

from circuits.discovery.averages import mean
from circuits.discovery.method import DiscoveryMethod, NoOptions, Report
from circuits.discovery.problem import Problem, Progress
from circuits.engines.engine import Cut, Engine, WideEngine
from circuits.graph import Graph


def _exact(problem: Problem, options: NoOptions, report: Report) -> Float[np.ndarray, "writer reader"]:
    """The effect of removing each edge from the whole model, in nats; mean over the facts."""
    engine, graph = problem.engine, problem.graph
    whole = mean(engine.nll(graph.legal))
    values = np.full(graph.legal.shape, np.nan)
    done = 0
    for edges in _by_depth(graph):
        for start in range(0, len(edges), max(1, engine.width)):
            batch = edges[start : start + max(1, engine.width)]
            for edge, nll in zip(batch, _without_each(engine, batch), strict=True):
                values[edge] = mean(nll) - whole
            done += len(batch)
            report(Progress(done, graph.n_edges, graph.n_edges, whole))
    return values


exact = DiscoveryMethod(
    "exact",
    _exact,
    NoOptions,
    "the rise of the answer’s negative log-likelihood when the edge alone is cut from the whole model",
    by_cutting=True,
)


def _by_depth(graph: Graph) -> Iterator[list[Cut]]:
    """All edges, in runs whose readers are at one depth: engines remove those together."""
    readers = enumerate(graph.readers)
    for _, run in groupby(readers, lambda item: (item[1].node.layer, item[1].node.kind)):
        yield [(writer, reader) for reader, _ in run for writer in range(graph.upstream[reader])]


def _without_each(engine: Engine, edges: list[Cut]) -> Float[np.ndarray, "edge fact"]:
    legal = engine.graph.legal
    if isinstance(engine, WideEngine):
        return engine.nll_cutting(legal, edges, np.eye(len(edges), dtype=bool))
    rows = [
        engine.nll_without(legal, reader, [(writer,) for writer, _ in run])
        for reader, run in groupby(edges, lambda edge: edge[1])
    ]
    return np.concatenate(rows)

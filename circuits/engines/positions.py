"""Which nodes matter to the answer, and at which positions.

A node that nothing live reads is dead. One that is read by ``logits`` alone matters at the answer's positions only, the
last ones; so do the nodes it reads through a query or as an MLP, since those act position by position. Keys and values
are read from all earlier positions, so whatever feeds them matters everywhere.
"""

import numpy as np
from jaxtyping import Bool, Int

from circuits.graph import Graph

DEAD, TAIL, FULL = 0, 1, 2


def needs(graph: Graph, kept: Bool[np.ndarray, "writer reader"]) -> Int[np.ndarray, "writer"]:
    """For each writer DEAD, TAIL (the answer's positions suffice) or FULL.

    Law: the logits at the answer's positions are a function of the FULL writers and of the TAIL writers' last
    positions.
    """
    n_layers, n_heads = graph.shape.n_layers, graph.shape.n_heads
    need = np.zeros(len(graph.writers), dtype=np.int8)
    need[kept[:, -1]] = TAIL
    slots = 3 if graph.granularity == "qkv" else 1
    width = n_heads * slots + 1
    for layer in reversed(range(n_layers)):
        mlp_writer = (layer + 1) * (n_heads + 1)
        mlp_reader = layer * width + width - 1
        own = need[mlp_writer]
        if own:
            need[kept[:, mlp_reader]] = np.maximum(need[kept[:, mlp_reader]], own)
        heads = need[mlp_writer - n_heads : mlp_writer]
        columns = kept[:, layer * width : layer * width + n_heads * slots]
        if slots == 1:
            need[columns[:, heads > DEAD].any(1)] = FULL
            continue
        queries, keys, values = columns[:, 0::3], columns[:, 1::3], columns[:, 2::3]
        tail = queries[:, heads == TAIL].any(1)
        need[tail] = np.maximum(need[tail], TAIL)
        full = keys[:, heads > DEAD].any(1) | values[:, heads > DEAD].any(1) | queries[:, heads == FULL].any(1)
        need[full] = FULL
    return need

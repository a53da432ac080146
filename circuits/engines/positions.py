"""Which nodes matter to the answer, and at which positions.

A node that nothing live reads is dead. One that is read by ``logits`` alone matters at the answer's positions only, the
last ones; so do the nodes it reads through a query or as an MLP, since those act position by position. Keys and values
are read from all earlier positions, so whatever feeds them matters everywhere. A bypass is a module of any kind, which
may read other positions than it writes: it runs at all of them, and what feeds it matters everywhere.
"""

import numpy as np
from jaxtyping import Bool, Int

from circuits.engines.layout import Layout

DEAD, TAIL, FULL = 0, 1, 2


def needs(layout: Layout, kept: Bool[np.ndarray, "writer reader"]) -> Int[np.ndarray, "writer"]:
    """For each writer DEAD, TAIL (the answer's positions suffice) or FULL.

    Law: the logits at the answer's positions are a function of the FULL writers and of the TAIL writers' last
    positions.
    """
    need = np.zeros(len(kept), dtype=np.int8)
    need[kept[:, -1]] = TAIL
    for layer in reversed(range(layout.n_layers)):
        bypass = layout.bypass_writers[layer]
        if bypass is not None and need[bypass]:
            need[bypass] = FULL
            need[kept[:, layout.bypass_readers[layer]]] = FULL
        mlp_reader = layout.mlp_readers[layer]
        own = need[layout.mlp_writers[layer]]
        if own:
            need[kept[:, mlp_reader]] = np.maximum(need[kept[:, mlp_reader]], own)
        heads = need[layout.head_writers[layer]]
        columns = kept[:, layout.head_slots[layer]]
        if not layout.split:
            need[columns[:, heads > DEAD].any(1)] = FULL
            continue
        queries, keys, values = columns[:, 0::3], columns[:, 1::3], columns[:, 2::3]
        tail = queries[:, heads == TAIL].any(1)
        need[tail] = np.maximum(need[tail], TAIL)
        full = keys[:, heads > DEAD].any(1) | values[:, heads > DEAD].any(1) | queries[:, heads == FULL].any(1)
        need[full] = FULL
    return need

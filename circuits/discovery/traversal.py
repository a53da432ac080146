"""The order in which ACDC tries edges."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import InitVar, dataclass, field

import numpy as np
from jaxtyping import Bool

from circuits.graph import Graph


@dataclass(frozen=True)
class Traversal:
    """ACDC's order over a graph: for each receiver, its candidates' positions in one long list of edges."""

    graph: Graph
    reverse_senders: bool = False
    """Each receiver's senders from ``input`` to the latest instead: what the order alone decides (stability)."""
    candidates: InitVar[Bool[np.ndarray, "writer reader"] | None] = None
    """The edges to try, of all the graph's; all of them by default."""
    edges: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self, candidates: Bool[np.ndarray, "writer reader"] | None) -> None:
        step = 1 if self.reverse_senders else -1
        edges = tuple(
            (writer, reader)
            for reader in reversed(range(len(self.graph.readers)))
            for writer in range(self.graph.upstream[reader])[::step]
            if candidates is None or candidates[writer, reader]
        )
        object.__setattr__(self, "edges", edges)

    def receivers(self) -> Iterator[tuple[int, int, int]]:
        """(reader, first, end): its candidates are ``edges[first:end]``."""
        first, count = 0, Counter(reader for _, reader in self.edges)
        for reader in reversed(range(len(self.graph.readers))):
            end = first + count[reader]
            yield reader, first, end
            first = end

    def depths(self) -> Iterator[list[tuple[int, int, int]]]:
        """`receivers` in runs that read at one depth: all heads of a layer, its MLP, ``logits``. No reader of a run reads
        another's node."""
        run: list[tuple[int, int, int]] = []
        for receiver in self.receivers():
            if run and self._depth(receiver[0]) != self._depth(run[0][0]):
                yield run
                run = []
            run.append(receiver)
        yield run

    def _depth(self, reader: int) -> tuple[int, str]:
        node = self.graph.readers[reader].node
        return node.layer, node.kind

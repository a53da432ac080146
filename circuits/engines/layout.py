"""Where a layer's nodes stand among a graph's writers and readers."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from circuits.graph import Graph, Node

Q, K, V = 0, 1, 2
Index = Int[np.ndarray, "_"]


@dataclass(frozen=True)
class Layout:
    """One entry a layer; what a layer does not have is None."""

    graph: Graph

    @property
    def split(self) -> bool:
        return self.graph.granularity == "qkv"

    @property
    def n_heads(self) -> int:
        return self.graph.shape.n_heads

    @property
    def n_layers(self) -> int:
        return self.graph.shape.n_layers

    @property
    def logits(self) -> int:
        return len(self.graph.readers) - 1

    @cached_property
    def mlp_writers(self) -> list[int]:
        return [self.graph.writer_index(Node(layer, "mlp")) for layer in range(self.n_layers)]

    @cached_property
    def head_writers(self) -> list[Index]:
        return [mlp - self.n_heads + np.arange(self.n_heads) for mlp in self.mlp_writers]

    @cached_property
    def bypass_writers(self) -> list[int | None]:
        has = self.graph.shape.bypasses
        return [writer + 1 if layer in has else None for layer, writer in enumerate(self.mlp_writers)]

    @cached_property
    def mlp_readers(self) -> list[int]:
        return [self.graph.readers_of(Node(layer, "mlp"))[0] for layer in range(self.n_layers)]

    @cached_property
    def bypass_readers(self) -> list[int | None]:
        has = self.graph.shape.bypasses
        return [reader + 1 if layer in has else None for layer, reader in enumerate(self.mlp_readers)]

    @cached_property
    def last_readers(self) -> list[int]:
        """The last reader of each layer."""
        return [mlp if x is None else x for mlp, x in zip(self.mlp_readers, self.bypass_readers, strict=True)]

    @cached_property
    def head_slots(self) -> list[slice]:
        """The readers of each layer's heads: of each head its q, k and v, or with merged slots one."""
        slots = 3 if self.split else 1
        return [slice(reader - slots * self.n_heads, reader) for reader in self.mlp_readers]

    @cached_property
    def head_readers(self) -> list[Index]:
        """For each layer the reader of each row of `FoldedLayer.W_slots`; with merged slots a reader comes three times."""
        heads = np.arange(self.n_heads)
        firsts = [slots.start for slots in self.head_slots]
        if self.split:
            return [np.concatenate([first + 3 * heads + slot for slot in (Q, K, V)]) for first in firsts]
        return [np.concatenate([first + heads] * 3) for first in firsts]

    @cached_property
    def depth(self) -> Index:
        """For each reader the row of `propagation.Values.constant` that is its."""
        rows = [
            2 * reader.node.layer + (reader.node.kind in ("mlp", "bypass") and not self.graph.shape.parallel)
            for reader in self.graph.readers
        ]
        return np.array(rows)

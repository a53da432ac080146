"""Who can write to whom: the residual-rewrite graph of a decoder-only transformer (paper 2, section 2.1).

Every head and MLP reads the sum of what the earlier nodes wrote, so each pair (earlier node, later input) is an edge.
This file holds the only index arithmetic of the project.

Writers, in order: ``input``, then for each layer its heads and its MLP. Readers, in order: for each layer its heads'
slots and its MLP, then ``logits``. Where an edit put a bypass beside an MLP, the bypass comes right after that MLP, as
writer and as reader; it reads what the MLP reads. The writers that may reach a reader are always the first ones: a prefix.
"""

import re
from dataclasses import dataclass
from functools import cached_property, total_ordering
from typing import Literal

import numpy as np
from jaxtyping import Bool

from circuits.choices import Granularity

Slot = Literal["q", "k", "v"]
NodeKind = Literal["input", "head", "mlp", "bypass", "logits"]

SLOTS: tuple[Slot, ...] = ("q", "k", "v")
DEPTH: tuple[NodeKind, ...] = ("input", "head", "mlp", "bypass", "logits")
"""The kinds of node as they come within a layer."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model decides its graph. In a ``parallel`` model attention and MLP of one layer read the same state.

    ``bypasses`` are the layers, ascending, whose MLP has a bypass beside it: none on a model as it was trained.
    """

    n_layers: int
    n_heads: int
    parallel: bool = False
    bypasses: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.n_layers < 1 or self.n_heads < 1:
            raise ValueError(f"a shape needs at least one layer and one head, got {self}")
        object.__setattr__(self, "bypasses", tuple(self.bypasses))
        if list(self.bypasses) != sorted(set(self.bypasses) & set(range(self.n_layers))):
            raise ValueError(
                f"bypasses are distinct layers of 0 to {self.n_layers - 1}, ascending, got {self.bypasses}"
            )


@total_ordering
@dataclass(frozen=True, slots=True)
class Node:
    """A component: ``input``, ``a{layer}.h{head}``, ``m{layer}``, ``x{layer}`` or ``logits``. Sorts by depth."""

    layer: int
    kind: NodeKind
    head: int = 0

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Node):
            return NotImplemented
        return (self.layer, DEPTH.index(self.kind), self.head) < (other.layer, DEPTH.index(other.kind), other.head)

    @property
    def name(self) -> str:
        match self.kind:
            case "head":
                return f"a{self.layer}.h{self.head}"
            case "mlp":
                return f"m{self.layer}"
            case "bypass":
                return f"x{self.layer}"
            case _:
                return self.kind

    @property
    def label(self) -> str:
        """The paper's name: L14H7, MLP17, Input, Logits. The bypass beside MLP17 is Bypass17."""
        match self.kind:
            case "head":
                return f"L{self.layer}H{self.head}"
            case "mlp":
                return f"MLP{self.layer}"
            case "bypass":
                return f"Bypass{self.layer}"
            case _:
                return self.kind.capitalize()

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Reader:
    """One input of a node: a head's q, k or v slot, or (``slot`` None) all that the node reads."""

    node: Node
    slot: Slot | None = None

    @property
    def name(self) -> str:
        return f"{self.node.name}<{self.slot}>" if self.slot else self.node.name

    @property
    def label(self) -> str:
        """As it is shown: L14H7<q>, MLP17."""
        return f"{self.node.label}<{self.slot}>" if self.slot else self.node.label

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Edge:
    """A sender's write as read by one receiver slot: ``a7.h14->a14.h7<q>``, ``m17->logits``."""

    writer: Node
    reader: Reader

    @property
    def name(self) -> str:
        return f"{self.writer.name}->{self.reader.name}"

    @property
    def label(self) -> str:
        """As it is shown, in the paper's names: L7H14→L14H7<q>, MLP17→Logits."""
        return f"{self.writer.label}→{self.reader.label}"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Graph:
    """All legal edges of a shape. Two graphs with the same shape and granularity are equal."""

    shape: Shape
    granularity: Granularity = "qkv"

    def __post_init__(self) -> None:
        if self.granularity not in ("qkv", "node"):
            raise ValueError(f"granularity must be 'qkv' or 'node', got {self.granularity!r}")

    @cached_property
    def writers(self) -> tuple[Node, ...]:
        nodes = [Node(-1, "input")]
        for layer in range(self.shape.n_layers):
            nodes += [Node(layer, "head", head) for head in range(self.shape.n_heads)]
            nodes.append(Node(layer, "mlp"))
            if layer in self.shape.bypasses:
                nodes.append(Node(layer, "bypass"))
        return tuple(nodes)

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        slots: tuple[Slot | None, ...] = SLOTS if self.granularity == "qkv" else (None,)
        readers = []
        for layer in range(self.shape.n_layers):
            readers += [Reader(Node(layer, "head", head), slot) for head in range(self.shape.n_heads) for slot in slots]
            readers.append(Reader(Node(layer, "mlp")))
            if layer in self.shape.bypasses:
                readers.append(Reader(Node(layer, "bypass")))
        return (*readers, Reader(Node(self.shape.n_layers, "logits")))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        return (*self.writers, Node(self.shape.n_layers, "logits"))

    @cached_property
    def upstream(self) -> tuple[int, ...]:
        """For each reader, how many writers precede it: its legal senders are ``writers[:upstream]``."""
        width = self.shape.n_heads + 1

        def count(node: Node) -> int:
            before = 1 + node.layer * width + sum(layer < node.layer for layer in self.shape.bypasses)
            after_heads = node.kind in ("mlp", "bypass") and not self.shape.parallel
            return before + self.shape.n_heads if after_heads else before

        return tuple(count(reader.node) for reader in self.readers)

    @cached_property
    def legal(self) -> Bool[np.ndarray, "writer reader"]:
        mask = np.arange(len(self.writers))[:, None] < np.array(self.upstream)[None, :]
        mask.flags.writeable = False
        return mask

    @cached_property
    def n_edges(self) -> int:
        return sum(self.upstream)

    @cached_property
    def _writer_index(self) -> dict[str, int]:
        return {node.name: i for i, node in enumerate(self.writers)}

    @cached_property
    def _reader_index(self) -> dict[str, int]:
        return {reader.name: i for i, reader in enumerate(self.readers)}

    def writer_index(self, node: Node) -> int:
        return self._index(self._writer_index, node.name, "writer")

    def reader_index(self, reader: Reader) -> int:
        return self._index(self._reader_index, reader.name, "reader")

    def readers_of(self, node: Node) -> tuple[int, ...]:
        """Indices of a node's reader slots; none for ``input``."""
        return self._slots_of_node.get(node.name, ())

    @cached_property
    def value_readers(self) -> tuple[int | None, ...]:
        """For each writer, the reader slot that decides what it writes: a head's v, any other node's only one.

        None for ``input``, which reads nothing. With granularity ``node`` a head's one slot holds its v.
        """
        return tuple(slots[-1] if (slots := self.readers_of(node)) else None for node in self.writers)

    @cached_property
    def _slots_of_node(self) -> dict[str, tuple[int, ...]]:
        slots: dict[str, tuple[int, ...]] = {}
        for i, reader in enumerate(self.readers):
            slots[reader.node.name] = (*slots.get(reader.node.name, ()), i)
        return slots

    def edge(self, name: str) -> tuple[int, int]:
        """(writer index, reader index) of the edge with this name or label.

        Raises:
            ValueError: the name is of no edge of this graph.
        """
        writer, arrow, reader = name_of(name).partition("->")
        if not arrow:
            raise ValueError(f"expected an edge such as 'a0.h1->m1', got {name!r}")
        i, j = self._index(self._writer_index, writer, "writer"), self._index(self._reader_index, reader, "reader")
        if i >= self.upstream[j]:
            raise ValueError(f"{name!r} is no edge: {writer} does not come before {reader}")
        return i, j

    def edge_name(self, writer: int, reader: int) -> str:
        return f"{self.writers[writer].name}->{self.readers[reader].name}"

    def _index(self, table: dict[str, int], name: str, what: str) -> int:
        try:
            return table[name]
        except KeyError:
            raise ValueError(
                f"no {what} called {name!r} in a graph of {self.shape.n_layers} layers x {self.shape.n_heads} heads, "
                f"granularity {self.granularity!r}"
            ) from None


_NODE = re.compile(r"a(?P<layer>\d+)\.h(?P<head>\d+)|m(?P<mlp>\d+)|x(?P<bypass>\d+)|(?P<end>input|logits)")


_LABEL = re.compile(
    r"L(?P<layer>\d+)H(?P<head>\d+)|MLP(?P<mlp>\d+)|Bypass(?P<bypass>\d+)|(?P<end>Input|Logits)|\s*(?P<to>→)\s*"
)


def name_of(label: str) -> str:
    """The name, as files have it, of a node, a reader or an edge as it is shown; a name is its own.

    ``L7H14→L14H7<q>`` is ``a7.h14->a14.h7<q>``.
    """

    def name(match: re.Match[str]) -> str:
        if match["layer"]:
            return f"a{match['layer']}.h{match['head']}"
        if match["mlp"] or match["bypass"]:
            return f"m{match['mlp']}" if match["mlp"] else f"x{match['bypass']}"
        return match["end"].lower() if match["end"] else "->"

    return _LABEL.sub(name, label)


def label_of(name: str) -> str:
    """A node's, a reader's or an edge's name as it is shown, in the paper's names: the inverse of `name_of`."""

    def label(match: re.Match[str]) -> str:
        if match["layer"]:
            return f"L{match['layer']}H{match['head']}"
        if match["mlp"] or match["bypass"]:
            return f"MLP{match['mlp']}" if match["mlp"] else f"Bypass{match['bypass']}"
        return match["end"].capitalize()

    return "→".join(_NODE.sub(label, part) for part in name.split("->"))


def parse_node(name: str, shape: Shape) -> Node:
    """The node with this name or label.

    Raises:
        ValueError: the shape has no such node.
    """
    match = _NODE.fullmatch(name_of(name))
    if match:
        if match["layer"] and int(match["layer"]) < shape.n_layers and int(match["head"]) < shape.n_heads:
            return Node(int(match["layer"]), "head", int(match["head"]))
        if match["mlp"] and int(match["mlp"]) < shape.n_layers:
            return Node(int(match["mlp"]), "mlp")
        if match["bypass"] and int(match["bypass"]) in shape.bypasses:
            return Node(int(match["bypass"]), "bypass")
        if match["end"] == "input":
            return Node(-1, "input")
        if match["end"] == "logits":
            return Node(shape.n_layers, "logits")
    raise ValueError(f"no node called {name!r} in a model of {shape.n_layers} layers x {shape.n_heads} heads")


def live(graph: Graph, kept: Bool[np.ndarray, "writer reader"]) -> Bool[np.ndarray, "writer reader"]:
    """The edges kept that can carry something of the prompt to the logits while all others are ablated by zero.

    A node is fed if a fed node writes to it, ``input`` being fed; a head, only if one writes to its v: z = sum over
    positions of A v, and where v gets nothing, q and k alone move nothing. A node is read if a fed node that is read, or
    ``logits``, reads it in any slot. An edge is live if its sender is fed and its receiver is fed and read, or is ``logits``.

    What holds (DESIGN section 4). Under zero ablation a head whose v gets nothing writes the same constant at every
    position, whatever its q and k read: its v sees only the attention output biases before it, and A sums to 1. An MLP
    that gets nothing writes a constant too. Where these constants are 0 (no biases in values, attention outputs, MLPs
    and norms) the circuit and its live edges have the same logits. With biases an edge that is not live can carry such
    a constant, of which nothing depends on the prompt, and taking it away can move logits. Under a mean or resample
    ablation q and k choose among replaced values that differ from position to position: there an edge that is not live
    may matter, and ``live`` says no more than which edges carry a value of the prompt.
    """
    n_writers, values = len(graph.writers), graph.value_readers
    slots = [graph.readers_of(node) for node in graph.writers]
    fed = np.zeros(n_writers, dtype=bool)
    read = np.zeros(len(graph.readers), dtype=bool)
    read[-1] = True
    for i, value in enumerate(values):
        fed[i] = value is None or kept[fed, value].any()
    for i in reversed(range(n_writers)):
        if fed[i] and kept[i, read].any():
            read[list(slots[i])] = True
    return kept & fed[:, None] & read[None, :]

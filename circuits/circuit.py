"""Scores (one number an edge) and Circuit (one bit an edge): frozen values that save, load, and combine.

A circuit file is versioned JSON with the model's name and weight hash, the settings, the seed, and every kept edge by
name with its score; a digest over its content tells a damaged or altered file from a whole one.
"""

import html
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from circuits.choices import counted
from circuits.graph import Edge, Graph, Node, Shape, live
from circuits.records import Unreadable, digest, read_json, write_whole

if TYPE_CHECKING:
    import networkx

FORMAT = "kcircuit/circuit"
VERSION = 1

Setting = str | float | int | bool | None


class CircuitFileError(ValueError):
    """A circuit file that cannot be read, or that belongs to another model."""


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from: the model by name, weight hash and processing; method, settings, seed and facts."""

    model: str
    weights: str
    processing: str = "compatibility"
    method: str = ""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    seed: int = 0
    facts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", dict(self.settings))


def _frozen(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class Scores:
    """One number for each edge; NaN where an edge was never tried, and where there is none.

    ACDC's score of an edge is S(e) = NLL(C without e) - NLL(C) at the moment it was tried, in nats (paper 2, Eq. 1, as
    a difference): ``acdc(...).above(tau)`` is the ACDC circuit.
    """

    graph: Graph
    values: Float[np.ndarray, "writer reader"]
    provenance: Provenance
    undecided: Bool[np.ndarray, "writer reader"] | None = None
    """Edges that a search had still to try when it was ended: they are above every threshold."""

    def __post_init__(self) -> None:
        values = np.where(self.graph.legal, np.asarray(self.values, dtype=np.float64), np.nan)
        object.__setattr__(self, "values", _frozen(values))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Scores)
            and self.graph == other.graph
            and self.provenance == other.provenance
            and np.array_equal(self.values, other.values, equal_nan=True)
            and np.array_equal(self.undecided, other.undecided)  # type: ignore[arg-type]
        )

    def above(self, threshold: float, *, absolute: bool = False) -> "Circuit":
        """The edges whose score is at least ``threshold`` (with ``absolute``, its magnitude); those without one are not."""
        strength = np.abs(self.values) if absolute else self.values
        kept = strength >= threshold if self.undecided is None else (strength >= threshold) | self.undecided
        return Circuit(self.graph, kept, self.provenance, self.values)

    def top(self, n: int, *, absolute: bool = True) -> "Circuit":
        """The n edges of highest score (magnitude, by default); ties go to the earlier writer, then reader.

        Nothing is asked of them but their scores: some may not be `live`. See `connected`.
        """
        if not 0 <= n <= self.graph.n_edges:
            raise ValueError(f"expected 0 to {self.graph.n_edges} edges, got {n}")
        return self._best(self._ranking(absolute), n)

    def connected(self, n: int, *, absolute: bool = True) -> "Circuit":
        """At most n edges, as many of the highest scores as leave every edge `live`.

        It is ``top(k).pruned()`` for the largest k at which that has no more than n edges. One more edge may join many,
        so the circuit can be smaller than n, and empty where the best edges form no path on which every head is read
        through v.
        """
        if not 0 <= n <= self.graph.n_edges:
            raise ValueError(f"expected 0 to {self.graph.n_edges} edges, got {n}")
        ranking = self._ranking(absolute)
        low, high = n, self.graph.n_edges
        while low < high:
            middle = (low + high + 1) // 2
            if self._best(ranking, middle).pruned().n_edges <= n:
                low = middle
            else:
                high = middle - 1
        return self._best(ranking, low).pruned()

    def _ranking(self, absolute: bool) -> Int[np.ndarray, "edge"]:
        """All legal edges as flat indices, best first."""
        strength = np.abs(self.values) if absolute else self.values
        strength = np.where(np.isnan(strength), -math.inf, strength).ravel()
        return np.lexsort((-strength, ~self.graph.legal.ravel()))[: self.graph.n_edges]

    def _best(self, ranking: Int[np.ndarray, "edge"], n: int) -> "Circuit":
        mask = np.zeros(self.graph.legal.size, dtype=bool)
        mask[ranking[:n]] = True
        return Circuit(self.graph, mask.reshape(self.graph.legal.shape), self.provenance, self.values)

    def __str__(self) -> str:
        tried = int(np.isfinite(self.values).sum())
        return f"Scores of {tried:,} of {self.graph.n_edges:,} edges ({self.provenance.method})"


@dataclass(frozen=True, eq=False)
class Circuit:
    """A subset of a graph's edges, with their scores where they have any. Equal if graph and edges are equal."""

    graph: Graph
    kept: Bool[np.ndarray, "writer reader"]
    provenance: Provenance
    scores: Float[np.ndarray, "writer reader"] | None = None

    def __post_init__(self) -> None:
        kept = np.asarray(self.kept, dtype=bool)
        if kept.shape != self.graph.legal.shape:
            raise ValueError(f"expected a mask of shape {self.graph.legal.shape}, got {kept.shape}")
        if (kept & ~self.graph.legal).any():
            writer, reader = np.argwhere(kept & ~self.graph.legal)[0]
            raise ValueError(f"{self.graph.edge_name(int(writer), int(reader))} is no edge of the graph")
        scores = np.full(kept.shape, np.nan) if self.scores is None else np.asarray(self.scores, dtype=np.float64)
        object.__setattr__(self, "kept", _frozen(kept))
        object.__setattr__(self, "scores", _frozen(np.where(kept, scores, np.nan)))

    # ---- what is in it -------------------------------------------------------------------------------------------

    @classmethod
    def full(cls, graph: Graph, provenance: Provenance) -> "Circuit":
        """Every edge of the graph."""
        return cls(graph, graph.legal, provenance)

    @classmethod
    def empty(cls, graph: Graph, provenance: Provenance) -> "Circuit":
        """No edge at all."""
        return cls(graph, np.zeros_like(graph.legal), provenance)

    @property
    def n_edges(self) -> int:
        """Edges kept, a head's query, key and value slots apart."""
        return int(self.kept.sum())

    @cached_property
    def n_merged_edges(self) -> int:
        """Edges after merging each head's q, k and v: the paper's #Edge."""
        return len({(edge.writer, edge.reader.node) for edge in self.edges})

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        return tuple(
            Edge(self.graph.writers[writer], self.graph.readers[reader]) for writer, reader in np.argwhere(self.kept)
        )

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node that an edge touches, in the graph's order."""
        touched = {edge.writer for edge in self.edges} | {edge.reader.node for edge in self.edges}
        return tuple(node for node in self.graph.nodes if node in touched)

    def score(self, edge: Edge) -> float:
        """The edge's score, NaN if it has none or is not in the circuit."""
        assert self.scores is not None
        return float(self.scores[self.graph.writer_index(edge.writer), self.graph.reader_index(edge.reader)])

    def __contains__(self, edge: object) -> bool:
        match edge:
            case Edge():
                return bool(self.kept[self.graph.writer_index(edge.writer), self.graph.reader_index(edge.reader)])
            case str():
                return bool(self.kept[self.graph.edge(edge)])
            case _:
                return False

    def __len__(self) -> int:
        return self.n_edges

    def __iter__(self) -> Iterator[Edge]:
        return iter(self.edges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Circuit) and self.graph == other.graph and np.array_equal(self.kept, other.kept)

    def __hash__(self) -> int:
        return hash((self.graph, self.kept.tobytes()))

    # ---- set algebra ---------------------------------------------------------------------------------------------

    def __and__(self, other: "Circuit") -> "Circuit":
        return self._combine(other, np.logical_and)

    def __or__(self, other: "Circuit") -> "Circuit":
        return self._combine(other, np.logical_or)

    def __sub__(self, other: "Circuit") -> "Circuit":
        return self._combine(other, lambda ours, theirs: ours & ~theirs)

    def _combine(self, other: "Circuit", operation: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> "Circuit":
        if self.graph != other.graph:
            raise ValueError(f"expected circuits of one graph, got {self.graph} and {other.graph}")
        assert self.scores is not None
        assert other.scores is not None
        scores = np.where(np.isnan(self.scores), other.scores, self.scores)
        return replace(self, kept=operation(self.kept, other.kept), scores=scores)

    def pruned(self) -> "Circuit":
        """The live edges alone: see `live`. For reading; the circuit itself is what was measured."""
        return replace(self, kept=live(self.graph, self.kept))

    def merged(self) -> "Circuit":
        """The same circuit with each head's q, k and v as one slot; an edge keeps its largest score."""
        if self.graph.granularity == "node":
            return self
        assert self.scores is not None
        graph = Graph(self.graph.shape, "node")
        kept = np.zeros_like(graph.legal)
        scores = np.full(kept.shape, np.nan)
        for j, reader in enumerate(self.graph.readers):
            column = graph.readers_of(reader.node)[0]
            kept[:, column] |= self.kept[:, j]
            scores[:, column] = np.fmax(scores[:, column], self.scores[:, j])
        return Circuit(graph, kept, self.provenance, scores)

    # ---- other forms ---------------------------------------------------------------------------------------------

    def to_networkx(self) -> "networkx.DiGraph":
        """A directed graph: nodes by name (attributes kind, layer, head, label), edges with slot and score.

        For ``qkv`` granularity a MultiDiGraph, one edge a slot, whose key is the slot (empty for nodes without slots).
        """
        import networkx

        split = self.graph.granularity == "qkv"
        view: networkx.DiGraph = networkx.MultiDiGraph() if split else networkx.DiGraph()
        for node in self.nodes:
            view.add_node(node.name, kind=node.kind, layer=node.layer, head=node.head, label=node.label)
        for edge in self.edges:
            slot = edge.reader.slot or ""
            key = {"key": slot} if split else {}
            view.add_edge(edge.writer.name, edge.reader.node.name, slot=slot, score=self.score(edge), **key)
        return view

    def to_json(self) -> dict[str, Any]:
        """What the circuit's file holds, its digest with it."""
        shape, provenance = self.graph.shape, self.provenance
        content: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "model": {"name": provenance.model, "weights": provenance.weights, "processing": provenance.processing},
            "method": provenance.method,
            "settings": dict(provenance.settings),
            "seed": provenance.seed,
            "facts": list(provenance.facts),
            "shape": {
                "n_layers": shape.n_layers,
                "n_heads": shape.n_heads,
                "parallel": shape.parallel,
                **({"bypasses": list(shape.bypasses)} if shape.bypasses else {}),
            },
            "granularity": self.graph.granularity,
            "nodes": [node.name for node in self.nodes],
            "edges": [
                {"edge": edge.name, "score": None if math.isnan(self.score(edge)) else self.score(edge)}
                for edge in self.edges
            ],
        }
        return {**content, "digest": digest(content)}

    def save(self, path: Path | str) -> None:
        """Write the circuit file; the whole of it or nothing."""
        write_whole(path, self.text())

    def text(self) -> str:
        """What its file holds."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def load(cls, path: Path | str, *, weights: str | None = None) -> "Circuit":
        """Read a circuit file; with ``weights``, only one made for the model with that weight hash.

        Raises:
            CircuitFileError: no JSON, another format or version, altered content, or another model.
        """
        try:
            content = read_json(path)
        except Unreadable as error:
            raise CircuitFileError(f"{path} is no whole circuit file: {error}") from error
        return cls.from_json(content, source=str(path), weights=weights)

    @classmethod
    def from_json(cls, content: Any, *, source: str = "the circuit", weights: str | None = None) -> "Circuit":
        """The inverse of `to_json`.

        Args:
            source: where the content is from, for errors.
            weights: the hash that the circuit's model must have, if any.

        Raises:
            CircuitFileError: no whole circuit, or one of other weights.
        """
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise CircuitFileError(f"{source} is no circuit file: expected format {FORMAT!r}")
        if content.get("version") != VERSION:
            raise CircuitFileError(
                f"{source} has version {content.get('version')!r}, this program reads version {VERSION}; "
                "make the circuit again with `kcircuit discover`"
            )
        if content.get("digest") != digest({key: value for key, value in content.items() if key != "digest"}):
            raise CircuitFileError(f"{source} was altered after it was written: its content does not match its digest")
        model = content["model"]
        if weights is not None and model["weights"] != weights:
            raise CircuitFileError(
                f"{source} was made for {model['name']!r} with weights {model['weights'][:12]}, "
                f"and the model at hand has weights {weights[:12]}"
            )
        frame = cls.empty_like(content)
        kept = np.zeros_like(frame.graph.legal)
        scores = np.full(kept.shape, np.nan)
        for row in content["edges"]:
            index = frame.graph.edge(row["edge"])
            kept[index] = True
            if row["score"] is not None:
                scores[index] = row["score"]
        return cls(frame.graph, kept, frame.provenance, scores)

    @classmethod
    def empty_like(cls, content: Mapping[str, Any]) -> "Circuit":
        """The empty circuit with the graph and provenance of a circuit file's content."""
        model, shape = content["model"], content["shape"]
        graph = Graph(Shape(**{**shape, "bypasses": tuple(shape.get("bypasses", ()))}), content["granularity"])
        provenance = Provenance(
            model=model["name"],
            weights=model["weights"],
            processing=model["processing"],
            method=content["method"],
            settings=content["settings"],
            seed=content["seed"],
            facts=tuple(content["facts"]),
        )
        return cls.empty(graph, provenance)

    def __str__(self) -> str:
        share = self.n_edges / self.graph.n_edges
        return (
            f"Circuit of {self.n_edges:,} of {self.graph.n_edges:,} edges ({share:.1%}), "
            f"{counted(len(self.nodes), 'node')}, in {self.provenance.model}"
        )

    def __repr__(self) -> str:
        return f"<{self}>"

    def _repr_html_(self) -> str:
        """How a notebook shows it: the sentence, and the strongest edges."""
        assert self.scores is not None
        strongest = sorted(self.edges, key=lambda edge: -np.nan_to_num(self.score(edge), nan=-math.inf))[:10]
        rows = "".join(
            f"<tr><td>{html.escape(edge.label)}</td><td>{self.score(edge):.4f}</td></tr>" for edge in strongest
        )
        return f"<p>{html.escape(str(self))}</p><table><tr><th>edge</th><th>score, nats</th></tr>{rows}</table>"

    def nodes_per_layer(self, kind: Literal["head", "mlp"]) -> tuple[int, ...]:
        """How many heads (or MLPs) of each layer the circuit uses (paper 2, Figure 2)."""
        count = Counter(node.layer for node in self.nodes if node.kind == kind)
        return tuple(count[layer] for layer in range(self.graph.shape.n_layers))


def jaccard(ours: AbstractSet[object], theirs: AbstractSet[object]) -> float:
    """Share of all members that both have; 1 for two empty sets, which are equal."""
    union = len(ours | theirs)
    return len(ours & theirs) / union if union else 1.0

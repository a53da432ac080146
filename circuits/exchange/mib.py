"""The circuit JSON of EAP-IG (Hanna et al. 2024), which the MIB benchmark (Mueller et al. 2025) takes for submissions.

    {"cfg":   {"n_layers": 2, "n_heads": 4, "parallel_attn_mlp": false, "d_model": 32}, "nodes": {"input":
{"in_graph": true}, "a0.h0": ..., "m0": ..., "logits": {"in_graph": true}}, "edges": {"input->a0.h0<q>": {"score":
0.25, "in_graph": true}, ...}}

Its node and edge names are this project's own. A node is in the graph if it has both kept incoming and kept outgoing
edges; ``input`` needs no incoming ones, ``logits`` always is.

What the format cannot hold, and what is done about it:

* Where a result comes from: kept in a field ``kcircuit`` of our own, which EAP-IG's reader skips. A file without it
  is read with provenance "unknown".
* An edge that was never scored: its score is written as 0, as EAP-IG itself does, with ``"scored": false`` beside it.
* Merged slots (granularity "node"): each edge into a head is written three times, for q, k and v, with one score. The
  same edges are ablated, but another tool counts three.
* Infinite scores, and the bypasses of an edited model: refused.
* The width of the residual stream is in ``cfg`` and not in a circuit, so the caller gives it.

What this project cannot hold: node scores are not read, and a file that leaves out some neurons of a node is refused.
EAP-IG's ``input`` is the token embedding alone; here it is token and position embedding together.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from circuits.circuit import Circuit, Provenance, Scores
from circuits.exchange.errors import (
    UNKNOWN,
    ExchangeError,
    field,
    graph_of,
    provenance_from_json,
    provenance_to_json,
    read_bytes,
    shape_of,
)
from circuits.graph import Graph
from circuits.records import Unreadable, parse_json, write_whole

OWN = "kcircuit"


def write_mib(result: Circuit | Scores, path: Path | str, *, d_model: int) -> None:
    """Write a circuit, or scores (then no edge is in the graph: MIB cuts scores itself).

    Raises:
        ExchangeError: an infinite score, or an edited model's graph.
    """
    text = json.dumps(to_mib(result, d_model=d_model), allow_nan=False, ensure_ascii=True, indent=1)
    write_whole(path, text + "\n")


def read_mib(path: Path | str) -> Circuit:
    """The edges marked ``in_graph``, with their scores.

    Raises:
        ExchangeError: no such file, no JSON, a missing or wrong field, an edge that the graph does not have.
    """
    graph, kept, scores, provenance = _read(path)
    return Circuit(graph, kept, provenance, scores)


def read_mib_scores(path: Path | str) -> Scores:
    """The scores of all edges, whether in the graph or not; raises as `read_mib` does."""
    graph, _, scores, provenance = _read(path)
    return Scores(graph, scores, provenance)


def to_mib(result: Circuit | Scores, *, d_model: int) -> dict[str, Any]:
    graph = result.graph
    if isinstance(result, Circuit):
        assert result.scores is not None
        kept, scores = result.kept, result.scores
    else:
        kept, scores = np.zeros_like(graph.legal), result.values
    if d_model < 1:
        raise ExchangeError(f"d_model should be at least 1, got {d_model}")
    shape = graph.shape
    if shape.bypasses:
        raise ExchangeError(f"the MIB format has no node for the bypass x{shape.bypasses[0]} of an edited model")
    edges: dict[str, dict[str, Any]] = {}
    for reader, upstream in enumerate(graph.upstream):
        for writer in range(upstream):
            score = float(scores[writer, reader])
            if math.isinf(score):
                raise ExchangeError(
                    f"the score of {graph.edge_name(writer, reader)} is {score}, and the MIB format holds finite numbers only"
                )
            row: dict[str, Any] = {"score": 0.0 if math.isnan(score) else score, "in_graph": bool(kept[writer, reader])}
            if math.isnan(score):
                row["scored"] = False
            for name in _names(graph, writer, reader):
                edges[name] = row
    return {
        "cfg": {
            "n_layers": shape.n_layers,
            "n_heads": shape.n_heads,
            "parallel_attn_mlp": shape.parallel,
            "d_model": d_model,
        },
        "nodes": {name: {"in_graph": inside} for name, inside in _nodes(graph, kept).items()},
        "edges": edges,
        OWN: {"granularity": graph.granularity, **provenance_to_json(result.provenance)},
    }


def _names(graph: Graph, writer: int, reader: int) -> tuple[str, ...]:
    name = graph.edge_name(writer, reader)
    if graph.granularity == "node" and graph.readers[reader].node.kind == "head":
        return tuple(f"{name}<{slot}>" for slot in "qkv")
    return (name,)


def _nodes(graph: Graph, kept: Bool[np.ndarray, "writer reader"]) -> dict[str, bool]:
    inside = {}
    for writer, node in enumerate(graph.writers):
        slots = list(graph.readers_of(node))
        entered = node.kind == "input" or bool(kept[:, slots].any())
        inside[node.name] = entered and bool(kept[writer].any())
    return {**inside, "logits": True}


# ---- reading -----------------------------------------------------------------------------------------------------------

_Content = tuple[Graph, Bool[np.ndarray, "writer reader"], Float[np.ndarray, "writer reader"], Provenance]


def _read(path: Path | str) -> _Content:
    try:
        content = parse_json(read_bytes(path), str(path))
    except Unreadable as error:
        raise ExchangeError(str(error)) from error
    return _parse(content, str(path))


def _parse(content: Any, where: str) -> _Content:
    config = field(content, "cfg", dict, where)
    inside = f"{where}, cfg"
    shape = shape_of(
        field(config, "n_layers", int, inside),
        field(config, "n_heads", int, inside),
        field(config, "parallel_attn_mlp", bool, inside),
        inside,
    )
    own = content.get(OWN)
    granularity, provenance = "qkv", UNKNOWN
    if own is not None:
        granularity = field(own, "granularity", str, f"{where}, {OWN}")
        provenance = provenance_from_json(own, f"{where}, {OWN}")
    graph = graph_of(shape, granularity, f"{where}, {OWN}")
    _require_whole_nodes(field(content, "nodes", dict, where), graph, where)
    kept, scores = _edges(field(content, "edges", dict, where), Graph(shape), where)
    if graph.granularity == "node":
        kept, scores = _merged(graph, kept, scores, where)
    return graph, kept, scores, provenance


def _require_whole_nodes(nodes: dict[str, Any], graph: Graph, where: str) -> None:
    known = {node.name for node in graph.nodes}
    for name, row in nodes.items():
        if name not in known:
            raise ExchangeError(f"{where}, nodes: no node called {name!r} in {graph.shape}")
        # EAP-IG's first version wrote a plain boolean for each node.
        neurons = row.get("neurons") if isinstance(row, dict) else None
        if neurons is not None and not all(neurons):
            raise ExchangeError(
                f"{where}, nodes: {name!r} lists neurons that are left out, and a circuit here has whole nodes"
            )


def _edges(
    edges: dict[str, Any], graph: Graph, where: str
) -> tuple[Bool[np.ndarray, "writer reader"], Float[np.ndarray, "writer reader"]]:
    kept = np.zeros_like(graph.legal)
    scores = np.full(kept.shape, np.nan)
    for name, row in edges.items():
        try:
            index = graph.edge(name)
        except ValueError as error:
            raise ExchangeError(f"{where}, edges: {error}") from None
        inside = f"{where}, edges, {name!r}"
        kept[index] = field(row, "in_graph", bool, inside)
        # EAP-IG's first version wrote null for an edge without a score.
        if row.get("score") is not None and row.get("scored", True):
            scores[index] = field(row, "score", float, inside)
    return kept, scores


def _merged(
    graph: Graph, kept: Bool[np.ndarray, "writer slot"], scores: Float[np.ndarray, "writer slot"], where: str
) -> tuple[Bool[np.ndarray, "writer reader"], Float[np.ndarray, "writer reader"]]:
    """One reader a head, from three that must say the same."""
    split = Graph(graph.shape)
    columns = [list(split.readers_of(reader.node)) for reader in graph.readers]
    for reader, slots in zip(graph.readers, columns, strict=True):
        same = (kept[:, slots] == kept[:, slots[:1]]).all() and np.array_equal(
            scores[:, slots], np.repeat(scores[:, slots[:1]], len(slots), 1), equal_nan=True
        )
        if not same:
            raise ExchangeError(
                f"{where}: field 'granularity' says node, but the edges into {reader.node.name} differ between q, k and v"
            )
    first = [slots[0] for slots in columns]
    return kept[:, first], scores[:, first]

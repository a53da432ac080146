"""GraphML and GEXF, for graph tools such as Gephi, Cytoscape, yEd and networkx.

A circuit's nodes are nodes (attributes kind, layer, head, label), its edges are edges (attributes edge, slot and,
where it has one, score). What a graph format has no place for is one JSON text: shape, granularity and provenance, in
GraphML as the graph's attribute ``kcircuit``, in GEXF as the file's description. Without it a file cannot be read
back as a circuit: shape and legal edges cannot be told from the nodes that happen to be in it.
"""

import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from circuits.circuit import Circuit
from circuits.exchange.errors import (
    ExchangeError,
    field,
    graph_of,
    provenance_from_json,
    provenance_to_json,
    read_bytes,
    shape_of,
)
from circuits.records import write_whole

if TYPE_CHECKING:
    import networkx

OWN = "kcircuit"
_GEXF = "{http://www.gexf.net/1.2draft}"


def write_graphml(circuit: Circuit, path: Path | str) -> None:
    import networkx

    buffer = io.BytesIO()
    # The writer is named: networkx' default one depends on what else is installed.
    networkx.write_graphml_xml(_view(circuit, {OWN: _header(circuit)}), buffer, prettyprint=True)
    write_whole(path, buffer.getvalue())


def read_graphml(path: Path | str) -> Circuit:
    """Read what `write_graphml` wrote, be it changed by another tool meanwhile.

    Raises:
        ExchangeError: no such file, no GraphML, no field ``kcircuit``, an edge that the graph does not have.
    """
    import networkx

    data = read_bytes(path)
    try:
        view = networkx.read_graphml(io.BytesIO(data), node_type=str)
    except (ElementTree.ParseError, networkx.NetworkXError, ValueError, KeyError) as error:
        raise ExchangeError(f"{path} is no GraphML: {error}") from error
    return _circuit(view, view.graph.get(OWN), str(path))


def write_gexf(circuit: Circuit, path: Path | str) -> None:
    import networkx

    buffer = io.BytesIO()
    networkx.write_gexf(_view(circuit, {}), buffer, prettyprint=True, version="1.2draft")
    root = ElementTree.fromstring(buffer.getvalue())
    for meta in root.findall(f"{_GEXF}meta"):
        root.remove(meta)
    # Made anew: networkx writes today's date, and the same circuit shall give the same bytes.
    meta = ElementTree.Element(f"{_GEXF}meta")
    ElementTree.SubElement(meta, f"{_GEXF}creator").text = OWN
    ElementTree.SubElement(meta, f"{_GEXF}description").text = _header(circuit)
    root.insert(0, meta)
    ElementTree.register_namespace("", _GEXF.strip("{}"))
    ElementTree.indent(root)
    write_whole(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def read_gexf(path: Path | str) -> Circuit:
    """Read what `write_gexf` wrote, be it changed by another tool meanwhile; raises as `read_graphml` does."""
    import networkx

    data = read_bytes(path)
    try:
        view = networkx.read_gexf(io.BytesIO(data), node_type=str)
        descriptions = ElementTree.fromstring(data).findall(f"{_GEXF}meta/{_GEXF}description")
    except (ElementTree.ParseError, networkx.NetworkXError, ValueError, KeyError, TypeError) as error:
        raise ExchangeError(f"{path} is no GEXF: {error}") from error
    return _circuit(view, descriptions[0].text if descriptions else None, str(path))


def _header(circuit: Circuit) -> str:
    shape = circuit.graph.shape
    content = {
        "n_layers": shape.n_layers,
        "n_heads": shape.n_heads,
        "parallel": shape.parallel,
        "bypasses": list(shape.bypasses),
        "granularity": circuit.graph.granularity,
        **provenance_to_json(circuit.provenance),
    }
    # ASCII, because XML cannot hold every character that a prompt can.
    return json.dumps(content, ensure_ascii=True)


def _view(circuit: Circuit, attributes: dict[str, str]) -> "networkx.MultiDiGraph":
    import networkx

    view = networkx.MultiDiGraph()
    view.graph.update(attributes)
    for node in circuit.nodes:
        view.add_node(node.name, kind=node.kind, layer=node.layer, head=node.head, label=node.label)
    for edge in circuit.edges:
        score = circuit.score(edge)
        known: dict[str, Any] = {} if math.isnan(score) else {"score": score}
        view.add_edge(
            edge.writer.name, edge.reader.node.name, key=edge.name, edge=edge.name, slot=edge.reader.slot or "", **known
        )
    return view


def _circuit(view: "networkx.DiGraph", header: Any, where: str) -> Circuit:
    if not isinstance(header, str):
        raise ExchangeError(
            f"{where} has no field {OWN!r} with the shape of the model, so it is no circuit of this project"
        )
    try:
        content = json.loads(header)
    except json.JSONDecodeError as error:
        raise ExchangeError(f"{where}: field {OWN!r} is no JSON: {error}") from error
    inside = f"{where}, {OWN}"
    shape = shape_of(
        field(content, "n_layers", int, inside),
        field(content, "n_heads", int, inside),
        field(content, "parallel", bool, inside),
        inside,
        tuple(field(content, "bypasses", list, inside)),
    )
    graph = graph_of(shape, field(content, "granularity", str, inside), inside)
    kept = np.zeros_like(graph.legal)
    scores = np.full(kept.shape, np.nan)
    for writer, reader, data in view.edges(data=True):
        slot = data.get("slot") or ""
        try:
            index = graph.edge(f"{writer}->{reader}<{slot}>" if slot else f"{writer}->{reader}")
        except ValueError as error:
            raise ExchangeError(f"{where}, edges: {error}") from None
        kept[index] = True
        if "score" in data:
            scores[index] = field(data, "score", float, f"{where}, edge {writer}->{reader}")
    return Circuit(graph, kept, provenance_from_json(content, inside), scores)

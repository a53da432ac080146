"""Circuits in the file formats of other tools: EAP-IG's and MIB's JSON, GraphML and GEXF.

Each format comes as a pair (write, read) whose round trip gives the circuit back: graph, edges, scores, provenance.
"""

from circuits.exchange.errors import ExchangeError
from circuits.exchange.markup import read_gexf, read_graphml, write_gexf, write_graphml
from circuits.exchange.mib import read_mib, read_mib_scores, write_mib

__all__ = [
    "ExchangeError",
    "read_gexf",
    "read_graphml",
    "read_mib",
    "read_mib_scores",
    "write_gexf",
    "write_graphml",
    "write_mib",
]

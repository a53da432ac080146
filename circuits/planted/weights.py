"""Which edges a transformer without norms can have an effect through, read off its weights.

An edge carries something if what its sender writes meets what its reader reads: ``|W_write W_read| > 0``, W_write
being the embeddings, a head's W_O or an MLP's W_out, and W_read a slot's W_Q, W_K or W_V, an MLP's W_in, or W_U. It
can matter only on a path from ``input`` to ``logits``. An edge outside has exactly no effect under any ablation; one
inside has none where it carries what the ablation puts in its place.
"""

import numpy as np
import torch
from torch import Tensor

from circuits.circuit import Circuit, Provenance
from circuits.graph import Graph, Node, Reader
from circuits.model.transformer import Components, UnsupportedArchitecture

NOTHING = 1e-9
"""Products of weights smaller than this (Frobenius norm) are none."""


def connected(parts: Components) -> Circuit:
    """The edges that the weights connect.

    Raises:
        UnsupportedArchitecture: a reader has a norm, which mixes all directions.
    """
    norms = [norm for block in parts.blocks for norm in (block.attention.norm, block.mlp.norm)]
    if any(norm.kind != "none" for norm in (*norms, parts.final)):
        raise UnsupportedArchitecture("edges can be read off the weights only where no reader has a norm")
    graph = Graph(parts.shape)
    kept = np.zeros_like(graph.legal)
    reads = [_read(parts, reader) for reader in graph.readers]
    for i, node in enumerate(graph.writers):
        write = _write(parts, node)
        for j, read in enumerate(reads):
            kept[i, j] = graph.legal[i, j] and float((write @ read).norm()) > NOTHING
    return Circuit(graph, kept, Provenance("weights", "", processing="raw", method="connected")).pruned()


def _write(parts: Components, node: Node) -> Tensor:
    """Rows that span what the node can write."""
    if node.kind == "input":
        return parts.W_E if parts.W_pos is None else torch.cat((parts.W_E, parts.W_pos))
    block = parts.blocks[node.layer]
    if node.kind == "head":
        return block.attention.W_O[node.head]
    return torch.cat((block.mlp.W_out, block.mlp.b_out[None]))


def _read(parts: Components, reader: Reader) -> Tensor:
    node = reader.node
    if node.kind == "logits":
        return parts.W_U
    block = parts.blocks[node.layer]
    if node.kind == "mlp":
        return block.mlp.W_in if block.mlp.W_gate is None else torch.cat((block.mlp.W_in, block.mlp.W_gate), 1)
    attention = block.attention
    return {"q": attention.W_Q, "k": attention.W_K, "v": attention.W_V}[reader.slot or "v"][node.head]

"""A circuit in a few bytes: what its file says, less what its graph knows already.

Edges are the steps from one to the next in the graph's order, scores their eight bytes; both are laid out byte by byte (all first
bytes, then all second ones), which compresses better. The content that comes back is the one that was packed, to the last byte
of its file: that is checked before anything is kept.
"""

import json
import math
import zlib
from functools import lru_cache
from typing import Any

import numpy as np

from circuits.circuit import Circuit, CircuitFileError
from circuits.graph import Edge, Graph

MAGIC = b"kcc1"


def pack(content: dict[str, Any]) -> bytes:
    """The circuit file's content, packed.

    Raises:
        CircuitFileError: it is no whole circuit file, or not one that this version would write.
    """
    circuit = Circuit.from_json(content)
    assert circuit.scores is not None
    flat = np.flatnonzero(circuit.kept)
    steps = np.diff(flat, prepend=0).astype("<u4")
    scores = circuit.scores.ravel()[flat].astype("<f8")
    header = {key: value for key, value in content.items() if key not in ("nodes", "edges", "digest")}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    parts = (
        len(text).to_bytes(4, "little"),
        text,
        len(flat).to_bytes(4, "little"),
        _shuffled(steps),
        _shuffled(scores),
    )
    data = MAGIC + zlib.compress(b"".join(parts), 9)
    if json.dumps(unpack(data)) != json.dumps(content):
        raise CircuitFileError("the circuit is none that this version would write: it would not be read back as it is")
    return data


def unpack(data: bytes) -> dict[str, Any]:
    """What `pack` packed.

    Raises:
        CircuitFileError: these are no bytes of `pack`.
    """
    frame, flat, values = _opened(data)
    try:
        kept, scores = np.zeros(frame.kept.size, dtype=bool), np.full(frame.kept.size, math.nan)
        kept[flat], scores[flat] = True, values
    except (ValueError, IndexError) as error:
        raise CircuitFileError(f"no packed circuit: {error}") from error
    shape = frame.kept.shape
    return Circuit(frame.graph, kept.reshape(shape), frame.provenance, scores.reshape(shape)).to_json()


def edge_names(data: bytes) -> tuple[str, ...]:
    """The names of the edges alone, in the graph's order.

    Raises:
        CircuitFileError: these are no bytes of `pack`.
    """
    frame, flat, _ = _opened(data)
    try:
        names = _names(frame.graph)
        return tuple(names[i] for i in flat)
    except IndexError as error:
        raise CircuitFileError(f"no packed circuit: {error}") from error


@lru_cache(maxsize=8)
def _names(graph: Graph) -> tuple[str, ...]:
    """Of every pair of writer and reader, by its flat index."""
    return tuple(Edge(writer, reader).name for writer in graph.writers for reader in graph.readers)


def _opened(data: bytes) -> tuple[Circuit, np.ndarray, np.ndarray]:
    """(the empty circuit of its graph and provenance, flat indices of the edges kept, their scores)."""
    try:
        if not data.startswith(MAGIC):
            raise ValueError(f"expected {MAGIC!r} first, got {data[:4]!r}")
        raw = zlib.decompress(data[len(MAGIC) :])
        n_text = int.from_bytes(raw[:4], "little")
        header = json.loads(raw[4 : 4 + n_text])
        at = 4 + n_text
        n = int.from_bytes(raw[at : at + 4], "little")
        steps = _unshuffled(raw[at + 4 : at + 4 + 4 * n], "<u4", n)
        scores = _unshuffled(raw[at + 4 + 4 * n :], "<f8", n)
        return Circuit.empty_like(header), np.cumsum(steps.astype(np.int64)), scores
    except (ValueError, KeyError, TypeError, IndexError, zlib.error) as error:
        raise CircuitFileError(f"no packed circuit: {error}") from error


def _shuffled(values: np.ndarray) -> bytes:
    return values.view(np.uint8).reshape(len(values), values.itemsize).T.tobytes()


def _unshuffled(data: bytes, kind: str, n: int) -> np.ndarray:
    size = np.dtype(kind).itemsize
    return np.frombuffer(data, np.uint8).reshape(size, n).T.copy().view(kind).reshape(n)

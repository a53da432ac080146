"""Reading fields out of files that others wrote: what is wrong is said with the file and the field."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from circuits.circuit import Provenance
from circuits.graph import Granularity, Graph, Shape

T = TypeVar("T")


class ExchangeError(ValueError):
    """A file of another format that cannot be written or read; the message names the file and the field."""


def field(content: Any, name: str, kind: type[T], where: str) -> T:
    """``content[name]``, which must be of that type (a bool is no int).

    Raises:
        ExchangeError: no such field, or another type.
    """
    if not isinstance(content, Mapping) or name not in content:
        raise ExchangeError(f"{where} has no field {name!r}")
    value: Any = content[name]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ExchangeError(f"{where}: field {name!r} should be {_WORDS[kind]}, got {value!r}")
    return value


_WORDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def shape_of(n_layers: int, n_heads: int, parallel: bool, where: str, bypasses: tuple[int, ...] = ()) -> Shape:
    try:
        return Shape(n_layers, n_heads, parallel, bypasses)
    except ValueError as error:
        raise ExchangeError(f"{where}: {error}") from None


def graph_of(shape: Shape, granularity: str, where: str) -> Graph:
    if granularity not in ("qkv", "node"):
        raise ExchangeError(f"{where}: field 'granularity' should be qkv or node, got {granularity!r}")
    kind: Granularity = "qkv" if granularity == "qkv" else "node"
    return Graph(shape, kind)


def provenance_to_json(provenance: Provenance) -> dict[str, Any]:
    return {
        "model": provenance.model,
        "weights": provenance.weights,
        "processing": provenance.processing,
        "method": provenance.method,
        "settings": dict(provenance.settings),
        "seed": provenance.seed,
        "facts": list(provenance.facts),
    }


def provenance_from_json(content: Any, where: str) -> Provenance:
    facts = field(content, "facts", list, where)
    if not all(isinstance(fact, str) for fact in facts):
        raise ExchangeError(f"{where}: field 'facts' should be a list of texts, got {facts!r}")
    return Provenance(
        model=field(content, "model", str, where),
        weights=field(content, "weights", str, where),
        processing=field(content, "processing", str, where),
        method=field(content, "method", str, where),
        settings=field(content, "settings", dict, where),
        seed=field(content, "seed", int, where),
        facts=tuple(facts),
    )


UNKNOWN = Provenance("unknown", "unknown", processing="unknown", method="unknown")
"""Of a circuit in a file that does not say where it comes from."""


def read_bytes(path: Path | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ExchangeError(f"cannot read {path}: {error.strerror}") from error

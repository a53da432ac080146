"""A frozen value <-> JSON, one way for all; its digest; and files that are written whole or not at all.

A record is a frozen dataclass or pydantic model whose fields are numbers, texts, tuples, mappings and records. What is read
back is the value that was written, or an error that names the file and the field.
"""

import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError

T = TypeVar("T")

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A float that may not have been measured: NaN in Python, null in JSON, which has no word for it."""


class Unreadable(ValueError):
    """A text or file that is not the record that was expected."""


# ---- files -----------------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A new file to write beside ``path``, which takes its place at the end; after an error nothing of it is left.

    A reader sees the old file or the new one, never a part, and so does who looks after a power cut. The folder is made
    if need be.

    Raises:
        OSError: it cannot be written; says to which path, and why.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.replace(path)
    except OSError as error:
        reason = f"{error.strerror or error}; the file was not written, free space or name another place"
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path | str, content: str | bytes) -> None:
    """Write the file, the whole of it or nothing: see `replacing`. Text is UTF-8, its line ends as they are."""
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def write_files(folder: Path | str, contents: Mapping[str, str | bytes]) -> None:
    """Write all of a folder's files, each whole. Every text is there before any is written."""
    for name, content in contents.items():
        write_whole(Path(folder) / name, content)


# ---- JSON ------------------------------------------------------------------------------------------------------------


def file_name(name: str) -> str:
    """A name as part of a file's; two names never make one."""
    return name.replace("%", "%25").replace("/", "%2F").replace(os.sep, "%2F")


def parse_json(text: str | bytes, source: str = "the text") -> Any:
    """The values of a JSON text.

    Raises:
        Unreadable: no JSON, no UTF-8, a number of thousands of digits, or nesting deeper than any record's.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise Unreadable(f"{source}: expected JSON, got lists or objects nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"{source}: expected JSON: {error}") from error


def read_json(path: Path | str) -> Any:
    """The values of a JSON file.

    Raises:
        Unreadable: no such file, or no JSON in it; says which.
    """
    return parse_json(read_bytes(path), str(path))


def read_bytes(path: Path | str) -> bytes:
    """The bytes of a file.

    Raises:
        Unreadable: it cannot be read; says which, and why.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot read {path}: {error.strerror}") from error


def to_json(value: Any) -> Any:
    """The record as what JSON has words for; NaN and infinities as null."""
    return _finite(_adapter(type(value)).dump_python(value, mode="json"))


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: _finite(part) for name, part in value.items()}
        case list() | tuple():
            return [_finite(part) for part in value]
        case _:
            return value


def to_text(value: Any, *, indent: int | None = 1) -> str:
    """The record as a JSON text with a line end, as a file holds it."""
    return json.dumps(to_json(value), ensure_ascii=False, indent=indent, allow_nan=False) + "\n"


def from_json(kind: type[T] | Any, content: Any, source: str = "the record") -> T:
    """The record of that class, or of one of a union of classes, that `to_json` made this of.

    Raises:
        Unreadable: a field is missing, unknown or of another type; says which, and what was there.
    """
    name = getattr(kind, "__name__", str(kind))
    try:
        # From Python values a strict reader refuses the lists that JSON has for tuples; from a text it takes them.
        value = _adapter(kind).validate_json(json.dumps(content, allow_nan=False), strict=True)
    except ValidationError as error:
        raise Unreadable(f"{source} is no whole {name}: {_first(error)}") from error
    except (TypeError, RecursionError) as error:
        raise Unreadable(f"{source} is no {name}: {error}") from error
    if unknown := _unknown(content, to_json(value)):
        raise Unreadable(f"{source} is no {name}: it has no field {unknown}")
    return value


def load(kind: type[T], path: Path | str) -> T:
    """The record in a file.

    Raises:
        Unreadable: see `read_json` and `from_json`.
    """
    return from_json(kind, read_json(path), str(path))


def save(value: Any, path: Path | str) -> None:
    """Write the record to a file, whole."""
    write_whole(path, to_text(value))


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "all of it"
    return f"{where}: {first['msg']}, got {str(first['input'])[:80]!r}"


def _unknown(given: Any, read: Any, where: str = "") -> str:
    """The first field that was given and not read, by its path; empty where there is none."""
    if isinstance(given, Mapping) and isinstance(read, Mapping):
        for name, value in given.items():
            path = f"{where}.{name}" if where else str(name)
            if name not in read:
                return path
            if found := _unknown(value, read[name], path):
                return found
    elif isinstance(given, Sequence) and isinstance(read, Sequence) and not isinstance(given, str):
        for i, (one, other) in enumerate(zip(given, read, strict=False)):
            if found := _unknown(one, other, f"{where}.{i}"):
                return found
    return ""


@cache
def _adapter(kind: Any) -> Any:
    return TypeAdapter(kind)


# ---- digests ---------------------------------------------------------------------------------------------------------


def canonical(content: Any) -> str:
    """The one text of what JSON has words for: keys sorted, no space, ASCII."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value: Any) -> str:
    """sha256 of the record's canonical JSON, in hexadecimal: equal for equal records, on every machine."""
    content = value if isinstance(value, (dict, list, str, int, float, bool)) or value is None else to_json(value)
    return hashlib.sha256(canonical(content).encode()).hexdigest()

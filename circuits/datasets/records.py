"""Files that hold a list of facts or edit cases, read one record at a time, with errors that name file, record and field."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from circuits.datasets.lre import DatasetError
from circuits.facts import EditRequest, FactError, Probe
from circuits.records import Unreadable, parse_json, read_bytes, read_json

T = TypeVar("T")
R = TypeVar("R", bound=BaseModel)
Skip = Callable[[str], None]
"""Told of each record that is not used, and why. Without one, the first such record is an error."""


class RecordError(ValueError):
    """One record that makes no fact and no edit request: the field, and why."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")


class Record(BaseModel):
    """A record of a published file, of which only some fields are read."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


def _stripped(text: str) -> str:
    stripped = " ".join(text.split())
    if not stripped:
        raise ValueError("expected some text, got none")
    return stripped


Words = Annotated[str, AfterValidator(_stripped)]
"""Text with single spaces and none at its ends: published files are not careful with them."""


class Entity(Record):
    """CounterFact's and MQuAKE's way to write an object: its text and its Wikidata id."""

    text: Words = Field(alias="str")
    id: str | None = None


def read_records(
    path: Path,
    schema: Callable[[Any], type[R]],
    convert: Callable[[R], T],
    skip: Skip | None = None,
    limit: int | None = None,
) -> tuple[T, ...]:
    """What ``convert`` makes of the file's first ``limit`` records, in their order.

    The file holds one JSON list of records; if it is called ``*.jsonl``, one record a line.

    Args:
        schema: the record's schema, chosen by looking at it.
        convert: raises `RecordError` where the record is well formed and yet makes nothing.

    Raises:
        DatasetError: the file cannot be read or holds no list of records; or, without ``skip``, a record breaks its
            schema or makes nothing.
    """
    made: list[T] = []
    for number, raw in enumerate(_raw_records(path)):
        if limit is not None and len(made) == limit:
            break
        try:
            made.append(convert(schema(raw).model_validate(raw)))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the record"
            message = f"{path}: record {number}: {field}: {str(first['msg']).removeprefix('Value error, ')}"
        except ValueError as error:
            message = f"{path}: record {number}: {error}"
        else:
            continue
        if skip is None:
            raise DatasetError(message)
        skip(message)
    return tuple(made)


def _raw_records(path: Path) -> list[Any]:
    try:
        if path.suffix == ".jsonl":
            lines = read_bytes(path).splitlines()
            return [parse_json(line, f"{path}: line {i}") for i, line in enumerate(lines, 1) if line.strip()]
        raw = read_json(path)
    except Unreadable as error:
        raise DatasetError(str(error)) from error
    if not isinstance(raw, list):
        raise DatasetError(f"{path}: expected a list of records, got {type(raw).__name__}")
    return raw


def template_of(prompt: str, subject: str, field: str) -> str:
    """The prompt with ``{}`` where the subject stands; the last time, if it stands there more than once.

    Raises:
        RecordError: the subject is not in the prompt.
    """
    before, found, after = prompt.rpartition(subject)
    if not found:
        raise RecordError(field, f"the subject {subject!r} does not occur in {prompt!r}")
    return f"{before}{{}}{after}"


def request(
    field: str, template: str, subject: str, target: str, old: str | None, relation: str | None, probes: Sequence[Probe]
) -> EditRequest:
    """The request; ``field`` is the one to name if it is refused."""
    try:
        return EditRequest(template, subject, target, old, relation, tuple(probes))
    except FactError as error:
        raise RecordError(field, str(error)) from error


def flat(answers: Any) -> Iterator[str]:
    """Every answer in lists of lists of answers, as KnowEdit nests them."""
    if isinstance(answers, str):
        if answers.strip():
            yield " ".join(answers.split())
    elif isinstance(answers, Iterable):
        for answer in answers:
            yield from flat(answer)

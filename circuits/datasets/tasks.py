"""Task files: what a model is able to do besides recalling facts, as JSON, one record a line.

The first line says what is asked and how answers are scored, every other line is an item:

    {"task": "sentiment", "measures": ["choice"], "about": "Is the review good or bad?", "before": ""}
    {"prompt": "Review: I loved it.\\nThe review is", "choices": ["positive", "negative"], "answer": "positive"}

``before`` stands before every prompt: demonstrations, as a rule. An answer follows its prompt after a space. Measures:

* ``choice``: the answer is the likeliest of ``choices``, by the log-probability of all its tokens;
* ``exact``, ``f1``: what is written is one of the answers, or shares its words (``answer`` is a text or a list of them);
* ``rouge``: what is written has the words, pairs of words and order of ``answer``;
* ``solve``: the last number that is written is ``answer``, a number.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from circuits.datasets.lre import DatasetError
from circuits.model import Profile
from circuits.paths import data_dir
from circuits.records import Unreadable, digest, parse_json, read_bytes

Measure = Literal["choice", "exact", "f1", "rouge", "solve"]
TASKS = "tasks"
"""The folder of task files that come with the project, in one folder for each kind of model."""
ENGLISH = "english"
"""The tasks of a model whose profile names none."""


def _some(text: str) -> str:
    if not text.strip():
        raise ValueError("expected some text, got none")
    return text


def _closed(text: str) -> str:
    if text != text.rstrip(" "):
        raise ValueError(f"expected no space at the end, since the answer brings its own, got {text[-20:]!r}")
    return _some(text)


def _bare(text: str) -> str:
    if text != text.strip():
        raise ValueError(f"expected no space at the ends, got {text!r}")
    return _some(text)


Prompt = Annotated[str, AfterValidator(_closed)]
Answer = Annotated[str, AfterValidator(_bare)]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


L = TypeVar("L", bound=_Line)


class _Head(_Line):
    task: Answer
    measures: Annotated[list[Measure], Field(min_length=1)]
    about: str = ""
    before: str = ""


class _Choice(_Line):
    prompt: Prompt
    choices: Annotated[list[Answer], Field(min_length=2)]
    answer: Answer


class _Text(_Line):
    prompt: Prompt
    answer: Answer | Annotated[list[Answer], Field(min_length=1)]


class _Problem(_Line):
    prompt: Prompt
    answer: int | float


@dataclass(frozen=True, slots=True)
class Item:
    prompt: str
    """With what stands before every prompt."""
    answers: tuple[str, ...]
    """Each is right."""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    name: str
    measures: tuple[Measure, ...]
    about: str
    items: tuple[Item, ...]

    @property
    def digest(self) -> str:
        """Of all that is asked."""
        return digest([self.name, self.measures, [[item.prompt, item.answers, item.choices] for item in self.items]])


def load_task(path: Path) -> Task:
    """The task of a file.

    Raises:
        DatasetError: no such file, or a line that breaks the layout; says which, and what was expected there.
    """
    lines = _lines(path)
    number, raw = next(lines, (1, None))
    head = _read(path, number, _Head, raw)
    if len(set(head.measures)) < len(head.measures) or (
        len(head.measures) > 1 and {"choice", "solve"} & {*head.measures}
    ):
        raise DatasetError(
            f"{path}: line {number}: measures: expected choice or solve alone, or some of exact, f1 and rouge, got "
            f"{', '.join(head.measures)}"
        )
    items: dict[str, Item] = {}
    for number, raw in lines:
        try:
            item = _item(path, number, head, raw)
        except ValueError as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(f"{path}: line {number}: {error}") from None
        if item.prompt in items:
            raise DatasetError(f"{path}: line {number}: prompt: the same as that of a line before")
        items[item.prompt] = item
    if len(items) < 2:
        raise DatasetError(f"{path}: expected at least two items below the first line, got {len(items)}")
    return Task(head.task, tuple(head.measures), head.about, tuple(items.values()))


def _item(path: Path, number: int, head: _Head, raw: Any) -> Item:
    if head.measures == ["choice"]:
        one = _read(path, number, _Choice, raw)
        if one.answer not in one.choices or len(set(one.choices)) < len(one.choices):
            raise ValueError(f"choices: expected distinct ones, {one.answer!r} among them, got {one.choices}")
        return Item(head.before + one.prompt, (one.answer,), tuple(one.choices))
    if head.measures == ["solve"]:
        problem = _read(path, number, _Problem, raw)
        if not math.isfinite(problem.answer):
            raise ValueError(f"answer: expected a finite number, got {problem.answer}")
        return Item(head.before + problem.prompt, (f"{problem.answer:.12g}",))
    text = _read(path, number, _Text, raw)
    return Item(head.before + text.prompt, tuple(text.answer) if isinstance(text.answer, list) else (text.answer,))


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        for number, line in enumerate(read_bytes(path).splitlines(), start=1):
            if line.strip():
                yield number, parse_json(line, f"{path}: line {number}")
    except Unreadable as error:
        raise DatasetError(str(error)) from error


def _read(path: Path, number: int, kind: type[L], raw: Any) -> L:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        message = str(first["msg"]).removeprefix("Value error, ")
        raise DatasetError(f"{path}: line {number}: {field}: {message}") from None


def own_tasks(profile: Profile) -> tuple[Path, ...]:
    """The project's task files for the kind of model that the profile is of, by name."""
    return tuple(sorted((data_dir() / TASKS / (profile.tasks or ENGLISH)).glob("*.jsonl")))

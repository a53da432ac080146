"""Records: what is written is what is read, a file is whole or not there, and an error names the file and the field."""

import errno
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from circuits.circuit import Circuit, CircuitFileError
from circuits.records import (
    Number,
    Unreadable,
    digest,
    from_json,
    load,
    parse_json,
    read_json,
    replacing,
    save,
    to_json,
    write_files,
    write_whole,
)


@dataclass(frozen=True)
class Point:
    name: str
    at: tuple[int, ...]
    share: Number = math.nan


class Line(BaseModel):
    model_config = ConfigDict(frozen=True)
    points: tuple[Point, ...]
    kind: Literal["open", "closed"] = "open"


points = st.builds(
    Point,
    st.text(),
    st.lists(st.integers(-(2**53), 2**53)).map(tuple),
    st.floats(allow_nan=False, allow_infinity=False),
)
lines = st.builds(Line, points=st.lists(points, max_size=4).map(tuple), kind=st.sampled_from(["open", "closed"]))


@given(lines)
def test_a_record_is_read_as_it_was_written_and_equal_records_have_one_digest(line: Line):
    again = from_json(Line, json.loads(json.dumps(to_json(line))))
    assert again == line
    assert digest(again) == digest(line)
    # The control: another value has another digest.
    assert digest(Line(points=(*line.points, Point("one more", (1,), 0.5)))) != digest(line)


def test_a_digest_is_sha256_of_the_sorted_json():
    expected = hashlib.sha256(b'{"a":[1,null],"b":"\\u00e9"}').hexdigest()
    assert digest({"b": "é", "a": [1, None]}) == expected == digest({"a": [1, None], "b": "é"})


def test_what_was_not_measured_is_null_in_json_and_nan_in_python(tmp_path: Path):
    save(Point("a", ()), tmp_path / "point.json")
    assert json.loads((tmp_path / "point.json").read_text())["share"] is None
    assert math.isnan(load(Point, tmp_path / "point.json").share)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"points": [{"name": "a", "at": [1, "2"]}]}, r"points\.0\.at\.1: .*got '2'"),
        ({"points": [{"name": "a", "at": [1], "shar": 0.5}]}, r"no field points\.0\.shar"),
        ({"points": [{"at": [1]}]}, r"points\.0\.name: Field required"),
        ({"points": [], "kind": "half"}, "kind: Input should be 'open' or 'closed', got 'half'"),
        ([], "all of it: "),
    ],
)
def test_a_record_that_is_none_is_refused_by_file_and_field(tmp_path: Path, content: object, message: str):
    path = tmp_path / "line.json"
    path.write_text(json.dumps(content))
    with pytest.raises(Unreadable, match=message) as refused:
        load(Line, path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 50_000, "nested too deeply"),
        (b'{"a":' * 50_000, "nested too deeply"),
        (b"1" * 5_000, "expected JSON"),
        (b'"\xff"', "expected JSON"),
        (b'{"a": 1', "expected JSON"),
        (b"", "expected JSON"),
    ],
)
def test_a_text_that_is_no_json_is_a_clear_error(tmp_path: Path, text: bytes, message: str):
    path = tmp_path / "bad.json"
    path.write_bytes(text)
    for read in (lambda: read_json(path), lambda: parse_json(text, str(path)), lambda: load(Line, path)):
        with pytest.raises(Unreadable, match=message) as refused:
            read()
        assert str(path) in str(refused.value)
    # A circuit file is read by the same reader.
    with pytest.raises(CircuitFileError, match=message):
        Circuit.load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(Unreadable, match=r"cannot read .*none\.json: No such file"):
        read_json(tmp_path / "none.json")


def test_a_file_is_replaced_whole_and_its_folder_made(tmp_path: Path):
    path = tmp_path / "new" / "a.txt"
    write_whole(path, "one\r\n")
    write_whole(path, b"two\n")
    assert path.read_bytes() == b"two\n"
    write_files(tmp_path / "more", {"b": "é", "c": b"\x00"})
    assert (tmp_path / "more" / "b").read_bytes() == "é".encode()
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == ["a.txt", "b", "c"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else_and_names_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.txt"
    write_whole(path, "old")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device") as refused:
        write_whole(path, "new text")
    assert refused.value.errno == errno.ENOSPC
    assert refused.value.filename == str(path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_whatever_ends_the_writing_leaves_no_part_behind(tmp_path: Path):
    def stopped() -> None:
        with replacing(tmp_path / "a.txt") as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_written_has_the_rights_that_any_new_file_has(tmp_path: Path):
    (tmp_path / "plain").write_text("")
    write_whole(tmp_path / "whole", "")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode

"""Settings that make no sense are refused in a line that says what was expected, by the library as at the shell."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import typer

from circuits import cli
from circuits.choices import counted, listed
from circuits.cli import progress
from circuits.cli.app import app
from circuits.datasets import load_relations
from circuits.editing import METHODS, EditError
from circuits.facts import Fact
from circuits.model import Model
from circuits.model.device import DeviceError, require_device
from circuits.studies.options import AskedError
from circuits.studies.setting import find_relation
from circuits.studies.specs import RunSpec
from circuits.studies.study import Outcome


def commands(node: Any, path: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    """Every command that can be typed, by its words."""
    found = [(" ".join(path), node)] if path and node.params else []
    return found + [row for name, one in getattr(node, "commands", {}).items() for row in commands(one, (*path, name))]


ALL = commands(typer.main.get_command(app))


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("ft-l", {"lr": "nan"}, "lr as a finite number, got 'nan'"),
        ("ft-l", {"lr": float("inf")}, "lr as a finite number, got inf"),
        ("ft-l", {"lr": "abc"}, "lr as a finite number, got 'abc'"),
        ("ft-l", {"steps": 2.5}, "steps as a whole number, got 2.5"),
        ("rome", {"contexts": 5}, r"contexts as tuple\[int, ...\], got 5"),
        ("rome", {"covariance": "foo"}, "covariance as corpus or identity, got 'foo'"),
        ("memit", {"weight": "heavy"}, "weight as a finite number or None, got 'heavy'"),
    ],
)
def test_an_option_of_another_kind_is_refused_by_its_name(
    method: str, settings: dict[str, Any], message: str, small_model: Callable[..., Model]
) -> None:
    with pytest.raises(EditError, match=message):
        METHODS[method].options(small_model("gpt2"), **settings)


def test_an_option_that_is_written_otherwise_is_the_same(small_model: Callable[..., Model]) -> None:
    """The control: a list is the tuple of its parts, a whole number the float, a number in words the number."""
    model, rome = small_model("gpt2"), METHODS["rome"]
    assert rome.options(model, contexts=[5, 5], damping=1) == rome.options(model, contexts=(5, 5), damping=1.0)
    assert METHODS["ft-l"].options(model, lr="0.25").lr == 0.25


@pytest.mark.parametrize("name", ["banana", "cuda:banana", "", "meta", "xla"])
def test_a_device_that_is_none_is_refused_before_a_model_is_loaded(name: str) -> None:
    with pytest.raises(DeviceError, match="device"):
        require_device(name)
    with pytest.raises(DeviceError, match="device"):
        Model.load("no such model", device=name)


def test_the_processor_is_a_device() -> None:
    require_device("cpu")


def test_a_seed_below_zero_is_refused_by_every_command_that_takes_one() -> None:
    seeded = [(words, node) for words, node in ALL if any(option.name == "seed" for option in node.params)]
    assert len(seeded) > 10
    for words, node in seeded:
        with pytest.raises(Exception, match="greater than or equal to 0"):
            node.make_context(words, ["--seed", "-1"])


def test_a_spec_refuses_less_than_the_least_that_its_option_takes() -> None:
    fact = Fact("a is", "a", "b")
    assert RunSpec(facts=(fact,), seed=0).seed == 0
    with pytest.raises(ValueError, match="seed of at least 0, got -1"):
        RunSpec(facts=(fact,), seed=-1)


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        ("country_langage", "country_language"),
        ("language of a country", "country_language"),
        ("capital", "country_capital_city"),
    ],
)
def test_a_relation_is_suggested_by_spelling_or_by_a_word_of_its_name(typed: str, suggested: str) -> None:
    with pytest.raises(AskedError, match=suggested):
        find_relation(load_relations(), typed)


def test_a_name_that_is_like_none_suggests_none() -> None:
    with pytest.raises(
        AskedError, match="'nope' in the dataset, and no file of relations; `kcircuit facts` lists them"
    ):
        find_relation(load_relations(), "nope")


def test_one_of_a_thing_is_singular() -> None:
    assert [counted(n, "fact") for n in (0, 1, 2, 2000)] == ["0 facts", "1 fact", "2 facts", "2,000 facts"]


def test_without_a_terminal_progress_is_a_line_every_ten_seconds_whatever_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.05)
    said: list[str] = []
    with progress.progress("edits") as (watch, finished):
        for report in (
            lambda: None,
            lambda: watch.progress(1, 4, "rome: 1 of 4"),
            lambda: finished(1, 2, Outcome("rome")),
            lambda: watch.progress(3, 4, "memit: 3 of 4"),
        ):
            capsys.readouterr()
            report()
            # Two beats may pass while one is waited for on a busy machine, none less than one.
            time.sleep(0.2)
            said.append(capsys.readouterr().err.splitlines()[-1])
        finished(2, 2, Outcome("memit"))
    assert [line.rpartition(" (")[0] for line in said] == [
        "edits: begun",
        "edits: rome: 1 of 4",
        "1 of 2 edits, rome done",
        "1 of 2 edits: memit: 3 of 4",
    ]
    assert "2 of 2 edits, memit done (" in capsys.readouterr().err


def test_no_table_has_two_columns_of_one_name(capsys: pytest.CaptureFixture[str]) -> None:
    random = {"mean": 0.1}
    row = {"change": "tau", "detail": "0.1", "edges_before": 1, "edges_after": 2, "edges_survive": 1.0}
    row |= {f"{of}_jaccard": 0.5 for of in ("edges", "nodes")}
    row |= {f"{of}_random{kind}": random for of in ("edges", "nodes") for kind in ("", "_connected")}
    result = {"fact": "f", "model": "m", "tau": 0.1, "edges": 1, "edges_total": 9, "changes": [row], "skipped": []}
    cli.stability._print(result)
    header = next(line for line in capsys.readouterr().out.splitlines() if "survive" in line)
    names = [name for name in header.split("  ") if name.strip()]
    assert len({name.strip() for name in names}) == len(names)


@pytest.mark.parametrize(
    "arguments", [["facts"], ["heads", "-r", "country_language"], ["explain", "reverse", "--find"], ["bench", "acdc"]]
)
def test_a_device_is_asked_of_the_machine_by_every_command(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--device", "banana"])
    assert stop.value.code == 1
    assert "expected a device such as cpu, cuda or cuda:1, got 'banana'" in capsys.readouterr().err


def test_of_many_names_some_are_told_and_how_many_others_there_are() -> None:
    names = [f"L0H{head}" for head in range(7)]
    assert listed(names[:5]) == "L0H0, L0H1, L0H2, L0H3, L0H4"
    assert listed(names[:6]) == "L0H0, L0H1, L0H2, L0H3, L0H4 and 1 other"
    assert listed(names, 2) == "L0H0, L0H1 and 5 others"

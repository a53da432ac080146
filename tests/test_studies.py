"""Studies: every case gives one outcome, the same wherever it is made; what is kept is not made again; a stop loses nothing done."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from circuits.studies.study import Outcome, Watch
from circuits.studies.sweep import Folder, Pool, StudyError, sweep
from tests.toy_study import SQUARES, Row, Spec

FORK = Pool(2, start_method="fork")
"""Copies of this process start at once; fresh ones import everything first."""


def began(log: Path) -> list[str]:
    return [line.partition(" in ")[0] for line in log.read_text().splitlines()] if log.exists() else []


def rows(outcomes: list[Outcome[Row]]) -> dict[str, Row | None]:
    return {outcome.case: outcome.row for outcome in outcomes}


def test_each_case_gives_its_row_in_process_and_in_a_pool(tmp_path: Path):
    spec = Spec((1, 2, 3, 4))
    here = rows(list(sweep(SQUARES, spec, tmp_path / "log")))
    assert here == {f"of {i}": Row(i, i * i) for i in (1, 2, 3, 4)}
    assert rows(list(sweep(SQUARES, spec, tmp_path / "log", where=FORK))) == here


def test_cases_of_a_group_are_done_one_after_another_in_one_process(tmp_path: Path):
    list(sweep(SQUARES, Spec((1, 2, 3, 4, 5)), tmp_path / "log", where=FORK))
    lines = [line.split(" in ") for line in (tmp_path / "log").read_text().splitlines()]
    processes = {case: process for case, process in lines}
    assert processes["of 1"] == processes["of 3"] == processes["of 5"] != str(os.getpid())
    assert [case for case, _ in lines if case in ("of 1", "of 3", "of 5")] == ["of 1", "of 3", "of 5"]


def test_kept_rows_come_first_and_are_not_made_again(tmp_path: Path):
    log, store = tmp_path / "log", Folder(tmp_path / "rows")
    list(sweep(SQUARES, Spec((2,)), log, store=store))
    # Another spec is another key, though the case has the same name: numbers are part of the spec here.
    told: list[str] = []
    list(sweep(SQUARES, Spec((2, 4)), log, store=store, watch=Watch(told.append)))
    assert began(log) == ["of 2", "of 2", "of 4"]
    assert ["made anew" in line for line in told] == [True]
    (tmp_path / "rows" / "of 4.json").unlink()
    counts: list[tuple[int, int, bool]] = []
    again = list(
        sweep(
            SQUARES,
            Spec((2, 4)),
            log,
            store=store,
            finished=lambda done, total, outcome: counts.append((done, total, outcome.kept)),
        )
    )
    assert counts == [(1, 2, True), (2, 2, False)]
    assert began(log)[3:] == ["of 4"]
    assert rows(again) == {"of 2": Row(2, 4), "of 4": Row(4, 16)}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "{",
        lambda text: "[" * 50_000,
        lambda text: text.replace('"power": 4', '"power": "4"'),
        lambda text: text.replace('"power": 4', '"power": 4, "extra": 1'),
        lambda text: text.replace('"weights": "none"', '"weights": "other"'),
        lambda text: text.replace('"algorithm": 1', '"algorithm": 0'),
    ],
)
def test_what_is_damaged_or_of_another_key_is_made_anew_and_said(tmp_path: Path, damage: Callable[[str], str]):
    log, store = tmp_path / "log", Folder(tmp_path / "rows")
    (first,) = sweep(SQUARES, Spec((2,)), log, store=store)
    file = store.file("of 2")
    whole = file.read_text()
    file.write_text(damage(whole))
    assert file.read_text() != whole
    told: list[str] = []
    (again,) = sweep(SQUARES, Spec((2,)), log, store=store, watch=Watch(told.append))
    assert again.row == first.row
    assert not again.kept
    assert [str(file) in line and line.endswith("made anew") for line in told] == [True]


@pytest.mark.parametrize("where", [None, FORK])
def test_a_failure_is_an_outcome_with_its_error_and_is_tried_again(tmp_path: Path, where: Pool | None):
    log, store = tmp_path / "log", Folder(tmp_path / "rows")
    spec = Spec((2, 13, 4, 6))
    outcomes = list(sweep(SQUARES, spec, log, where=where, store=store, failures="retry"))
    failed = next(outcome for outcome in outcomes if outcome.case == "of 13")
    assert (failed.row, failed.error, failed.kind) == (None, "13 is unlucky", "ValueError")
    assert len(rows(outcomes)) == 4
    assert json.loads(store.file("of 13").read_text())["error"] == "13 is unlucky"
    again = list(sweep(SQUARES, spec, log, where=where, store=store, failures="retry"))
    assert began(log)[4:] == ["of 13"]
    assert [outcome.kept for outcome in again] == [True, True, True, False]
    # Unless failures are kept, one ends the sweep.
    with pytest.raises(ValueError, match="13 is unlucky"):
        list(sweep(SQUARES, spec, log, where=where))


def test_a_process_that_is_killed_costs_its_case_alone(tmp_path: Path):
    spec = Spec((2, 66, 4, 6, 8))
    outcomes = list(sweep(SQUARES, spec, tmp_path / "log", where=FORK, failures="retry"))
    failed = [outcome for outcome in outcomes if outcome.row is None]
    assert [(outcome.case, outcome.kind) for outcome in failed] == [("of 66", "ProcessDied")]
    assert "signal 9" in str(failed[0].error)
    assert {case for case, row in rows(outcomes).items() if row} == {"of 2", "of 4", "of 6", "of 8"}


def test_a_context_that_cannot_be_opened_ends_the_sweep_with_its_error(tmp_path: Path):
    def refuse(spec: Spec, log: Path) -> object:
        raise ValueError("no such model")

    broken = dataclasses.replace(SQUARES, open=refuse)
    context = SQUARES.open(Spec((2, 4)), tmp_path / "log")
    with pytest.raises(StudyError, match="no such model"):
        list(sweep(broken, Spec((2, 4)), tmp_path / "log", context=context, where=FORK))


SCRIPT = """
import sys
from pathlib import Path
from circuits.studies.sweep import Folder, Pool, sweep
from tests.toy_study import SQUARES, Spec
if __name__ == "__main__":
    folder, *numbers = sys.argv[1:]
    spec = Spec(tuple(map(int, numbers)))
    try:
        for outcome in sweep(SQUARES, spec, Path(folder) / "log", where=Pool(2), store=Folder(Path(folder) / "rows")):
            print(outcome.case, flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def script(folder: Path, *numbers: int) -> "subprocess.Popen[str]":
    file = folder / "script.py"
    file.write_text(SCRIPT)
    root = Path(__file__).parent.parent
    return subprocess.Popen(
        [sys.executable, str(file), str(folder), *map(str, numbers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
        # What runs the tests may ignore Ctrl-C, as a shell does in the background; a terminal never does.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_pool_ends_without_a_word(tmp_path: Path):
    printed, error = script(tmp_path, 2, 4).communicate(timeout=60)
    assert sorted(printed.split("\n")) == ["", "of 2", "of 4"]
    assert error == ""


def test_ctrl_c_keeps_what_is_done_lets_cases_save_and_says_nothing(tmp_path: Path):
    running = script(tmp_path, 2, 100, 100 + 2)
    log = tmp_path / "log"
    deadline = time.monotonic() + 60
    while "of 100" not in began(log) or not (tmp_path / "rows" / "of 102.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # As a terminal does: to all processes of the group.
    os.killpg(running.pid, signal.SIGINT)
    _, error = running.communicate(timeout=30)
    assert running.returncode == 130
    assert error == ""
    assert began(log)[-1] == "saved"
    assert {file.name for file in (tmp_path / "rows").iterdir()} == {"of 2.json", "of 102.json"}

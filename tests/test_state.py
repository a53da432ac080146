"""A search's state: killed at any moment, it goes on to the same bytes; what is written is whole or known not to be."""

import copy
import importlib
import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuits.circuit import Provenance
from circuits.discovery.acdc import AcdcOptions, search, sweep
from circuits.discovery.problem import Progress
from circuits.discovery.state import Interrupted, Journal, ResumeError, Saves, State, fingerprint
from circuits.engines import SparseEngine
from circuits.facts import Fact, parse_fact
from circuits.model import Model
from tests.models import word_fact

HERE = Provenance("here", "00", method="acdc", settings={"tau": 0.01})
FRANCE: Fact = parse_fact("The official language of France is => French", (), subject="France")
TAU = AcdcOptions(0.01)
LoadModel = Callable[..., Model]


@pytest.fixture
def marks_every_other_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("circuits.discovery.decisions"), "BATCHES", 2)


def states_of(engine: SparseEngine) -> tuple[np.ndarray, list[State]]:
    """The scores of a search, and its state after each batch."""
    states: list[State] = []
    scores, state = search(
        engine, TAU, provenance=HERE, progress=lambda now: states.append(copy.deepcopy(now.state or state))
    )
    return scores.values, states


@pytest.mark.parametrize("width", [9, 64])
@pytest.mark.usefixtures("marks_every_other_batch")
def test_a_search_goes_on_from_its_file_to_the_same_bytes_wherever_it_was_stopped(
    tmp_path: Path, small_model: LoadModel, width: int
) -> None:
    model, facts = small_model("gpt2"), (word_fact("1 2 3", "4"), word_fact("2 5 1", "3"))
    whole, states = states_of(SparseEngine(model, facts, width=width))
    marks = {state.mark.decided: state for state in states if state.mark}
    assert len(marks) > 5
    assert any(state.mark and state.mark.guesses for state in marks.values()), "none in the middle of a depth"
    for state in marks.values():
        state.save(tmp_path / "state.json")
        again = State.load(tmp_path / "state.json", fingerprint(HERE))
        scores, _ = search(SparseEngine(model, facts, width=width), TAU, provenance=HERE, state=again)
        assert scores.values.tobytes() == whole.tobytes()


@pytest.mark.usefixtures("marks_every_other_batch")
def test_a_search_on_factlm_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path) -> None:
    model, file, result = Model.default(), tmp_path / "state.json", tmp_path / "scores"

    def work(batches: int) -> None:
        left = iter(range(batches))

        def progress(now: Progress) -> None:
            if now.state is not None:
                saves.note(now.state)
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        saves = Saves(lambda tau: file, lambda tau: fingerprint(HERE))
        ((_, scores, _),) = sweep(
            SparseEngine(model, [FRANCE]), [0.01], provenance=lambda tau: HERE, resume=saves.resume, progress=progress
        )
        result.write_bytes(scores.values.tobytes())

    def run(batches: int) -> Any:
        process = get_context("fork").Process(target=work, args=(batches,))
        process.start()
        process.join()
        return process.exitcode

    assert run(10_000) == 0
    whole = result.read_bytes()
    result.unlink()
    file.unlink()
    decided = []
    for batches in (5, 1, 12, 30):
        assert run(batches) == -signal.SIGKILL
        decided.append(State.load(file, fingerprint(HERE)).decided)
    assert decided == sorted(decided)
    assert 0 < decided[0] < decided[-1] < 3628
    assert run(10_000) == 0
    assert result.read_bytes() == whole
    assert [each.name for each in tmp_path.iterdir() if each != result] == [file.name]


def journalled(model: Model, path: Path, told: list[str], until: int = 10_000) -> None:
    journal = Journal(path, told.append)

    def progress(now: Progress) -> None:
        assert now.state is not None
        journal.note(now.state)
        if now.done >= until:
            raise KeyboardInterrupt

    search(SparseEngine(model, (word_fact("1 2 3", "4"),)), TAU, provenance=HERE, progress=progress)


@pytest.mark.usefixtures("marks_every_other_batch")
def test_a_line_that_was_being_written_is_left_out_and_one_that_was_altered_is_refused(
    tmp_path: Path, small_model: LoadModel
) -> None:
    path = tmp_path / "state.json"
    with pytest.raises(Interrupted):
        journalled(small_model("gpt2"), path, [], until=60)
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    assert len(lines) > 3
    whole, before = State.load(path, fingerprint(HERE)), b"".join(lines[:-1])
    for torn in (before + lines[-1][:1], before + lines[-1][:-1], before + b"\0" * 40):
        path.write_bytes(torn)
        read = State.load(path, fingerprint(HERE))
        # All but its line's end is the whole of a line.
        assert (read == whole) == (torn == data[:-1])
        assert read.decided <= whole.decided
    path.write_bytes(data.replace(lines[2], lines[2].replace(b"1", b"0", 1)))
    with pytest.raises(ResumeError, match="was altered"):
        State.load(path, fingerprint(HERE))


@pytest.mark.usefixtures("marks_every_other_batch")
def test_a_search_whose_state_cannot_be_written_goes_on_and_says_so_once(
    tmp_path: Path, small_model: LoadModel
) -> None:
    (tmp_path / "file").touch()
    told: list[str] = []
    journalled(small_model("gpt2"), tmp_path / "file" / "state.json", told)
    assert len(told) == 1
    assert "the search goes on, and is not saved" in told[0]


def test_a_new_file_that_a_power_cut_left_empty_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(b"\0" * 100)
    assert Saves(lambda tau: path, lambda tau: "any").resume(0.01) is None
    path.write_bytes(b"{}")
    with pytest.raises(ResumeError, match=str(path)):
        Saves(lambda tau: path, lambda tau: "any").resume(0.01)


@pytest.mark.usefixtures("marks_every_other_batch")
@pytest.mark.parametrize("what", ["written", "deleted"])
def test_a_file_that_another_process_has_written_or_deleted_meanwhile_is_whole_again_with_the_next_mark(
    tmp_path: Path, small_model: LoadModel, what: str
) -> None:
    path = tmp_path / "state.json"
    search_of = SparseEngine(small_model("gpt2"), (word_fact("1 2 3", "4"),), width=9)
    _, states = states_of(search_of)
    marked = list({state.mark.decided: state for state in states if state.mark and state.mark.decided}.values())
    first, second = Journal(path), Journal(path)
    first.note(marked[0])
    second.note(marked[0])
    second.note(marked[1])
    if what == "deleted":
        path.unlink()
    first.note(marked[2])
    assert State.load(path, fingerprint(HERE)).decided == marked[2].mark.decided  # type: ignore[union-attr]

"""Task files: what is read, and that everything else is refused by file and line."""

import json
from pathlib import Path

import pytest

from circuits.datasets import DatasetError
from circuits.datasets.tasks import load_task, own_tasks
from circuits.model import Profile, library
from tests.commands import fails

CHOICE = {"task": "mood", "measures": ["choice"], "about": "Good or bad?", "before": "A: good\n"}
GOOD = {"prompt": "B:", "choices": ["good", "bad"], "answer": "good"}
BAD = {"prompt": "C:", "choices": ["good", "bad"], "answer": "bad"}


def write(folder: Path, *lines: object) -> Path:
    path = folder / "task.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_a_file_is_read_with_what_stands_before_every_prompt(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, CHOICE, "", GOOD, BAD))
    assert (task.name, task.measures, task.about) == ("mood", ("choice",), "Good or bad?")
    assert [item.prompt for item in task.items] == ["A: good\nB:", "A: good\nC:"]
    assert task.items[1].answers == ("bad",)
    assert task.digest != load_task(write(tmp_path, CHOICE, GOOD, BAD | {"answer": "good"})).digest


def test_answers_are_a_text_several_or_a_number(tmp_path: Path) -> None:
    head = {"task": "t", "measures": ["exact", "f1"]}
    texts = load_task(write(tmp_path, head, {"prompt": "a", "answer": "x"}, {"prompt": "b", "answer": ["y", "z"]}))
    assert [item.answers for item in texts.items] == [("x",), ("y", "z")]
    sums = load_task(
        write(
            tmp_path, {"task": "t", "measures": ["solve"]}, {"prompt": "a", "answer": 3}, {"prompt": "b", "answer": 0.5}
        )
    )
    assert [item.answers for item in sums.items] == [("3",), ("0.5",)]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((), "line 1: the line"),
        (("{",), "line 1: expected JSON"),
        (("[" * 100_000,), "line 1: expected JSON"),
        (("[]", GOOD), "line 1: the line"),
        (({**CHOICE, "measures": ["bleu"]}, GOOD), "line 1: measures.0"),
        (({**CHOICE, "measures": []}, GOOD), "line 1: measures"),
        (({**CHOICE, "measures": ["choice", "f1"]}, GOOD), "line 1: measures: expected choice or solve alone"),
        (({**CHOICE, "measures": ["f1", "f1"]}, GOOD), "line 1: measures"),
        (({**CHOICE, "shots": 3}, GOOD), "line 1: shots"),
        ((CHOICE, GOOD, GOOD), "line 3: prompt: the same"),
        ((CHOICE, GOOD), "at least two items"),
        ((CHOICE, GOOD, {**BAD, "answer": "neither"}), "line 3: choices: expected distinct ones"),
        ((CHOICE, GOOD, {**BAD, "choices": ["bad", "bad"]}), "line 3: choices"),
        ((CHOICE, GOOD, {**BAD, "choices": ["bad"]}), "line 3: choices"),
        ((CHOICE, GOOD, {**BAD, "prompt": "C: "}), "line 3: prompt: expected no space at the end"),
        ((CHOICE, GOOD, {**BAD, "prompt": "\n"}), "line 3: prompt: expected some text"),
        ((CHOICE, GOOD, {**BAD, "answer": 7}), "line 3: answer"),
        ((CHOICE, GOOD, {"prompt": "C:"}), "line 3: choices"),
        ((CHOICE, GOOD, "not json"), "line 3: expected JSON"),
        (({"task": "t", "measures": ["solve"]}, {"prompt": "a", "answer": "3"}), "line 2: answer"),
        (({"task": "t", "measures": ["solve"]}, {"prompt": "a", "answer": True}), "line 2: answer"),
        (({"task": "t", "measures": ["solve"]}, '{"prompt": "a", "answer": NaN}'), "line 2: answer: expected a finite"),
        (({"task": "t", "measures": ["solve"]}, f'{{"prompt": "a", "answer": {"9" * 5000}}}'), "line 2: expected JSON"),
        (({"task": "t", "measures": ["exact"]}, {"prompt": "a", "answer": []}), "line 2: answer"),
        (({"task": "t", "measures": ["exact"]}, {"prompt": "a", "answer": " x"}), "line 2: answer"),
    ],
)
def test_what_breaks_the_layout_is_refused_by_file_and_line(
    lines: tuple[object, ...], reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path, *lines)
    with pytest.raises(DatasetError) as refused:
        load_task(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert reason in str(refused.value)


def test_bytes_that_are_no_text_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.jsonl"
    path.write_bytes(b'{"task": "\xff"}')
    with pytest.raises(DatasetError, match="line 1"):
        load_task(path)
    with pytest.raises(DatasetError, match="cannot read"):
        load_task(tmp_path / "none.jsonl")


def test_the_projects_own_tasks_are_whole_and_a_models_profile_chooses_among_them() -> None:
    english, factlm = own_tasks(Profile()), own_tasks(library.profile_of("factlm"))
    assert {load_task(path).name for path in english} == {
        "arithmetic", "entities", "inference", "reading", "sentiment", "summary",
    }  # fmt: skip
    assert len(factlm) > 2
    for path in (*english, *factlm):
        task = load_task(path)
        assert task.name == path.stem
        assert 20 <= len(task.items) <= 40
        if task.measures == ("choice",):
            answers = [item.answers[0] for item in task.items]
            assert max(answers.count(answer) for answer in answers) <= len(answers) / 2, "one answer would do"


def test_the_command_refuses_a_file_before_a_model_is_loaded(tmp_path: Path, capsys, monkeypatch) -> None:
    from circuits.model import Model

    monkeypatch.setattr(Model, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    path = write(tmp_path, CHOICE, GOOD, "{}")
    assert "line 3" in fails(["ability", "--task", str(path)], capsys)
    whole = write(tmp_path, CHOICE, GOOD, BAD)
    assert "mood more than once" in fails(["ability", "--task", str(whole), "--task", str(whole)], capsys)

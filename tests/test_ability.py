"""Scores of tasks by hand, their levels by chance, and what an edit makes of them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from circuits.datasets.tasks import Item, Task
from circuits.editing import find_method
from circuits.evaluation.ability import COUNTED, LONGEST, Score, ScoreError, scores
from circuits.evaluation.continuations import completion
from circuits.evaluation.edits.generation import greedy
from circuits.facts import EditRequest
from circuits.model import Batch, Model
from circuits.pages.ability import page
from circuits.studies.ability import ABILITY, SideBySide, tasks_about_others
from circuits.studies.ability_specs import AbilitySpec
from circuits.studies.sweep import sweep
from tests.commands import succeeds
from tests.editing_models import REQUEST


def score(*per_item: float, chance: float) -> Score:
    return Score("t", "m", per_item, (chance,) * len(per_item), ("",) * len(per_item))


# ---- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measure", "said", "answers", "expected"),
    [
        ("exact", "The Red Door!", ("red door",), {"exact match": 1}),
        ("exact", "a red doors", ("red door",), {"exact match": 0}),
        ("exact", "noon", ("twelve", "noon"), {"exact match": 1}),
        # Articles do not count: precision 1/2, recall 1.
        ("f1", "the red door", ("red",), {"F1": 2 / 3}),
        ("f1", "blue", ("red", "light blue"), {"F1": 2 / 3}),
        ("f1", "", ("red",), {"F1": 0}),
        # Five of six words on both sides; of pairs "the cat", "on the" and "the mat", three of five; in order, five of six.
        (
            "rouge",
            "The cat sat on the mat.",
            ("the cat is on the mat",),
            {"ROUGE-1": 5 / 6, "ROUGE-2": 3 / 5, "ROUGE-L": 5 / 6},
        ),
        ("rouge", "mat the on", ("on the mat",), {"ROUGE-1": 1, "ROUGE-2": 0, "ROUGE-L": 1 / 3}),
        ("solve", "7", ("7",), {"solve rate": 1}),
        ("solve", "3 + 4 = 7.", ("7",), {"solve rate": 1}),
        ("solve", "7 or 8", ("7",), {"solve rate": 0}),
        ("solve", "1,234.50", ("1234.5",), {"solve rate": 1}),
        ("solve", "-7", ("7",), {"solve rate": 0}),
        ("solve", "seven", ("7",), {"solve rate": 0}),
    ],
)  # fmt: skip
def test_written_answers_are_scored_by_hand(
    measure: str, said: str, answers: tuple[str, ...], expected: dict[str, float]
) -> None:
    counts = COUNTED[measure]()
    assert {name: count(said, Item("", answers)) for name, count in counts.items()} == pytest.approx(expected)


def test_a_choice_is_the_likeliest_whole_answer_and_a_tie_is_none(small_model: Callable[..., Model]) -> None:
    """By the sum over its tokens: of one token and two, computed here from the logits."""
    model = small_model("gpt2")
    choices = ("w20", "w21 w22", "w23")
    prompts = tuple(f"w1 w2 w{i}" for i in range(5, 11))

    def log_p(prompt: str, choice: str) -> float:
        tokens = completion(model, prompt, choice)
        ids = torch.tensor([[*tokens.prompt, *tokens.answer]])
        with torch.no_grad():
            logits = model.network.run(Batch.of_prompts(ids))[0].double().log_softmax(-1)
        n = len(tokens.prompt)
        return sum(float(logits[n + i - 1, token]) for i, token in enumerate(tokens.answer))

    best = [max(choices, key=lambda choice: log_p(prompt, choice)) for prompt in prompts]
    right = Task("t", ("choice",), "", tuple(Item(p, (b,), choices) for p, b in zip(prompts, best, strict=True)))
    (found,) = scores(model, right)
    assert (found.said, found.value) == (tuple(best), 1.0)
    wrong = Task(
        "t",
        ("choice",),
        "",
        tuple(Item(p, (next(c for c in choices if c != b),), choices) for p, b in zip(prompts, best, strict=True)),
    )
    assert scores(model, wrong)[0].value == 0.0
    # Two words that the tokenizer does not know and reads alike: neither is the likeliest.
    tied = Task("t", ("choice",), "", (Item("w1", ("zebra",), ("zebra", "gnu")),) * 2)
    assert scores(model, tied)[0].value == 0.0


def test_what_a_model_writes_is_scored_and_its_manner_earns_what_chance_says(small_model: Callable[..., Model]) -> None:
    """Answers are what it writes itself: all right. Put to each other's items, they earn what `by_chance` says."""
    model = small_model("gpt2")
    prompts = [f"w{i} w{i + 1}" for i in range(4)]
    texts = greedy(model, [completion(model, prompt, "w1").prompt for prompt in prompts], LONGEST)
    said = [model.vocabulary.decode(text.ids).strip() for text in texts]
    assert len(set(said)) == 4
    own = Task("t", ("exact", "f1"), "", tuple(Item(p, (s,)) for p, s in zip(prompts, said, strict=True)))
    exact, f1 = scores(model, own)
    assert (exact.value, f1.value, exact.chance) == (1.0, pytest.approx(1), 0.0)
    assert exact.said == tuple(said)
    count = COUNTED["f1"]()["F1"]
    assert f1.by_chance[1] == pytest.approx(sum(count(said[1], own.items[j]) for j in (0, 2, 3)) / 3)
    turned = Task("t", ("exact",), "", tuple(Item(p, (s,)) for p, s in zip(prompts, [*said[1:], said[0]], strict=True)))
    (exact,) = scores(model, turned)
    assert (exact.value, exact.chance) == (0.0, pytest.approx(1 / 3))
    assert not exact.above_chance


# ---- chance ----------------------------------------------------------------------------------------------------------


def test_chance_of_choices_is_a_guess_or_the_commonest_answer(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")

    def chance(*answers: str) -> float:
        items = tuple(Item(f"w1 w{i}", (answer,), ("w20", "w21", "w22", "w23")) for i, answer in enumerate(answers))
        return scores(model, Task("t", ("choice",), "", items))[0].chance

    assert chance("w20", "w21", "w22", "w23") == 0.25
    assert chance("w20", "w20", "w20", "w23") == 0.75


def test_a_score_is_above_chance_where_all_of_its_interval_is() -> None:
    assert score(*[1.0] * 15, *[0.0] * 5, chance=0.5).above_chance
    assert not score(*[1.0] * 12, *[0.0] * 8, chance=0.5).above_chance
    assert not score(*[1.0] * 15, *[0.0] * 5, chance=0.75).above_chance
    assert score(*[0.4, 0.5, 0.6] * 5, chance=0.3).above_chance
    assert not score(*[0.4, 0.5, 0.6] * 5, chance=0.5).above_chance
    assert not score(*[0.3] * 15, chance=0.3).above_chance
    assert not score(*[0.0] * 20, chance=0.0).above_chance


def test_a_missing_library_is_named(small_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for module in ("rouge", "squad"):
        monkeypatch.setitem(sys.modules, f"torchmetrics.functional.text.{module}", None)
    items = (Item("w1", ("w2",)), Item("w2", ("w3",)))
    for measure in ("exact", "f1", "rouge"):
        with pytest.raises(ScoreError, match=r"kcircuit\[tasks\]"):
            scores(small_model("gpt2"), Task("t", (measure,), "", items))  # type: ignore[arg-type]


# ---- edits -----------------------------------------------------------------------------------------------------------


def test_an_edit_is_measured_beside_the_unedited_model(small_model: Callable[..., Model]) -> None:
    """The edit's own prompt is answered by its target afterwards; without an edit nothing stands beside."""
    model = small_model("gpt2")
    own = Item(REQUEST.prompt, (REQUEST.target,), ("w30", REQUEST.target))
    other = Item("w1 w2 w40 w41", ("w31",), ("w31", "w32"))
    task = Task("own", ("choice",), "About the edit.", (own, other))
    method = find_method("ft-m")
    with method(model, [REQUEST], options=method.options(model, layers=(1,), steps=40, lr=0.03)).on(model) as edited:
        (outcome,) = sweep(ABILITY, AbilitySpec(), context=SideBySide(edited, model, (task,)))
    row = outcome.row
    assert row is not None
    assert row.edited[0].per_item[0] == 1.0
    assert row.scores == scores(model, task)
    text = page([row], model, "made by hand")
    assert "change, points" in text
    assert "**own**: About the edit." in text
    (plain,) = sweep(ABILITY, AbilitySpec(), context=SideBySide(model, model, (task,)))
    assert plain.row is not None
    assert plain.row.edited == ()


def test_items_that_name_an_edited_subject_are_not_asked_along_a_sequence() -> None:
    task = Task("t", ("exact",), "", tuple(Item(prompt, ("x",)) for prompt in ("of Rome", "of Romania", "of Paris")))
    request = EditRequest("The capital of {} is", "Rome", "x")
    (left,) = tasks_about_others([task], [request])
    assert [item.prompt for item in left.items] == ["of Romania", "of Paris"]
    assert tasks_about_others([left], [EditRequest("{} is", "Romania", "x")]) == ()


def test_the_command_prints_scores_and_writes_a_page(model_folder: Callable[..., Path], tmp_path: Path, capsys) -> None:
    task = tmp_path / "task.jsonl"
    head = {"task": "words", "measures": ["choice"], "about": "Which word?"}
    items = [{"prompt": f"w{i} w1", "choices": ["w2", "w3"], "answer": f"w{2 + i % 2}"} for i in range(4)]
    task.write_text("\n".join(map(json.dumps, (head, *items))), encoding="utf-8")
    command = ["ability", "--model", str(model_folder("gpt2")), "--task", str(task)]
    found = json.loads(succeeds([*command, "--json"], capsys))
    (only,) = found["scores"]
    assert (only["task"], only["chance"], only["edited"]) == ("words", 0.5, None)
    assert only["value"] == sum(only["per_item"]) / 4
    shown = tmp_path / "page.md"
    assert "by chance" in succeeds([*command, "--out", str(shown)], capsys)
    assert f"--task {task}" in shown.read_text(encoding="utf-8")

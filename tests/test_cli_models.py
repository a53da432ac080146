"""``kcircuit models``: what is at hand, and how prompts should begin."""

import json
from pathlib import Path

import pytest

from circuits.evaluation.beginnings import beginnings, sample_facts
from circuits.facts import Relations
from circuits.model import Model
from circuits.paths import CACHE_VARIABLE
from tests.commands import fails, succeeds
from tests.models import END


def test_models_are_listed_with_what_is_known_of_them_and_one_that_is_not_at_hand_says_how_to_get_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    rows = {row["name"]: row for row in json.loads(succeeds(["models", "--json"], capsys))}
    factlm, smollm2 = rows["factlm"], rows["smollm2"]
    del factlm["where"], smollm2["where"]
    assert factlm == {
        "name": "factlm",
        "present": True,
        "architecture": "GPT2LMHeadModel",
        "layers": 6,
        "heads": 8,
        "bos": END,
    }
    unknown = {"architecture": None, "layers": None, "heads": None}
    assert smollm2 == {"name": "smollm2", "present": False, **unknown, "bos": END}
    assert "kcircuit models get smollm2" in succeeds(["models"], capsys)
    refused = fails(["facts", "--model", "smollm2"], capsys)
    assert refused.startswith("error: smollm2 is not at hand; run `kcircuit models get smollm2`")
    assert "factlm is in" in succeeds(["models", "get", "factlm"], capsys)


def test_the_check_prints_every_beginning_and_marks_the_models_own(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(succeeds(["models", "check", "factlm", "--n", "40", "--json"], capsys))
    assert [(row["bos"], row["chosen"], row["habit"]) for row in rows] == [(END, True, False), (None, False, True)]
    assert rows[0]["hit10"] > 0.9  # it was trained so
    assert rows[0]["nll"] < rows[1]["nll"]


def test_a_beginning_changes_prompts_and_nothing_else(relations: Relations) -> None:
    model = Model.default()
    bare = model.with_bos(None)
    fact = relations["country_language"].fact("France")
    assert model.tokens(fact).prompt == (0, *bare.tokens(fact).prompt)
    assert (bare.bos, bare.weights, model.bos) == (None, model.weights, END)
    assert model.with_bos(0) is model


def test_a_larger_sample_contains_a_smaller_one(relations: Relations) -> None:
    facts = relations["country_language"].facts()
    assert sample_facts(facts, 9)[:4] == sample_facts(facts, 4)
    assert set(sample_facts(facts, 10**6)) == set(facts)
    assert len(beginnings(Model.default(), sample_facts(facts, 4))) == 2

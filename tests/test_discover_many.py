"""``discover`` as a study: a fact a case, a row each, the same as one by one, kept and read back."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from circuits.datasets import load_relations
from circuits.discovery.state import Interrupted
from circuits.engines.hook import HookEngine
from circuits.evaluation.roles import roles_for
from circuits.facts import FactError
from circuits.records import from_json, to_json
from circuits.studies import discover
from circuits.studies.discover import DISCOVER
from circuits.studies.runs import Saved, run
from circuits.studies.specs import DiscoverSpec
from circuits.studies.summary import Summary, summary_of
from circuits.studies.sweep import Folder, sweep


@pytest.fixture
def spec(model_folder: Callable[[str], Path]) -> DiscoverSpec:
    """Two facts of no relation, in a small random model."""
    return DiscoverSpec(
        fact=("w1 w2 w3 w4 => w5", "w6 w3 w4 => w7"),
        subject="w3",
        model=str(model_folder("gpt2")),
        force=True,
        tau=0.3,
        certificate=False,
        granularity="node",
    )


def test_each_fact_is_a_case_whose_row_is_that_of_the_run_alone(spec: DiscoverSpec):
    cases = DISCOVER.cases(spec, DISCOVER.open(spec, None))
    rows = [outcome.row for outcome in sweep(DISCOVER, spec)]
    assert len(rows) == 2
    alone = [run(spec.run_spec(case.asked), load_relations(), read=True) for case in cases]
    assert rows == [replace(summary_of(each), circuit=each.circuit_json) for each in alone]
    assert rows[0] != rows[1]


def test_facts_of_one_relation_are_read_with_roles_told_once_and_have_the_rows_of_runs_alone(
    monkeypatch: pytest.MonkeyPatch,
):
    told: list[str] = []
    monkeypatch.setattr(
        discover,
        "roles_for",
        lambda model, fact, *args, **named: told.append(fact.relation) or roles_for(model, fact, *args, **named),
    )
    spec = DiscoverSpec(relation="country_language", n=2, tau=0.5, certificate=False, granularity="node")
    at = DISCOVER.open(spec, None)
    rows = [outcome.row for outcome in sweep(DISCOVER, spec, context=at)]
    assert told == ["country_language"]
    alone = [
        run(spec.run_spec(case.asked), at.relations, model=at.model, read=True) for case in DISCOVER.cases(spec, at)
    ]
    assert rows == [replace(summary_of(each), circuit=each.circuit_json) for each in alone]
    assert rows[0] is not None
    assert rows[0].heads
    assert DISCOVER.open(spec, None).model is at.model


def test_rows_are_kept_and_no_search_is_made_again(spec: DiscoverSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = list(sweep(DISCOVER, spec, store=Folder(tmp_path)))
    monkeypatch.setattr(discover, "run", lambda *_, **__: pytest.fail("a search was made again"))
    again = list(sweep(DISCOVER, spec, store=Folder(tmp_path)))
    assert [one.row for one in again] == [one.row for one in first]
    with pytest.raises(pytest.fail.Exception, match="made again"):
        list(sweep(DISCOVER, spec.model_copy(update={"tau": 0.2}), store=Folder(tmp_path)))


def test_a_row_is_read_back_as_it_was_written_and_says_nothing_that_was_not_asked(spec: DiscoverSpec):
    for outcome in sweep(DISCOVER, spec):
        assert outcome.row is not None
        assert from_json(Summary, to_json(outcome.row)) == outcome.row
        assert not {"certificate", "prefilter", "edges_asked", "test_facts"} & outcome.row.to_json().keys()
        assert {"bos", "quantisation"} <= outcome.row.to_json().keys()


def test_without_facts_named_those_that_the_model_knows_are_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(discover, "known", lambda model, facts: tuple(facts)[::3])
    spec = DiscoverSpec(relation="country_language", n=3, split="test")
    at = DISCOVER.open(spec, None)
    asked = [case.asked for case in DISCOVER.cases(spec, at)]
    assert len(asked) == 3
    assert {fact.relation for fact in asked} == {"country_language"}
    everywhere = DiscoverSpec(n=6)
    assert len({case.asked.relation for case in DISCOVER.cases(everywhere, at)}) > 1


def test_the_same_facts_are_asked_in_other_words_under_other_keys_and_first_words_keep_the_key_they_had(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(discover, "known", lambda model, facts: tuple(facts))
    spec = DiscoverSpec(relation="country_language", n=2)
    other = spec.model_copy(update={"wording": 1})
    at = DISCOVER.open(other, None)
    first, second = ([case.asked for case in DISCOVER.cases(each, at)] for each in (spec, other))
    assert [fact.subject for fact in first] == [fact.subject for fact in second]
    assert {fact.prompt for fact in first}.isdisjoint(fact.prompt for fact in second)
    assert DISCOVER.decides(other) == DISCOVER.decides(spec) | {"wording": 1}
    assert "wording" not in DISCOVER.decides(spec)
    for wrong in (
        {"wording": 99},
        {"wording": 1, "relation": None},
        {"wording": 1, "fact": ("a b => c",), "subject": "a"},
    ):
        with pytest.raises(FactError, match="wording"):
            DISCOVER.open(spec.model_copy(update=wrong), None)


def test_a_search_that_is_stopped_is_saved_where_it_has_a_file_and_goes_on_to_the_same_run(
    spec: DiscoverSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = spec.model_copy(update={"engine": "hook"})
    asked = spec.run_spec(DISCOVER.open(spec, None).facts[0])
    relations, file = load_relations(), tmp_path / "made" / "state.json"
    whole, ask = run(asked, relations), HookEngine.nll_without
    left = [5]

    def stop_at_the_fifth(self: HookEngine, *arguments: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return ask(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(HookEngine, "nll_without", stop_at_the_fifth)
    with pytest.raises(Interrupted) as nowhere:
        run(asked, relations)
    assert not isinstance(nowhere.value, Saved)
    left[0] = 5
    with pytest.raises(Saved, match="run the same command again to continue") as stop:
        run(asked, relations, state_file=file)
    assert stop.value.file == file
    left[0] = -1
    assert run(asked, relations, state_file=file) == whole

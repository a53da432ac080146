"""What `kcircuit diff` and `kcircuit explain` refuse, and what they write."""

import json
from contextlib import ExitStack

import pytest

from circuits.circuit import Circuit
from circuits.datasets import load_relations
from circuits.evaluation import whole_model
from circuits.facts import Fact
from circuits.model import Model
from circuits.records import from_json, to_json
from circuits.studies.edit_specs import DiffSpec
from circuits.studies.explain import survey
from circuits.studies.explain.reverse import Reversal
from circuits.studies.explain.survey import Survey
from circuits.studies.explain.verdict import Claim
from circuits.studies.explain_specs import SurveySpec
from circuits.studies.setting import Setting
from circuits.studies.study import Watch
from circuits.studies.sweep import Folder, sweep
from tests.commands import fails, succeeds

FRANCE = "The official language of France is French"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["diff", "--edit", "magic", "--fact", FRANCE, "--to", "Spanish"], "no editing method 'magic'; known: rome"),
        (["diff", "--edit", "rome", "--fact", FRANCE], "expected --fact and --to together"),
        (["diff"], "expected --method with a method, or the folders of two runs"),
        (["diff", "one", "two", "--edit", "rome"], "two runs are compared as they are"),
        (["diff", "one"], "expected the folders of two runs, got 1"),
        (["diff", "one", "two"], "no saved run in one"),
        (["diff", "--fact", "The sky is blue", "--to", "red"], "expected a fact of a relation in the dataset"),
        (["diff", "--fact", FRANCE, "--to", "Spanish", "--layers", "one"], "expected --layers as numbers"),
        (["diff", "--fact", FRANCE, "--to", "Spanish", "--layers", "1,1"], "expected layers that differ"),
        (["diff", "--fact", FRANCE, "--to", "Spanish", "--tau", "0"], "tau must be a finite number"),
        (["explain", "hallucination"], "expected either --fact or --find, got neither"),
        (["explain", "reverse", "--find", "--fact", FRANCE], "expected either --fact or --find, got both"),
        (["explain", "icl", "--subject", "France"], "expected --relation with --subject"),
        (["explain", "multihop", "--first", "landmark_country"], "expected either --find or all of"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_model_is_loaded(arguments, expected, capsys, monkeypatch):
    monkeypatch.setattr("circuits.model.Model.load", lambda *_, **__: pytest.fail("the model was loaded"))
    assert expected in fails(arguments, capsys)


def test_what_the_model_gives_no_ground_for_is_refused_with_the_reason(capsys):
    assert "rightly with 'French'" in fails(["explain", "hallucination", "--fact", FRANCE], capsys)
    same = ["diff", "--fact", FRANCE, "--to", "French"]
    assert "which the fact has already" in fails(same, capsys)
    objects = load_relations()["country_language"].objects
    facts = [Fact("The official language of France is", "France", each) for each in objects]
    ranks = whole_model(Model.default(), facts).rank.per_example
    least = facts[ranks.index(max(ranks))]
    unknown = ["diff", "--fact", least.statement, "--to", "German"]
    assert "does not know this" in fails(unknown, capsys)


def test_an_explanation_prints_one_json_object_and_writes_its_page(capsys, tmp_path):
    capital = "The capital city of France is Paris"
    words = [
        "explain",
        "reverse",
        "--fact",
        capital,
        "--tau",
        "0.3",
        "--granularity",
        "node",
        "--json",
        "--out",
        str(tmp_path),
    ]
    found = json.loads(succeeds(words, capsys))
    assert found["verdict"]["conclusion"] in (
        "forward only",
        "both ways, one circuit",
        "both ways, overlapping circuits",
        "both ways, different circuits",
    )
    assert found["diff"]["differs"] == "direction"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "result.json"]
    kept = json.loads((tmp_path / "result.json").read_text())
    assert kept["verdict"] == found["verdict"]
    assert to_json(from_json(Reversal, kept)) == kept
    assert Circuit.from_json(kept["diff"]["before"]["circuit_json"]).graph.granularity == "node"
    # The page says how to find it again, and not where these files went.
    page = (tmp_path / "report.html").read_text()
    assert (
        "kcircuit explain reverse --fact &#x27;The capital city of France is Paris&#x27; --tau 0.3 --granularity node<"
        in page
    )
    assert str(tmp_path) not in page


def test_a_diffs_searches_take_all_that_it_asks_for() -> None:
    spec = DiffSpec(model="some", tau=0.3, granularity="node", seed=4)
    run = spec.run_spec()
    assert (run.model, run.tau, run.granularity, run.seed) == ("some", 0.3, "node", 4)


def test_a_stopped_survey_goes_on_with_the_behaviours_that_it_lacks(tmp_path, monkeypatch):
    asked = []

    def behaviour(name: str):
        def look(spec: SurveySpec, at: Setting, watch: Watch) -> Survey:
            asked.append(name)
            if len(asked) == 2:
                raise KeyboardInterrupt
            claim = Claim(claim="some hold", verdict="undecided", numbers=f"{spec.n} of {spec.n}")
            return Survey(behaviour=name, cases=("one",), conclusions={"none": 1}, claims=(claim,))

        return look

    monkeypatch.setattr(survey, "BEHAVIOURS", {name: behaviour(name) for name in ("a", "b")})
    at, store = Setting(Model.default(), {}, ExitStack()), Folder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        list(sweep(survey.SURVEY, SurveySpec(), context=at, store=store))
    found = list(sweep(survey.SURVEY, SurveySpec(), context=at, store=store))
    assert asked == ["a", "b", "b"]
    assert [(each.case, each.kept) for each in found] == [("a", True), ("b", False)]
    assert [each.row and each.row.behaviour for each in found] == ["a", "b"]
    # Another n is another survey.
    list(sweep(survey.SURVEY, SurveySpec(n=2), context=at, store=store))
    assert asked[3:] == ["a", "b"]

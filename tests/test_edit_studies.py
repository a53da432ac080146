"""Studies of edits: a row that is kept is the row that was made, and what other settings ask for is made anew."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circuits.datasets import load_relations
from circuits.datasets.manifest import manifest_of
from circuits.datasets.probes import edit_request
from circuits.datasets.tasks import Item, Task
from circuits.editing import EditError, Resources
from circuits.evaluation.ability import scores
from circuits.evaluation.edits import FluencySetting, prepare
from circuits.evaluation.edits.prefixes import prefixes_alone
from circuits.evaluation.edits.superficial import NAMES
from circuits.facts import Fact
from circuits.model import Model
from circuits.pages.edits_table import page
from circuits.pages.sequence import trace_page
from circuits.studies.diff import DIFF, Prompts, Watched, make_edit
from circuits.studies.diff_table import DIFF_TABLE, FactsToEdit
from circuits.studies.edit_specs import CompareSpec, DiffSpec, EvalSpec, TraceSpec
from circuits.studies.edits import EDITS
from circuits.studies.explain.sides import Benches, make_bench
from circuits.studies.options import AskedError
from circuits.studies.requests import Unedited, resources_of
from circuits.studies.sequence import TRACE
from circuits.studies.study import Outcome, Study, Watch
from circuits.studies.sweep import Folder, sweep
from tests.commands import fails
from tests.editing_models import OTHER, REQUEST
from tests.test_edit_sweep import PROBED

FRANCE = Fact("The official language of France is", "France", "French", "country_language")
QUICK = {"settings": ("steps=2", "lr=0.01"), "fluency_samples": 0}


@pytest.fixture(scope="module")
def unedited(small_model: Callable[..., Model]) -> Unedited:
    model = small_model("gpt2")
    return Unedited(model, prepare(model, [PROBED, OTHER], FluencySetting(n_samples=0)), Resources())


def rows(study: Study[Any, Any, Any, Any], spec: Any, context: Any, folder: Path) -> list[Outcome[Any]]:
    return list(sweep(study, spec, context=context, store=Folder(folder)))


def kept(study: Study[Any, Any, Any, Any], spec: Any, context: Any, folder: Path) -> list[Any]:
    """The study's rows, after the law: asked for again, they are read and equal, and not made."""
    made = rows(study, spec, context, folder)
    again = rows(replace(study, run=lambda *_: pytest.fail("made again")), spec, context, folder)
    # By their texts, because a number that could not be measured equals nothing, not even itself.
    assert [repr(one.row) for one in again] == [repr(one.row) for one in made]
    assert not any(one.kept for one in made)
    assert all(one.kept for one in again)
    return [one.row for one in made]


def test_an_evaluation_is_kept_with_all_that_is_shown_of_it(unedited: Unedited, tmp_path: Path) -> None:
    spec = CompareSpec(methods="ft-m,memoe-scoped/batch:2,ft-l/sequential:2+prune", n=2, eval_at="checkpoints", **QUICK)
    spec = spec.model_copy(update={"settings": ("steps=2",)})
    found = kept(EDITS, spec, unedited, tmp_path)
    assert [str(row.contestant) for row in found] == ["ft-m/single", "memoe-scoped/batch:2", "ft-l/sequential:2+prune"]
    assert found[1].routing is not None
    # Two facts can be matched with the wrong one: what a row shows has a chance level.
    assert page(found, unedited.model, "again").count("by chance") >= 2
    assert len(found[2].retention) == 1
    assert json.dumps([row.to_json() for row in found], allow_nan=False)
    # The control: what another seed asks for is not there.
    other = spec.model_copy(update={"seed": 1})
    assert not any(one.kept for one in rows(EDITS, other, unedited, tmp_path))


def test_prefixes_and_general_ability_are_asked_about_where_they_are_asked_for(
    unedited: Unedited, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("w10 w11 w51\nw52 w53 w54 w55\nw56 w57\n", encoding="utf-8")
    # The first line names a subject of the requests.
    beside = unedited.beside(2, str(text), Watch())
    assert [case.unrelated is not None and len(case.unrelated.rows) for case in beside.cases] == [2, 2]
    with pytest.raises(AskedError, match="found 2"):
        unedited.beside(3, str(text), Watch())
    (asked,) = sweep(EDITS, EvalSpec(method="ft-m", n=2, general=2, **QUICK), context=beside)
    (plain,) = sweep(EDITS, EvalSpec(method="ft-m", n=2, **QUICK), context=unedited)
    assert asked.row is not None
    assert plain.row is not None
    assert plain.row.value("perplexity") is None
    found = asked.row.to_json()
    assert found["perplexity"] != found["perplexity_before"] == asked.row.value("perplexity", before=True)
    assert found["kl"] > 0
    assert asked.row.value("success") == plain.row.value("success")
    assert plain.row.prefixes == () == asked.row.prefixes
    page_text = page([asked.row], unedited.model, "made by hand")
    assert "## General ability" in page_text
    assert "## General ability" not in page([plain.row], unedited.model, "made by hand")


def test_one_method_evaluated_alone_stands_as_it_does_among_others(unedited: Unedited) -> None:
    (alone,) = sweep(EDITS, EvalSpec(method="ft-m", n=2, **QUICK), context=unedited)
    (_, among) = sweep(EDITS, CompareSpec(methods="ft-l,ft-m", n=2, **QUICK), context=unedited)
    assert alone.row is not None
    assert among.row is not None
    assert replace(alone.row, seconds=0.0) == replace(among.row, seconds=0.0)


def test_a_traced_sequence_is_kept_with_its_restraints_at_the_end_and_on_the_way(
    unedited: Unedited, tmp_path: Path
) -> None:
    spec = TraceSpec(method="ft-m", checkpoints="1", every=1, settings=QUICK["settings"])
    (both,) = kept(TRACE, spec, unedited, tmp_path)
    pair = ["prune:alpha=1.2", "scaled:alpha=1.2,norm=frobenius"]
    assert [trace.name for trace in both.traces] == ["free", *pair, *(f"{name} every 1" for name in pair)]
    assert [point.n_edits for point in both.traces[0].points] == [0, 1, 2]
    assert (both.choice, both.chosen) == ((), pair[0])
    (without,) = kept(TRACE, spec.model_copy(update={"every": None}), unedited, tmp_path)
    assert [trace.name for trace in without.traces] == ["free", *pair]
    assert without.traces[0] == both.traces[0]


def test_of_several_restraints_one_is_chosen_on_facts_that_the_sequence_leaves_alone(unedited: Unedited) -> None:
    """A ceiling near 0 takes the whole edit back, and one of a million none of it."""
    spec = TraceSpec(
        method="ft-m/batch:1",
        n=1,
        others=1,
        restrain="prune:alpha=1000000,kind=linear,ceiling=0.000001,prune:alpha=2,ceiling=1000000",
        settings=("steps=40", "lr=0.03"),
    )
    (outcome,) = sweep(TRACE, spec, context=unedited)
    traced = outcome.row
    assert traced is not None
    free, nothing, whole = (trace.last for trace in traced.choice)
    assert (free.share("success"), nothing.share("success"), whole.share("success")) == (1.0, 0.0, 1.0)
    assert traced.chosen == "prune:alpha=2,ceiling=1e+06"
    undone, same = traced.ends
    assert undone.pruned.last.share("locality") == 1.0
    assert same.pruned.last.shares == same.scaled.last.shares == same.shrunk.last.shares == traced.traces[0].last.shares
    (own,) = traced.traces[0].last.perturbations
    assert 0 < own.adjusted <= own.adjusted_most <= own.bound
    assert own.moved > undone.pruned.last.perturbations[0].moved


def test_what_the_model_is_able_to_do_is_measured_along_a_sequence(unedited: Unedited, tmp_path: Path) -> None:
    """Before any edit, and after it: on items that name no edited subject. Control: a task of none but those has no score."""
    subject, model = PROBED.subject, unedited.model
    for name, prompts in (("free", ["w1 w2", "w3 w4", f"w5 {subject}"]), ("bound", [f"w1 {subject}", f"w2 {subject}"])):
        items = [{"prompt": prompt, "choices": ["w20", "w21"], "answer": "w20"} for prompt in prompts]
        lines = [{"task": name, "measures": ["choice"]}, *items]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    files = tuple(str(tmp_path / f"{name}.jsonl") for name in ("free", "bound"))
    spec = TraceSpec(method="ft-m", n=1, others=1, tasks=files, settings=("steps=40", "lr=0.03"))
    (outcome,) = sweep(TRACE, spec, context=unedited)
    assert outcome.row is not None
    start, end = outcome.row.traces[0].points
    assert [(score.task, len(score.per_item)) for score in start.abilities] == [("free", 2)]
    items = tuple(Item(prompt, ("w20",), ("w20", "w21")) for prompt in ("w1 w2", "w3 w4"))
    assert start.abilities == scores(model, Task("free", ("choice",), "", items))
    assert [score.task for score in end.abilities] == ["free"]
    assert "what the model is able to do" in trace_page([outcome.row], model, "by hand", None)


def test_sequences_that_cannot_be_traced_are_refused() -> None:
    for spec, reason in (
        (TraceSpec(method="rome/sequential:3"), "whose steps edit one fact or a batch"),
        (TraceSpec(method="ft-m+prune"), "restraints are --restrain's"),
        (TraceSpec(restrain="prune,prune"), "restraints that differ"),
    ):
        with pytest.raises((AskedError, EditError), match=reason):
            TRACE.open(spec, None)


# ---- diffs -----------------------------------------------------------------------------------------------------------


def test_a_diff_is_kept_with_its_circuits(tmp_path: Path) -> None:
    model, relations = Model.default(), load_relations()
    spec = DiffSpec(edit="ft-m", fact=FRANCE.statement, to="Spanish", tau=0.5)
    prompts = Prompts(edited=FRANCE, paraphrase=None, neighbour=None, unrelated=None)
    request = prefixes_alone(edit_request(FRANCE, "Spanish", relations, manifest_of(model.profile)))
    audited = prepare(model, [request], FluencySetting(n_samples=0), written="nothing")
    bench = make_bench(model, FRANCE, relations, spec.run_spec())
    watched = Watched(model, "Spanish", prompts, bench, Resources(), audited=audited)
    (found,) = kept(DIFF, spec, watched, tmp_path)
    assert found.audit is not None
    assert [row.prefix for row in found.audit.prefixes] == list(NAMES.values())
    bare = found.audit.prefixes[0]
    assert (bare.new_given, bare.old_given) == ((0.0, 1.0), (1.0, 0.0))
    assert f"no prefix {bare.old_likelier[1]:.0%} of 1" in str(found)
    assert found.took
    assert found.edited.before.circuit.n_edges > 0


def test_a_row_of_the_table_is_kept(tmp_path: Path) -> None:
    spec = DiffSpec(edit="ft-m", tau=0.5)
    facts = FactsToEdit(
        Benches(Model.default(), load_relations(), spec.run_spec()), ((FRANCE, "Spanish"),), Resources()
    )
    (made,) = kept(DIFF_TABLE, spec, facts, tmp_path)
    assert [edit.statement for edit in made.edits] == [f"{FRANCE.prompt} Spanish"]


@pytest.mark.parametrize("layout", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["rome", "memit"])
def test_a_diff_of_any_model_can_store_values_by_moments_over_a_text_that_is_named(
    small_model: Callable[..., Model], tmp_path: Path, method: str, layout: str
) -> None:
    model, text = small_model(layout), tmp_path / "texts.txt"
    text.write_text("\n".join(f"w{i} w{i + 1} w{i + 2} w{(7 * i) % 50}" for i in range(40)), encoding="utf-8")
    spec = DiffSpec(corpus=str(text), settings=("steps=1", "contexts=()"))
    fact = Fact(REQUEST.prompt, REQUEST.subject, "w6")
    resources = replace(resources_of(spec.corpus), cache=tmp_path)
    edit = make_edit(model, fact, REQUEST.target, method, settings=spec.chosen, resources=resources)
    assert edit.provenance.options["steps"] == 1
    with pytest.raises(EditError, match="no option speed"):
        make_edit(model, fact, REQUEST.target, method, settings={"speed": 1}, resources=resources)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--set", "lr"], "expected --set as name=value"),
        (["--corpus", "no-such-file.txt"], "no-such-file.txt"),
        (["--layers", "a"], "expected --layers as numbers"),
        (["--tau", "-1"], "tau must be a finite number"),
    ],
)
def test_a_diff_that_cannot_be_made_is_refused_before_a_model_is_loaded(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    for of in (["--fact", FRANCE.statement, "--to", "Spanish"], []):
        assert reason in fails(["diff", "--edit", "rome", *of, *words], capsys)
    with pytest.raises(AskedError, match="together"):
        DIFF.open(DiffSpec(fact=FRANCE.statement), None)

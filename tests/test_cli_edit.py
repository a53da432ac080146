"""The commands that edit, in process: what they print and write, and how they refuse."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from circuits.editing import EditError, load_edit
from circuits.evaluation.edits.regimes import Regime
from circuits.evaluation.edits.targets import TooFewFacts, known_requests
from circuits.facts import Relation
from circuits.model import Batch, Model
from circuits.studies.edits import Contestant
from tests.commands import fails, succeeds

FACT = ["--fact", "w1 w10 w2 => w6", "--subject", "w10"]
STRONG = ["--set", "lr=0.05", "--set", "steps=10"]
WEAK = ["--set", "lr=1e-9", "--set", "steps=1"]
QUIET = ["--fluency-samples", "0"]
CASES = ["--cases", f"counterfact:{Path(__file__).parent / 'data' / 'edits' / 'words.json'}"]
ROW_KEYS = {"method", "n", "success", "generality", "portability", "locality", "fluency", "seconds"}


@pytest.fixture(scope="module")
def tiny(model_folder: Callable[[str], Path]) -> list[str]:
    model_folder("llama")  # the other one, written here because that prints
    return ["--model", str(model_folder("gpt2"))]


@pytest.fixture(scope="module")
def edit(tiny: list[str]) -> list[str]:
    """The arguments of an edit of a small random model."""
    return ["edit", *FACT, "--to", "w5", "--method", "ft-m", "--layer", "1", "--force", *STRONG, *QUIET, *tiny]


def test_an_edit_is_shown_before_and_after_and_saved_as_a_file_that_makes_it_again(edit, small_model, capsys, tmp_path):
    summary = json.loads(succeeds([*edit, "--out", str(tmp_path / "e"), "--json"], capsys))
    assert summary["took"]
    assert (summary["fact"], summary["target"], summary["old"]) == ("w1 w10 w2 w6", "w5", "w6")
    assert summary["settings"]["lr"] == 0.05
    change = summary["edit"]["target"]
    assert change["rank_after"] == 1 < change["rank_before"]
    assert change["probability_after"] > change["probability_before"]
    assert {probe["kind"] for probe in summary["probes"]} == {"unrelated"}
    assert all(
        probe["right"] == (probe["rank_after"] == 1) for probe in summary["probes"] if " " not in probe["answer"]
    )
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["edit"] == summary["edit"]
    (matrix,) = summary["matrices"]
    assert matrix["matrix"] == "blocks.1.mlp.W_out"
    assert 0 < matrix["top_share"] <= 100
    assert matrix["hits"]["after@50"] >= matrix["hits"]["after@10"]
    model = small_model("gpt2")
    ids = torch.tensor([[0, 2, 11, 3]])
    with load_edit(tmp_path / "e").on(model) as edited:
        assert model.token_text(int(edited.logits(Batch.of_prompts(ids))[0, -1].argmax())).strip() == "w5"
    assert model.token_text(int(model.logits(Batch.of_prompts(ids))[0, -1].argmax())).strip() != "w5"


def test_an_edit_is_printed_for_people_as_tables(edit, capsys):
    shown = succeeds(edit, capsys)
    assert "w1 w10 w2 w6 => w5" in shown
    for word in (
        "new object, w5",
        "old object, w6",
        "rank before",
        "unrelated",
        "blocks.1.mlp.W_out: ",
        "locality: 100 % before",
    ):
        assert word in shown


def test_the_same_edit_twice_has_the_same_bytes(edit, capsys, tmp_path):
    for name in ("a", "b"):
        succeeds([*edit, "--out", str(tmp_path / name)], capsys)
    for file in ("edit.json", "edit.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_saved_edit_is_put_on_the_model_by_other_commands_and_on_no_other_model(
    edit, tiny, capsys, tmp_path, model_folder
):
    out = str(tmp_path / "e")
    succeeds([*edit, "--out", out], capsys)
    facts = ["facts", "-r", "fruit_inside_color", "--json"]
    before = succeeds([*facts, *tiny], capsys)
    after = succeeds([*facts, *tiny, "--with-edit", out], capsys)
    assert [row["prompt"] for row in json.loads(before)] == [row["prompt"] for row in json.loads(after)]
    assert before != after
    assert succeeds([*facts, *tiny], capsys) == before
    other = ["--model", str(model_folder("llama"))]
    assert "was made for" in fails([*facts, *other, "--with-edit", out], capsys)
    assert "there is none in" in fails([*facts, *tiny, "--with-edit", str(tmp_path)], capsys)


def test_a_circuit_is_found_on_the_edited_model_and_says_so(edit, tiny, capsys, tmp_path):
    succeeds([*edit, "--out", str(tmp_path / "e")], capsys)
    search = ["discover", "--fact", "w1 w10 w2 => w5", "--subject", "w10", "--force", "--tau", "0.5", *tiny]
    plain = json.loads(succeeds([*search, "--json"], capsys))
    out = ["--out", str(tmp_path / "run")]
    found = json.loads(succeeds([*search, "--with-edit", str(tmp_path / "e"), *out, "--json"], capsys))
    assert found["rank_model"] == 1 < plain["rank_model"]
    saved = json.loads((tmp_path / "run" / "run.json").read_text())
    assert saved["spec"]["with_edit"] == str(tmp_path / "e")


# ---- refusals ----------------------------------------------------------------------------------------------------------


def test_an_edit_that_does_not_take_ends_with_the_numbers_and_is_not_saved_unless_forced(
    tiny, small_model, capsys, tmp_path
):
    out = tmp_path / "e"
    # The fact is one that the random model knows: its own likeliest next word, and the new object one that it is not.
    weak = ["edit", *FACT, "--to", "w5", "--method", "ft-m", "--layer", "1", *WEAK, *QUIET, *tiny, "--out", str(out)]
    model = small_model("gpt2")
    known = model.token_text(int(model.logits(Batch.of_prompts(torch.tensor([[0, 2, 11, 3]])))[0, -1].argmax())).strip()
    weak[weak.index("w1 w10 w2 => w6")] = f"w1 w10 w2 => {known}"
    refusal = fails(weak, capsys)
    assert "did not take" in refusal
    assert "'w5' has rank" in refusal
    assert not out.exists()
    succeeds([*weak, "--force"], capsys)
    assert (out / "edit.json").is_file()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"--to": "w6"}, "expected a new object"),
        ({"--to": " "}, "expected a new object|non-empty"),
        ({"--method": "rame"}, "no editing method 'rame'; known: rome"),
        ({"--layer": "7"}, "layer"),
        ({"--layer": "one"}, "expected layers as numbers"),
        ({"--set": "lr"}, "expected --set as name=value"),
        ({"--set": "speed=3"}, "no option speed"),
        ({"--subject": "w11"}, "does not occur in the prompt"),
        ({"--model": "no/such/folder", "--method": "rome"}, "cannot load"),
        ({"--corpus": "no-such-file.txt", "--method": "rome"}, "no-such-file.txt"),
    ],
)
def test_what_cannot_be_edited_is_refused(edit, capsys, change, reason):
    arguments = list(edit)
    for name, value in change.items():
        if name in arguments:
            arguments[arguments.index(name) + 1] = value
        else:
            arguments += [name, value]
    assert re.search(reason, fails(arguments, capsys))


def test_a_fact_that_the_model_does_not_know_is_refused_with_its_rank(edit, small_model, capsys):
    model = small_model("gpt2")
    logits = model.logits(Batch.of_prompts(torch.tensor([[0, 2, 11, 3]])))[0, -1]
    unknown = model.token_text(int(logits.argmin())).strip()
    arguments = [each for each in edit if each != "--force"]
    arguments[arguments.index("w1 w10 w2 => w6")] = f"w1 w10 w2 => {unknown}"
    assert f"the answer {unknown!r} ranks" in fails(arguments, capsys)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["edit"], "expected --fact and --to, or a sub-command"),
        (["edit", "--fact", "a is b"], "expected --fact and --to"),
        (["edit", "--fact", "a is b", "--to", "c", "eval"], "takes neither"),
        (["edit", "eval", "--regime", "all"], "expected a regime such as single"),
        (["edit", "eval", "--eval-at", "noon"], "expected --eval-at immediate, end, checkpoints"),
        (["edit", "eval", "--method", "none"], "no editing method 'none'"),
        (["edit", "eval", "--restrain", "prune:beta=2"], "expected a restraint such as prune"),
        (["edit", "compare", "--methods", "rome,rum"], "no editing method 'rum'"),
        (["edit", "compare", "--out", "no/such/folder/page.md"], "in a folder that exists"),
        (["edit", "sweep-layers", "--layers", "a"], "expected layers as numbers"),
        (["edit", "trace", "--method", "memoe"], "leaves them as they are"),
        (["edit", "trace", "--checkpoints", "0,5"], "expected --checkpoints as numbers of edits"),
        (["edit", "trace", "--restrain", "prune:alpha=0"], "expected alpha above 1"),
        (["edit", "sweep-layers", "--sites", "middle"], "expected --sites subject, end or both"),
        (["edit", "sweep-layers", "--method", "rome/sequential:5"], "single edits or batches"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_a_model_is_loaded(arguments, reason, capsys, monkeypatch):
    monkeypatch.setattr(Model, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    assert reason in fails(arguments, capsys)


def test_a_file_with_too_few_cases_and_a_file_of_an_unknown_kind_are_refused(tiny, capsys):
    assert "found 4" in fails(["edit", "eval", "--method", "ft-m", "--n", "5", *CASES, *tiny], capsys)
    assert "expected --cases KIND:FILE" in fails(["edit", "eval", "--cases", "lama:x.json", *tiny], capsys)


def test_facts_that_the_model_knows_are_chosen_and_fewer_than_asked_for_are_refused(small_model):
    model = small_model("gpt2")

    def said(subject: int) -> str:
        return model.token_text(
            int(model.logits(Batch.of_prompts(torch.tensor([[0, subject + 1, 3]])))[0, -1].argmax())
        ).strip()

    # Of the even subjects the relation says what the model says; of the odd ones something else.
    pairs = tuple((f"w{i}", said(i) if i % 2 == 0 else "w59") for i in range(20, 32))
    relation = Relation("r", "r", "factual", "word", "word", ("{} w2",), pairs)
    known = {subject for subject, object_ in pairs if said(int(subject[1:])) == object_}
    assert 2 < len(known) < len(pairs)
    requests = known_requests(model, {"r": relation}, len(known))
    assert {request.subject for request in requests} == known
    assert all(request.target != request.old == relation.object_of(request.subject) for request in requests)
    assert [r.subject for r in known_requests(model, {"r": relation}, 2)] == [r.subject for r in requests[:2]]
    with pytest.raises(TooFewFacts, match=f"expected 12 facts that .* knows, found {len(known)}"):
        known_requests(model, {"r": relation}, 12)


# ---- measuring ----------------------------------------------------------------------------------------------------------


def test_one_method_is_measured_in_every_metric_with_retention(tiny, capsys):
    measure = ["edit", "eval", "--method", "ft-m", "--layer", "1", *STRONG, *CASES, "--n", "4", *tiny]
    arguments = [*measure, "--regime", "sequential:4", "--eval-at", "checkpoints", "--fluency-samples"]
    summary = json.loads(succeeds([*arguments, "1", "--json"], capsys))
    assert (summary["n"], summary["regime"], summary["eval_at"]) == (4, "sequential:4", "checkpoints")
    assert {(row["metric"], row["way"]) for row in summary["metrics"]} >= {
        (metric, way) for metric in ("success", "generality") for way in ("exact", "tokens", "generated", "probability")
    } | {("locality", "exact"), ("fluency", None)}
    by_name = {(row["metric"], row["way"], row["kind"]): row for row in summary["metrics"]}
    assert by_name["locality", "exact", None]["before"] == 100
    assert by_name["generality", "exact", None]["n"] == 3  # one case has no paraphrase
    assert [point["step"] for point in summary["checkpoints"]] == [1, 2, 4]
    (retention,) = summary["retention"]
    assert [len(row) for row in retention["success"]] == [1, 2, 4]
    assert sum(summary["failures"]["edit"].values()) == 4
    assert [fact["success"] for fact in summary["facts"]] == [v == 100 for v in retention["success"][-1]]
    free = summary["free"]["success"]
    assert free["gap"] == pytest.approx(free["tokens"] - free["alone"])
    assert free["alone"] == by_name["success", "alone", None]["after"]
    shown = succeeds([*arguments, "0"], capsys)
    assert "all tokens exact" in shown
    assert f"success: {free['tokens']:.1f} % of tokens teacher-forced" in shown
    assert "success after the last of 4 edits" in shown


def test_the_audit_and_the_general_ability_of_a_method_are_options(tiny, capsys, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("w40 w41 w42\nw43 w44 w45\n")
    command = ["edit", "eval", "--method", "ft-m", "--layer", "1", *STRONG, *CASES, "--n", "2", *QUIET, *tiny]
    asked = [*command, "--prefixes", "--general", "2", "--text", str(text)]
    summary = json.loads(succeeds([*asked, "--json"], capsys))
    rows = {row["metric"]: row for row in summary["metrics"]}
    assert rows["perplexity"]["questions"] == rows["kl"]["questions"] == 6  # tokens
    assert rows["kl"]["after"] > 0
    named = [row["prefix"] for row in summary["prefixes"]]
    # These cases know no other fact: only the old object can be said again.
    assert named == ["no prefix", "the old object"]
    assert summary["prefixes"][1]["n"] == 6
    assert "before the prompt, the old object (n = 6)" in succeeds(asked, capsys)
    assert "## Does the old" not in succeeds(command, capsys)


def test_a_case_of_several_edits_is_one_of_n_and_is_told_by_case(tiny, capsys, tmp_path):
    def rewrite(subject: str, target: str) -> dict[str, object]:
        return {"prompt": "w1 {} w2", "subject": subject, "target_new": {"str": target}, "target_true": {"str": "w6"}}

    hop = {"question": "w3", "cloze": "w1 w10 w2", "answer": "w5"}
    case = {
        "requested_rewrite": [rewrite("w10", "w5"), rewrite("w13", "w7")],
        "questions": ["w9 w8"],
        "new_answer": "w7",
        "new_single_hops": [hop],
    }
    file = tmp_path / "cases.json"
    file.write_text(json.dumps([case, case]))
    command = ["edit", "eval", "--method", "ft-m", "--layer", "1", *STRONG, "--cases", f"mquake:{file}", *QUIET, *tiny]
    summary = json.loads(succeeds([*command, "--n", "1", "--json"], capsys))
    assert summary["n"] == 2
    shares = summary["by_case"]
    assert shares["edit_wise"] == pytest.approx(100 * sum(fact["success"] for fact in summary["facts"]) / 2)
    assert shares["instance_wise"] in (0, 100)
    assert shares["multi_hop_before"] in (0, 100)
    assert "by case: edit-wise" in succeeds([*command, "--n", "1"], capsys)
    assert "expected 3 edit requests" in fails([*command, "--n", "3"], capsys)


def test_a_restrained_sequence_differs_from_a_free_one_and_a_weak_restraint_does_not(tiny, capsys):
    measure = ["edit", "eval", "--method", "ft-m", "--layer", "1", *STRONG, *CASES, "--n", "4", *tiny, "--json"]
    measure += ["--regime", "sequential:4", "--fluency-samples", "0"]

    def facts(*extra: str) -> list[object]:
        return json.loads(succeeds([*measure, *extra], capsys))["metrics"]

    free = facts()
    assert facts("--restrain", "prune:ceiling=1000000") == free
    assert facts("--restrain", "prune:alpha=1000000,ceiling=0.0001") != free


def test_methods_are_compared_in_one_table_and_the_page_is_made_from_it(tiny, capsys, tmp_path):
    page = tmp_path / "page.md"
    methods = "ft-m,ft-l/batch:2,ft-m/sequential:2+prune:alpha=2,kind=linear"
    command = ["edit", "compare", "--methods", methods, "--n", "3", "--fluency-samples", "0", *CASES, *tiny]
    rows = json.loads(succeeds([*command, "--json", "--out", str(page)], capsys))["rows"]
    assert all(row.keys() >= ROW_KEYS for row in rows)
    # Three facts, or as many as whole batches and chains take.
    assert [(row["method"], row["regime"], row["restrain"], row["n"]) for row in rows] == [
        ("ft-m", "single", None, 3),
        ("ft-l", "batch:2", None, 4),
        ("ft-m", "sequential:2", "prune:alpha=2,kind=linear", 4),
    ]
    assert all(row["locality_before"] == 100 for row in rows)
    assert all(row["attributes"] is not None and row["locality_forgetfulness"] is None for row in rows)
    text = page.read_text(encoding="utf-8")
    for row in rows:
        assert f"| {row['method']} | {row['regime']} | {row['restrain'] or '–'} | {row['n']} |" in text
    assert "What is left of earlier edits" in text
    assert "| success, tokens | alone | gap | generality, tokens | alone | gap |" in text
    # What must stay has a column for each kind that a case asks about, and for no other.
    assert "| other subjects | attributes | ES | GS | LS |" in text
    assert f"kcircuit edit compare --method {methods} --n 3" in text
    assert "seconds a fact" in succeeds(command, capsys)


def test_layers_are_swept_one_after_another(tiny, capsys, tmp_path):
    page = tmp_path / "layers.md"
    command = ["edit", "sweep-layers", "--method", "ft-m", "--n", "3", *STRONG, *CASES, *tiny]
    swept = json.loads(succeeds([*command, "--json", "--out", str(page)], capsys))
    assert [(row["layers"], row["site"]) for row in swept["rows"]] == [([0], None), ([1], None)]
    assert all(0 <= row["success"] <= 100 for row in swept["rows"])
    text = page.read_text(encoding="utf-8")
    assert f"kcircuit edit sweep-layers --method ft-m --n 3 --model {tiny[1]}" in text
    assert "## ft-m, single" in text
    chosen = json.loads(succeeds([*command, "--layers", "1,0+1", "--json"], capsys))
    assert [row["layers"] for row in chosen["rows"]] == [[1], [0, 1]]
    assert "layer" in fails([*command, "--layers", "9"], capsys)


def test_methods_that_store_values_are_swept_at_both_sites(tiny, capsys):
    command = ["edit", "sweep-layers", "--method", "rome,memit/batch:3", "--n", "3", "--layers", "1", *CASES, *tiny]
    quick = ["--set", "steps=1", "--set", "contexts=()", "--set", "covariance=identity"]
    swept = json.loads(succeeds([*command, *quick, "--json"], capsys))
    assert [(row["method"], row["site"]) for row in swept["rows"]] == [
        ("rome", "subject"), ("rome", "end"), ("memit", "subject"), ("memit", "end"),
    ]  # fmt: skip
    assert [line.split()[0] for line in succeeds([*command, *quick, "--sites", "end"], capsys).splitlines()] == [
        "rome", "memit",
    ]  # fmt: skip


def test_a_sequence_is_traced_free_and_restrained(tiny, capsys, tmp_path):
    page, figure = tmp_path / "pages" / "trace.md", tmp_path / "trace.svg"
    page.parent.mkdir()
    command = [
        "edit",
        "trace",
        "--method",
        "ft-m",
        "--n",
        "3",
        "--others",
        "1",
        "--checkpoints",
        "1",
        *STRONG,
        *CASES,
        *tiny,
    ]
    drawn = ["--out", str(page), "--figure", str(figure)]
    found = json.loads(succeeds([*command, "--restrain", "prune:alpha=9,ceiling=0.01", "--json", *drawn], capsys))
    free, restrained, scaled = found["traces"]
    assert scaled["name"].startswith("scaled")
    assert [point["n_edits"] for point in free["points"]] == [0, 1, 3]
    assert free["points"][0]["matrices"][0]["delta_largest"] == 0
    for a, b in zip(free["points"][1:], restrained["points"][1:], strict=True):
        assert b["matrices"][0]["delta_largest"] < a["matrices"][0]["delta_largest"]
    text = page.read_text(encoding="utf-8")
    assert "![Condition number, largest singular value of the change, locality and success](../trace.svg)" in text
    assert "kcircuit edit trace --method ft-m --n 3 --restrain prune:alpha=9,ceiling=0.01 --others 1" in text
    assert re.search(r"[+-]\d+\.\d \[[+-]\d", text)
    assert figure.read_text(encoding="utf-8").startswith("<svg")
    on_the_way = succeeds([*command, "--every", "1"], capsys)
    assert "prune:alpha=1.2 every 1" in on_the_way


def test_a_contestant_is_a_method_with_its_regime_and_restraint():
    parsed = Contestant.parse_all("rome,memit/batch:30,rome/sequential:5+prune:alpha=2,kind=linear", Regime(2))
    assert parsed == (
        Contestant("rome", Regime(2)),
        Contestant("memit", Regime(30)),
        Contestant("rome", Regime(1, 5), "prune:alpha=2,kind=linear"),
    )
    assert str(parsed[2]) == "rome/sequential:5+prune:alpha=2,kind=linear"
    assert [each.n_cases(50) for each in parsed] == [50, 60, 50]
    assert str(Contestant.parse("rome@subject/batch:2")) == "rome@subject/batch:2"
    for wrong in ("", "rome@", "/single", "rome+", "rome@batch:2", "ft-m@subject"):
        with pytest.raises(EditError):
            Contestant.parse(wrong)


def test_help_of_the_editing_commands_imports_no_torch():
    for words in (["edit"], ["edit", "eval"], ["edit", "compare"], ["edit", "sweep-layers"], ["edit", "trace"]):
        code = f"import sys; sys.argv = ['kcircuit', *{words!r}, '--help']\nfrom circuits.cli import main\n"
        code += "try:\n    main()\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0

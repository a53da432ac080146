"""The command line, in process: what it prints, what it writes, and how it refuses."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from circuits import cli
from circuits.circuit import Circuit
from circuits.cli.app import fit_threads
from circuits.graph import Shape
from circuits.studies.run import Run
from tests.commands import fails, succeeds

FACT = "w1 w2 w3 w4 => w5"
SUMMARY_KEYS = {
    "model",
    "fact",
    "edges_total",
    "edges_kept",
    "nodes_kept",
    "nll_model",
    "nll_circuit",
    "rank_model",
    "rank_circuit",
    "hit10_model",
    "hit10_circuit",
    "evaluations",
    "seconds",
    "engine",
}


@pytest.fixture
def tiny_gpt2(model_folder: Callable[[str], Path]) -> Path:
    return model_folder("gpt2")


@pytest.fixture
def discover(tiny_gpt2: Path) -> list[str]:
    """The arguments of a quick search in a small random model."""
    return ["discover", "--fact", FACT, "--subject", "w3", "--model", str(tiny_gpt2), "--force", "--tau", "0.05"]


# ---- what it does ----------------------------------------------------------------------------------------------------


def test_json_output_is_one_object_with_the_promised_keys(discover, capsys):
    summary = json.loads(succeeds([*discover, "--json"], capsys))
    assert summary.keys() >= SUMMARY_KEYS
    assert summary["edges_kept"] <= summary["edges_total"]


def test_the_hook_engine_and_the_default_engine_find_the_same_circuit(discover, capsys, tmp_path):
    for engine in ("hook", "sparse"):
        succeeds([*discover, "--engine", engine, "--out", str(tmp_path / engine)], capsys)
    assert Circuit.load(tmp_path / "hook" / "circuit.json") == Circuit.load(tmp_path / "sparse" / "circuit.json")


def test_out_writes_run_circuit_graph_and_page_and_nothing_else(discover, capsys, tmp_path):
    out = tmp_path / "new" / "folder"
    said = succeeds([*discover, "--out", str(out)], capsys)
    files = {"run.json", "circuit.json", "circuit.gv", "circuit.svg", "report.html"}
    assert {path.name for path in out.iterdir()} == files
    assert str(out / "report.html") in said


def test_the_same_command_writes_the_same_bytes(discover, capsys, tmp_path):
    for name in ("one", "two"):
        succeeds([*discover, "--out", str(tmp_path / name)], capsys)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_report_draws_a_saved_run_again_without_a_model(discover, capsys, tmp_path, monkeypatch):
    succeeds([*discover, "--out", str(tmp_path / "run")], capsys)
    page = (tmp_path / "run" / "report.html").read_bytes()
    (tmp_path / "run" / "report.html").unlink()
    monkeypatch.setattr("circuits.model.Model.load", lambda *_, **__: pytest.fail("a model was loaded"))
    succeeds(["report", str(tmp_path / "run")], capsys)
    assert (tmp_path / "run" / "report.html").read_bytes() == page


def test_help_and_version_answer_without_importing_torch():
    script = "import sys; from circuits import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")
    assert "discover" in done.stdout


@pytest.mark.parametrize("ablation", ["mean", "resample"])
def test_mean_and_resample_ablation_need_a_fact_of_the_dataset(ablation, discover, capsys):
    assert "no relation of the dataset" in fails([*discover, "--ablation", ablation], capsys)


def test_an_interrupted_search_says_how_to_continue_and_continues_to_the_same_result(
    discover, capsys, tmp_path, monkeypatch
):
    from circuits.engines.hook import HookEngine

    discover = [*discover, "--engine", "hook"]
    succeeds([*discover, "--out", str(tmp_path / "whole")], capsys)
    asked, ask = [], HookEngine.nll_without

    def stop_at_the_30th(self: HookEngine, *arguments):
        asked.append(1)
        if len(asked) == 30:
            raise KeyboardInterrupt
        return ask(self, *arguments)

    monkeypatch.setattr(HookEngine, "nll_without", stop_at_the_30th)
    with pytest.raises(SystemExit) as stop:
        cli.main([*discover, "--out", str(tmp_path / "stopped")])
    said = capsys.readouterr().err
    assert stop.value.code == 130
    assert "run the same command again to continue" in said
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == [cli.discover.STATE_FILE]
    succeeds([*discover, "--out", str(tmp_path / "stopped")], capsys)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "stopped" / path.name).read_bytes(), path.name
    assert not (tmp_path / "stopped" / cli.discover.STATE_FILE).exists()


# ---- how it refuses --------------------------------------------------------------------------------------------------


def test_an_unknown_model_says_what_was_tried_and_names_factlm(discover, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    discover[discover.index("--model") + 1] = "nobody/no-such-model"
    said = fails(discover, capsys)
    assert "nobody/no-such-model" in said
    assert "the hub" in said
    assert "--model factlm" in said


def test_a_folder_that_is_no_model_is_refused(discover, capsys, tmp_path):
    discover[discover.index("--model") + 1] = str(tmp_path)
    assert "no config.json" in fails(discover, capsys)


@pytest.mark.parametrize(
    ("fact", "more", "message"),
    [
        ("", [], "empty"),
        ("   ", [], "empty"),
        ("w1 w2 =>", [], "one side of => is empty"),
        ("w1 w2 w3", ["--object", "w2", "--subject", "w1"], "must end the sentence"),
        ("w1 w2 => w3", ["--subject", "w9"], "does not occur in the prompt"),
        ("w1 w2 => w3", [], "no subject of the dataset"),
    ],
)
def test_a_fact_that_is_none_is_refused_before_a_model_is_loaded(fact, more, message, capsys, monkeypatch):
    monkeypatch.setattr("circuits.model.Model.load", lambda *_, **__: pytest.fail("a model was loaded"))
    assert message in fails(["discover", "--fact", fact, *more], capsys)


def test_a_fact_that_the_model_does_not_know_is_refused_with_its_rank_unless_forced(discover, capsys, tiny_gpt2):
    answers = {
        word: json.loads(succeeds([*_with_answer(discover, word), "--json"], capsys)) for word in ("w5", "w6", "w7")
    }
    word, summary = max(answers.items(), key=lambda item: item[1]["rank_model"])
    assert summary["rank_model"] > 10, "the control needs an answer that the random model ranks low"
    unforced = [argument for argument in _with_answer(discover, word) if argument != "--force"]
    said = fails(unforced, capsys)
    assert f"ranks {summary['rank_model']}" in said
    assert "--force" in said


def _with_answer(discover: list[str], word: str) -> list[str]:
    arguments = list(discover)
    arguments[arguments.index("--fact") + 1] = f"w1 w2 w3 w4 => {word}"
    return arguments


def test_a_prompt_longer_than_the_context_is_refused(discover, capsys):
    discover[discover.index("--fact") + 1] = " ".join(["w3"] * 300) + " => w5"
    said = fails(discover, capsys)
    assert "tokens long" in said
    assert "reads at most" in said


def test_logits_that_are_not_numbers_are_refused(discover, capsys, tiny_gpt2, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_gpt2, broken)
    weights = load_file(broken / "model.safetensors")
    save_file({name: tensor * float("nan") for name, tensor in weights.items()}, broken / "model.safetensors")
    discover[discover.index("--model") + 1] = str(broken)
    said = fails(discover, capsys)
    assert "NaN" in said or "nan" in said


def test_an_output_folder_that_is_a_file_is_refused_and_the_file_stays(discover, capsys, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    assert "is a file" in fails([*discover, "--out", str(taken)], capsys)
    assert taken.read_text() == "mine"


def test_a_folder_belongs_to_one_result(discover, capsys, tmp_path):
    succeeds([*discover, "--out", str(tmp_path / "run")], capsys)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    folders = [str(tmp_path / "run"), str(tmp_path / "run")]
    said = fails(["diff", *folders, "--out", str(tmp_path / "run")], capsys)
    assert "holds a run (run.json), and a diff has a folder of its own" in said
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    succeeds([*discover, "--out", str(tmp_path / "run")], capsys)  # the control: its own kind is made again
    (tmp_path / "edit").mkdir()
    (tmp_path / "edit" / "edit.json").write_text("{}")
    assert "holds an edit" in fails([*discover, "--out", str(tmp_path / "edit")], capsys)


@pytest.mark.parametrize("words", [["--out", ""], ["--out="]])
def test_an_empty_name_of_a_folder_is_refused_and_nothing_is_written(words, discover, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "got an empty one" in fails([*discover, *words], capsys)
    assert list(tmp_path.iterdir()) == []
    succeeds([*discover, "--out", "."], capsys)  # the control: the present folder, by its name
    assert (tmp_path / "run.json").is_file()


def test_what_the_model_says_first_is_said_before_the_circuit_of_what_it_does_not_say(discover, capsys):
    said = {word: succeeds(_with_answer(discover, word), capsys) for word in ("w5", "w6", "w7")}
    silent = {word: text for word, text in said.items() if f"The model answers “{word}”" not in text}
    assert len(silent) >= 2, "of three words a model says one first"
    for word, text in silent.items():
        first = text.splitlines()
        (at,) = [i for i, line in enumerate(first) if f"The model does not say “{word}”. It says" in line]
        assert at < next(i for i, line in enumerate(first) if line.split()[:1] == ["edges"])


def test_an_output_folder_below_a_file_is_refused(discover, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write" in fails([*discover, "--out", str(tmp_path / "file" / "run")], capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_that_is_not_writable_is_refused(discover, capsys, tmp_path):
    tmp_path.chmod(0o500)
    assert "cannot write" in fails([*discover, "--out", str(tmp_path / "run")], capsys)


def test_an_unknown_fact_writes_nothing(discover, capsys, tmp_path):
    arguments = [argument for argument in _with_answer(discover, "w7") if argument != "--force"]
    try:
        cli.main([*arguments, "--out", str(tmp_path / "run")])
    except SystemExit as stop:
        if stop.code:
            assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["cut", "altered", "version", "absent"])
def test_report_refuses_a_damaged_run(damage, discover, capsys, tmp_path):
    succeeds([*discover, "--out", str(tmp_path)], capsys)
    path = tmp_path / "run.json"
    text = path.read_text()
    match damage:
        case "cut":
            path.write_text(text[: len(text) // 2])
        case "altered":
            changed = json.loads(text)
            changed["circuit_json"]["edges"].pop()
            path.write_text(json.dumps(changed))
        case "version":
            path.write_text(json.dumps({**json.loads(text), "version": 99}))
        case "absent":
            path.unlink()
    assert "run" in fails(["report", str(tmp_path)], capsys)


def test_a_relation_with_a_typing_error_suggests_the_right_one(capsys):
    assert "country_language" in fails(["discover", "--relation", "country_langage"], capsys)


def test_neither_fact_nor_relation_is_refused(capsys):
    assert "either --fact or --relation" in fails(["discover"], capsys)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--tau", "-1"),
        ("--tau", "nan"),
        ("--tau", "inf"),
        ("--tau", "0.1,0.1"),
        ("--granularity", "fine"),
        ("--ablation", "none"),
        ("--method", "magic"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(option, value, discover, capsys):
    assert value.strip("-") in fails([*discover, option, value], capsys)


def test_square_brackets_in_a_fact_are_printed_as_they_are(discover, capsys):
    discover[discover.index("--fact") + 1] = "w1 [red] [/b] w3 => w5"
    assert "w1 [red] [/b] w3 w5" in succeeds(discover, capsys)


def test_a_cuda_device_that_is_not_there_is_refused(discover, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no CUDA device" in fails([*discover, "--device", "cuda"], capsys)


def test_subject_and_object_belong_to_fact(capsys):
    assert "belong to --fact" in fails(["discover", "--relation", "country_language", "--subject", "France"], capsys)


def test_several_thresholds_write_a_folder_each_as_single_searches_do(discover, capsys, tmp_path):
    del discover[-2:]
    listed = json.loads(succeeds([*discover, "--tau", "0.2,0.05", "--out", str(tmp_path / "sweep"), "--json"], capsys))
    assert [row["tau"] for row in listed] == [0.05, 0.2]
    succeeds([*discover, "--tau", "0.2", "--out", str(tmp_path / "one")], capsys)
    swept = Circuit.load(tmp_path / "sweep" / "tau-0.2" / "circuit.json")
    assert swept == Circuit.load(tmp_path / "one" / "circuit.json")


def test_a_search_that_does_not_fit_into_memory_says_what_would(discover, capsys):
    assert "would fit" in fails([*discover, "--engine", "sparse", "--max-memory", "1kB"], capsys)


def test_bench_compares_the_engines_on_the_same_facts(capsys):
    measured = json.loads(succeeds(["bench", "acdc", "--n", "1", "--tau", "0.3", "--json"], capsys))
    assert measured["decisions_differing"] == 0
    assert measured["facts"] == 1
    assert measured["median_ratio"] > 1


@pytest.mark.parametrize(("layers", "threads_set", "expected"), [(2, None, [1]), (2, "2", []), (100_000, None, [])])
def test_a_small_model_gets_one_thread_unless_the_environment_decides(layers, threads_set, expected, monkeypatch):
    given = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads_set:
        monkeypatch.setenv("OMP_NUM_THREADS", threads_set)
    model: Any = SimpleNamespace(shape=Shape(layers, 4), network=SimpleNamespace(d_model=32))
    assert fit_threads(model) is model
    assert given == expected


def test_a_run_carries_its_certificate_and_reads_it_back_and_a_fact_of_no_relation_has_none_to_be_specific_among(
    discover, capsys, tmp_path
):
    found = json.loads(succeeds([*discover, "--json", "--out", str(tmp_path)], capsys))["certificate"]
    assert found.keys() >= {
        "kl",
        "overconfident",
        "own_answer",
        "this_answer",
        "n_subjects",
        "blind",
        "necessity",
        "verdict",
    }
    assert (found["n_subjects"], found["own_answer"], found["grades"]["specificity"]) == (0, None, "undecided")
    certificate = Run.load(tmp_path).certificate
    assert certificate is not None
    assert certificate.to_json() == found
    assert "not asked: no relation" in succeeds(discover, capsys)
    assert "certificate" not in json.loads(succeeds([*discover, "--json", "--no-certificate"], capsys))

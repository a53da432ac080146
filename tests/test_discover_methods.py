"""``kcircuit discover`` with every method, in process: what it prints and writes, and what it refuses."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from circuits import cli
from circuits.circuit import Circuit
from circuits.cli.reading import print_reading
from circuits.facts import Fact
from circuits.graph import Shape, parse_node
from circuits.studies.run import Run
from circuits.studies.specs import RunSpec
from tests.commands import fails, succeeds

SCORING = ["eap", "eap-ig", "eap-ig-activations", "exact", "ifr", "random"]


@pytest.fixture
def discover(model_folder: Callable[[str], Path]) -> list[str]:
    arguments = ["discover", "--fact", "w1 w2 w3 w4 => w5", "--subject", "w3", "--force", "--granularity", "node"]
    return [*arguments, "--model", str(model_folder("llama"))]


@pytest.mark.parametrize("method", SCORING)
def test_a_method_that_scores_every_edge_keeps_as_many_as_asked_and_its_command_does_it_again(
    method: str, discover: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    steps = ["--steps", "3"] if method.startswith("eap-ig") else []
    first = [*discover, "--method", method, "--edges", "12", *steps, "--out", str(tmp_path / "one")]
    summary = json.loads(succeeds([*first, "--json"], capsys))
    assert summary["method"] == method
    assert summary["edges_asked"] == 12
    assert 0 < summary["edges_kept"] <= 12
    assert "tau" not in summary
    circuit = Circuit.load(tmp_path / "one" / "circuit.json")
    assert circuit.n_edges == summary["edges_kept"]
    assert circuit.pruned() == circuit
    assert circuit.provenance.method == method
    assert circuit.provenance.settings["edges"] == "12"
    assert ("steps" in circuit.provenance.settings) == bool(steps)
    page = (tmp_path / "one" / "report.html").read_text()
    assert "at most 12 (12)" in page
    assert "<dt>tau</dt>" not in page
    again = shlex.split(Run.load(tmp_path / "one").command())[1:]
    succeeds([*again, "--out", str(tmp_path / "two")], capsys)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_scores_of_no_unit_are_shown_without_one(
    discover: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for method in ("ifr", "eap"):
        succeeds([*discover, "--method", method, "--edges", "12", "--out", str(tmp_path / method)], capsys)
    flow, slope = ((tmp_path / method / "report.html").read_text() for method in ("ifr", "eap"))
    assert "the sender’s share of what the reader reads" in flow
    assert ">Score</th>" in flow
    assert ">Score, nats</th>" in slope
    assert "to first order at the clean run" in slope
    assert " nats" in (tmp_path / "eap" / "circuit.gv").read_text()
    assert " nats" not in (tmp_path / "ifr" / "circuit.gv").read_text()


def test_a_share_of_edges_is_of_all_edges(discover: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads(succeeds([*discover, "--method", "random", "--edges", "10%", "--json"], capsys))
    assert summary["edges_asked"] == -(-summary["edges_total"] // 10)
    default = json.loads(succeeds([*discover, "--method", "random", "--json"], capsys))
    assert default["edges_asked"] == -(-summary["edges_total"] // 50)


def test_signed_scores_leave_suppressive_edges_out_until_they_are_asked_for(
    discover: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, more in (("signed", []), ("absolute", ["--absolute"])):
        succeeds([*discover, "--method", "exact", "--edges", "15", *more, "--out", str(tmp_path / name)], capsys)
    signed, absolute = (Circuit.load(tmp_path / name / "circuit.json") for name in ("signed", "absolute"))
    assert min(signed.score(edge) for edge in signed) > 0
    assert min(absolute.score(edge) for edge in absolute) < 0


def test_a_prefiltered_search_says_what_it_lost(
    discover: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    search = [*discover, "--tau", "0.02", "--prefilter", "eap-ig", "--steps", "3", "--keep", "40%"]
    summary = json.loads(succeeds([*search, "--prefilter-check", "--json", "--out", str(tmp_path / "some")], capsys))
    full = json.loads(succeeds([*discover, "--tau", "0.02", "--json", "--out", str(tmp_path / "all")], capsys))
    some, whole = (Circuit.load(tmp_path / name / "circuit.json") for name in ("some", "all"))
    assert summary["candidates"] == -(-2 * summary["edges_total"] // 5)
    assert summary["edges_kept"] == some.n_edges < summary["candidates"]
    assert summary["edges_full_search"] == full["edges_kept"] == whole.n_edges
    assert summary["share_lost"] == (whole - some).n_edges / whole.n_edges
    assert summary["edges_extra"] == (some - whole).n_edges
    assert 0 < summary["share_filtered_out"] <= summary["share_lost"]
    assert some.provenance.settings["prefilter"] == "eap-ig"
    assert "prefilter" not in whole.provenance.settings
    saved = Run.load(tmp_path / "some")
    assert saved.prefiltered is not None
    assert saved.prefiltered.candidates == summary["candidates"]
    assert "--prefilter eap-ig --keep 40% " in saved.command()
    assert saved.command().endswith("--prefilter-check --force")
    said = succeeds([*search, "--prefilter-check"], capsys)
    assert "edges that the full search keeps" in said


def test_without_a_check_the_full_search_is_not_made(discover: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads(
        succeeds([*discover, "--tau", "0.02", "--prefilter", "random", "--keep", "10", "--json"], capsys)
    )
    assert summary["candidates"] == 10
    assert "share_lost" not in summary
    assert summary["evaluations"] <= 11


def test_several_thresholds_share_one_prefilter(discover: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    filtered = ["--prefilter", "eap-ig", "--steps", "3", "--keep", "90%"]
    rows = json.loads(succeeds([*discover, "--tau", "0.002,0.2", *filtered, "--json"], capsys))
    assert [row["tau"] for row in rows] == [0.002, 0.2]
    assert rows[0]["candidates"] == rows[1]["candidates"]
    assert rows[0]["edges_kept"] > rows[1]["edges_kept"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "magic"], "magic"),
        (["--method", "eap", "--tau", "0.1"], "--tau is acdc's threshold"),
        (["--edges", "50"], "acdc keeps what exceeds tau"),
        (["--method", "eap", "--edges", "many"], "such as 50, or a share"),
        (["--method", "eap", "--edges", "0"], "such as 50, or a share"),
        (["--method", "eap", "--edges", "999999"], "expected from 1 to all"),
        (["--method", "eap", "--steps", "5"], "method eap heeds no options, got steps=5"),
        (["--method", "eap-ig", "--steps", "0"], "at least one step, got 0"),
        (["--method", "eap", "--prefilter", "ifr"], "only acdc has edges to try"),
        (["--prefilter", "acdc"], "acdc"),
        (["--keep", "20%"], "how much a prefilter lets through"),
        (["--prefilter-check"], "no prefilter to check"),
        (["--prefilter", "eap", "--keep", "x"], "such as 50, or a share"),
        (["--method", "ifr", "--compat", "kc"], "published code's metric"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(
    options: list[str], message: str, discover: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fails([*discover, *options], capsys)


def test_ctrl_c_in_a_search_that_cannot_be_continued_says_so(
    discover: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("circuits.discovery.slopes._slopes", stop)
    with pytest.raises(SystemExit) as ended:
        cli.main([*discover, "--method", "eap", "--out", str(tmp_path / "out")])
    assert ended.value.code == 130
    assert "only an acdc search can be continued" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_number_of_edges_may_be_given_as_a_number() -> None:
    assert RunSpec(facts=(Fact("a is", "a", "b"),), method="eap", edges=50).edges == "50"  # type: ignore[arg-type]


def test_an_acdc_spec_records_what_it_always_did() -> None:
    # What a state file is told by, and what a circuit file says: searches begun before must be continued.
    spec = RunSpec(facts=(Fact("a is", "a", "b"),))
    assert list(spec.settings) == ["tau", "absolute", "ablation", "compat", "dtype"]


def test_special_heads_and_the_story_are_printed_and_come_with_the_json(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    france = ["discover", "--fact", "The official language of France is French", "--method", "ifr", "--edges", "40"]
    record = json.loads(succeeds([*france, "--out", str(tmp_path), "--json"], capsys))
    assert {"head", "role", "in_circuit", "attention_subject", "answer_fall", "promoted"} <= record["heads"][0].keys()
    assert "mover" in {head["role"] for head in record["heads"]}
    assert all(sentence["numbers"] for sentence in record["story"])
    print_reading(Run.load(tmp_path))
    printed = " ".join(capsys.readouterr().out.split())
    for head in record["heads"]:
        assert parse_node(head["head"], Shape(6, 8)).label in printed
    for sentence in record["story"]:
        assert " ".join(sentence["text"].split()) in printed

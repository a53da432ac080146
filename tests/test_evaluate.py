"""``kcircuit evaluate``: any circuit, on any facts, whoever wrote its file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from circuits.circuit import Circuit
from circuits.cli.evaluate import read_circuit_file
from circuits.exchange import write_gexf, write_graphml, write_mib
from circuits.facts import Fact
from circuits.studies.runs import run
from circuits.studies.specs import RunSpec
from tests.commands import ends

FACT = ["--fact", "w1 w2 w3 w4 => w5", "--subject", "w3"]
DRAWS = ["--draws", "2", "--json"]


@pytest.fixture(scope="module")
def saved(model_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a fast method on a small model."""
    folder = tmp_path_factory.mktemp("evaluate")
    fact = Fact("w1 w2 w3 w4", "w3", "w5")
    spec = RunSpec(facts=(fact,), model=str(model_folder("gpt2")), method="ifr", edges="30", force=True)
    run(spec, {}).save(folder)
    return folder


def test_a_saved_run_is_scored_on_its_own_facts_as_the_run_says(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed, error = ends(["evaluate", str(saved), *DRAWS], capsys)
    assert code == 0, error
    result, run = json.loads(printed), json.loads((saved / "run.json").read_text())
    assert result["n_facts"] == 1
    assert result["nll_circuit"] == pytest.approx(run["circuit_answers"]["nll"]["per_example"][0])
    assert result["nll_model"] == pytest.approx(run["model_answers"]["nll"]["per_example"][0])
    assert set(result["random"]) == {"uniform", "connected"}
    worths = [row["worth"] for row in result["minimality"]["edges"]]
    assert len(worths) == result["edges"]
    assert worths == sorted(worths, reverse=True)
    assert result["completeness"]["gap_worst"] >= result["completeness"]["gap_intact"]


def test_what_is_printed_says_the_same_in_words(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = ends(["evaluate", str(saved), "--draws", "1"], capsys)
    assert code == 0
    for part in ("circuit alone", "random, connected", "faithfulness", "Minimality:", "Completeness:"):
        assert part in printed


def test_every_format_of_one_circuit_is_read_as_that_circuit(
    saved: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    circuit = Circuit.load(saved / "circuit.json")
    write_mib(circuit, tmp_path / "c.json", d_model=16)
    write_graphml(circuit, tmp_path / "c.graphml")
    write_gexf(circuit, tmp_path / "c.gexf")
    for file in (saved / "circuit.json", *(tmp_path / f"c.{name}" for name in ("json", "graphml", "gexf"))):
        found, facts, model = read_circuit_file(file)
        assert found == circuit
        assert facts == ()
        assert model == circuit.provenance.model
    code, printed, error = ends(["evaluate", str(tmp_path / "c.gexf"), *FACT, *DRAWS], capsys)
    assert code == 0, error
    assert json.loads(printed)["edges"] == circuit.n_edges


def test_bad_input_is_refused_in_one_line(saved: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = str(saved / "circuit.json")
    (tmp_path / "x.json").write_text("no json")
    for arguments, message in (
        ([str(tmp_path / "x.json")], "cannot be read as one"),
        ([str(tmp_path)], "no saved run"),
        ([file], "give --fact or --relation"),
        ([file, *FACT, "--relation", "country_language"], "got both"),
        ([file, "--relation", "country_langage"], "did you mean country_language"),
        ([file, "--relation", "country_language", "--split", "all"], "'val' or 'test'"),
        ([file, *FACT, "--model", "factlm"], "give its --model"),
    ):
        code, printed, error = ends(["evaluate", *arguments], capsys)
        assert code == 1
        assert printed == ""
        assert message in error.splitlines()[-1]

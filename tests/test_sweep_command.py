"""What `kcircuit sweep` and `kcircuit store` promise a script: where cases are worked off changes no row, a failure is tried again
when asked, time that is up loses nothing, and what is imported or exported is what was kept."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from circuits import cli
from circuits.circuit import Circuit
from circuits.facts import Fact
from circuits.model import Model
from circuits.studies.names import STUDIES, Named
from circuits.studies.product import Contexts
from circuits.studies.runs import run
from circuits.studies.specs import RunSpec
from circuits.studies.store import Database
from circuits.studies.sweep import Pool
from tests.models import word_fact
from tests.toy_study import POWERS, PowerSpec

Say = Callable[..., Any]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Say:
    """Runs a command with ``--json`` and gives what it prints; there is a study ``powers`` besides the others."""
    monkeypatch.setitem(STUDIES, "powers", Named(PowerSpec, "tests.toy_study:POWERS"))
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> Any:
        with pytest.raises(SystemExit) as end:
            cli.main([*words, "--json"])
        assert not end.value.code
        return json.loads(capsys.readouterr().out)

    return command


def powers(numbers: str, *more: str) -> list[str]:
    return ["sweep", "powers", "--set", f"number={numbers}", "--set", "log=log", *more]


def tried() -> list[str]:
    return [line.split(" in ")[0] for line in Path("log").read_text().splitlines()]


def kept(store: str) -> list[tuple[str, str | None, str | None]]:
    """What decides each case, its row to the byte, its error."""
    sql = 'SELECT study || algorithm || spec || weights || "case" AS key, row, error FROM results ORDER BY key'
    with Database(Path(store), read_only=True) as found:
        return [(each["key"], each["row"], each["error"]) for each in found.query(sql)]


def test_a_failure_is_kept_until_it_is_asked_to_be_tried_again(say: Say):
    told = say(*powers("2,13,4"))
    assert (told["cases"], told["done"], told["skipped"], told["failed"]) == (3, 2, 0, 1)
    Path("lucky").touch()
    # The control: unasked, what failed is not tried, though it would succeed.
    told = say(*powers("2,13,4"))
    assert (told["done"], told["skipped"], told["failed"]) == (0, 3, 1)
    told = say(*powers("2,13,4", "--retry"))
    assert (told["done"], told["skipped"], told["failed"]) == (1, 2, 0)
    assert [json.loads(row or "")["power"] for _, row, _ in kept("kcircuit.db")] == [4, 169, 16]
    assert tried() == ["of 2", "of 13", "of 4"]


def test_when_time_is_up_the_case_under_way_is_the_last_and_the_next_call_does_the_rest(say: Say):
    told = say(*powers("2,4,6", "--budget", "0s"))
    assert (told["cases"], told["done"], told["left"]) == (3, 1, 2)
    told = say(*powers("2,4,6", "--budget", "1h"))
    assert (told["done"], told["skipped"], told["left"]) == (2, 1, 0)
    assert tried() == ["of 2", "of 4", "of 6"]


def test_a_pool_keeps_the_rows_of_one_process_to_the_byte_failures_too(say: Say):
    for on in ("local", "pool"):
        told = say(*powers("2,13,4,7,3,100000", "--store", f"{on}.db", "--on", on, "--jobs", "2"))
        assert (told["done"], told["failed"]) == (5, 1)
    assert kept("local.db") == kept("pool.db")
    assert len({line.split(" in ")[1] for line in Path("log").read_text().splitlines()}) == 3


def test_a_pool_keeps_the_circuits_of_one_process_to_the_byte(
    say: Say, model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
):
    # Forked, so that not each process has to load torch.
    monkeypatch.setattr("circuits.studies.sweep.Pool", partial(Pool, start_method="fork"))
    words = {
        "model": str(model_folder("gpt2")),
        "fact": ["1 2 3 => 4"],
        "subject": "2",
        "force": True,
        "certificate": False,
    }
    told = "\n".join(f"{name} = {json.dumps(value)}" for name, value in words.items())
    Path("asked.toml").write_text(f"[set]\n{told}\n[over]\ntau = [0.001, 0.01]\n")
    for on in ("local", "pool"):
        asked = ["--file", "asked.toml", "--store", f"{on}.db", "--on", on, "--jobs", "2"]
        assert say("sweep", "discover", *asked)["done"] == 2
    circuits = "SELECT digest, hex(content) AS content FROM circuits ORDER BY digest"
    with Database(Path("local.db")) as local, Database(Path("pool.db")) as pool:
        assert list(local.query(circuits)) == list(pool.query(circuits))
    assert [key for key, _, _ in kept("local.db")] == [key for key, _, _ in kept("pool.db")]
    assert kept("local.db") == kept("pool.db")


def test_a_model_that_a_sweep_opens_has_the_threads_that_its_size_is_worth(
    small_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    opened = SimpleNamespace(model=small_model("gpt2"))
    study = replace(POWERS, open=lambda *_: opened)
    assert Contexts(study, (None,)).at(0) is opened
    assert set_to == [1]


FACT: Fact = word_fact("1 2 3", "4")


def test_a_saved_run_is_imported_with_its_circuit_to_the_byte_and_once_however_often(
    tmp_path: Path, small_model: Callable[..., Model], say: Say, capsys: pytest.CaptureFixture[str]
):
    spec = RunSpec(facts=(FACT,), model="gpt2", method="eap", edges="20", force=True)
    found = run(spec, {}, model=small_model("gpt2"))
    found.save(tmp_path / "found")
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            cli.main(["store", "import", "s.db", "found"])
        assert not end.value.code
    capsys.readouterr()
    (row,) = say("store", "query", "s.db", "SELECT row ->> 'edges_kept' AS edges, weights, row FROM results")
    assert (row["edges"], row["weights"]) == (found.circuit.n_edges, found.circuit.provenance.weights)
    with Database(tmp_path / "s.db", read_only=True) as store:
        circuit = Circuit.from_json(store.circuit(json.loads(row["row"])["circuit"]["$circuit"]))
    circuit.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "found" / "circuit.json").read_bytes()


def test_parquet_holds_the_rows_that_json_lines_hold(tmp_path: Path, say: Say, capsys: pytest.CaptureFixture[str]):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    say(*powers("2,13,4"))
    for name in ("rows.parquet", "rows.jsonl", "rows.csv"):
        with pytest.raises(SystemExit):
            cli.main(["store", "export", "kcircuit.db", "powers", "--out", name])
    lines = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert [line.get("power") for line in lines] == [4, None, 16]
    frame = pandas.read_parquet("rows.parquet")
    assert frame.equals(pandas.DataFrame(lines))
    assert [f"{each['case']}" for each in lines] == list(pandas.read_csv("rows.csv")["case"])

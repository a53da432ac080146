"""A sweep over settings: every combination once, rows under the study's own keys, a stop loses no case that was done."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from circuits import cli
from circuits.circuit import Circuit
from circuits.model import Model
from circuits.studies.discover import DISCOVER
from circuits.studies.product import product, specs_of
from circuits.studies.queries import QUERIES
from circuits.studies.specs import DiscoverSpec
from circuits.studies.store import Database
from circuits.studies.study import Watch
from circuits.studies.sweep import Pool, sweep
from tests.toy_study import SQUARES, Row, Spec

SPECS = (Spec((2, 4)), Spec((2, 4), exponent=3), Spec((6,)))


def test_a_product_has_the_rows_of_each_study_alone_under_the_same_keys(tmp_path: Path):
    store, log = Database(tmp_path / "s.db"), tmp_path / "log"
    alone = [outcome.row for spec in SPECS for outcome in sweep(SQUARES, spec, log, store=store)]
    assert alone == [Row(2, 4), Row(4, 16), Row(2, 8), Row(4, 64), Row(6, 36)]
    done = log.read_text()
    together = list(sweep(product(SQUARES), SPECS, log, store=store))
    assert [outcome.row for outcome in together] == alone
    assert log.read_text() == done, "a case was done again"
    # The control: without the store all is done, in process and in a pool.
    for where in (None, Pool(2, start_method="fork")):
        rows = {outcome.case: outcome.row for outcome in sweep(product(SQUARES), SPECS, log, where=where)}
        assert [rows[name] for name in sorted(rows)] == alone


def test_specs_are_all_combinations_and_wrong_fields_are_told():
    found = specs_of(DiscoverSpec, {"n": "3"}, {"relation": ["a", "b"], "seed": ["0", 1]})
    assert [(spec.relation, spec.seed, spec.n) for spec in found if isinstance(spec, DiscoverSpec)] == [
        ("a", 0, 3),
        ("a", 1, 3),
        ("b", 0, 3),
        ("b", 1, 3),
    ]
    with pytest.raises(ValueError, match=r"DiscoverSpec has no field 'relations'; expected .*relation"):
        specs_of(DiscoverSpec, {}, {"relations": ["a"]})
    with pytest.raises(ValueError, match="tau"):
        specs_of(DiscoverSpec, {"tau": "many"}, {})


def test_a_fact_has_one_row_however_many_were_asked_for_beside_it():
    few, many, other = DiscoverSpec(n=2), DiscoverSpec(n=30, split="test"), DiscoverSpec(n=2, seed=1)
    assert DISCOVER.decides(few) == DISCOVER.decides(many) != DISCOVER.decides(other)


def asked(store: Path, n: int, *more: str) -> list[str]:
    words = ["sweep", "discover", "--relations", "country_language", "--n", str(n), "--set", "certificate=no"]
    return [*words, "--store", str(store), "--json", *more]


def test_the_command_does_what_is_new_keeps_circuits_and_answers_queries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = tmp_path / "s.db"

    def say(*words: str) -> str:
        _run(list(words))
        return capsys.readouterr().out

    first = json.loads(say(*asked(store, 1)))
    assert {name: first[name] for name in ("cases", "done", "skipped", "failed")} == {
        "cases": 1,
        "done": 1,
        "skipped": 0,
        "failed": 0,
    }
    plan = json.loads(say(*asked(store, 2, "--plan")))
    assert (plan["cases"], plan["kept"], plan["todo"]) == (2, 1, 1)
    second = json.loads(say(*asked(store, 2)))
    assert (second["cases"], second["done"], second["skipped"]) == (2, 1, 1)
    rows = json.loads(say("store", "query", str(store), "SELECT fact, edges FROM discovered ORDER BY id", "--json"))
    with Database(store, read_only=True) as kept:
        contents = [row["circuit"] for row in kept.rows("discover")]
        assert [Circuit.from_json(kept.circuit(of)).n_edges for of in contents] == [row["edges"] for row in rows]
    assert json.loads(say("store", "check", str(store), "--json"))["wrong"] == []
    say("store", "export", str(store), "discover", "--out", str(tmp_path / "rows.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [line["edges_kept"] for line in lines] == [row["edges"] for row in rows]
    assert lines[0]["spec.relation"] == "country_language"


def _run(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert not end.value.code


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "nothing"], "no study called 'nothing'"),
        (["sweep", "table"], "ask `kcircuit table`"),
        (["sweep", "discover", "--on", "moon"], "expected --on local, pool or ray"),
        (["sweep", "discover", "--budget", "soon"], "90s, 30m or 8h"),
        (["sweep", "discover", "--set", "banana=1"], "no field 'banana'"),
        (["store", "query", "none.db", "SELECT 1"], "no store at none.db"),
        (["store", "check", "none.db"], "no store at none.db"),
        (["store", "export", "none.db", "discover", "--out", "rows.xls"], ".csv, .jsonl or .parquet"),
    ],
)
def test_what_cannot_be_done_is_a_line(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 1
    assert message in capsys.readouterr().err


SCRIPT = """
import sys
from pathlib import Path
from circuits.studies.product import product
from circuits.studies.store import Database
from circuits.studies.study import Watch
from circuits.studies.sweep import sweep
from tests.toy_study import SQUARES, Spec
folder = Path(sys.argv[1])
for outcome in sweep(product(SQUARES), (Spec((2, 4)), Spec((6, 100))), folder / "log", store=Database(folder / "s.db")):
    pass
"""


def test_a_sweep_that_is_killed_loses_the_case_in_flight_alone(tmp_path: Path):
    running = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=Path(__file__).parent.parent, stderr=subprocess.DEVNULL
    )
    log, deadline = tmp_path / "log", time.monotonic() + 60
    while not log.exists() or "of 100" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    with Database(tmp_path / "s.db") as store:
        assert list(store.check()) == []
        assert [row["case"] for row in store.rows("squares")] == ["of 2", "of 4", "of 6"]


def test_the_search_of_a_case_that_is_killed_goes_on_where_it_was_to_the_same_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(importlib.import_module("circuits.discovery.decisions"), "BATCHES", 2)
    spec = DiscoverSpec(fact=("The official language of France is => French",), certificate=False)
    Model.default()

    def work(name: str, batches: int) -> None:
        seen: list[int] = []

        def progress(done: int, total: int, state: str) -> None:
            seen.append(done)
            (tmp_path / f"{name} begun at").write_text(str(seen[0]))
            if len(seen) == batches:
                os.kill(os.getpid(), signal.SIGKILL)

        watch = Watch(progress=progress, searches=tmp_path / f"{name}-searches")
        with Database(tmp_path / f"{name}.db") as store:
            list(sweep(product(DISCOVER), (spec,), store=store, watch=watch))

    def run(name: str, batches: int) -> int:
        process = get_context("fork").Process(target=work, args=(name, batches))
        process.start()
        process.join()
        (file,) = tmp_path.glob(f"{name} begun at")
        assert process.exitcode == (-signal.SIGKILL if batches < 1_000 else 0)
        return int(file.read_text())

    begun = [run("killed", batches) for batches in (12, 9, 1_000)]
    assert begun[0] < begun[1] < begun[2]
    # The control begins where the first one did.
    assert run("whole", 1_000) == begun[0]
    with Database(tmp_path / "killed.db") as killed, Database(tmp_path / "whole.db") as whole:
        first, other = (
            list(each.query("SELECT row, hex(content) AS circuit FROM rows, circuits")) for each in (killed, whole)
        )
    assert first == other
    assert not list((tmp_path / "killed-searches").glob("*"))


def test_the_page_asks_every_question_as_it_is_asked_by_name():
    page = (Path(__file__).parent.parent / "docs" / "sweeps.md").read_text(encoding="utf-8")
    for query in QUERIES:
        assert (
            f"### {query.question}\n\n`kcircuit store query facts.db {query.name}`\n\n```sql\n{query.sql}\n```" in page
        )

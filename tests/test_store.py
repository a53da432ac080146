"""The store: what is put is got, byte for byte, by its own key alone; no kill leaves a part; old files are brought along."""

import dataclasses
import json
import os
import signal
import sqlite3
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuits.circuit import Circuit, CircuitFileError, Provenance
from circuits.graph import Graph, Shape
from circuits.studies.packed import pack, unpack
from circuits.studies.queries import QUERIES
from circuits.studies.schema import VERSION, migrate
from circuits.studies.store import Database, StoreError
from circuits.studies.study import Key, Outcome
from circuits.studies.sweep import Stale, sweep
from tests.toy_study import SQUARES, Row, Spec

KEY = Key("found", 1, "spec", "weights", "a case")
KEY_OF_DISCOVER = dataclasses.replace(KEY, study="discover")


@dataclass(frozen=True)
class Found:
    number: float
    circuit: dict[str, Any] | None = None


def a_circuit(n: int = 100, seed: int = 0, shape: Shape | None = None) -> Circuit:
    graph, rng = Graph(shape or Shape(6, 8), "qkv"), np.random.default_rng(seed)
    kept = np.zeros(graph.legal.size, dtype=bool)
    kept[rng.choice(np.flatnonzero(graph.legal), n, replace=False)] = True
    scores = rng.normal(size=graph.legal.shape)
    scores.flat[np.flatnonzero(kept)[:2]] = np.nan
    origin = Provenance("a model", "00ff", method="acdc", settings={"tau": 0.01, "é": None}, facts=("a => b",))
    return Circuit(graph, kept.reshape(graph.legal.shape), origin, scores)


@pytest.mark.parametrize("n", [0, 2, 500])
def test_a_circuit_is_unpacked_to_the_bytes_of_its_file(n: int):
    content = a_circuit(n).to_json()
    assert json.dumps(unpack(pack(content))) == json.dumps(content)


def test_a_circuit_of_smollm2s_size_takes_less_than_20_kB():
    content = a_circuit(2_000, shape=Shape(30, 9)).to_json()
    assert len(pack(content)) < 20_000 < len(json.dumps(content)) / 5


@pytest.mark.parametrize("damage", [lambda d: d[:-3], lambda d: b"", lambda d: b"kcc1" + b"x" * 50, lambda d: d[1:]])
def test_bytes_of_no_circuit_are_a_clear_error(damage: Any):
    with pytest.raises(CircuitFileError, match="no packed circuit"):
        unpack(damage(pack(a_circuit().to_json())))


def test_a_row_is_got_by_its_whole_key_alone_and_its_circuit_with_it(tmp_path: Path):
    store, row = Database(tmp_path / "s.db"), Found(0.1 + 0.2, a_circuit().to_json())
    store.put(KEY, Outcome("a case", row, seconds=1.5))
    again = Database(tmp_path / "s.db", read_only=True).get(KEY, Found)
    assert again is not None
    assert (again.row, again.kept, again.seconds) == (row, True, 1.5)
    assert again.row is not None
    assert json.dumps(again.row.circuit) == json.dumps(row.circuit)
    for name in ("study", "spec", "weights", "case"):
        assert store.get(dataclasses.replace(KEY, **{name: "another"}), Found) is None
    assert store.get(dataclasses.replace(KEY, algorithm=2), Found) is None
    # A row of another class is none.
    with pytest.raises(Stale, match="a case"):
        store.get(KEY, Row)


def test_a_failure_is_kept_and_a_later_row_takes_its_place(tmp_path: Path):
    store = Database(tmp_path / "s.db")
    store.put(KEY, Outcome("a case", None, "it failed", "ValueError"))
    failed = store.get(KEY, Found)
    assert failed is not None
    assert (failed.row, failed.error, failed.kind) == (None, "it failed", "ValueError")
    store.put(KEY, Outcome("a case", Found(1.0)))
    got = store.get(KEY, Found)
    assert got is not None
    assert (got.row, got.error) == (Found(1.0), None)
    assert [each["tries"] for each in store.query("SELECT tries FROM rows")] == [2]


def test_a_sweep_goes_on_from_the_store_and_tries_failures_again_only_where_asked(tmp_path: Path):
    store, spec = Database(tmp_path / "s.db"), Spec((2, 13, 4))
    first = list(sweep(SQUARES, spec, tmp_path / "log", store=store, failures="keep"))
    assert {outcome.case: outcome.row for outcome in first} == {"of 2": Row(2, 4), "of 13": None, "of 4": Row(4, 16)}
    again = list(sweep(SQUARES, spec, tmp_path / "log", store=store, failures="keep"))
    assert [outcome.kept for outcome in again] == [True] * 3
    retried = list(sweep(SQUARES, spec, tmp_path / "log", store=store, failures="retry"))
    assert [outcome.case for outcome in retried if not outcome.kept] == ["of 13"]


def test_a_writer_that_is_killed_at_any_moment_leaves_whole_rows(tmp_path: Path):
    path, content = tmp_path / "s.db", a_circuit().to_json()

    def write() -> None:
        store = Database(path)
        for i in range(10**6):
            store.put(dataclasses.replace(KEY, case=f"{os.getpid()} {i}"), Outcome("", Found(i, content)))

    for moment in (0.02, 0.11, 0.23):
        workers = [get_context("fork").Process(target=write) for _ in range(2)]
        for worker in workers:
            worker.start()
        workers[0].join(moment)
        for worker in workers:
            os.kill(worker.pid or 0, signal.SIGKILL)
            worker.join()
    with Database(path) as store:
        assert list(store.check()) == []
        names = [each["case"].split(" ") for each in store.query('SELECT "case" FROM results ORDER BY id')]
    # All that each put, without a hole.
    for process in {name[0] for name in names}:
        numbers = [int(number) for of, number in names if of == process]
        assert numbers == list(range(len(numbers)))


def test_processes_that_make_one_store_at_the_same_time_all_write_to_it(tmp_path: Path):
    for attempt in range(6):
        path, context = tmp_path / f"{attempt}.db", get_context("fork")
        at_once = context.Barrier(4)

        def write(i: int, path: Path = path, at_once: Any = at_once) -> None:
            at_once.wait()
            with Database(path) as store:
                store.put(dataclasses.replace(KEY, case=str(i)), Outcome(str(i), Found(i)))

        workers = [context.Process(target=write, args=(i,)) for i in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0] * 4
        with Database(path) as store:
            assert sorted(row["case"] for row in store.rows("found")) == list("0123")


def test_a_store_of_every_earlier_schema_is_brought_to_this_one_with_its_rows(tmp_path: Path):
    for version in range(1, VERSION):
        path = tmp_path / f"{version}.db"
        connection = sqlite3.connect(path, isolation_level=None)
        migrate(connection, version)
        connection.execute("INSERT INTO cases VALUES (1, 'found', 1, 'spec', 'weights', 'a case')")
        connection.execute("INSERT INTO rows (id, row, seconds) VALUES (1, '{\"number\": 2.0}', 3)")
        connection.execute("INSERT INTO cases VALUES (2, 'discover', 1, 'spec', 'weights', 'a case')")
        heads = '{"heads": [{"head": "a1.h0", "role": "mover"}]}'
        connection.execute("INSERT INTO rows (id, row, seconds) VALUES (2, ?, 3)", (heads,))
        connection.close()
        with pytest.raises(StoreError, match="older than"):
            Database(path, read_only=True).get(KEY, Found)
        with Database(path) as store:
            got = store.get(KEY, Found)
            assert got is not None
            assert got.row == Found(2.0)
            assert list(store.check()) == []
            assert list(store.query("SELECT head, role, facts FROM roles")) == [
                {"head": "a1.h0", "role": "mover", "facts": 1}
            ]


def test_heads_are_those_of_the_row_that_is_kept(tmp_path: Path):
    def kept(*heads: str) -> list[str]:
        store.put_json(KEY_OF_DISCOVER, {"heads": [{"head": head, "role": "mover"} for head in heads]})
        return [each["head"] for each in store.query("SELECT head FROM roles")]

    with Database(tmp_path / "s.db") as store:
        assert kept("a1.h0", "a1.h1") == ["a1.h0", "a1.h1"]
        assert kept("a1.h1", "a2.h0") == ["a1.h1", "a2.h0"]
        store.put(KEY_OF_DISCOVER, Outcome("a case", None, "it failed", "ValueError"))
        assert list(store.query("SELECT * FROM roles")) == []
        # The control: heads of another study are no roles of a fact's circuit.
        store.put_json(KEY, {"heads": [{"head": "a1.h0", "role": "mover"}]})
        assert list(store.query("SELECT * FROM heads")) == []


def test_what_is_no_store_is_refused_and_left_alone(tmp_path: Path):
    for name, content in (("text", b"no database" * 100), ("circuit.json", b"{}")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StoreError, match=name):
            _ = Database(tmp_path / name).connection
        assert (tmp_path / name).read_bytes() == content
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    with pytest.raises(StoreError, match="no store of kcircuit"):
        _ = Database(tmp_path / "other.db").connection
    with pytest.raises(StoreError, match="no store at"):
        _ = Database(tmp_path / "none.db", read_only=True).connection
    later = sqlite3.connect(tmp_path / "later.db", isolation_level=None)
    migrate(later)
    later.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="install a later kcircuit"):
        _ = Database(tmp_path / "later.db").connection


def test_a_reader_changes_nothing_and_wrong_sql_is_a_line(tmp_path: Path):
    with Database(tmp_path / "s.db") as store:
        store.put(KEY, Outcome("a case", Found(1.0)))
    reader = Database(tmp_path / "s.db", read_only=True)
    for sql in ("DELETE FROM rows", "SELEC 1", "SELECT * FROM nowhere", "PRAGMA user_version = 9"):
        with pytest.raises(StoreError):
            list(reader.query(sql))
    assert list(reader.query("SELECT count(*) AS n FROM rows")) == [{"n": 1}]


def test_check_finds_an_altered_circuit(tmp_path: Path):
    with Database(tmp_path / "s.db") as store:
        store.put(KEY, Outcome("a case", Found(1.0, a_circuit().to_json())))
        assert list(store.check()) == []
        store.connection.execute("UPDATE circuits SET content = ?", (pack(a_circuit(seed=1).to_json()),))
        assert ["was altered" in line for line in store.check()] == [True]
        with pytest.raises(Stale, match="altered"):
            store.get(KEY, Found)


def test_rows_come_as_a_frame_too(tmp_path: Path):
    pytest.importorskip("pandas")
    with Database(tmp_path / "s.db") as store:
        store.put(KEY, Outcome("a case", Found(1.5, a_circuit().to_json())))
        frame = store.frame("found")
        assert list(frame["number"]) == [1.5]
        assert list(frame["circuit"]) == [a_circuit().to_json()["digest"]]
        with pytest.raises(StoreError, match="no rows of 'none'; of found"):
            store.frame("none")


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_each_query_of_the_page_answers_its_question_on_rows_worked_out_by_hand(tmp_path: Path, query: Any):
    def heads(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
        return [{"head": head, "role": role, "in_circuit": True} for head, role in pairs]

    rows = [
        ("capital", 0, "f1", 10, 1, "holds", heads(("a1.h0", "mover"), ("a0.h1", "relation"))),
        ("capital", 0, "f2", 30, 2, "does not", heads(("a1.h0", "mover"))),
        ("language", 0, "f3", 20, 1, "holds", heads(("a1.h0", "mover"), ("a1.h1", "mover"))),
        ("language", 1, "f3", 22, 4, "holds", heads(("a1.h1", "mover"))),
    ]
    with Database(tmp_path / "s.db") as store:
        for relation, seed, fact, edges, rank, verdict, found in rows:
            spec = f"{relation} {seed}"
            store.asked_json("discover", spec, {"relation": relation, "seed": seed})
            row = {"model": "m", "method": "acdc", "tau": 0.01, "fact": fact, "edges_kept": edges, "rank_circuit": rank}
            row |= {"rank_model": 1, "nll_model": 0.1, "nll_circuit": 0.2, "certificate": {"verdict": verdict}}
            circuit = a_circuit(edges, seed=len(fact)).to_json()
            store.put_json(Key("discover", 1, spec, "w", fact), row | {"heads": found, "circuit": circuit}, seconds=2.0)
        store.put(Key("discover", 1, "capital 0", "w", "f9"), Outcome("f9", None, "too large", "MemoryError"))
        assert list(store.query(query.sql))[:1] == [query.example]

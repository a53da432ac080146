"""What the benchmarks measure beside time: decisions that differ, operations, and what the time is for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import profiling
import pytest
from agreement import Agreement, agreement
from peers import edge_names

from circuits.engines.hook import HookEngine
from circuits.engines.sparse import SparseEngine
from circuits.facts import Fact, Relations
from circuits.graph import Graph, Shape
from circuits.model import Model
from circuits.studies.roofline import real_searches
from tests.models import guessed_relation


def facts_of(model: Model, n: int = 2) -> tuple[Relations, tuple[Fact, ...]]:
    relation = guessed_relation(model)
    return {"guessed": relation}, tuple(relation.fact(subject) for subject in relation.subjects[:n])


def test_engines_that_agree_differ_nowhere_and_the_reference_is_kept(
    small_model: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model("gpt2")
    relations, facts = facts_of(model)

    def rows() -> list[Agreement]:
        return list(agreement(model, facts, relations, taus=(0.1, 2.0), granularity="node", references=tmp_path))

    first = rows()
    assert len(first) == 3 * 2 * 2
    assert all(row.differing == 0 and row.first_differing is None for row in first)
    assert all(row.largest_score_difference < 1e-4 for row in first)
    assert all(row.kept <= row.tried <= row.decisions for row in first)

    def never(self: HookEngine, kept: np.ndarray) -> None:
        raise AssertionError("the reference's decisions are on file")

    monkeypatch.setattr(HookEngine, "nll", never)
    assert rows() == first


def test_a_fast_engine_that_is_wrong_is_found_out(
    small_model: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model("gpt2")
    relations, facts = facts_of(model, 1)
    right = SparseEngine.nll_cutting

    def wrong(self: SparseEngine, *args: object) -> np.ndarray:
        return 0.5 * right(self, *args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(SparseEngine, "nll_cutting", wrong)
    rows = list(agreement(model, facts, relations, taus=(0.1,), granularity="node", references=tmp_path))
    assert sum(row.differing for row in rows) > 0
    assert any(row.first_differing is not None for row in rows)


def test_shares_of_time_add_up_and_operations_are_counted(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    _, facts = facts_of(model)
    shares = profiling.where_time_goes(model, facts, 0.1, interval=0.0005)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert profiling.operations(model, facts, 0.1) > profiling.operations(model, facts[:1], 0.1) > 1e6


def test_searches_by_the_fastest_products_decide_as_those_by_plain_ones(small_model: Callable[..., Model]) -> None:
    model = small_model("llama")
    _, facts = facts_of(model)
    found = real_searches(model, facts, tau=0.1, granularity="node")
    assert found["facts"] == 2
    assert found["decisions_differing"] == found["decided_twice"] == 0
    assert 0 < found["roofline_share"] < 1
    assert found["peak_bytes"] > 0
    operations = sum(search["operations"] for search in found["searches"])
    assert operations == profiling.operations(model, facts, 0.1, granularity="node")


def test_a_peer_is_told_every_edge_by_a_name_of_its_own() -> None:
    graph = Graph(Shape(2, 3), "qkv")
    names = edge_names(graph)
    assert len(set(names)) == len(names) == graph.n_edges
    assert names[0] == ("MLP 1", "Resid End")
    assert ("A0.2", "A1.0.K") in names
    assert names[-1] == ("Resid Start", "A0.0.Q")

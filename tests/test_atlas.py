"""An atlas: its questions answered on circuits worked out by hand, its page true to the SQL that it prints."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuits.circuit import Circuit, Provenance
from circuits.cli import main
from circuits.datasets import load_relations
from circuits.datasets.manifest import Manifest
from circuits.graph import Graph, Shape
from circuits.pages.atlas import table
from circuits.pages.heatmap import heat_map
from circuits.pages.tables import BY_HAND, markdown
from circuits.studies.atlas import ATLAS, of_setting
from circuits.studies.store import Database
from circuits.studies.study import Key

GRAPH = Graph(Shape(2, 2), "qkv")
SETTING = "factlm acdc matchnll zero qkv tau 0.01 seed 0"
A, B, C, D = "input->a0.h0<v>", "a0.h0->logits", "input->m1", "a1.h1->logits"


def circuit(*edges: str) -> dict[str, Any]:
    kept = np.zeros_like(GRAPH.legal)
    for name in edges:
        kept[GRAPH.edge(name)] = True
    return Circuit(GRAPH, kept, Provenance("factlm", "00"), np.zeros(GRAPH.legal.shape)).to_json()


@dataclass(frozen=True)
class Put:
    relation: str
    fact: str
    edges: tuple[str, ...]
    nll: float = 0.1
    roles: tuple[tuple[str, str, bool], ...] = ()
    wording: int = 0


LANGUAGE, CAPITAL = "country_language", "country_capital_city"


def statement(relation: str, subject: str, wording: int = 0) -> str:
    return load_relations()[relation].fact(subject, wording).statement


FRANCE, SPAIN, ITALY = (statement(LANGUAGE, name) for name in ("France", "Spain", "Italy"))
ROWS = (
    Put(LANGUAGE, FRANCE, (A, B), 0.1, (("a0.h0", "mover", True),)),
    Put(LANGUAGE, SPAIN, (A, B, C), 0.3, (("a0.h0", "mover", True), ("a1.h1", "relation", False))),
    Put(CAPITAL, statement(CAPITAL, "France"), (A, B), 0.2, (("a0.h0", "mover", False),)),
    Put(CAPITAL, statement(CAPITAL, "Spain"), (A, D), 0.4),
    Put(LANGUAGE, statement(LANGUAGE, "France", 1), (A, D), wording=1),
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "facts.db"
    with Database(path) as kept:
        for put in ROWS:
            of = f"{put.relation} {put.wording}"
            spec = {"relation": put.relation, "seed": 0, "metric": "matchnll", "ablation": "zero", "granularity": "qkv"}
            kept.asked_json("discover", of, spec | {"wording": put.wording})
            row = {"model": "factlm", "method": "acdc", "tau": 0.01, "fact": put.fact, "edges_kept": len(put.edges)}
            row |= {"nodes_kept": 3, "rank_model": 1, "rank_circuit": 1, "nll_model": put.nll, "nll_circuit": 0.0}
            passed = {"sufficiency": "passed", "specificity": "failed", "necessity": "passed"}
            row |= {"certificate": {"verdict": "failed", "grades": passed}, "circuit": circuit(*put.edges)}
            row["heads"] = [{"head": head, "role": role, "in_circuit": there} for head, role, there in put.roles]
            kept.put_json(Key("discover", 2, of, "w", put.fact), row)
    return path


def say(*words: str | Path) -> None:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert not end.value.code


def asked(store: Path, name: str) -> list[dict[str, Any]]:
    query = next(query for query in ATLAS if query.name == name)
    return list(Database(store, read_only=True).query(of_setting(query, SETTING)))


def test_a_node_counts_once_for_each_fact_whose_circuit_holds_it(store: Path):
    # a0.h0 is read in all four circuits; a1.h1 is in one of CAPITAL's two: half of them, so the relation hangs on it.
    assert asked(store, "nodes") == [
        {"node": "a0.h0", "facts": 4, "share": 1.0, "relations": 2, "relations_with_any": 2},
        {"node": "a1.h1", "facts": 1, "share": 0.25, "relations": 1, "relations_with_any": 1},
        {"node": "m1", "facts": 1, "share": 0.25, "relations": 1, "relations_with_any": 1},
    ]


def test_roles_are_counted_over_facts_in_the_circuit_or_not(store: Path):
    assert asked(store, "roles") == [
        {"head": "a0.h0", "role": "mover", "relations": 2, "facts": 3, "in_circuit": pytest.approx(2 / 3)},
        {"head": "a1.h1", "role": "relation", "relations": 1, "facts": 1, "in_circuit": 0.0},
    ]


def test_two_relations_overlap_by_the_smaller_over_the_larger_shares_of_one_half_with_the_other(store: Path):
    # Facts in the order of their words: half 1 holds the first, half 0 the second. LANGUAGE: France A B | Spain A B C.
    # CAPITAL: France A B | Spain A D. Each half has one circuit, so shares are 1 and overlaps plain Jaccard indices.
    assert FRANCE < SPAIN
    overlap = {(row["one"], row["other"]): row["overlap"] for row in asked(store, "map")}
    assert overlap == {
        (LANGUAGE, LANGUAGE): pytest.approx(2 / 3),
        (LANGUAGE, CAPITAL): pytest.approx(2 / 3),
        (CAPITAL, LANGUAGE): pytest.approx(1 / 3),
        (CAPITAL, CAPITAL): pytest.approx(1 / 3),
    }
    nearest = {row["relation"]: row for row in asked(store, "nearest")}
    assert nearest[LANGUAGE]["nearest"] == CAPITAL
    assert nearest[LANGUAGE]["overlap"] == pytest.approx(1 / 2)
    assert nearest[LANGUAGE]["with_itself"] == pytest.approx(2 / 3)
    assert asked(store, "kinds") == [
        {"kind": "factual", "other": "factual", "pairs": 1, "overlap": pytest.approx(1 / 2)}
    ]


def test_another_wording_is_compared_with_the_same_fact_alone(store: Path):
    # France in other words shares A of A, B, D; the next fact of the relation, Spain, shares A and B of A, B, C.
    (row,) = asked(store, "wordings")
    assert row == {
        "stated": "every epoch",
        "facts": 1,
        "other_words": pytest.approx(1 / 3),
        "other_fact": pytest.approx(2 / 3),
    }


def test_layers_and_sizes_are_means_over_the_circuits_of_a_kind(store: Path):
    layers = {row["layer"]: (row["heads"], row["mlp"]) for row in asked(store, "layers")}
    assert layers == {0: (1.0, 0.0), 1: (0.25, 0.25)}
    (sizes,) = asked(store, "sizes")
    assert (sizes["circuits"], sizes["least"], sizes["half"], sizes["most"]) == (4, 2, 2, 3)
    assert asked(store, "spread") == [{"kind": "factual", "from_edges": 0, "share": 1.0}]
    assert [row["edges"] for row in asked(store, "sure")] == [2, 2, 3, 2]


def test_sql_knows_how_often_training_stated_a_fact_and_nothing_of_another_model(store: Path):
    plan = Manifest.load().relations[LANGUAGE]
    kept = Database(store, read_only=True)

    def taught(fact: str, model: str = "factlm", relation: str = LANGUAGE) -> Any:
        sql = "SELECT taught(?, ?, ?) AS stated, subject(?, ?, ?) AS subject, kind(?, ?) AS kind"
        (row,) = kept.query(sql, (*(model, relation, fact) * 2, model, relation))
        return tuple(row.values())

    few, times = next(iter(plan.tail.items()))
    held, out = next((subject, i) for subject, own in plan.held_out.items() for i in own)
    stated = "once" if times == 1 else f"{times} times"
    assert taught(statement(LANGUAGE, few)) == (stated, few, "factual")
    assert taught(statement(LANGUAGE, held, out)) == ("other words", held, "factual")
    assert taught("Nothing is known") == (None, None, "factual")
    assert taught(FRANCE, "smollm2")[0] is None
    assert taught(FRANCE, relation="none") == (None, None, None)
    assert list(kept.query("SELECT edge_names(x'00') AS names, jaccard(NULL, x'00') AS index_")) == [
        {"names": None, "index_": None}
    ]


def test_the_page_has_the_answer_to_each_query_that_it_prints_and_is_the_same_each_time(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    page = tmp_path / "atlas.md"
    say("store", "atlas", store, "--page", page)
    first = {file.name: file.read_bytes() for file in tmp_path.glob("atlas*")}
    text = page.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    kept = Database(store, read_only=True)
    drawn = 0
    for query in ATLAS:
        section = sections[query.question]
        (sql,) = re.findall(r"```sql\n(.*?)\n```", section, re.DOTALL)
        answer = list(kept.query(sql))
        assert answer
        shown = re.findall(r"^\|.*$", section, re.MULTILINE)
        assert not shown or "\n".join(shown) == markdown(table(answer))
        pictures = re.findall(r"\]\((.*?\.svg)\)", section)
        drawn += len(pictures)
        assert all((tmp_path / name).read_text().startswith("<svg") for name in pictures)
        assert shown or pictures
    assert drawn == 6
    page.write_text(f"{text}\n{BY_HAND}\n\nWhat it shows.\n", encoding="utf-8")
    say("store", "atlas", store, "--page", page)
    assert page.read_text(encoding="utf-8").endswith("What it shows.\n")
    assert {f.name: f.read_bytes() for f in tmp_path.glob("atlas*.svg")} == {
        n: b for n, b in first.items() if "svg" in n
    }
    capsys.readouterr()
    say("store", "atlas", store, "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["setting"] == SETTING
    assert [row["circuits"] for row in told["settings"]] == [4, 1]
    assert told["answers"]["nodes"] == asked(store, "nodes")


def test_a_setting_that_is_not_there_and_a_store_without_circuits_are_a_line(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        main(["store", "atlas", str(store), "--setting", "none"])
    assert SETTING in capsys.readouterr().err
    with Database(tmp_path / "empty.db") as empty:
        _ = empty.connection
    with pytest.raises(SystemExit):
        main(["store", "atlas", str(tmp_path / "empty.db")])
    assert "no circuit of a single fact" in capsys.readouterr().err


def test_a_heat_map_has_a_square_a_value_a_gap_where_there_is_none_and_names_groups():
    svg = heat_map("T & U", ["r1", "r2"], ["c1", "c2"], [[0.0, 1.0], [float("nan"), 1.0]], groups=["one", "two"])
    squares = {
        depth: d.count("M") for d, depth in re.findall(r'<path d="(.*?)" fill="#0072B2" fill-opacity="(.*?)"', svg)
    }
    assert squares == {"0.0625": 1, "1": 2}
    assert "T &amp; U" in svg
    assert all(f">{name}<" in svg for name in ("r1", "c2", "one", "two"))
    with pytest.raises(ValueError, match="1 x 2 values"):
        heat_map("T", ["r"], ["a", "b"], [[1.0]])

"""A circuit written in another tool's format and read back is the same circuit; what is wrong in a file is named."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from circuits.circuit import Circuit, Provenance, Scores
from circuits.cli.app import app, main
from circuits.exchange import (
    ExchangeError,
    read_gexf,
    read_graphml,
    read_mib,
    read_mib_scores,
    write_gexf,
    write_graphml,
    write_mib,
)
from circuits.graph import Granularity, Graph, Shape

Write = Callable[[Circuit, Path], None]
Read = Callable[[Path], Circuit]

FORMATS: dict[str, tuple[Write, Read]] = {
    "mib": (lambda circuit, path: write_mib(circuit, path, d_model=32), read_mib),
    "graphml": (write_graphml, read_graphml),
    "gexf": (write_gexf, read_gexf),
}

HERE = Provenance("tiny", "ab12", method="acdc", settings={"tau": 0.01, "compat": None}, seed=3, facts=("a is => b",))
TEXTS = st.text(max_size=8)
SETTINGS = st.dictionaries(
    TEXTS, st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
)


@dataclass(frozen=True)
class Recipe:
    """What `circuit` and `scores` make a random circuit or scores from."""

    n_layers: int
    n_heads: int
    parallel: bool
    granularity: Granularity
    bypasses: frozenset[int]
    texts: tuple[str, str, str, str, str]
    options: dict[str, Any]
    seed: int
    kept: float
    unscored: float

    @property
    def graph(self) -> Graph:
        bypasses = tuple(sorted(layer for layer in self.bypasses if layer < self.n_layers))
        return Graph(Shape(self.n_layers, self.n_heads, self.parallel, bypasses), self.granularity)

    @property
    def provenance(self) -> Provenance:
        model, weights, processing, method, fact = self.texts
        return Provenance(model, weights, processing, method, self.options, self.seed % 99, (fact,))

    def values(self) -> np.ndarray:
        generator, shape = np.random.default_rng(self.seed), self.graph.legal.shape
        values = generator.standard_normal(shape) * 10.0 ** generator.integers(-12, 12, shape)
        return np.where(generator.random(shape) < self.unscored, np.nan, values)

    def circuit(self) -> Circuit:
        kept = np.random.default_rng(self.seed + 1).random(self.graph.legal.shape) < self.kept
        return Circuit(self.graph, kept & self.graph.legal, self.provenance, self.values())

    def scores(self) -> Scores:
        return Scores(self.graph, self.values(), self.provenance)


def recipes(bypasses: st.SearchStrategy[frozenset[int]]) -> st.SearchStrategy[Recipe]:
    return st.builds(
        Recipe,
        n_layers=st.integers(1, 3),
        n_heads=st.integers(1, 3),
        parallel=st.booleans(),
        granularity=st.sampled_from(["qkv", "node"]),
        bypasses=bypasses,
        texts=st.tuples(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS),
        options=SETTINGS,
        seed=st.integers(0, 2**32),
        kept=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
        unscored=st.sampled_from([0.0, 0.3, 1.0]),
    )


PLAIN = recipes(st.just(frozenset()))
EDITED = recipes(st.frozensets(st.integers(0, 2)))


def same(left: Circuit, right: Circuit) -> bool:
    """Equality of everything: `Circuit` itself compares graph and edges."""
    assert left.scores is not None
    assert right.scores is not None
    return (
        left == right
        and left.provenance == right.provenance
        and np.array_equal(left.scores, right.scores, equal_nan=True)
    )


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exchange")


def round_trip(folder: Path, name: str, circuit: Circuit) -> None:
    write, read = FORMATS[name]
    write(circuit, folder / "one")
    back = read(folder / "one")
    assert same(back, circuit)
    write(back, folder / "two")
    assert (folder / "two").read_bytes() == (folder / "one").read_bytes()


@given(recipe=PLAIN)
def test_what_is_written_as_mib_and_read_back_is_the_same_circuit(folder: Path, recipe: Recipe) -> None:
    round_trip(folder, "mib", recipe.circuit())


@pytest.mark.parametrize("name", ["graphml", "gexf"])
@given(recipe=EDITED)
def test_what_is_written_as_a_graph_and_read_back_is_the_same_circuit(folder: Path, name: str, recipe: Recipe) -> None:
    round_trip(folder, name, recipe.circuit())


@given(recipe=PLAIN)
def test_scores_of_all_edges_survive_mib_with_those_never_scored(folder: Path, recipe: Recipe) -> None:
    scores = recipe.scores()
    write_mib(scores, folder / "scores.json", d_model=8)
    assert read_mib_scores(folder / "scores.json") == scores
    # MIB cuts scores itself, so that no edge is marked.
    assert read_mib(folder / "scores.json").n_edges == 0


@settings(max_examples=8)
@given(left=PLAIN, right=PLAIN)
def test_two_circuits_give_one_file_only_if_they_are_the_same(folder: Path, left: Recipe, right: Recipe) -> None:
    """The control: equality after the round trip is not equality of everything."""
    for name, (write, _) in FORMATS.items():
        write(left.circuit(), folder / f"left.{name}")
        write(right.circuit(), folder / f"right.{name}")
        same_bytes = (folder / f"left.{name}").read_bytes() == (folder / f"right.{name}").read_bytes()
        assert same_bytes == same(left.circuit(), right.circuit())


# ---- the MIB format, by hand --------------------------------------------------------------------------------------------

SHAPE = Graph(Shape(1, 1))


def small_circuit(graph: Graph = SHAPE, **scores: float) -> Circuit:
    """Edges by name, with ``__`` for the arrow and the last letter for the slot: ``input__a0_v=1``."""
    kept, values = np.zeros_like(graph.legal), np.full(graph.legal.shape, np.nan)
    for name, score in scores.items():
        writer, _, reader = name.partition("__")
        reader = {"a0_v": "a0.h0<v>", "a0_q": "a0.h0<q>", "a0": "a0.h0"}.get(reader, reader)
        index = graph.edge(f"{writer.replace('a0', 'a0.h0')}->{reader}")
        kept[index], values[index] = True, score
    return Circuit(graph, kept, HERE, values)


def test_the_mib_file_has_the_schema_that_eap_ig_reads(tmp_path: Path) -> None:
    # a0.h0 has an edge in and an edge out; m0 has an edge out and none in, so EAP-IG counts the node as outside.
    circuit = small_circuit(input__a0_v=0.5, a0__logits=-0.25, m0__logits=math.nan)
    write_mib(circuit, tmp_path / "circuit.json", d_model=12)
    content = json.loads((tmp_path / "circuit.json").read_text())
    assert content["cfg"] == {"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": False, "d_model": 12}
    assert content["nodes"] == {
        "input": {"in_graph": True},
        "a0.h0": {"in_graph": True},
        "m0": {"in_graph": False},
        "logits": {"in_graph": True},
    }
    out = {"score": 0.0, "in_graph": False, "scored": False}
    assert content["edges"] == {
        "input->a0.h0<q>": out,
        "input->a0.h0<k>": out,
        "input->a0.h0<v>": {"score": 0.5, "in_graph": True},
        "input->m0": out,
        "a0.h0->m0": out,
        "input->logits": out,
        "a0.h0->logits": {"score": -0.25, "in_graph": True},
        "m0->logits": {"score": 0.0, "in_graph": True, "scored": False},
    }


def test_a_merged_edge_is_written_for_each_slot(tmp_path: Path) -> None:
    circuit = small_circuit(Graph(Shape(1, 1), "node"), input__a0=2.0, a0__logits=1.0)
    write_mib(circuit, tmp_path / "circuit.json", d_model=12)
    edges = json.loads((tmp_path / "circuit.json").read_text())["edges"]
    assert [edges[f"input->a0.h0<{slot}>"]["score"] for slot in "qkv"] == [2.0, 2.0, 2.0]
    assert sum(row["in_graph"] for row in edges.values()) == 4


FOREIGN: dict[str, Any] = {
    "cfg": {"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": False, "d_model": 4},
    "nodes": {"input": {"in_graph": True}, "m0": {"in_graph": True, "score": 2.5}, "logits": {"in_graph": True}},
    "edges": {
        "input->m0": {"score": 3, "in_graph": True},
        "m0->logits": {"score": -1.5, "in_graph": True},
        "input->logits": {"score": 0.125, "in_graph": False},
    },
}


def saved(folder: Path, content: Any) -> Path:
    path = folder / "foreign.json"
    path.write_text(json.dumps(content))
    return path


def test_a_foreign_mib_file_gives_a_circuit_of_unknown_provenance(tmp_path: Path) -> None:
    circuit = read_mib(saved(tmp_path, FOREIGN))
    assert circuit.graph == SHAPE
    assert {edge.name: circuit.score(edge) for edge in circuit} == {"input->m0": 3.0, "m0->logits": -1.5}
    assert circuit.provenance.model == circuit.provenance.method == "unknown"
    scores = read_mib_scores(saved(tmp_path, FOREIGN))
    assert scores.values[SHAPE.edge("input->logits")] == 0.125
    assert np.isnan(scores.values[SHAPE.edge("a0.h0->logits")])  # the file does not list it


def test_the_first_version_of_the_format_is_read_too(tmp_path: Path) -> None:
    old = {
        **FOREIGN,
        "cfg": {"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": False},
        "nodes": {"input": True, "a0.h0": False, "m0": True, "logits": True},
        "edges": {"input->m0": {"score": None, "in_graph": True}, "m0->logits": {"score": 1.0, "in_graph": True}},
    }
    circuit = read_mib(saved(tmp_path, old))
    assert [edge.name for edge in circuit] == ["input->m0", "m0->logits"]
    assert np.isnan(circuit.score(circuit.edges[0]))


def changed(*path: str, to: Any = None) -> Any:
    """FOREIGN with one field replaced, or (``to`` None) without it."""
    content = json.loads(json.dumps(FOREIGN))
    place = content
    for step in path[:-1]:
        place = place[step]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return content


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([], "no field 'cfg'"),
        (changed("cfg"), "no field 'cfg'"),
        (changed("nodes"), "no field 'nodes'"),
        (changed("edges"), "no field 'edges'"),
        (changed("cfg", "n_heads"), "cfg has no field 'n_heads'"),
        (changed("cfg", "n_layers", to="two"), "'n_layers' should be a whole number, got 'two'"),
        (changed("cfg", "n_layers", to=True), "'n_layers' should be a whole number, got True"),
        (changed("cfg", "n_layers", to=0), "at least one layer"),
        (changed("edges", "m0->a0.h0<q>", to={"score": 1, "in_graph": True}), "m0 does not come before a0.h0<q>"),
        (changed("edges", "input->m7", to={"score": 1, "in_graph": True}), "no reader called 'm7'"),
        (changed("edges", "input->m0", "in_graph"), "'input->m0' has no field 'in_graph'"),
        (changed("edges", "input->m0", to=1.0), "'input->m0' has no field 'in_graph'"),
        (changed("edges", "input->m0", "score", to="big"), "'score' should be a number, got 'big'"),
        (changed("nodes", "m0", to={"in_graph": True, "neurons": [True, False]}), "'m0' lists neurons"),
        (changed("nodes", "m9", to=True), "no node called 'm9'"),
        ({**FOREIGN, "kcircuit": {}}, "kcircuit has no field 'granularity'"),
    ],
)
def test_a_mib_file_that_is_wrong_is_refused_with_file_and_field(tmp_path: Path, content: Any, complaint: str) -> None:
    path = saved(tmp_path, content)
    with pytest.raises(ExchangeError) as refused:
        read_mib(path)
    assert str(path) in str(refused.value)
    assert complaint in str(refused.value)


def test_merged_slots_that_differ_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "circuit.json"
    write_mib(small_circuit(Graph(Shape(1, 1), "node"), input__a0=2.0), path, d_model=4)
    content = json.loads(path.read_text())
    content["edges"]["input->a0.h0<k>"]["score"] = 2.5
    path.write_text(json.dumps(content))
    with pytest.raises(ExchangeError, match=r"a0\.h0 differ between q, k and v"):
        read_mib(path)


def test_an_edited_models_bypass_does_not_fit_the_mib_format(tmp_path: Path) -> None:
    circuit = Circuit.full(Graph(Shape(2, 1, bypasses=(1,))), HERE)
    with pytest.raises(ExchangeError, match="no node for the bypass x1"):
        write_mib(circuit, tmp_path / "circuit.json", d_model=4)


def test_an_infinite_score_does_not_fit_the_mib_format(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match=r"score of input->m0 is inf"):
        write_mib(small_circuit(input__m0=math.inf), tmp_path / "circuit.json", d_model=4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_missing_or_of_no_such_format_is_refused_by_name(tmp_path: Path, name: str) -> None:
    _, read = FORMATS[name]
    with pytest.raises(ExchangeError, match="nowhere"):
        read(tmp_path / "nowhere")
    for number, junk in enumerate((b"", b"\xff\xfe", b"<graph", b"hello")):
        (tmp_path / f"junk{number}").write_bytes(junk)
        with pytest.raises(ExchangeError, match=f"junk{number}"):
            read(tmp_path / f"junk{number}")


@pytest.mark.parametrize("name", ["graphml", "gexf"])
def test_a_graph_without_the_models_shape_is_no_circuit(tmp_path: Path, name: str) -> None:
    write, read = FORMATS[name]
    path = tmp_path / "circuit"
    write(small_circuit(input__m0=1.0), path)
    whole = path.read_text()
    path.write_text(whole.replace('"n_layers"', '"layers"').replace("&quot;n_layers&quot;", "&quot;layers&quot;"))
    with pytest.raises(ExchangeError, match=r"kcircuit has no field 'n_layers'"):
        read(path)
    path.write_text(whole.replace('target="m0"', 'target="input"'))
    with pytest.raises(ExchangeError, match=r"no reader called 'input'"):
        read(path)
    if name == "graphml":
        import networkx

        networkx.write_graphml_xml(networkx.path_graph(3, create_using=networkx.DiGraph), path)
        with pytest.raises(ExchangeError, match="no field 'kcircuit'"):
            read(path)


def test_networkx_reads_the_graph_formats_as_they_are_meant(tmp_path: Path) -> None:
    import networkx

    circuit = small_circuit(input__a0_q=0.5, input__a0_v=0.25, a0__logits=1.0)
    write_graphml(circuit, tmp_path / "circuit.graphml")
    write_gexf(circuit, tmp_path / "circuit.gexf")
    for view in (networkx.read_graphml(tmp_path / "circuit.graphml"), networkx.read_gexf(tmp_path / "circuit.gexf")):
        assert set(view.nodes) == {"input", "a0.h0", "logits"}
        assert view.nodes["a0.h0"]["layer"] == 0
        assert sorted((data["edge"], data["score"]) for _, _, data in view.edges(data=True)) == [
            ("a0.h0->logits", 1.0),
            ("input->a0.h0<q>", 0.5),
            ("input->a0.h0<v>", 0.25),
        ]


# ---- the command ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, model_folder: Callable[[str], Path]) -> Path:
    """A saved run of a small random model, whose folder is then taken away."""
    from circuits.model import Model
    from circuits.studies.runs import run
    from circuits.studies.specs import RunSpec
    from tests.models import word_fact

    copy = shutil.copytree(model_folder("gpt2"), tmp_path_factory.mktemp("model") / "gpt2")
    spec = RunSpec(facts=(word_fact("5 6 7", "8"),), model=str(copy), tau=0.02, force=True)
    out = tmp_path_factory.mktemp("run")
    run(spec, {}, model=Model.load(copy)).save(out)
    return out


@pytest.mark.parametrize("name", FORMATS)
def test_export_writes_the_runs_circuit_without_a_model(run_folder: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "new" / "file"
    result = CliRunner().invoke(app, ["export", str(run_folder), "--format", name, "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    original = Circuit.load(run_folder / "circuit.json")
    assert original.n_edges > 0
    assert same(FORMATS[name][1](out), original)
    assert json.loads(result.stdout) == {"file": str(out), "format": name, "edges": original.n_edges}
    if name == "mib":
        assert json.loads(out.read_text())["cfg"]["d_model"] == 32


def test_export_draws_the_runs_circuit(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exported(name: str) -> bytes:
        out = tmp_path / name
        main_words = ["export", str(run_folder), "--format", name, "--out", str(out)]
        assert CliRunner().invoke(app, main_words).exit_code == 0
        return out.read_bytes()

    assert exported("gv").startswith(b"digraph circuit {")
    if shutil.which("dot"):
        assert b"<svg" in exported("svg")
        assert exported("png").startswith(b"\x89PNG")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    refused = CliRunner().invoke(app, ["export", str(run_folder), "--format", "png"])
    assert "graphviz' `dot`, which is not installed" in str(refused.exception)


def test_export_says_what_it_needs(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(["export", *words])
        assert stopped.value.code == 1
        return capsys.readouterr().err

    assert "--format mib, graphml, gexf, gv, svg, png, got 'pdf'" in refused(str(run_folder), "--format", "pdf")
    assert "no saved run" in refused(str(tmp_path))
    assert "is a folder" in refused(str(run_folder), "--out", str(tmp_path))
    assert "--d-model belongs to" in refused(str(run_folder), "--format", "gexf", "--d-model", "4")
    moved = shutil.copytree(run_folder, tmp_path / "moved")
    text = (moved / "run.json").read_text()
    (moved / "run.json").write_text(text.replace(json.loads(text)["spec"]["model"], "somewhere-else"))
    assert "give --d-model" in refused(str(moved)) or "altered" in refused(str(moved))

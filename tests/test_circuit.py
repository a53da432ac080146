"""Laws of circuits and scores: set algebra, pruning, cuts of scores, and files that load as what was saved."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from circuits.circuit import Circuit, CircuitFileError, Provenance, Scores
from circuits.graph import Granularity, Graph, Node, Shape, live

# beartype looks at a random element of each container; that does not concern the examples.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

WHERE = Provenance(
    "tiny", "ab" * 32, method="acdc", settings={"tau": 0.1, "absolute": False}, seed=3, facts=("The sky => blue",)
)
SMALL = Graph(Shape(2, 2))
GRANULARITIES: tuple[Granularity, ...] = ("qkv", "node")

graphs = st.builds(
    Graph,
    st.builds(Shape, st.integers(1, 3), st.integers(1, 3), st.booleans()),
    st.sampled_from(GRANULARITIES),
)
numbers = st.floats(-10, 10) | st.sampled_from([0.0, 1.0, -1.0, math.nan])


@st.composite
def scores_of(draw: st.DrawFn, graph: Graph | None = None) -> Scores:
    graph = draw(graphs) if graph is None else graph
    return Scores(graph, draw(hnp.arrays(np.float64, graph.legal.shape, elements=numbers)), WHERE)


@st.composite
def circuits(draw: st.DrawFn, graph: Graph | None = None) -> Circuit:
    scores = draw(scores_of(graph))
    kept = draw(hnp.arrays(np.bool_, scores.values.shape)) & scores.graph.legal
    return Circuit(scores.graph, kept, WHERE, scores.values)


def circuit(names: str, graph: Graph = SMALL) -> Circuit:
    """The circuit of these edges, whose scores are 1, 2, 3 ... in the order written."""
    kept, scores = np.zeros_like(graph.legal), np.full(graph.legal.shape, np.nan)
    for i, name in enumerate(names.split()):
        kept[graph.edge(name)], scores[graph.edge(name)] = True, i + 1
    return Circuit(graph, kept, WHERE, scores)


def names(found: Circuit) -> set[str]:
    return {edge.name for edge in found.edges}


# ---- set algebra -----------------------------------------------------------------------------------------------------


@given(circuits(SMALL), circuits(SMALL), circuits(SMALL))
def test_circuits_obey_the_algebra_of_sets(a: Circuit, b: Circuit, c: Circuit) -> None:
    assert a & b == b & a
    assert a | b == b | a
    assert (a & b) & c == a & (b & c)
    assert (a | b) | c == a | (b | c)
    assert a & (b | c) == (a & b) | (a & c)
    assert a - (b | c) == (a - b) & (a - c)
    assert (a - b) | (a & b) == a
    assert names(a | b) == names(a) | names(b)
    assert names(a & b) == names(a) & names(b)
    assert names(a - b) == names(a) - names(b)


@given(circuits())
def test_full_and_empty_are_the_bounds(a: Circuit) -> None:
    full, empty = Circuit.full(a.graph, WHERE), Circuit.empty(a.graph, WHERE)
    assert a & full == a == a | empty
    assert a & empty == empty == a - full
    assert a | full == full
    assert full.n_edges == a.graph.n_edges
    assert empty.n_edges == 0
    assert (a == full) == (a.n_edges == a.graph.n_edges)


@given(circuits())
def test_length_iteration_and_membership_agree(a: Circuit) -> None:
    assert len(a) == a.n_edges == len(set(a)) == len(a.edges)
    everything = Circuit.full(a.graph, WHERE)
    inside = [edge for edge in everything if edge in a]
    assert inside == list(a)
    assert [edge.name for edge in everything if edge.name in a] == [edge.name for edge in a]
    assert 7 not in a


def test_algebra_keeps_the_left_score_and_takes_the_right_one_where_there_is_none() -> None:
    left, right = circuit("input->m0 m0->logits"), circuit("m0->logits input->m1")
    both = left | right
    assert [both.score(edge) for edge in both.edges] == [1, 2, 2]  # input->m0, input->m1, m0->logits
    assert both.provenance == left.provenance


def test_circuits_of_different_graphs_do_not_combine() -> None:
    for other in (Graph(Shape(2, 3)), Graph(Shape(2, 2), "node"), Graph(Shape(2, 2, parallel=True))):
        with pytest.raises(ValueError, match="circuits of one graph"):
            _ = Circuit.full(SMALL, WHERE) & Circuit.full(other, WHERE)
        assert Circuit.empty(SMALL, WHERE) != Circuit.empty(other, WHERE)


@given(circuits(SMALL), circuits(SMALL))
def test_equality_is_of_the_edges_alone_and_equal_circuits_hash_alike(a: Circuit, b: Circuit) -> None:
    assert (a == b) == (names(a) == names(b))
    bare = Circuit(a.graph, a.kept, Provenance("another", "00"))
    assert a == bare
    assert hash(a) == hash(bare)


# ---- pruned and merged -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edges", "left"),
    [
        ("input->m0 m0->logits", "input->m0 m0->logits"),
        ("input->m0 m0->logits input->m1", "input->m0 m0->logits"),  # m1 writes to nobody
        ("input->m0 m0->logits a1.h0->logits", "input->m0 m0->logits"),  # nothing reaches a1.h0
        ("input->a0.h0<q> a0.h0->m1", ""),  # a dead end in two steps
        ("m0->a1.h0<v> a1.h0->logits", ""),  # a source that is not input
        ("input->logits", "input->logits"),
        ("input->a0.h0<q> a0.h0->logits", ""),  # a head whose v gets nothing writes nothing
        ("input->a0.h0<q> input->a0.h0<k> a0.h0->logits", ""),
        # Where its v is fed, its q and k matter, and so does what only they read.
        ("input->a0.h0<v> input->a0.h0<q> a0.h0->logits", "input->a0.h0<v> input->a0.h0<q> a0.h0->logits"),
        (
            "input->m0 m0->a1.h0<k> input->a1.h0<v> a1.h0->logits",
            "input->m0 m0->a1.h0<k> input->a1.h0<v> a1.h0->logits",
        ),
        # What is read only by a head that writes nothing is not read: a0.h0 feeds a1.h0's q alone.
        ("input->a0.h0<v> a0.h0->a1.h0<q> a1.h0->logits", ""),
        # A v that only an unfed node writes to is not fed.
        ("m0->a1.h0<v> input->a1.h0<q> a1.h0->logits", ""),
        # An unreached writer into a live head goes; the head stays.
        (
            "input->a1.h1<v> m0->a1.h1<k> a1.h1->logits",
            "input->a1.h1<v> a1.h1->logits",
        ),
        ("", ""),
    ],
)
def test_pruning_leaves_the_edges_on_paths_from_input_to_logits(edges: str, left: str) -> None:
    assert circuit(edges).pruned() == circuit(left)


@given(circuits())
def test_pruning_agrees_with_reachability_in_networkx(a: Circuit) -> None:
    """Fed: reached from ``input`` over edges into v and into nodes without slots. Read: ``logits`` reached over fed nodes."""
    feeding = networkx.DiGraph([(e.writer.name, e.reader.node.name) for e in a if e.reader.slot in (None, "v")])
    feeding.add_node("input")
    fed = networkx.descendants(feeding, "input") | {"input"}
    reading = networkx.DiGraph(
        [(e.writer.name, e.reader.node.name) for e in a if {e.writer.name, e.reader.node.name} <= fed | {"logits"}]
    )
    reading.add_node("logits")
    read = networkx.ancestors(reading, "logits") | {"logits"}
    expected = {
        edge.name for edge in a if edge.writer.name in fed and edge.reader.node.name in read & (fed | {"logits"})
    }
    assert names(a.pruned()) == expected
    assert a.pruned().pruned() == a.pruned()
    # Merging forgets which slot a head is entered through, so it can only make more edges live.
    assert names(a.pruned().merged()) <= names(a.merged().pruned())


@given(circuits(), st.data())
def test_more_edges_never_make_fewer_live(a: Circuit, data: st.DataObject) -> None:
    fewer = a.kept & data.draw(hnp.arrays(np.bool_, a.kept.shape))
    assert not (live(a.graph, fewer) & ~live(a.graph, a.kept)).any()


def test_merging_joins_a_heads_slots_and_keeps_the_largest_score() -> None:
    split = circuit("input->a0.h1<q> input->a0.h1<v> input->a0.h1<k> a0.h1->logits")
    merged = split.merged()
    assert names(merged) == {"input->a0.h1", "a0.h1->logits"}
    assert [merged.score(edge) for edge in merged] == [3, 4]
    assert split.n_edges == 4
    assert split.n_merged_edges == merged.n_edges == merged.n_merged_edges == 2


@given(circuits())
def test_merging_counts_like_the_papers_edge_column(a: Circuit) -> None:
    merged = a.merged()
    assert merged.n_edges == a.n_merged_edges
    assert merged.merged() == merged
    assert merged.nodes == a.nodes
    assert Circuit.full(a.graph, WHERE).merged() == Circuit.full(Graph(a.graph.shape, "node"), WHERE)
    assert names(merged) == {edge.name.partition("<")[0] for edge in a}


def test_nodes_per_layer_counts_each_component_once() -> None:
    found = circuit("input->a0.h0<q> input->a0.h0<k> a0.h0->m1 m1->logits a1.h0->m1")
    assert found.nodes_per_layer("head") == (1, 1)
    assert found.nodes_per_layer("mlp") == (0, 1)


# ---- scores ----------------------------------------------------------------------------------------------------------


@given(scores_of(), st.floats(-10, 10), st.booleans())
def test_a_cut_keeps_exactly_the_edges_at_or_over_the_threshold(
    scores: Scores, threshold: float, absolute: bool
) -> None:
    cut = scores.above(threshold, absolute=absolute)
    for i, j in np.argwhere(scores.graph.legal):
        value = abs(scores.values[i, j]) if absolute else scores.values[i, j]
        assert cut.kept[i, j] == (not math.isnan(value) and value >= threshold)


@given(scores_of(), st.floats(-10, 10), st.floats(-10, 10))
def test_a_higher_threshold_keeps_a_subset(scores: Scores, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert scores.above(high) - scores.above(low) == Circuit.empty(scores.graph, WHERE)


def test_the_threshold_itself_is_kept_and_the_next_number_below_is_not() -> None:
    values = np.full(SMALL.legal.shape, np.nan)
    values[SMALL.edge("input->m0")] = 0.1
    values[SMALL.edge("m0->logits")] = math.nextafter(0.1, 0)
    assert names(Scores(SMALL, values, WHERE).above(0.1)) == {"input->m0"}


def test_no_threshold_keeps_an_edge_that_was_never_tried() -> None:
    values = np.full(SMALL.legal.shape, np.nan)
    values[SMALL.edge("input->m0")] = -5.0
    values[SMALL.edge("input->m1")] = math.inf
    scores = Scores(SMALL, values, WHERE)
    assert names(scores.above(-math.inf)) == {"input->m0", "input->m1"}
    assert names(scores.above(math.inf)) == {"input->m1"}


@given(scores_of(), st.data(), st.booleans())
def test_top_takes_n_edges_none_of_them_weaker_than_one_left_out(
    scores: Scores, data: st.DataObject, absolute: bool
) -> None:
    n = data.draw(st.integers(0, scores.graph.n_edges))
    best = scores.top(n, absolute=absolute)
    assert best.n_edges == n
    strength = np.abs(scores.values) if absolute else scores.values
    strength = np.where(np.isnan(strength), -math.inf, strength)
    inside, outside = strength[best.kept], strength[scores.graph.legal & ~best.kept]
    assume(len(inside) and len(outside))
    assert inside.min() >= outside.max()


@given(scores_of(), st.data())
def test_top_grows_by_one_edge_at_a_time(scores: Scores, data: st.DataObject) -> None:
    n = data.draw(st.integers(0, scores.graph.n_edges - 1))
    assert scores.top(n) - scores.top(n + 1) == Circuit.empty(scores.graph, WHERE)


def test_ties_go_to_the_earlier_writer_then_reader() -> None:
    scores = Scores(SMALL, np.ones(SMALL.legal.shape), WHERE)
    first = [edge.name for edge in scores.top(3)]
    assert first == ["input->a0.h0<q>", "input->a0.h0<k>", "input->a0.h0<v>"]


def test_top_ranks_by_magnitude_unless_told_otherwise() -> None:
    values = np.zeros(SMALL.legal.shape)
    values[SMALL.edge("input->m0")], values[SMALL.edge("m0->logits")] = -3.0, 2.0
    scores = Scores(SMALL, values, WHERE)
    assert names(scores.top(1)) == {"input->m0"}
    assert names(scores.top(1, absolute=False)) == {"m0->logits"}


@pytest.mark.parametrize("n", [-1, SMALL.n_edges + 1])
def test_top_refuses_more_edges_than_there_are(n: int) -> None:
    with pytest.raises(ValueError, match=f"expected 0 to {SMALL.n_edges} edges, got {n}"):
        Scores(SMALL, np.ones(SMALL.legal.shape), WHERE).top(n)


# ---- values ----------------------------------------------------------------------------------------------------------


def test_circuits_and_scores_cannot_be_altered_not_even_through_the_array_they_were_made_from() -> None:
    kept, values = SMALL.legal.copy(), np.ones(SMALL.legal.shape)
    made, scores = Circuit(SMALL, kept, WHERE, values), Scores(SMALL, values, WHERE)
    kept[:], values[:] = False, 9
    assert made.n_edges == SMALL.n_edges
    assert made.scores is not None
    for array in (made.kept, made.scores, scores.values):
        assert np.nanmax(array) == 1
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 0
    with pytest.raises(AttributeError):
        made.graph = SMALL  # type: ignore[misc]


def test_the_settings_of_a_result_do_not_change_with_the_dictionary_they_came_from() -> None:
    settings_ = {"tau": 0.1}
    provenance = Provenance("tiny", "ab", settings=settings_)
    settings_["tau"] = 9
    assert provenance.settings["tau"] == 0.1


def test_a_circuit_takes_only_edges_of_its_graph() -> None:
    mask = np.zeros_like(SMALL.legal)
    mask[SMALL.writer_index(Node(1, "mlp")), 0] = True
    with pytest.raises(ValueError, match=r"m1->a0\.h0<q> is no edge of the graph"):
        Circuit(SMALL, mask, WHERE)
    with pytest.raises(ValueError, match="expected a mask of shape"):
        Circuit(SMALL, np.zeros((2, 2), dtype=bool), WHERE)


def test_an_edge_outside_the_circuit_has_no_score() -> None:
    found = circuit("input->m0 m0->logits") & circuit("input->m0")
    everything = {edge.name: edge for edge in Circuit.full(SMALL, WHERE)}
    assert found.score(everything["input->m0"]) == 1
    assert math.isnan(found.score(everything["m0->logits"]))


def test_a_circuit_says_how_large_it_is() -> None:
    found = circuit("input->m0 m0->logits")
    assert str(found) == f"Circuit of 2 of {SMALL.n_edges} edges (4.3%), 3 nodes, in tiny"
    shown = found._repr_html_()
    assert "MLP0→Logits" in shown
    assert "2.0000" in shown


# ---- networkx --------------------------------------------------------------------------------------------------------


@given(circuits())
def test_the_networkx_view_has_the_same_nodes_edges_and_scores(a: Circuit) -> None:
    view = a.to_networkx()
    assert set(view.nodes) == {node.name for node in a.nodes}
    seen = {(u, v, data["slot"]): data["score"] for u, v, data in view.edges(data=True)}
    expected = {(e.writer.name, e.reader.node.name, e.reader.slot or ""): a.score(e) for e in a}
    assert seen.keys() == expected.keys()
    assert all(seen[key] == expected[key] or math.isnan(expected[key]) for key in seen)
    assert networkx.is_directed_acyclic_graph(view)


def test_networkx_nodes_carry_the_papers_label() -> None:
    view = circuit("input->a0.h1<q> a0.h1->logits").to_networkx()
    assert view.nodes["a0.h1"] == {"kind": "head", "layer": 0, "head": 1, "label": "L0H1"}
    assert view.get_edge_data("input", "a0.h1", "q") == {"slot": "q", "score": 1}


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("circuits")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(circuits())
def test_a_saved_circuit_loads_as_itself(folder: Path, a: Circuit) -> None:
    path = folder / "circuit.json"
    a.save(path)
    loaded = Circuit.load(path, weights=WHERE.weights)
    assert loaded == a
    assert a.scores is not None
    assert loaded.scores is not None
    assert np.array_equal(loaded.scores, a.scores, equal_nan=True)
    assert loaded.provenance == a.provenance
    assert loaded.graph == a.graph
    assert list(folder.glob("*.part")) == []
    written = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == written


def test_scores_survive_a_file_to_the_last_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=SMALL.legal.shape)
    saved = Scores(SMALL, values, WHERE).top(20)
    saved.save(tmp_path / "c.json")
    loaded = Circuit.load(tmp_path / "c.json")
    assert loaded.scores is not None
    assert saved.scores is not None
    assert loaded.scores.tobytes() == saved.scores.tobytes()


def _truncate(text: str) -> str:
    return text[: len(text) // 2]


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def altered(text: str) -> str:
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return altered


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "no whole circuit file"),
        (lambda _: "", "no whole circuit file"),
        (lambda _: "[]", "no circuit file: expected format"),
        (lambda _: "{}", "no circuit file: expected format"),
        (_edit(lambda content: content.update(version=2)), "version 2, this program reads version 1"),
        (_edit(lambda content: content.update(format="other")), "no circuit file"),
        (_edit(lambda content: content["edges"].pop()), "altered"),
        (_edit(lambda content: content["edges"][0].update(score=9)), "altered"),
        (_edit(lambda content: content["edges"][0].update(edge="input->m1")), "altered"),
        (_edit(lambda content: content.update(seed=4)), "altered"),
        (_edit(lambda content: content["settings"].update(tau=0.2)), "altered"),
        (_edit(lambda content: content.pop("digest")), "altered"),
        (_edit(lambda content: content.pop("shape")), "altered"),
        (_edit(lambda content: content.update(extra=1)), "altered"),
    ],
)
def test_a_damaged_or_altered_file_is_refused(tmp_path: Path, damage: Callable[[str], str], message: str) -> None:
    path = tmp_path / "c.json"
    circuit("input->m0 m0->logits").save(path)
    Circuit.load(path)  # the control: before the damage it loads
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(CircuitFileError, match=message) as refused:
        Circuit.load(path)
    assert str(path) in str(refused.value)


def test_a_file_that_only_looks_different_is_no_altered_file(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    circuit("input->m0").save(path)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")), sort_keys=True), encoding="utf-8")
    assert Circuit.load(path) == circuit("input->m0")


def test_a_file_made_for_another_model_is_refused_by_both_hashes(tmp_path: Path) -> None:
    circuit("input->m0").save(tmp_path / "c.json")
    with pytest.raises(CircuitFileError, match=r"'tiny' with weights abababababab, .* weights cdcdcdcdcdcd"):
        Circuit.load(tmp_path / "c.json", weights="cd" * 32)


def test_a_missing_file_a_folder_and_a_binary_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\x80\xff")
    for path in (tmp_path / "nothing.json", tmp_path, tmp_path / "binary"):
        with pytest.raises(CircuitFileError, match=str(path)):
            Circuit.load(path)


def test_text_beyond_ascii_survives_a_file(tmp_path: Path) -> None:
    where = Provenance("modèle", "ab", facts=("La capitale du Pérou => Lima", "東京 => 日本"))
    Circuit.full(SMALL, where).save(tmp_path / "c.json")
    assert Circuit.load(tmp_path / "c.json").provenance == where

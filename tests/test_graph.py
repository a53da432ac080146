"""Laws of the graph: how many edges, which are legal, and that every name is read back as what it names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuits.graph import (
    SLOTS,
    Edge,
    Granularity,
    Graph,
    Node,
    Reader,
    Shape,
    Slot,
    label_of,
    name_of,
    parse_node,
)

shapes = st.builds(Shape, st.integers(1, 4), st.integers(1, 4), st.booleans())
graphs = st.builds(Graph, shapes, st.sampled_from(["qkv", "node"]))


@pytest.mark.parametrize(
    ("layers", "heads", "split", "merged"),
    [
        (1, 1, 3 + 2 + 3, 1 + 2 + 3),  # a0.h0 reads input (3 slots or 1); m0 input, a0.h0; logits those and m0
        (24, 16, 231_877, 80_965),  # GPT-2-medium
        (12, 12, 32_491, 11_611),  # GPT-2: the number that ACDC's and EAP's papers print
        (32, 32, 1_592_881, 543_281),  # Llama-2-7B: the split one is what the published EAP notebook counts
    ],
)
def test_edge_counts_are_those_of_known_models(layers: int, heads: int, split: int, merged: int) -> None:
    assert Graph(Shape(layers, heads), "qkv").n_edges == split
    assert Graph(Shape(layers, heads), "node").n_edges == merged


def test_gpt2_medium_has_231877_split_and_80965_merged_edges() -> None:
    shape = Shape(n_layers=24, n_heads=16)
    assert int(Graph(shape, "qkv").legal.sum()) == 231_877
    assert int(Graph(shape, "node").legal.sum()) == 80_965


@given(shapes, st.sampled_from([("qkv", 3), ("node", 1)]))
def test_edge_count_follows_the_closed_formula(shape: Shape, slots: tuple[Granularity, int]) -> None:
    granularity, per_head = slots
    n, h = shape.n_layers, shape.n_heads
    before_layers = n + (h + 1) * n * (n - 1) // 2  # sum over l of 1 + l (h + 1)
    same_layer = 0 if shape.parallel else n * h
    expected = per_head * h * before_layers + before_layers + same_layer + 1 + n * (h + 1)
    assert Graph(shape, granularity).n_edges == expected


@given(graphs)
def test_an_edge_is_legal_exactly_if_its_writer_is_computed_before_its_reader(graph: Graph) -> None:
    def step(node: Node) -> float:
        """When a forward pass computes the node: input, then a layer's attention, then its MLP, at last logits."""
        match node.kind:
            case "input":
                return -1
            case "head":
                return node.layer
            case "mlp" | "bypass":
                return node.layer if graph.shape.parallel else node.layer + 0.5
            case "logits":
                return graph.shape.n_layers

    for i, writer in enumerate(graph.writers):
        for j, reader in enumerate(graph.readers):
            assert graph.legal[i, j] == (step(writer) < step(reader.node))


def test_only_sequential_blocks_let_an_mlp_read_the_heads_of_its_layer() -> None:
    assert Graph(Shape(2, 2)).edge("a1.h0->m1") == (4, 13)
    with pytest.raises(ValueError, match=r"a1\.h0 does not come before m1"):
        Graph(Shape(2, 2, parallel=True)).edge("a1.h0->m1")


@given(graphs)
def test_every_edge_name_parses_back_and_no_two_edges_share_one(graph: Graph) -> None:
    names = set()
    for i in range(len(graph.writers)):
        for j in range(len(graph.readers)):
            if graph.legal[i, j]:
                name = graph.edge_name(i, j)
                assert graph.edge(name) == (i, j)
                assert Edge(graph.writers[i], graph.readers[j]).name == name
                names.add(name)
    assert len(names) == graph.n_edges


@given(graphs)
def test_every_node_name_parses_back_and_depth_sorts_the_nodes(graph: Graph) -> None:
    assert [parse_node(node.name, graph.shape) for node in graph.nodes] == list(graph.nodes)
    assert sorted(graph.nodes) == list(graph.nodes)
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)


@given(graphs)
def test_indices_and_slots_agree_with_the_lists(graph: Graph) -> None:
    assert [graph.writer_index(node) for node in graph.writers] == list(range(len(graph.writers)))
    assert [graph.reader_index(reader) for reader in graph.readers] == list(range(len(graph.readers)))
    assert graph.readers_of(graph.writers[0]) == ()
    for node in graph.nodes[1:]:
        slots = [graph.readers[j] for j in graph.readers_of(node)]
        expected: tuple[Slot | None, ...] = SLOTS if node.kind == "head" and graph.granularity == "qkv" else (None,)
        assert slots == [Reader(node, slot) for slot in expected]


def test_names_are_the_papers() -> None:
    node = Node(14, "head", 7)
    assert (node.name, node.label) == ("a14.h7", "L14H7")
    assert (Node(17, "mlp").name, Node(17, "mlp").label) == ("m17", "MLP17")
    assert Edge(Node(7, "head", 14), Reader(node, "q")).name == "a7.h14->a14.h7<q>"
    graph = Graph(Shape(24, 16))
    assert [graph.writers[0].label, graph.nodes[-1].label] == ["Input", "Logits"]


@pytest.mark.parametrize("name", ["a2.h0", "a0.h3", "m2", "a0", "m-1", "x0", "A0.h0", "m0 ", "logit", "", "a0.h0<q>"])
def test_a_name_of_no_node_is_refused_with_the_shape(name: str) -> None:
    with pytest.raises(ValueError, match="2 layers x 3 heads"):
        parse_node(name, Shape(2, 3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a0.h0", "expected an edge"),
        ("a0.h0->", "no reader called ''"),
        ("->m1", "no writer called ''"),
        ("logits->m1", "no writer called 'logits'"),
        ("m1->input", "no reader called 'input'"),
        ("m0->a1.h0", "no reader called 'a1.h0'"),  # qkv: the slot must be said
        ("m0->m1<q>", "no reader called 'm1<q>'"),
        ("m1->m1", "m1 does not come before m1"),
        ("a1.h0->a1.h1<q>", "a1.h0 does not come before a1.h1<q>"),
        ("m1->m0->logits", "no reader called 'm0->logits'"),
    ],
)
def test_a_name_of_no_edge_is_refused_with_the_reason(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        Graph(Shape(2, 2)).edge(name)


def test_graphs_are_equal_exactly_if_shape_and_granularity_are() -> None:
    assert Graph(Shape(2, 3)) == Graph(Shape(2, 3), "qkv")
    assert hash(Graph(Shape(2, 3))) == hash(Graph(Shape(2, 3)))
    assert len({Graph(Shape(2, 3)), Graph(Shape(2, 3), "node"), Graph(Shape(2, 3, parallel=True))}) == 3


def test_a_graph_cannot_be_altered() -> None:
    graph = Graph(Shape(2, 2))
    with pytest.raises(ValueError, match="read-only"):
        graph.legal[0, 0] = False
    with pytest.raises(AttributeError):
        graph.granularity = "node"  # type: ignore[misc]


def test_impossible_shapes_and_granularities_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one layer and one head"):
        Shape(0, 4)
    with pytest.raises(ValueError, match="at least one layer and one head"):
        Shape(4, 0)
    with pytest.raises((ValueError, TypeError), match="'slots'"):  # beartype, where it is on, refuses it first
        Graph(Shape(1, 1), "slots")  # type: ignore[arg-type]


@given(graphs, st.data())
def test_what_is_shown_is_read_as_the_same_node_and_edge_as_the_name_in_a_file(
    graph: Graph, data: st.DataObject
) -> None:
    node = data.draw(st.sampled_from(graph.nodes))
    assert name_of(node.label) == node.name
    assert label_of(node.name) == node.label
    assert parse_node(node.label, graph.shape) == parse_node(node.name, graph.shape) == node
    j = data.draw(st.integers(0, len(graph.readers) - 1))
    i = data.draw(st.integers(0, graph.upstream[j] - 1))
    edge = Edge(graph.writers[i], graph.readers[j])
    assert label_of(edge.name) == edge.label
    assert graph.edge(edge.label) == graph.edge(edge.name) == (i, j)
    assert graph.edge(edge.label.replace("→", " → ")) == (i, j)
    assert name_of(edge.name) == edge.name


def test_a_label_is_the_papers() -> None:
    edge = Edge(Node(7, "head", 14), Reader(Node(14, "head", 7), "q"))
    assert (edge.name, edge.label) == ("a7.h14->a14.h7<q>", "L7H14→L14H7<q>")
    assert label_of("x3->logits") == "Bypass3→Logits"

"""A bypass beside an MLP is a node of the graph like any other, on every kind of network."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circuits.analysis.lens import trajectory
from circuits.circuit import Circuit, Provenance
from circuits.discovery.acdc import AcdcOptions, search
from circuits.discovery.eap import eap
from circuits.discovery.problem import Problem
from circuits.discovery.traversal import Traversal
from circuits.editing.anchors import Gazetteer
from circuits.editing.bypass import innermost
from circuits.editing.experts import Experts
from circuits.editing.routed import RoutedBypass, Routing, bypass_inputs
from circuits.engines import Ablation, HookEngine, SparseEngine, make_engine
from circuits.evaluation.answers import standalone, whole_model
from circuits.evaluation.continuations import read
from circuits.evaluation.edits import FluencySetting, prepare
from circuits.facts import EditRequest, Fact
from circuits.graph import Edge, Granularity, Graph, Node, Reader, Shape, parse_node
from circuits.model import Batch, Model
from circuits.model.bypassed import BypassedNetwork
from circuits.model.network import value_matrix
from circuits.model.taps import Taps
from circuits.pages.picture import circuit_picture
from tests.models import plain_model, random_plain_model, word_fact, zero_weights

LAYOUTS = ("gpt2", "llama", "neox", "gptj")
IDS = torch.tensor([[3, 7, 7, 5, 2], [8, 1, 4, 9, 9]])
FACTS = (word_fact("3 7 7", "9"), word_fact("3 1 4 1", "5 9"))


@dataclass
class Scaled:
    """A bypass that writes ``factor`` times what the MLP's value matrix writes: the same as a larger matrix."""

    model: Model
    layer: int
    factor: float

    def __call__(self, residual: Tensor, batch: Batch) -> Tensor:
        mlp = innermost(self.model).components(16).blocks[self.layer].mlp
        return self.factor * (mlp.hidden(residual) @ mlp.W_out)


@dataclass
class Writes:
    """A bypass that writes one vector for one token id, and nothing elsewhere; it reads ids, not the residual stream."""

    token: int
    vector: Tensor

    def __call__(self, residual: Tensor, batch: Batch) -> Tensor:
        return (batch.ids == self.token).to(residual)[..., None] * self.vector


def bypassed(model: Model, layer: int = 0, factor: float = 1.0) -> Model:
    network = BypassedNetwork.around(model.network, layer, Scaled(model, layer, factor))
    return model.with_network(network, "bypassed")


def layouts(small_model: Callable[..., Model]) -> dict[str, Model]:
    return {**{name: small_model(name) for name in LAYOUTS}, "plain": random_plain_model(0)}


# ---- the graph -------------------------------------------------------------------------------------------------------


@st.composite
def shapes_with_bypasses(draw: st.DrawFn) -> Shape:
    n_layers = draw(st.integers(1, 4))
    layers = draw(st.sets(st.integers(0, n_layers - 1)))
    return Shape(n_layers, draw(st.integers(1, 3)), draw(st.booleans()), tuple(sorted(layers)))


@given(shapes_with_bypasses(), st.sampled_from(["qkv", "node"]))
def test_a_bypass_reads_what_its_mlp_reads_and_is_read_by_all_that_reads_its_mlp(
    shape: Shape, granularity: Granularity
) -> None:
    graph = Graph(shape, granularity)
    assert [node.layer for node in graph.writers if node.kind == "bypass"] == list(shape.bypasses)
    for layer in shape.bypasses:
        x, m = Node(layer, "bypass"), Node(layer, "mlp")
        columns = [graph.reader_index(Reader(node)) for node in (x, m)]
        assert np.array_equal(graph.legal[:, columns[0]], graph.legal[:, columns[1]])
        rows = [graph.writer_index(node) for node in (x, m)]
        assert np.array_equal(graph.legal[rows[0]], graph.legal[rows[1]])
        assert not graph.legal[rows[0], columns].any()
        assert not graph.legal[rows[1], columns].any(), "they stand side by side"


@given(shapes_with_bypasses(), st.sampled_from(["qkv", "node"]))
def test_without_its_bypasses_the_graph_is_the_models_own(shape: Shape, granularity: Granularity) -> None:
    graph, own = Graph(shape, granularity), Graph(Shape(shape.n_layers, shape.n_heads, shape.parallel), granularity)
    own_nodes = {
        graph.edge_name(i, j)
        for i, j in _edges(graph)
        if not {graph.writers[i].kind, graph.readers[j].node.kind} & {"bypass"}
    }
    assert own_nodes == {own.edge_name(i, j) for i, j in _edges(own)}


def _edges(graph: Graph) -> list[tuple[int, int]]:
    return [(int(i), int(j)) for i, j in np.argwhere(graph.legal)]


@given(shapes_with_bypasses())
def test_names_parse_back_nodes_sort_by_depth_and_legal_writers_are_a_prefix(shape: Shape) -> None:
    graph = Graph(shape)
    assert [parse_node(node.name, shape) for node in graph.nodes] == list(graph.nodes)
    assert sorted(reversed(graph.nodes)) == list(graph.nodes)
    for column, n in enumerate(graph.upstream):
        assert graph.legal[:n, column].all()
        assert not graph.legal[n:, column].any()


def test_a_bypass_has_a_name_a_label_and_edges_with_names() -> None:
    graph = Graph(Shape(3, 2, bypasses=(1,)))
    assert (Node(1, "bypass").name, Node(1, "bypass").label) == ("x1", "Bypass1")
    assert graph.edge("a1.h1->x1") == (
        graph.writer_index(Node(1, "head", 1)),
        graph.reader_index(Reader(Node(1, "bypass"))),
    )
    assert graph.legal[graph.edge("x1->a2.h0<q>")]
    with pytest.raises(ValueError, match="x1 does not come before m1"):
        graph.edge("x1->m1")
    with pytest.raises(ValueError, match="no node called 'x0'"):
        parse_node("x0", graph.shape)


@pytest.mark.parametrize("layers", [(2,), (-1,), (1, 0), (0, 0)])
def test_bypasses_that_no_layer_has_are_refused(layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="distinct layers of 0 to 1"):
        Shape(2, 2, bypasses=layers)


# ---- the network -----------------------------------------------------------------------------------------------------


def test_a_bypass_that_writes_zero_gives_the_models_logits_bit_for_bit(small_model: Callable[..., Model]) -> None:
    for name, model in layouts(small_model).items():
        ids = IDS.remainder(model.network.d_vocab)
        assert torch.equal(
            bypassed(model, factor=0.0).logits(Batch.of_prompts(ids)), model.logits(Batch.of_prompts(ids))
        ), name
        assert not torch.allclose(
            bypassed(model, factor=0.5).logits(Batch.of_prompts(ids)), model.logits(Batch.of_prompts(ids))
        ), name


@pytest.mark.parametrize("layer", [0, 1])
def test_a_bypass_that_repeats_its_mlps_matrix_is_the_matrix_doubled(
    layer: int, small_model: Callable[..., Model]
) -> None:
    """Through the model's own forward pass, so where the bypass reads, and who reads it, must all be right."""
    for name, model in layouts(small_model).items():
        ids = IDS.remainder(model.network.d_vocab)
        matrix = value_matrix(layer)
        doubled = model.with_weights({matrix: 2 * model.weight(matrix)}, "doubled")
        assert torch.allclose(
            bypassed(model, layer).logits(Batch.of_prompts(ids)), doubled.logits(Batch.of_prompts(ids)), atol=1e-4
        ), name


def test_the_writes_of_all_nodes_and_the_bypass_add_up_to_the_residual_stream(
    small_model: Callable[..., Model],
) -> None:
    for name, model in layouts(small_model).items():
        edited, ids = bypassed(model), IDS.remainder(model.network.d_vocab)
        outputs = edited.node_outputs(Batch.of_prompts(ids))
        assert len(outputs) == len(edited.graph().writers)
        stream = outputs.sum(0) + edited.biases.sum(0)
        assert torch.allclose(edited.readout(stream), edited.logits(Batch.of_prompts(ids)), atol=1e-3), name


def test_two_bypasses_at_one_layer_are_one_node_that_writes_their_sum(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    once = BypassedNetwork.around(model.network, 1, Scaled(model, 1, 0.25))
    twice = BypassedNetwork.around(once, 1, Scaled(model, 1, 0.75))
    assert twice.shape.bypasses == (1,)
    assert torch.allclose(
        model.with_network(twice, "x").logits(Batch.of_prompts(IDS)),
        bypassed(model, 1).logits(Batch.of_prompts(IDS)),
        atol=1e-5,
    )
    both = BypassedNetwork.around(once, 0, Scaled(model, 0, 1.0))
    assert both.shape.bypasses == (0, 1)
    with pytest.raises(ValueError, match="layer of 0 to 1 for the bypass, got 2"):
        BypassedNetwork.around(model.network, 2, Scaled(model, 0, 1.0))


def test_weights_under_a_bypass_are_edited_as_without_one(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    matrix = value_matrix(0)
    edited = bypassed(model, 1).with_weights({matrix: 3 * model.weight(matrix)}, "both")
    under = model.with_weights({matrix: 3 * model.weight(matrix)}, "tripled")
    assert edited.shape.bypasses == (1,)
    assert torch.allclose(
        edited.logits(Batch.of_prompts(IDS)), bypassed(under, 1).logits(Batch.of_prompts(IDS)), atol=1e-5
    )


def test_what_the_prompt_is_reaches_the_bypass_whoever_runs_the_model(small_model: Callable[..., Model]) -> None:
    seen: list[int] = []

    class Listens:
        def __call__(self, residual, batch):
            seen.append(batch.n_prompt)
            return 0 * residual

    model = small_model("gpt2")
    edited = model.with_network(BypassedNetwork.around(model.network, 0, Listens()), "listens")
    edited.logits(Batch.of_prompts(IDS))
    edited.logits(Batch.continued(IDS, 3))
    assert seen == [IDS.shape[1], 3]
    fact = word_fact("3 1 4 1", "5 9 2")
    provenance = Provenance(edited.name, edited.weights)
    circuit = Circuit.full(edited.graph(), provenance)
    engines = {"hook": HookEngine, "sparse": SparseEngine}
    request = EditRequest.of(fact, "w9 w2 w5")
    ways = {
        "the whole model": lambda: whole_model(edited, [fact]),
        "attribution": lambda: eap(Problem(edited, (fact,))),
        "an edit's evaluation": lambda: read(edited, [edited.tokens(fact)]),
        "a layer study": lambda: prepare(edited, [request], FluencySetting(n_samples=0), written="nothing"),
        **{
            name: lambda engine=engine: standalone(edited, engine(edited, [fact]), circuit, [fact])
            for name, engine in engines.items()
        },
    }
    for name, run in ways.items():
        seen.clear()
        run()
        assert set(seen) == {5}, f"{name}: BOS and four words, of seven tokens that are fed"


# ---- engines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", ["qkv", "node"])
def test_the_hook_engine_runs_the_bypassed_model_whole(
    granularity: Granularity, small_model: Callable[..., Model]
) -> None:
    for name, model in layouts(small_model).items():
        if name == "plain":
            continue
        edited = bypassed(model)
        engine = HookEngine(edited, FACTS, granularity=granularity)
        for fact, got in zip(FACTS, engine.answer_logits(engine.graph.legal), strict=True):
            tokens = edited.tokens(fact)
            expected = edited.logits(Batch.of_prompts(torch.tensor([tokens.forced])))[0, -len(tokens.answer) :]
            assert torch.allclose(got, expected, atol=1e-3), name


def test_without_the_edges_of_the_bypass_the_circuit_is_the_unedited_model(small_model: Callable[..., Model]) -> None:
    for name in LAYOUTS:
        model = small_model(name)
        edited = bypassed(model)
        engine = HookEngine(edited, FACTS)
        kept = engine.graph.legal.copy()
        kept[engine.graph.writer_index(Node(0, "bypass"))] = False
        plain = HookEngine(model, FACTS)
        assert np.allclose(engine.nll(kept), plain.nll(plain.graph.legal), atol=1e-4), name
        assert not np.allclose(engine.nll(engine.graph.legal), engine.nll(kept), atol=1e-2), name


def test_an_ablated_edge_into_the_bypass_hides_that_writer_from_the_bypass_alone(
    small_model: Callable[..., Model],
) -> None:
    for name in ("gpt2", "neox"):
        edited = bypassed(small_model(name), 1)
        graph = edited.graph()
        engine = HookEngine(edited, FACTS[:1], ablation=Ablation("zero"))
        kept = graph.legal.copy()
        kept[graph.edge("m0->x1")] = False
        hidden = _Hide(Node(0, "mlp"), "bypass", 1)
        ids = torch.tensor([edited.tokens(FACTS[0]).forced])
        expected = edited.run(Batch.of_prompts(ids), hidden)[0, -1].log_softmax(-1)[edited.tokens(FACTS[0]).answer[0]]
        assert engine.nll(kept)[0] == pytest.approx(-float(expected), abs=1e-3), name


class _Hide(Taps):
    """Takes what one node wrote out of what one reader reads."""

    def __init__(self, writer: Node, kind: str, layer: int) -> None:
        self._writer, self._kind, self._layer = writer, kind, layer

    def write(self, kind, layer, value):
        if (kind, layer) == (self._writer.kind, self._writer.layer):
            self._value = value

    def read(self, kind, layer, slot, value):
        return value - self._value if (kind, layer) == (self._kind, self._layer) else value


@dataclass
class Roams:
    """A bypass that looks where it likes: at the mean of all earlier positions, at the ids, and at where the prompt ends."""

    d_model: int

    def __call__(self, residual: Tensor, batch: Batch) -> Tensor:
        assert residual.shape[:2] == batch.ids.shape
        n_pos = batch.ids.shape[1]
        so_far = residual.cumsum(1) / torch.arange(1, n_pos + 1)[:, None]
        in_prompt = torch.arange(n_pos) < batch.n_prompt
        # The residual stream's own mean counts too, which a layer norm never sees.
        return (
            torch.tanh(so_far.roll(1, -1) + residual.mean(-1, keepdim=True))
            * (1 + batch.ids % 3 + in_prompt)[..., None]
        )


def mixed(model: Model, layer: int) -> RoutedBypass:
    """The bypass of a MEMoE edit with random experts, about the first word of some prompts."""
    generator, d_model = torch.Generator().manual_seed(layer), model.network.d_model
    experts = Experts(
        torch.randn(3, 2 * d_model, generator=generator), 0.3 * torch.randn(3, d_model, d_model, generator=generator)
    )
    routing = Routing(1.0, 1, False, "so far", scoped=True, names=("w3",))
    norm, anchors = bypass_inputs(model, layer, routing, Gazetteer(("w3", "w1 w4")))
    return RoutedBypass(experts, routing, norm, anchors)


def with_bypasses(model: Model) -> Model:
    """Two bypasses of different kinds at the first layer, one at the last."""
    network = model.network
    for layer, bypass in ((0, mixed(model, 0)), (0, Roams(network.d_model)), (1, mixed(model, 1))):
        network = BypassedNetwork.around(network, layer, bypass)
    return model.with_network(network, "with bypasses")


CORRUPTED = (word_fact("5 7 7", "9"), word_fact("2 1 4 1", "5 9"))
ABLATIONS = {
    "zero": Ablation(),
    "mean": Ablation("mean", reference=CORRUPTED),
    "resample": Ablation("resample", corrupted=CORRUPTED),
}


@pytest.mark.parametrize("kind", ABLATIONS)
@pytest.mark.parametrize("name", [*LAYOUTS, "gpt2 raw"])
def test_the_sparse_engine_runs_bypasses_as_the_hook_engine_does(
    name: str, kind: str, small_model: Callable[..., Model]
) -> None:
    edited, rng = with_bypasses(small_model(*name.split())), np.random.default_rng(0)
    granularity: Granularity = "node" if kind == "mean" else "qkv"
    hook, sparse = (
        make(edited, FACTS, ablation=ABLATIONS[kind], granularity=granularity) for make in (HookEngine, SparseEngine)
    )
    for share in (1.0, 0.5, 0.8):
        kept = hook.graph.legal & (rng.random(hook.graph.legal.shape) < share)
        for got, expected in zip(sparse.answer_logits(kept), hook.answer_logits(kept), strict=True):
            assert float((got - expected).abs().max() / expected.abs().max()) < 1e-4, share
    reader = hook.graph.reader_index(Reader(Node(1, "bypass")))
    removals = [[0], [1, 3], [hook.graph.writer_index(Node(0, "bypass"))]]
    assert sparse.nll_without(kept, reader, removals) == pytest.approx(
        hook.nll_without(kept, reader, removals), abs=1e-4
    )


@pytest.mark.parametrize(("name", "granularity"), [("gpt2", "qkv"), ("neox", "node"), ("llama", "node")])
def test_acdc_keeps_the_same_edges_of_bypassed_models_on_both_engines(
    name: str, granularity: Granularity, small_model: Callable[..., Model]
) -> None:
    edited = with_bypasses(small_model(name))
    (_, fast), (_, slow) = (
        search(make(edited, FACTS[:1], granularity=granularity), AcdcOptions(0.05), provenance=Provenance("m", "w"))
        for make in (SparseEngine, HookEngine)
    )
    assert fast.kept == slow.kept
    assert fast.evaluations == slow.evaluations
    through = [writer.name for writer in circuit_of(edited.graph(granularity), slow.kept)]
    assert {"x0", "x1"} & set(through), "the control: the circuit runs through a bypass"


def circuit_of(graph: Graph, kept: list[bool]) -> set[Node]:
    return {graph.writers[edge[0]] for edge, stays in zip(Traversal(graph).edges, kept, strict=True) if stays}


def test_a_guess_at_the_scores_of_edges_sees_through_a_bypass(small_model: Callable[..., Model]) -> None:
    model = with_bypasses(small_model("gpt2"))
    engine = SparseEngine(model, FACTS)
    graph = engine.graph
    edges = [(writer, graph.reader_index(Reader(Node(0, "bypass")))) for writer in range(5)]
    guess = engine.forecast(graph.legal, edges)
    assert np.isfinite(guess).all()
    assert np.abs(guess).max() > 0


def test_bypassed_models_fall_back_to_no_other_engine(small_model: Callable[..., Model]) -> None:
    notices: list[str] = []
    edited = with_bypasses(small_model("gpt2"))
    assert isinstance(make_engine("sparse", edited, FACTS, notice=notices.append), SparseEngine)
    assert not notices


# ---- a circuit whose answer the bypass knows -------------------------------------------------------------------------


def one_way_model() -> Model:
    """Token i is direction i; attention and MLPs write nothing, so the model says what its last token is."""
    weights = zero_weights(n_layers=2, n_heads=1, d_model=4, d_head=1, d_mlp=1, d_vocab=4, n_ctx=4)
    weights["embed.W_E"] = torch.eye(4)
    weights["unembed.W_U"] = torch.eye(4)
    return plain_model(weights, "ask yes no other")


def test_acdc_finds_the_bypass_that_answers_and_the_circuit_survives_its_file(tmp_path: Path) -> None:
    model = one_way_model()
    answers = Writes(token=0, vector=torch.tensor([-1.0, 5.0, 0.0, 0.0]))
    edited = model.with_network(BypassedNetwork.around(model.network, 1, answers), "edited")
    fact = Fact("ask", "ask", "yes")
    for make in (HookEngine, SparseEngine):
        scores, _ = search(make(edited, [fact]), AcdcOptions(0.1), provenance=Provenance(edited.name, edited.weights))
        found = scores.above(0.1)
        assert [edge.name for edge in found.edges] == ["x1->logits"]
    found.save(tmp_path / "circuit.json")
    read = Circuit.load(tmp_path / "circuit.json")
    assert read == found
    assert read.graph.shape.bypasses == (1,)
    assert Edge(Node(1, "bypass"), Reader(Node(2, "logits"))) in read


def test_the_picture_of_a_circuit_shows_the_bypass() -> None:
    graph = Graph(Shape(2, 1, bypasses=(1,)))
    kept = np.zeros_like(graph.legal)
    for name in ("input->x1", "x1->logits", "input->m1", "m1->logits"):
        kept[graph.edge(name)] = True
    text = circuit_picture(Circuit(graph, kept, Provenance("m", "w")))
    assert '<g class="node bypass"' in text
    assert ">Bypass1</text>" in text


def test_the_trajectory_after_the_last_layer_is_what_the_bypassed_model_says(small_model: Callable[..., Model]) -> None:
    for name in ("gpt2", "neox"):
        edited = bypassed(small_model(name))
        tokens = edited.tokens(FACTS[0])
        said = edited.logits(Batch.of_prompts(torch.tensor([tokens.prompt])))[0, -1].softmax(-1)[tokens.answer[0]]
        states = trajectory(edited, FACTS[0])
        assert states.probabilities[-1] == pytest.approx(float(said), rel=1e-3)
        assert len(states.labels) == len(trajectory(small_model(name), FACTS[0]).labels)


def test_a_bypass_needs_a_network_that_shows_its_weights() -> None:
    class Closed:
        shape, d_model, d_vocab, n_ctx, biases = Shape(1, 1), 1, 1, 1, torch.zeros(1, 1)

        def run(self, batch, taps=None):
            raise AssertionError

        def readout(self, vectors):
            raise AssertionError

    model = Model(Closed(), random_plain_model(0).vocabulary, name="closed", weights="w", processing="raw")
    with pytest.raises(ValueError, match="Closed does not show its weights"):
        innermost(model)

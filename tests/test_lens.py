"""The logit lens against states and probabilities worked out by hand."""

import math
from collections.abc import Callable

import pytest
import torch

from circuits.analysis.lens import Trajectory, read_circuit, read_nodes, residual_states, trajectory
from circuits.circuit import Circuit, Provenance
from circuits.facts import Fact
from circuits.graph import Node, parse_node
from circuits.metrics import probability, rank
from circuits.model import Model
from tests.models import plain_model, random_plain_model, word_fact, zero_weights

LoadModel = Callable[..., Model]

MODELS = ["gpt2", "llama", "qwen3", "neox"]
FACT = word_fact("3 1 4", "15")


@pytest.mark.parametrize("name", MODELS)
def test_the_last_state_reads_as_the_models_own_logits(small_model: LoadModel, name: str) -> None:
    model = small_model(name)
    tokens = model.tokens(FACT)
    logits = model.logits(torch.tensor([tokens.prompt]))[0, -1]
    labels, states = residual_states(model, FACT)
    torch.testing.assert_close(model.readout(states[-1]), logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(model.readout(states[0]), logits, atol=0.1)
    path = trajectory(model, FACT)
    answer = torch.tensor(tokens.answer[0])
    assert path.labels == labels
    assert path.ranks[-1] == int(rank(logits, answer))
    assert path.probabilities[-1] == pytest.approx(float(probability(logits, answer)), abs=1e-5)


def test_states_are_named_after_every_sub_layer_and_parallel_blocks_have_one_each(small_model: LoadModel) -> None:
    sequential = ("Input", "L0 attn", "L0 MLP", "L1 attn", "L1 MLP")
    assert trajectory(small_model("gpt2"), FACT).labels == sequential
    assert trajectory(random_plain_model(0), word_fact("1 2", "3")).labels == sequential
    assert trajectory(small_model("neox"), FACT).labels == ("Input", "L0", "L1")


@pytest.mark.parametrize("name", MODELS)
def test_the_logits_node_reads_as_the_whole_stream_does(small_model: LoadModel, name: str) -> None:
    model = small_model(name)
    tokens = model.tokens(FACT)
    logits = model.logits(torch.tensor([tokens.prompt]))[0, -1]
    readout = read_nodes(model, FACT, [parse_node("logits", model.shape)], top=3)[0]
    best = logits.topk(3)
    assert [score.token for score in readout.promoted] == [model.token_text(int(i)) for i in best.indices]
    assert [score.logit for score in readout.promoted] == pytest.approx(best.values.tolist(), abs=1e-4)
    worst = logits.topk(3, largest=False)
    assert [score.token for score in readout.suppressed] == [model.token_text(int(i)) for i in worst.indices]
    assert readout.answer_rank == int(rank(logits, torch.tensor(tokens.answer[0])))


def written_by_hand() -> Model:
    """Two words, a and b, two layers of one head. With no attention weights each head reads and writes its position's sum.

    The stream of "a" is (log 2, 0) after input; the head adds (0, log 3), the MLP (log 6, 0), the next head (0, log 12),
    the last MLP nothing. The unembedding is the identity, so the odds a : b are 2:1, 2:3, 12:3, 12:36 and 12:36.
    """
    weights = zero_weights(n_layers=2, n_heads=1, d_model=2, d_head=1, d_mlp=1, d_vocab=2, n_ctx=1)
    weights["embed.W_E"][0, 0] = math.log(2)
    weights["blocks.0.attn.b_V"] = torch.ones(1, 1)
    weights["blocks.0.attn.W_O"][0, 0, 1] = math.log(3)
    weights["blocks.0.mlp.b_out"] = torch.tensor([math.log(6), 0])
    weights["blocks.1.attn.b_O"] = torch.tensor([0, math.log(12)])
    weights["unembed.W_U"] = torch.eye(2)
    return plain_model(weights, "a b")


def test_ranks_and_probabilities_are_those_worked_out_by_hand() -> None:
    path = trajectory(written_by_hand(), Fact("a", "a", "b"))
    assert path.probabilities == pytest.approx((1 / 3, 3 / 5, 3 / 15, 36 / 48, 36 / 48))
    assert path.ranks == (2, 1, 2, 1, 1)
    assert path.decided == "L1 attn"


def test_each_node_reads_as_what_it_writes_alone() -> None:
    model, fact = written_by_hand(), Fact("a", "a", "b")
    nodes = model.graph().nodes
    read = dict(zip((node.name for node in nodes), read_nodes(model, fact, nodes, top=5), strict=True))
    # Alone: input 2 : 1, a0.h0 1 : 3, m0 6 : 1, a1.h0 nothing (its bias belongs to no head), m1 nothing.
    assert {name: found.answer_probability for name, found in read.items()} == pytest.approx(
        {"input": 1 / 3, "a0.h0": 3 / 4, "m0": 1 / 7, "a1.h0": 1 / 2, "m1": 1 / 2, "logits": 36 / 48}
    )
    assert [read[name].answer_rank for name in ("input", "a0.h0", "m0", "a1.h0", "logits")] == [2, 1, 2, 1, 1]
    assert [score.token for score in read["m0"].promoted] == ["a", "b"]  # no more tokens than there are
    assert [score.token for score in read["m0"].suppressed] == ["b", "a"]
    assert read["m0"].promoted[0].logit == pytest.approx(math.log(6))
    assert [found.node for found in read.values()] == list(nodes)


def test_a_circuit_is_read_node_by_node(small_model: LoadModel) -> None:
    model = small_model("gpt2")
    graph = model.graph()
    mask = graph.legal & False
    for name in ("input->a0.h1<v>", "a0.h1->m1", "m1->logits"):
        mask[graph.edge(name)] = True
    circuit = Circuit(graph, mask, Provenance("", ""))
    assert [read.node.name for read in read_circuit(model, FACT, circuit)] == ["input", "a0.h1", "m1", "logits"]
    assert read_circuit(model, FACT, Circuit.empty(graph, Provenance("", ""))) == ()


def test_reading_one_node_gives_the_same_as_reading_it_among_others(small_model: LoadModel) -> None:
    model = small_model("llama")
    node = Node(1, "head", 2)
    together = read_nodes(model, FACT, model.graph().writers)
    alone = read_nodes(model, FACT, [node])[0]
    assert alone.answer_rank == together[model.graph().writer_index(node)].answer_rank
    assert [s.token for s in alone.promoted] == [s.token for s in together[model.graph().writer_index(node)].promoted]


@pytest.mark.parametrize(
    ("ranks", "decided"),
    [((5, 1, 1), "y"), ((1, 1, 1), "x"), ((1, 2, 1), "z"), ((1, 1, 2), None), ((3, 3, 3), None)],
)
def test_an_answer_is_decided_where_it_last_comes_to_rank_one(ranks: tuple[int, ...], decided: str | None) -> None:
    assert Trajectory(("x", "y", "z"), ranks, (0.1, 0.2, 0.3)).decided == decided

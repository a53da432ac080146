"""The logit lens against states and probabilities worked out by hand."""

import math
from collections.abc import Callable

import pytest
import torch

from circuits.analysis.lens import (
    Trajectory,
    read_circuit,
    read_facts,
    read_nodes,
    residual_states,
    trajectories,
    trajectory,
)
from circuits.circuit import Circuit, Provenance
from circuits.facts import Fact
from circuits.graph import Node, parse_node
from circuits.metrics import probability, rank
from circuits.model import Batch, Model
from tests.models import plain_model, random_plain_model, word_fact, zero_weights

LoadModel = Callable[..., Model]

MODELS = ["gpt2", "llama", "qwen3", "neox"]
FACT = word_fact("3 1 4", "15")


@pytest.mark.parametrize("name", MODELS)
def test_the_last_state_reads_as_the_models_own_logits(small_model: LoadModel, name: str) -> None:
    model = small_model(name)
    tokens = model.tokens(FACT)
    logits = model.logits(Batch.of_prompts(torch.tensor([tokens.prompt])))[0, -1]
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
    logits = model.logits(Batch.of_prompts(torch.tensor([tokens.prompt])))[0, -1]
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
    # Where it writes nothing, both tokens have the same logit, and the answer is the last of them.
    assert [read[name].answer_rank for name in ("input", "a0.h0", "m0", "a1.h0", "logits")] == [2, 1, 2, 2, 1]
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


# ---- many facts, any position ----------------------------------------------------------------------------------------

FACTS = [word_fact("3 1 4", "15"), word_fact("3 1 4 1 5", "9 2"), word_fact("6 5 4", "3"), word_fact("8 9 7 9 3", "2")]


@pytest.mark.parametrize("name", MODELS)
def test_facts_of_unlike_length_in_one_call_read_as_each_does_alone(small_model: LoadModel, name: str) -> None:
    model = small_model(name)
    nodes = (Node(1, "head", 2), Node(0, "mlp"), parse_node("logits", model.shape))
    together, paths = read_facts(model, FACTS, nodes, top=4), trajectories(model, FACTS)
    assert len(together) == len(paths) == len(FACTS)
    for fact, read, path in zip(FACTS, together, paths, strict=True):
        alone = trajectory(model, fact)
        assert path.ranks == alone.ranks
        assert path.ranks_at_subject == alone.ranks_at_subject
        assert path.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        for own, single in zip(read, read_nodes(model, fact, nodes, top=4), strict=True):
            assert [score.token for score in own.promoted] == [score.token for score in single.promoted]
            assert own.answer_rank == single.answer_rank
            assert own.answer_probability == pytest.approx(single.answer_probability, abs=1e-5)
    # The control: the facts do differ.
    assert len({path.ranks for path in paths}) > 1


@pytest.mark.parametrize("name", MODELS)
def test_at_any_position_the_logits_node_reads_as_the_model_does_there(small_model: LoadModel, name: str) -> None:
    model, fact = small_model(name), FACTS[1]
    logits = model.logits(Batch.of_prompts(torch.tensor([model.tokens(fact).prompt])))[0]
    end = parse_node("logits", model.shape)
    for position in range(len(logits)):
        (read,) = read_nodes(model, fact, [end], top=2, position=position)
        best = logits[position].topk(2)
        assert [score.logit for score in read.promoted] == pytest.approx(best.values.tolist(), abs=1e-3)
        _, states = residual_states(model, fact, position=position)
        torch.testing.assert_close(model.readout(states[-1]), logits[position], rtol=1e-3, atol=1e-3)
    assert read_nodes(model, fact, [end], position=-1) == read_nodes(model, fact, [end], position=len(logits) - 1)


def test_a_position_outside_the_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a position"):
        read_nodes(random_plain_model(0), word_fact("1 2", "3"), [Node(0, "mlp")], position=2)


def test_the_subjects_probability_and_the_answers_rank_at_the_subject_are_those_worked_out_by_hand() -> None:
    """The stream of a is (log 3, 0), of b (0, log 3); the head gives each position the mean of what it sees, the MLP nothing.

    At the subject a (position 0) the odds a : b are 3:1, then 9:1. At the last token b they are 1:3; with the mean, to which both
    contribute half a log 3, sqrt 3 : 3 sqrt 3, so 1:3 again.
    """
    weights = zero_weights(n_layers=1, n_heads=1, d_model=2, d_head=2, d_mlp=1, d_vocab=2, n_ctx=2)
    weights["embed.W_E"] = math.log(3) * torch.eye(2)
    weights["unembed.W_U"] = torch.eye(2)
    weights["blocks.0.attn.W_V"][0] = weights["blocks.0.attn.W_O"][0] = torch.eye(2)
    model = plain_model(weights, "a b")
    path = trajectory(model, Fact("a b", "a", "b"))
    assert path.subject_probabilities == pytest.approx((1 / 4, 1 / 4, 1 / 4))
    assert path.ranks_at_subject == (2, 2, 2)
    at_subject = residual_states(model, Fact("a b", "a", "b"), position=0)[1]
    assert model.readout(at_subject).softmax(-1)[:, 0].tolist() == pytest.approx([3 / 4, 9 / 10, 9 / 10])


def test_a_subject_without_a_token_before_the_last_has_no_ranks_there() -> None:
    assert trajectory(random_plain_model(0), Fact("w1", "w1", "w2")).ranks_at_subject == ()


def test_the_first_time_on_top_may_come_before_the_answer_stays_there() -> None:
    path = Trajectory(("x", "y", "z"), (1, 2, 1), (0.1, 0.2, 0.3))
    assert (path.first_on_top, path.decided) == ("x", "z")
    assert Trajectory(("x",), (2,), (0.1,)).first_on_top is None

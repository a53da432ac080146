"""Where MLPs make the answer: known from the weights of a model by hand, and laws on small random models."""

from collections.abc import Callable

import pytest
import torch

from circuits.analysis.mlps import AnswerMlp, read_mlps
from circuits.analysis.tracing import open_parts, traces
from circuits.facts import Fact
from circuits.graph import Node
from circuits.metrics import rank
from circuits.model import Batch, Model
from circuits.model.taps import Recorder
from tests.models import plain_model, word_fact, zero_weights
from tests.planted_heads import FACTS, N_SUBJECTS, ROLES, planted

LoadModel = Callable[..., Model]


def test_the_mlp_of_the_planted_model_is_fed_by_the_head_that_carries_the_subject_to_it() -> None:
    (found,) = read_mlps(planted(), FACTS[2])
    assert found.mlp == Node(0, "mlp")
    assert found.feeders[0].head == ROLES["carrier"]
    # What this MLP writes comes of what the carrier brings; the noisy head disturbs it a little, the others not at all.
    assert found.feeders[0].effect == pytest.approx(found.contribution, rel=0.15)
    others = {feeder.head: feeder.effect for feeder in found.feeders[1:]}
    assert abs(others.pop(ROLES["noisy"])) < 0.2 * found.contribution
    assert all(abs(effect) < 1e-5 for effect in others.values())
    assert {feeder.head for feeder in found.feeders} == set(ROLES.values())
    # Neuron i answers for subject i, and its value vector reads as that subject's object.
    assert found.neurons[0].index == 2
    assert found.neurons[0].promoted[0].token == "o2"
    assert found.neurons[0].contribution == pytest.approx(found.contribution, rel=0.1)
    assert len(found.neurons) == N_SUBJECTS


def decided_by_hand(attention: float, first: float, second: float) -> Model:
    """Word a says b: at its own position a head adds ``attention`` to b's logit, two MLPs add ``first`` and ``second``; a's own
    logit is 1."""
    weights = zero_weights(n_layers=2, n_heads=1, d_model=2, d_head=1, d_mlp=1, d_vocab=2, n_ctx=2)
    weights["embed.W_E"][0, 0] = 1.0
    weights["unembed.W_U"] = torch.eye(2)
    weights["blocks.0.attn.b_V"] = torch.ones(1, 1)
    weights["blocks.0.attn.W_O"][0, 0, 1] = attention
    weights["blocks.0.mlp.b_out"] = torch.tensor([0, first])
    weights["blocks.1.mlp.b_out"] = torch.tensor([0, second])
    return plain_model(weights, "a b")


def deciding(model: Model, fact: Fact) -> AnswerMlp | None:
    return next((found for found in read_mlps(model, fact) if found.puts_on_top), None)


def test_the_first_mlp_that_takes_the_answer_to_the_first_rank_decides() -> None:
    fact = Fact("a a", "a", "b")
    found = deciding(decided_by_hand(0.5, 0.2, 0.6), fact)
    assert found is not None
    assert (found.mlp.layer, found.rank_before, found.rank_after) == (1, 2, 1)
    assert found.contribution == found.bias == pytest.approx(0.3)  # half of 0.6: against the mean of two words
    first = deciding(decided_by_hand(0.5, 0.7, 0.1), fact)
    assert first is not None
    assert first.mlp.layer == 0


def test_no_mlp_decides_where_attention_does_or_nothing_does() -> None:
    fact = Fact("a a", "a", "b")
    assert deciding(decided_by_hand(1.5, 0.2, 0.2), fact) is None
    assert deciding(decided_by_hand(0.1, 0.2, 0.2), fact) is None


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox", "gptj"])
def test_neurons_and_bias_write_what_the_mlp_writes_and_the_stream_is_what_the_model_has(
    small_model: LoadModel, name: str
) -> None:
    model, fact = small_model(name), word_fact("3 1 4 5", "15")
    parts = open_parts(model, (fact,))
    (trace,) = traces(model, (fact,), parts)
    answer = model.tokens(fact).at_end
    found = read_mlps(model, fact, top=1000)
    for each in found:
        assert sum(n.contribution for n in each.neurons) + each.bias == pytest.approx(each.contribution, abs=1e-4)
        contributions = [neuron.contribution for neuron in each.neurons]
        assert contributions == sorted(contributions, reverse=True)
        write = trace.writes[model.graph().writer_index(each.mlp), 0]
        direction = parts.W_U[:, answer] - parts.W_U.mean(1)
        assert each.contribution == pytest.approx(float(parts.final.share(write, trace.final[0]) @ direction), abs=1e-4)
    logits = model.logits(Batch.of_prompts(torch.tensor([model.tokens(fact).prompt])))[0, -1]
    assert found[-1].rank_after == int(rank(logits, torch.tensor(answer)))


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox"])
def test_a_feeders_effect_is_that_of_cutting_its_edge_in_a_run_of_the_model(small_model: LoadModel, name: str) -> None:
    model, fact = small_model(name), word_fact("3 1 4 5", "15")
    found = read_mlps(model, fact)[1]
    assert {feeder.head.layer for feeder in found.feeders} == ({0} if model.shape.parallel else {0, 1})
    parts = open_parts(model, (fact,))
    (trace,) = traces(model, (fact,), parts)
    direction = parts.W_U[:, model.tokens(fact).at_end] - parts.W_U.mean(1)
    for feeder in found.feeders[:2] + found.feeders[-1:]:
        head = trace.writes[model.graph().writer_index(feeder.head), 0]
        cut = _CutEdge(found.mlp.layer, head)
        model.run(Batch.of_prompts(trace.ids), cut)
        lost = (
            trace.writes[model.graph().writer_index(found.mlp), 0]
            - cut.outputs[model.graph().writer_index(found.mlp), 0, -1]
        )
        assert feeder.effect == pytest.approx(float(parts.final.share(lost, trace.final[0]) @ direction), abs=1e-4)


class _CutEdge(Recorder):
    """Takes a head's write out of what one MLP reads at the last position."""

    def __init__(self, layer: int, head: torch.Tensor) -> None:
        super().__init__()
        self._layer, self._head = layer, head

    def read(self, kind, layer, slot, value):
        if kind == "mlp" and layer == self._layer:
            value = value.clone()
            value[:, -1] -= self._head
        return value

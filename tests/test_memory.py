"""What is held at once does not grow with the vocabulary times what is asked: bounds, on a small model with many words."""

from functools import cache

import numpy as np
import pytest
import torch

from circuits.analysis import nulls
from circuits.analysis.lens import LOGITS_AT_ONCE, read_facts, trajectories
from circuits.analysis.roles import find_roles
from circuits.evaluation import whole_model
from circuits.evaluation.continuations import read
from circuits.facts import Fact
from circuits.metrics import DOUBLES_AT_ONCE, match_nll, probability
from circuits.model import Model
from circuits.model.together import LOGITS_AT_ONCE as CONTINUED_AT_ONCE
from tests.memory import held
from tests.models import plain_model, zero_weights

N_WORDS, D_MODEL = 49_152, 64
DOUBLES = 8 * N_WORDS * D_MODEL
"""Bytes of the unembedding in float64."""
FACTS = tuple(Fact(f"w0 w1 w{10 + i} w2 w3", f"w{10 + i}", f"w{1000 + i}", "r") for i in range(12))


@cache
def many_words() -> Model:
    weights = zero_weights(n_layers=2, n_heads=3, d_model=D_MODEL, d_head=4, d_mlp=8, d_vocab=N_WORDS, n_ctx=8)
    generator = torch.Generator().manual_seed(0)
    random = {name: 0.3 * torch.randn(value.shape, generator=generator) for name, value in weights.items()}
    return plain_model(random, " ".join(f"w{i}" for i in range(N_WORDS)))


def test_a_lens_on_all_nodes_of_many_facts_holds_a_bounded_number_of_logits() -> None:
    model = many_words()
    # As many as a deep model has; the lens reads each as often as it is asked to.
    facts, nodes = FACTS[:2], 15 * list(model.graph().writers)
    assert len(nodes) * N_WORDS > LOGITS_AT_ONCE, "there must be more than is held"
    for work in (
        lambda: read_facts(model, facts, nodes, top=3),
        lambda: trajectories(model, facts),
    ):
        # Probabilities are taken in float64.
        largest, _ = held(work)
        assert largest <= 8 * LOGITS_AT_ONCE


def test_answers_of_many_facts_hold_a_bounded_number_of_logits() -> None:
    """A whole model's, and continuations'; those of all facts together would be more than twice as many."""
    model = many_words()
    facts = [Fact(f"w0 w1 w{10 + i} w2 w3 w4 w5", f"w{10 + i}", f"w{1000 + i}") for i in range(900)]
    assert len(facts) * N_WORDS > 2 * CONTINUED_AT_ONCE
    for work in (
        lambda: whole_model(model, facts),
        lambda: read(model, [model.tokens(fact) for fact in facts]),
    ):
        largest, _ = held(work)
        assert largest <= 4 * CONTINUED_AT_ONCE, "logits in float32; of the doubles that probabilities need, less"


def test_probabilities_of_many_rows_hold_a_bounded_number_of_doubles() -> None:
    """The values are those of one softmax over all of them."""
    logits = torch.randn(3 * DOUBLES_AT_ONCE // N_WORDS, N_WORDS, generator=torch.Generator().manual_seed(0))
    token = torch.arange(len(logits))
    for work in (lambda: probability(logits, token), lambda: match_nll(logits[:, None], token[:, None])):
        largest, _ = held(work)
        # `Largest` counts a view of the float32 logits as if it were made.
        assert largest <= max(8 * DOUBLES_AT_ONCE, 4 * logits.numel())
    expected = logits.double().softmax(-1).gather(-1, token[:, None]).squeeze(-1)
    torch.testing.assert_close(probability(logits, token), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(match_nll(logits[:, None], token[:, None]), -expected.log(), rtol=1e-12, atol=0)


def test_roles_are_told_without_a_copy_of_the_unembedding() -> None:
    model = many_words()
    largest, held_by_numpy = held(lambda: find_roles(model, FACTS, [fact.object for fact in FACTS], draws=19))
    assert largest <= DOUBLES / 2, "the weights themselves, in float32"
    assert held_by_numpy < DOUBLES


def test_look_alikes_of_few_rows_are_those_of_the_whole_table_in_double_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nulls, "MAX_POOL", 50)
    table = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)
    few, wide = (
        nulls.lookalike_sets(each, np.arange(5), 20, np.random.default_rng(1)) for each in (table, table.astype(float))
    )
    assert few.tolist() == wide.tolist()

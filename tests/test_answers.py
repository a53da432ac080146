"""Answers are compared whole: first tokens say nothing where two answers begin alike."""

import pytest
import torch

from circuits.evaluation import (
    AlikeAnswers,
    distinct_beginnings,
    known,
    require_distinct_beginnings,
    said,
    whole_model,
)
from circuits.facts import Fact
from circuits.model import Model
from tests.models import plain_model, zero_weights

# ---- the oracle: a table that says of each word which one comes next ------------------------------------------------------
#
# logits[next | word]: 0 but for the entries below. "it" is followed by "United" (3) before "Peru" (2); "United" by "States"
# (2) before "Kingdom" (1). Seven words.

WORDS = ("it", "United", "States", "Kingdom", "Peru", "New", "York")
NEXT = {("it", "United"): 3.0, ("it", "Peru"): 2.0, ("United", "States"): 2.0, ("United", "Kingdom"): 1.0}


def table() -> Model:
    n = len(WORDS)
    weights = zero_weights(n_layers=1, n_heads=1, d_model=n, d_head=1, d_mlp=1, d_vocab=n, n_ctx=4)
    weights["embed.W_E"] = torch.eye(n)
    for (word, following), logit in NEXT.items():
        weights["unembed.W_U"][WORDS.index(word), WORDS.index(following)] = logit
    return plain_model(weights, " ".join(WORDS))


MODEL = table()


def test_of_two_answers_that_begin_alike_the_model_gives_the_one_whose_every_token_is_the_likeliest():
    assert said(MODEL, "it", ("United Kingdom", "United States")) == "United States"
    # First tokens do not tell: both rank first.
    both = [Fact("it", "it", answer) for answer in ("United Kingdom", "United States")]
    assert whole_model(MODEL, both).rank.per_example == (1, 1)
    assert said(MODEL, "it", ("United Kingdom",)) is None
    assert said(MODEL, "it", ("Peru",)) is None
    assert said(MODEL, "it", ()) is None
    # Of two that it gives, one beginning the other, the whole one.
    assert said(MODEL, "it", ("United", "United States")) == "United States"


def test_what_reads_first_tokens_refuses_answers_that_begin_alike():
    require_distinct_beginnings(MODEL, "it", ("United States", "Peru", "New York"))
    require_distinct_beginnings(MODEL, "it", ("Peru", "Peru"))  # one answer, twice
    assert distinct_beginnings(MODEL, "it", ("United States", "Peru"))
    assert not distinct_beginnings(MODEL, "it", ("Peru", "United States", "United Kingdom"))
    with pytest.raises(AlikeAnswers, match="'United States' and 'United Kingdom' begin with the same token 'United'"):
        require_distinct_beginnings(MODEL, "it", ("Peru", "United States", "United Kingdom"))


def test_known_facts_are_those_whose_answer_ranks_high_enough_in_their_order():
    facts = tuple(Fact("it", "it", answer) for answer in ("New York", "Peru", "United States"))
    assert known(MODEL, facts, rank=1) == facts[2:]
    assert known(MODEL, facts, rank=2) == facts[1:]
    # "New" ties with all the words that never follow: it is the last of seven.
    assert known(MODEL, facts, rank=6) == facts[1:]
    assert known(MODEL, facts) == facts
    assert known(MODEL, ()) == ()

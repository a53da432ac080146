"""Attention patterns: every row is what the traced last position of a shorter prompt gives."""

from collections.abc import Callable

import pytest

from circuits.analysis.attention import read_attention
from circuits.analysis.tracing import head_nodes, open_parts, traces
from circuits.facts import Fact
from circuits.graph import Node
from circuits.model import Model
from tests.models import word_fact
from tests.planted_heads import FACTS, ROLES, planted

LoadModel = Callable[..., Model]


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "gptj"])
def test_a_row_of_a_pattern_is_what_the_last_position_of_the_prompt_up_to_there_gives(
    small_model: LoadModel, name: str
) -> None:
    model, words = small_model(name), "3 1 4 5 9 2 6"
    fact = word_fact(words, "15")
    heads = head_nodes(open_parts(model, (fact,)))
    read = read_attention(model, fact, heads)
    assert [pattern.head for pattern in read.patterns] == list(heads)
    n_first = len(read.tokens) - len(words.split()) + 1
    for n in range(len(words.split())):
        short = word_fact(" ".join(words.split()[: n + 1]), "15")
        (trace,) = traces(model, (short,), open_parts(model, (short,)))
        for pattern in read.patterns:
            row = pattern.rows[n_first + n - 1]
            assert row == pytest.approx(trace.attention[pattern.head.layer, 0, pattern.head.head].tolist(), abs=1e-5)
            assert sum(row) == pytest.approx(1, abs=1e-5)
    # The control: heads differ, so an answer for the wrong head would not have passed.
    assert len({pattern.rows for pattern in read.patterns}) == len(heads)


def test_a_planted_mover_looks_at_the_subject_from_the_last_token() -> None:
    model, fact = planted(), FACTS[1]
    read = read_attention(model, fact, [ROLES["mover"]])
    (pattern,) = read.patterns
    looked_at = max(range(len(read.tokens)), key=lambda i: pattern.rows[-1][i])
    assert read.tokens[looked_at].strip() == fact.subject


def test_only_the_heads_asked_for_are_read() -> None:
    read = read_attention(planted(), Fact(FACTS[0].prompt, FACTS[0].subject, FACTS[0].object), [Node(0, "head", 2)])
    assert [pattern.head.label for pattern in read.patterns] == ["L0H2"]

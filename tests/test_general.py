"""General ability as worked out by hand: perplexity and KL of a table of next words on text that an edit is not about."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from circuits.evaluation.edits import ask, find_metric, prepare, tabulate
from circuits.evaluation.edits.unrelated import unrelated
from circuits.evaluation.general import UnrelatedText
from circuits.facts import EditRequest
from circuits.model import Batch, Model
from tests.models import plain_model, zero_weights
from tests.test_edit import random_edit
from tests.test_edit_evaluation import QUIET, REQUEST, STRENGTH, WORDS, V, model, table_edit

__all__ = ["model"]


def test_a_model_of_no_opinion_is_as_perplexed_as_its_vocabulary_is_large() -> None:
    weights = zero_weights(n_layers=1, n_heads=1, d_model=4, d_head=1, d_mlp=4, d_vocab=V, n_ctx=16)
    text = UnrelatedText.of("words", plain_model(weights, " ".join(WORDS)), ["peru chile oslo", "the"], 9)
    assert text.rows == (tuple(map(WORDS.index, ("peru", "chile", "oslo"))),)
    found = text.unedited
    assert (found.n_tokens, found.perplexity) == (2, pytest.approx(V))
    assert (found.kl, found.agreement) == (pytest.approx(0, abs=1e-12), 1.0)


def test_perplexity_and_divergence_of_one_changed_word_by_hand(model: Model) -> None:
    """After peru the model has spanish at 6 logits; the edit adds quechua at 12. After thick nothing changes."""
    text = UnrelatedText.of("words", model, ["peru spanish", "thick tongue"], 2)
    with table_edit(model, {"peru": "quechua"}).on(model) as edited:
        found = text.measure(edited)
    e, more = math.exp(STRENGTH), math.exp(2 * STRENGTH)
    before, after = e / (e + V - 1), e / (e + more + V - 2)
    assert found.perplexity_before == pytest.approx(1 / before)
    assert found.perplexity == pytest.approx((before * after) ** -0.5)
    # The log of the ratio of the two normalisers is the same for every word but quechua, which has 12 logits more.
    gap = math.log((e + more + V - 2) / (e + V - 1))
    quechua = 1 / (e + V - 1)
    assert found.kl == pytest.approx((gap - quechua * 2 * STRENGTH) / 2)
    assert found.agreement == 0.5
    # The control: of text without the word nothing changes.
    with table_edit(model, {"peru": "quechua"}).on(model) as edited:
        same = replace(text, rows=text.rows[1:]).measure(edited)
    assert (same.kl, same.perplexity) == (pytest.approx(0, abs=1e-12), pytest.approx(same.perplexity_before))


@pytest.mark.parametrize("layout", ["gpt2", "llama"])
def test_rows_read_together_are_as_they_are_alone(layout: str, small_model: Callable[..., Model]) -> None:
    model = small_model(layout)
    text = UnrelatedText("ids", model, ((0, 5, 9), (0, 7), (0, 3, 4), (0, 8, 8, 2)))
    with random_edit(model).on(model) as edited:
        found = text.measure(edited)
        nll, kl, n = 0.0, 0.0, 0
        for row in text.rows:
            ids = Batch.of_prompts(torch.tensor([row]))
            ours, theirs = (m.logits(ids)[0, :-1].double().log_softmax(-1) for m in (model, edited))
            nll -= float(theirs[range(len(row) - 1), list(row[1:])].sum())
            kl += float((ours.exp() * (ours - theirs)).sum())
            n += len(row) - 1
    assert found.n_tokens == n
    assert found.perplexity == pytest.approx(math.exp(nll / n), rel=1e-4)
    assert found.kl == pytest.approx(kl / n, rel=1e-3)
    assert found.kl > 0


def test_text_that_names_what_an_edit_is_about_is_left_out() -> None:
    requests = [EditRequest("about {}", "Niger", "New York", "Oslo")]
    texts = ["Nigeria is large.", "Niger is large.", "york is old.", "He left New York.", "oslo!", "Nothing."]
    assert list(unrelated(texts, requests)) == ["Nigeria is large.", "york is old.", "Nothing."]


def test_every_case_of_an_edited_model_has_its_general_ability_in_the_table(model: Model) -> None:
    text = UnrelatedText.of("words", model, ["peru spanish", "thick tongue"], 2)
    cases = [replace(case, unrelated=text) for case in prepare(model, [REQUEST], QUIET)]
    with table_edit(model, {"peru": "quechua"}).on(model) as edited:
        rows, expected = tabulate(ask(edited, cases, QUIET)), text.measure(edited)
    for name, before, after in (
        ("perplexity", expected.perplexity_before, expected.perplexity),
        ("kl", 0.0, expected.kl),
        ("agreement", 1.0, expected.agreement),
    ):
        row = find_metric(rows, name, way=None)
        assert row is not None
        assert (row.before.value, row.after.value, row.n_questions) == (pytest.approx(before, abs=1e-9), after, 2)
    assert find_metric(tabulate([case.unedited for case in cases]), "kl", way=None) is not None
    # Where no text was given, nothing is said of it.
    assert find_metric(tabulate([case.unedited for case in prepare(model, [REQUEST], QUIET)]), "kl", way=None) is None

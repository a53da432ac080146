"""FT-L and FT-M: the same steps on another loss."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from circuits.editing import EditError, FineTuneOptions, RomeOptions, ft_l, ft_m
from circuits.editing.prompts import forced
from circuits.model import Batch, Model
from circuits.model.network import value_matrix
from tests.editing_models import OTHER, REQUEST, TWO_TOKENS, wins

HYPER = FineTuneOptions(layers=(0,), lr=1e-2, steps=40)


def test_for_a_target_of_one_token_they_are_the_same_edit(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    left, right = ft_l(model, [REQUEST], options=HYPER), ft_m(model, [REQUEST], options=HYPER)
    assert left.digest == right.digest
    assert left.provenance.losses == right.provenance.losses


def test_for_a_longer_target_ft_m_asks_for_its_tokens_in_turn_and_ft_l_for_all_at_once(
    small_model: Callable[..., Model],
) -> None:
    """Both first losses by hand, from the unedited model's logits."""
    model = small_model("gpt2")
    tokens = model.tokens(TWO_TOKENS.fact)
    logits = model.logits(Batch.of_prompts(torch.tensor([tokens.forced])))[0, -2:].log_softmax(-1)
    in_turn = -float(logits[[0, 1], list(tokens.answer)].mean())
    at_once = -float(logits[0, list(tokens.answer)].mean())
    assert in_turn != pytest.approx(at_once, abs=0.01)
    one_step = replace(HYPER, steps=1)
    assert ft_m(model, [TWO_TOKENS], options=one_step).provenance.losses[0][0] == pytest.approx(in_turn, abs=1e-4)
    assert ft_l(model, [TWO_TOKENS], options=one_step).provenance.losses[0][0] == pytest.approx(at_once, abs=1e-4)
    # The best that FT-L can do is one half for each of two tokens: a loss of ln 2, where it stays.
    ended = ft_l(model, [TWO_TOKENS], options=replace(HYPER, steps=60)).provenance.losses[0]
    assert math.log(2) < ended[-1] < math.log(2) + 0.2


def test_ft_ls_rows_feed_the_prompt_alone(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    said = forced(model, [TWO_TOKENS], prompt_last=True)
    prompt = model.tokens(TWO_TOKENS.fact).prompt
    assert said.ids.tolist() == [list(prompt)]
    assert said.at.tolist() == [[len(prompt) - 1] * 2]


def test_only_the_layers_asked_for_change(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    for layers in ((0,), (1,), (0, 1)):
        edit = ft_m(model, [REQUEST], options=replace(HYPER, layers=layers))
        assert list(edit.deltas) == [value_matrix(layer) for layer in layers]
        with edit.on(model) as edited:
            assert wins(edited, REQUEST)
            for layer in range(2):
                name = value_matrix(layer)
                assert torch.equal(edited.weight(name), model.weight(name)) == (layer not in layers)


@pytest.mark.parametrize("box", [1e-3, 2e-2])
def test_no_entry_leaves_its_box_and_without_one_some_do(box: float, small_model: Callable[..., Model]) -> None:
    model = small_model("llama")
    name = value_matrix(0)
    within = ft_m(model, [REQUEST], options=replace(HYPER, box=box)).deltas[name].dense().abs().max()
    free = ft_m(model, [REQUEST], options=HYPER).deltas[name].dense().abs().max()
    assert within <= box * (1 + 1e-4) < free


def test_a_batch_is_learnt_together_in_chunks_of_any_size(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    requests = (REQUEST, OTHER)
    for batch in (1, 2):
        edit = ft_m(model, requests, options=replace(HYPER, batch=batch, enough=0.3))
        with edit.on(model) as edited:
            assert all(wins(edited, request) for request in requests)
        (curve,) = edit.provenance.losses
        assert curve[-1] < 0.3 < min(curve[:-1]), "it ends when the loss is low enough"
        assert len(curve) < HYPER.steps


def test_options_out_of_range_or_of_another_method_are_refused(small_model: Callable[..., Model]) -> None:
    for wrong in ({"steps": 0}, {"lr": 0.0}, {"batch": 0}, {"box": 0.0}):
        with pytest.raises(EditError, match="above 0"):
            FineTuneOptions(**wrong)  # type: ignore[arg-type]
    with pytest.raises(EditError, match="takes options of class FineTuneOptions, got RomeOptions"):
        ft_m(small_model("gpt2"), [REQUEST], options=RomeOptions())  # type: ignore[arg-type]

"""Metrics against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuits.metrics import Measurement, Share, hit, kl_divergence, match_nll, probability, rank, require_finite

# Softmax of log(1, 2, 5) is (1/8, 2/8, 5/8), of log(3, 1, 1) is (3/5, 1/5, 1/5).
ONE_TWO_FIVE = [math.log(1), math.log(2), math.log(5)]
THREE_ONE_ONE = [math.log(3), 0.0, 0.0]


def test_match_nll_of_one_token_is_minus_its_log_probability() -> None:
    logits = torch.tensor([[ONE_TWO_FIVE], [THREE_ONE_ONE]])
    nll = match_nll(logits, torch.tensor([[1], [0]]))
    assert nll.tolist() == pytest.approx([math.log(8 / 2), math.log(5 / 3)])


def test_match_nll_averages_over_an_answers_tokens() -> None:
    logits = torch.tensor([[ONE_TWO_FIVE, THREE_ONE_ONE]])
    nll = match_nll(logits, torch.tensor([[0, 2]]))
    assert nll.tolist() == pytest.approx([(math.log(8) + math.log(5)) / 2])
    swapped = match_nll(logits, torch.tensor([[2, 0]]))
    assert swapped.tolist() == pytest.approx([(math.log(8 / 5) + math.log(5 / 3)) / 2])


def test_match_nll_of_several_trials_shares_the_answers() -> None:
    one, other = torch.tensor([[ONE_TWO_FIVE]]), torch.tensor([[THREE_ONE_ONE]])
    answer = torch.tensor([[0]])
    together = match_nll(torch.stack([one, other]), answer)
    assert together.shape == (2, 1)
    assert together[:, 0].tolist() == [match_nll(one, answer).item(), match_nll(other, answer).item()]


def test_match_nll_is_in_double_precision_and_blind_to_a_shift() -> None:
    logits = torch.tensor([[ONE_TWO_FIVE]])
    assert match_nll(logits, torch.tensor([[1]])).dtype == torch.float64
    shifted = match_nll(logits + 100, torch.tensor([[1]]))
    assert shifted.tolist() == pytest.approx([math.log(4)], abs=1e-5)
    certain = match_nll(torch.tensor([[[0.0, -2000.0]]]), torch.tensor([[1]]))
    assert certain.tolist() == [2000]


def test_rank_counts_the_tokens_whose_logit_is_at_least_its_own() -> None:
    logits = torch.tensor([3.0, 1.0, 3.0, 2.0, -1.0])
    assert [int(rank(logits, torch.tensor(token))) for token in range(5)] == [2, 4, 2, 3, 5]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=6), st.data())
def test_rank_is_the_last_place_of_its_value_in_the_sorted_list(values: list[int], data: st.DataObject) -> None:
    token = data.draw(st.integers(0, len(values) - 1))
    expected = max(place for place, value in enumerate(sorted(values, reverse=True), 1) if value == values[token])
    assert int(rank(torch.tensor([float(v) for v in values]), torch.tensor(token))) == expected


def test_where_all_logits_are_alike_the_answer_is_last_and_no_hit() -> None:
    """What a model without biases puts out when every edge is ablated. Control: the least lead is the first rank."""
    dead = torch.zeros(1, 50)
    assert rank(dead, torch.tensor([7])).tolist() == [50]
    assert hit(rank(dead, torch.tensor([7])), 10).tolist() == [0]
    dead[0, 7] = 1e-6
    assert rank(dead, torch.tensor([7])).tolist() == [1]


def test_an_answer_that_is_no_number_is_last_and_others_that_are_none_count_against() -> None:
    logits = torch.tensor([1.0, math.nan, 0.0, 2.0])
    assert [int(rank(logits, torch.tensor(token))) for token in range(4)] == [3, 4, 4, 2]


def test_rank_and_probability_of_a_batch_are_those_of_its_members() -> None:
    logits, tokens = torch.tensor([ONE_TWO_FIVE, THREE_ONE_ONE]), torch.tensor([1, 2])
    assert rank(logits, tokens).tolist() == [2, 3]
    assert probability(logits, tokens).tolist() == pytest.approx([2 / 8, 1 / 5])


def test_a_shares_interval_is_wilsons_and_holds_the_share() -> None:
    # Half of ten, by hand: (.5 + .19207 -+ 1.96 sqrt(.025 + .009604)) / 1.38415.
    half = Share(5, 10)
    assert (half.value, half.low, half.high) == pytest.approx((0.5, 0.2366, 0.7634), abs=1e-4)
    assert (Share(0, 10).low, Share(0, 10).high) == pytest.approx((0, 0.2775), abs=1e-4)
    assert (Share(10, 10).low, Share(10, 10).high) == pytest.approx((0.7225, 1), abs=1e-4)
    assert Share.of([True, False, True]) == Share(2, 3)
    assert math.isnan(Share(0, 0).value)
    assert (Share(0, 0).low, Share(0, 0).high) == (0, 1)
    with pytest.raises(ValueError, match="count of 0 to 3, got 4"):
        Share(4, 3)


@given(st.integers(0, 200), st.integers(0, 200))
def test_the_interval_of_the_complement_is_the_complement_of_the_interval(some: int, rest: int) -> None:
    share, other = Share(some, some + rest), Share(rest, some + rest)
    assert 0 <= share.low <= share.high <= 1
    assert share.low == pytest.approx(1 - other.high)
    assert not some + rest or share.low <= share.value <= share.high


def test_kl_is_zero_between_equals_and_the_sum_of_p_log_p_over_q_else() -> None:
    p, q = torch.tensor(ONE_TWO_FIVE), torch.tensor(THREE_ONE_ONE)
    assert kl_divergence(p, p + 7).item() == pytest.approx(0, abs=1e-6)
    by_hand = 1 / 8 * math.log(5 / 24) + 2 / 8 * math.log(10 / 8) + 5 / 8 * math.log(25 / 8)
    assert kl_divergence(p, q).item() == pytest.approx(by_hand)


def test_hit_counts_ranks_up_to_and_including_k() -> None:
    assert hit(torch.tensor([1, 10, 11]), 10).tolist() == [1, 1, 0]
    assert hit(torch.tensor([1, 2]), 1).tolist() == [1, 0]


def test_logits_that_are_no_numbers_are_refused_and_counted() -> None:
    require_finite(torch.tensor([1.0, -1e30]), "a model")
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(FloatingPointError, match=r"from a model, got 1 of 3 .*--dtype float32"):
            require_finite(torch.tensor([1.0, bad, 0.0]), "a model")


def test_a_measurement_is_the_mean_of_its_examples_with_name_and_unit() -> None:
    measured = Measurement("MatchNLL", "nats", (1.0, 2.0, 6.0))
    assert measured.value == 3
    assert str(measured) == "MatchNLL 3 nats"
    assert str(Measurement("Hit@10", "", (0.0, 1.0))) == "Hit@10 0.5"


def test_a_measurement_of_nothing_or_of_a_nan_is_nan() -> None:
    assert math.isnan(Measurement("x", "nats", ()).value)
    assert math.isnan(Measurement("x", "nats", (1.0, math.nan)).value)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_a_measurements_value_does_not_depend_on_the_order_of_its_examples(values: list[float]) -> None:
    assert Measurement("x", "", tuple(values)).value == Measurement("x", "", tuple(sorted(values))).value
    assert Measurement("x", "", tuple(values)).value == pytest.approx(float(np.mean(values)), abs=1e-6)

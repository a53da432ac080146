"""When two ways of running one model count as the same."""

import pytest
import torch

from circuits.model.agreement import TOLERANCE, disagreement, tolerance

LOGITS = torch.randn(2, 5, 50, generator=torch.Generator().manual_seed(0))


def test_each_position_is_judged_by_its_own_spread() -> None:
    """One position's logits are a thousand times as wide as the others', as at a first token with a massive activation."""
    theirs = LOGITS.clone()
    theirs[:, 0] *= 1000
    shift = torch.zeros_like(theirs)
    shift[:, 0, 7] = 0.5
    assert disagreement(theirs + shift, theirs) is None
    shift = torch.zeros_like(theirs)
    shift[0, 3, 7] = 0.5
    off = disagreement(theirs + 20 * shift, theirs)
    assert off is not None
    assert "allowed" in off
    assert float(20 * shift.max() / theirs.abs().max()) < 0.01, "the control: beside the largest logit it is little"


def test_the_limit_is_a_share_of_the_spread() -> None:
    one = torch.zeros_like(LOGITS)
    one[1, 2, 3] = float(LOGITS[1, 2].std(correction=0))
    assert disagreement(LOGITS + 0.9 * TOLERANCE * one, LOGITS) is None
    assert disagreement(LOGITS + 1.1 * TOLERANCE * one, LOGITS) is not None


def test_half_precision_is_allowed_its_roundings_and_no_other_model() -> None:
    assert tolerance(torch.float32, torch.float32) == TOLERANCE
    assert tolerance(torch.float32, torch.bfloat16) == 64 * 2**-7
    assert disagreement(LOGITS.to(torch.bfloat16), LOGITS) is None
    assert disagreement(LOGITS.flip(-1).to(torch.bfloat16), LOGITS) is not None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_agree_with_nothing(bad: float) -> None:
    broken = LOGITS.clone()
    broken[0, 0, 0] = bad
    assert disagreement(broken, LOGITS) is not None
    assert disagreement(broken, broken) is not None


def test_numbers_and_dead_models_have_a_scale_too() -> None:
    number = torch.tensor([[[2.0], [3.0]]])
    assert disagreement(number * (1 + 1e-6), number) is None
    assert disagreement(number * 1.01, number) is not None
    dead = torch.zeros(1, 2, 4)
    assert disagreement(dead, dead) is None
    assert disagreement(dead + 1e-3, dead) is not None

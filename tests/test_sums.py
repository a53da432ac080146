"""Sums over few writers are the products that they stand for."""

import pytest
import torch

from circuits.engines.sums import LARGE, sums


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("readers", [1, 9, 200])
def test_sparse_or_dense_a_sum_is_the_product_of_its_weights(readers: int, density: float) -> None:
    weights = (torch.rand(readers, 50) < density) * torch.randn(readers, 50)
    values = torch.randn(50, 1 + LARGE // (50 * readers))
    expected = (weights.double() @ values.double()).float()
    torch.testing.assert_close(sums(weights, values), expected, rtol=1e-5, atol=1e-5)
    out = torch.full_like(expected, torch.nan)
    assert sums(weights, values, out) is out
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)

"""Sums over few writers are the products that they stand for."""

import pytest
import torch

from circuits.engines.sums import sums


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("readers", [1, 9, 200])
def test_sparse_or_dense_a_sum_is_the_product_of_its_weights(readers: int, density: float) -> None:
    weights = (torch.rand(readers, 50) < density) * torch.randn(readers, 50)
    values = torch.randn(50, 300)
    expected = (weights.double() @ values.double()).float()
    torch.testing.assert_close(sums(weights, values), expected, rtol=1e-5, atol=1e-5)
    out = torch.full_like(expected, torch.nan)
    assert sums(weights, values, out) is out
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_a_readers_sum_of_few_writers_is_the_same_bits_beside_any_others() -> None:
    weights, values = torch.zeros(40, 30), torch.randn(30, 100)
    weights[torch.arange(40), torch.arange(40) % 30] = 1
    weights[:, 7] = 1
    together = sums(weights, values)
    for row in range(40):
        assert torch.equal(sums(weights[row : row + 1], values)[0], together[row])

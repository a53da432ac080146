"""Whichever library multiplies, the product is the product, and the same bits each time."""

import pytest
import torch

from circuits.model import products
from circuits.model.products import each_times, times


@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize("rows", [1, products.LARGE // (40 * 24) + 1])
def test_products_are_those_of_float64_to_the_rounding_of_float32(
    monkeypatch: pytest.MonkeyPatch, onednn: bool, rows: int
) -> None:
    monkeypatch.setattr(products, "prefers_onednn", lambda: onednn)
    x, weight = torch.randn(3, rows, 40), torch.randn(3, 40, 24)
    expected = (x.double() @ weight.double()).float()
    with torch.no_grad():
        found, again = each_times(x, weight), torch.full((3, rows, 24), torch.nan)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(times(x[0], weight[0]), expected[0])
        each_times(x, weight, out=again)
    assert torch.equal(found, again)


@pytest.mark.parametrize("onednn", [False, True])
def test_gradients_are_those_of_float64_to_the_rounding_of_float32(
    monkeypatch: pytest.MonkeyPatch, onednn: bool
) -> None:
    """Of rows and of the weight, of either alone, and of rows that stand in several dimensions."""
    monkeypatch.setattr(products, "prefers_onednn", lambda: onednn)
    generator = torch.Generator().manual_seed(0)
    x, weight, slope = (torch.randn(shape, generator=generator) for shape in ((4, 3, 40), (40, 24), (4, 3, 24)))
    for of_x, of_weight in ((True, True), (True, False), (False, True)):
        own = x.clone().requires_grad_(of_x), weight.clone().requires_grad_(of_weight)
        times(*own).backward(slope)
        exact = x.double().requires_grad_(of_x), weight.double().requires_grad_(of_weight)
        (exact[0] @ exact[1]).backward(slope.double())
        for found, expected in zip(own, exact, strict=True):
            assert (found.grad is None) == (expected.grad is None)
            if found.grad is not None:
                assert expected.grad is not None
                torch.testing.assert_close(found.grad, expected.grad.float())

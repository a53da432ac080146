"""Whichever library multiplies, the product is the product, and the same bits each time."""

import pytest
import torch

from circuits.model import products
from circuits.model.products import each_times, times


@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize("rows", [1, products.ROWS])
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


def test_a_gradient_that_is_wanted_is_the_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "prefers_onednn", lambda: True)
    x, weight = torch.randn(2, 5, requires_grad=True), torch.randn(5, 3)
    times(x, weight).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, weight.sum(1).expand(2, 5))

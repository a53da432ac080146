"""Calls are checked while tests run: types, and dimensions of one name within one call."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Shape
from tests.checked import checked


@checked
def outer(a: Float[Tensor, " row"], b: Float[Tensor, " column"], wrong: bool = False) -> Float[Tensor, "row column"]:
    return b[:, None] * a if wrong else a[:, None] * b


@checked
def dot(a: Float[Tensor, " row"], b: Float[Tensor, " row"]) -> float:
    return float(a @ b)


@checked
def doubled(number: int) -> "int":
    return 2 * number


@checked
def rows(of: Float[Tensor, "row column"]) -> Iterator[Float[Tensor, " column"]]:
    yield from of


@checked
@dataclass(frozen=True)
class Pair:
    a: Float[Tensor, " row"]
    b: Float[Tensor, " row"]


TWO, THREE = torch.ones(2), torch.ones(3)


def test_a_dimension_has_one_size_within_a_call_and_what_it_returns_but_not_from_call_to_call() -> None:
    assert outer(TWO, THREE).shape == (2, 3)
    assert outer(THREE, TWO).shape == (3, 2)
    assert dot(TWO, TWO) == 2
    with pytest.raises(TypeError, match="row"):
        dot(TWO, THREE)
    with pytest.raises(TypeError, match="return"):
        outer(TWO, THREE, wrong=True)


def test_a_call_within_a_call_has_dimensions_of_its_own() -> None:
    @checked
    def around(a: Float[Tensor, " row"]) -> Float[Tensor, " row"]:
        assert dot(THREE, THREE) == 3
        return a

    assert around(TWO) is TWO


def test_values_of_other_types_are_refused_in_what_is_given_what_is_returned_and_in_a_dataclass() -> None:
    assert doubled(2) == 4
    with pytest.raises(TypeError, match="number"):
        doubled("2")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="row"):
        Pair(TWO, THREE)
    assert Pair(TWO, TWO).b is TWO
    assert len(list(rows(torch.ones(2, 3)))) == 2


def test_the_package_is_checked() -> None:
    with pytest.raises(TypeError, match="n_layers"):
        Shape("two", 2)  # type: ignore[arg-type]
    assert Shape(2, 2).n_layers == 2

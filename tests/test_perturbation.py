"""Paper 1's bound on keys (section 3.2), beside what is measured, and how values that edits stored lie in a plane."""

import math

import pytest
import torch

from circuits.evaluation.perturbation import perturbation
from circuits.evaluation.stored_values import projection


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_bound_by_hand() -> None:
    """W = [diag(4, 2) 0] in the paper's orientation, E = [diag(1, -1) [2, 0]]: E_11 = diag(1, -1) and S + E_11 = diag(5, 1), so
    kappa_hat = 4, and with ||E_12|| = 2 the bound is 4 * 1/4 + psi(4 * 2/4) = 1 + 2/sqrt(5); gamma = 1 - 1/2.
    The key (1, 0, 0) has the value (4, 0). The least key of W + E with that value is 4 (5, 0, 2)/29; it moves E k = (1, 0)."""
    W = torch.tensor([[4.0, 0, 0], [0, 2, 0]], dtype=torch.float64)
    E = torch.tensor([[1.0, 0, 2], [0, -1, 0]], dtype=torch.float64)
    found = perturbation("W", W.T, E.T, torch.tensor([[1.0, 0, 0]], dtype=torch.float64))
    assert found.gamma == pytest.approx(0.5)
    assert found.bound == pytest.approx(1 + 2 / math.sqrt(5))
    assert found.adjusted == found.adjusted_most == pytest.approx(math.hypot(20 / 29 - 1, 8 / 29))
    assert found.moved == pytest.approx(1 / 4)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("size", [0.001, 0.1, 1.0, 30.0])
def test_no_key_has_to_move_farther_than_the_bound(size: float, centred: bool) -> None:
    """Of small perturbations and of ones beyond Theorem 3.2, and of matrices of layer norms, whose rows have mean zero."""
    weight, delta, keys = drawn(0, 12, 5), size * drawn(1, 12, 5), drawn(2, 40, 12)
    if centred:
        weight = weight - weight.mean(1, keepdim=True)
    found = perturbation("W", weight, delta, keys)
    assert 0 < found.adjusted <= found.adjusted_most <= found.bound
    assert (found.gamma > 0) == (size < 0.5)


def test_what_no_reader_sees_moves_nothing() -> None:
    """A delta along the mean of a centred matrix' rows; the control is the same delta of one that is not."""
    weight, along = drawn(0, 12, 5), drawn(1, 12, 1).expand(12, 5)
    centred = weight - weight.mean(1, keepdim=True)
    still, moving = (perturbation("W", each, along, drawn(2, 4, 12)) for each in (centred, weight))
    assert still.bound == pytest.approx(0, abs=1e-9)
    assert still.moved == pytest.approx(0, abs=1e-9)
    assert moving.moved > 0.1


def test_no_edit_moves_nothing_and_a_matrix_of_too_low_rank_has_no_bound() -> None:
    weight, keys = drawn(0, 12, 5), drawn(2, 4, 12)
    none = perturbation("W", weight, torch.zeros_like(weight), keys)
    assert (none.gamma, none.bound, none.moved) == (1.0, 0.0, 0.0)
    assert none.adjusted_most == pytest.approx(0, abs=1e-12)
    tall = perturbation("W", drawn(0, 3, 5), drawn(1, 3, 5), drawn(2, 4, 3))
    assert math.isnan(tall.bound)
    assert math.isnan(tall.gamma)
    assert tall.moved > 0


def test_values_on_a_line_lie_on_the_first_axis_and_distances_in_the_plane_stay() -> None:
    line = torch.tensor([[0.0, 0, 0], [3, 4, 0], [6, 8, 0]])
    found = projection("W", {"stored": line[:2], "later": line[2:]})
    assert found.shown == pytest.approx(1)
    (a, b), (c,) = found.sets["stored"], found.sets["later"]
    assert [point[1] for point in (a, b, c)] == pytest.approx([0, 0, 0], abs=1e-5)
    assert b[0] - a[0] == pytest.approx(5)
    assert c[0] - b[0] == pytest.approx(5)
    with pytest.raises(ValueError, match="at least two values"):
        projection("W", {"stored": line[:1]})

"""PRUNE: laws of the restraint on singular values, on deltas, on edits and on their sums."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuits.editing import Dense, EditError, EditProvenance, LowRank, WeightEdit, WrongModel, load_edit, restrain
from circuits.editing.prune import (
    Restraint,
    factored_svd,
    largest_singular_value,
    restrained_delta,
    restrained_values,
    scaled_delta,
)
from circuits.model import Batch, Model
from circuits.model.network import value_matrix
from tests.models import random_plain_model

IDS = torch.tensor([[1, 2, 3], [4, 0, 1]])


def low_rank(seed: int, rank: int, rows: int = 7, columns: int = 5, scale: float = 1.0) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    left = scale * torch.randn(rows, rank, generator=generator, dtype=torch.float64)
    return LowRank(left, torch.randn(rank, columns, generator=generator, dtype=torch.float64))


def edit_of(model: Model, deltas: dict[int, LowRank | Dense]) -> WeightEdit:
    named = {value_matrix(layer): delta for layer, delta in deltas.items()}
    return WeightEdit(named, EditProvenance("by hand", model.name, model.weights))


def delta_for(model: Model, layer: int, sigma: float, seed: int = 0) -> LowRank:
    """A rank-one delta of that singular value, in multiples of the matrix's largest."""
    weight = model.weight(value_matrix(layer))
    generator = torch.Generator().manual_seed(seed)
    u, v = (torch.randn(n, generator=generator) for n in weight.shape)
    size = sigma * float(torch.linalg.svdvals(weight.double())[0])
    return LowRank((u / u.norm() * size)[:, None], (v / v.norm())[None])


# ---- singular values -------------------------------------------------------------------------------------------------


def test_equation_5_by_hand() -> None:
    """Bound 8, alpha 2: log2(32) - log2(8) + 8 = 10; values up to the bound stay (Eq. 4)."""
    values = torch.tensor([32.0, 16.0, 8.0, 3.0], dtype=torch.float64)
    expected = torch.tensor([10.0, 9.0, 8.0, 3.0], dtype=torch.float64)
    assert torch.allclose(restrained_values(values, 8.0, alpha=2.0), expected)


def test_the_linear_restraint_with_alpha_2_is_the_published_codes_mean() -> None:
    values = torch.tensor([32.0, 8.0, 3.0], dtype=torch.float64)
    expected = torch.tensor([20.0, 8.0, 3.0], dtype=torch.float64)
    assert torch.allclose(restrained_values(values, 8.0, alpha=2.0, kind="linear"), expected)


spectrum = st.lists(st.floats(0, 1e4), min_size=1, max_size=6).map(lambda values: sorted(values, reverse=True))


@given(spectrum, st.floats(0.01, 100), st.floats(1.001, 1e6), st.sampled_from(["log", "linear"]))
def test_no_value_is_raised_none_pulled_below_the_bound_and_their_order_stays(
    spectrum: list[float], bound: float, alpha: float, kind: str
) -> None:
    values = torch.tensor(spectrum, dtype=torch.float64)
    restrained = restrained_values(values, bound, alpha=alpha, kind=kind)  # type: ignore[arg-type]
    assert (restrained <= values).all()
    assert (restrained >= torch.minimum(values, torch.tensor(bound, dtype=torch.float64))).all()
    assert (restrained.diff() <= 1e-9 * max(spectrum)).all()


def test_equation_5_as_printed_would_raise_values_above_a_small_bound() -> None:
    """The control of the law above: log_1.2(0.6) - log_1.2(0.5) + 0.5 = 1.5, and 0.6 stays instead."""
    printed = math.log(0.6, 1.2) - math.log(0.5, 1.2) + 0.5
    assert printed == pytest.approx(1.5)
    values = torch.tensor([0.6], dtype=torch.float64)
    assert torch.equal(restrained_values(values, 0.5, alpha=1.2), values)


@pytest.mark.parametrize("kind", ["log", "linear"])
def test_a_larger_alpha_restrains_more_from_nothing_at_1_to_the_bound_itself(kind: str) -> None:
    values = torch.tensor([50.0, 9.0], dtype=torch.float64)
    got = [restrained_values(values, 8.0, alpha=a, kind=kind) for a in (1.0001, 1.2, 1.5, 2.0, 10.0, 1e300)]  # type: ignore[arg-type]
    for weaker, stronger in pairwise(got):
        assert (stronger <= weaker).all()
    assert torch.allclose(got[0], values, rtol=2e-4)
    assert torch.allclose(got[-1], torch.full_like(values, 8.0), rtol=1e-2)


@pytest.mark.parametrize(("alpha", "kind"), [(1.0, "log"), (0.5, "log"), (0.5, "linear")])
def test_an_alpha_that_restrains_nothing_is_refused(alpha: float, kind: str) -> None:
    with pytest.raises(EditError, match="expected alpha"):
        restrained_values(torch.ones(2), 1.0, alpha=alpha, kind=kind)  # type: ignore[arg-type]


# ---- deltas ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3, 5, 9])
def test_factors_have_the_singular_values_of_the_whole_matrix(rank: int) -> None:
    """Ranks up to and beyond the matrix's sides, factors linearly dependent among them."""
    delta = low_rank(0, rank)
    parts, whole = factored_svd(delta), torch.linalg.svdvals(delta.dense())
    n = min(len(parts.values), len(whole))
    assert torch.allclose(parts.values[:n], whole[:n], atol=1e-10)
    assert (whole[n:] < 1e-10).all()
    assert torch.allclose((parts.U * parts.values) @ parts.Vt, delta.dense(), atol=1e-10)


def test_a_low_rank_delta_is_restrained_as_its_dense_twin() -> None:
    delta = low_rank(1, 3)
    bound = float(factored_svd(delta).values[1]) * 0.9
    factored = restrained_delta(delta, bound, alpha=2.0)
    dense = restrained_delta(Dense(delta.dense()), bound, alpha=2.0)
    assert isinstance(factored, LowRank)
    assert factored.rank == 3
    assert isinstance(dense, Dense)
    assert torch.allclose(factored.dense(), dense.dense(), atol=1e-10)
    assert not torch.allclose(factored.dense(), delta.dense(), atol=1e-3)


def test_singular_directions_stay_and_only_values_change() -> None:
    delta = low_rank(2, 2)
    before = factored_svd(delta)
    after = factored_svd(restrained_delta(delta, float(before.values[1]), alpha=3.0))
    assert torch.allclose((before.U * after.U).sum(0).abs(), torch.ones(2, dtype=torch.float64))
    assert after.values[1] == pytest.approx(float(before.values[1]))
    assert after.values[0] < before.values[0]


def test_the_largest_singular_value_is_that_of_the_svd() -> None:
    for shape in ((7, 5), (5, 7), (1, 4)):
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(3))
        assert largest_singular_value(weight) == pytest.approx(
            float(torch.linalg.svdvals(weight.double())[0]), rel=1e-9
        )


# ---- edits -----------------------------------------------------------------------------------------------------------


def test_an_edit_below_the_bound_or_under_a_huge_ceiling_keeps_its_deltas_bit_for_bit() -> None:
    model = random_plain_model(0)
    small, large = edit_of(model, {0: delta_for(model, 0, 0.9)}), edit_of(model, {0: delta_for(model, 0, 5.0)})
    assert restrain(small, model).deltas == small.deltas
    assert restrain(large, model, ceiling=1e9).deltas == large.deltas
    assert restrain(large, model, ceiling=1e9).digest == large.digest
    changed = restrain(large, model).deltas[value_matrix(0)]
    assert not torch.equal(changed.dense(), large.deltas[value_matrix(0)].dense())


def test_the_edited_matrix_is_equation_6() -> None:
    """W plus the delta whose one singular value 5 s became min(F(5 s), 5 s) with s that of W."""
    model = random_plain_model(0)
    weight = model.weight(value_matrix(0)).double()
    s = float(torch.linalg.svdvals(weight)[0])
    delta = delta_for(model, 0, 5.0)
    edit = restrain(edit_of(model, {0: delta}), model, alpha=6.0)
    expected = weight + delta.dense() * (s + math.log(5.0, 6.0)) / (5 * s)
    assert s + math.log(5.0, 6.0) < 5 * s
    assert torch.allclose(edit.edited_weights(model)[value_matrix(0)].double(), expected, atol=1e-5)


def test_each_matrix_has_its_own_bound() -> None:
    model = random_plain_model(0)
    edit = edit_of(model, {0: delta_for(model, 0, 0.5), 1: delta_for(model, 1, 8.0)})
    restrained = restrain(edit, model, alpha=3.0)
    assert restrained.deltas[value_matrix(0)] is edit.deltas[value_matrix(0)]
    bound = largest_singular_value(model.weight(value_matrix(1)))
    got = float(factored_svd(restrained.deltas[value_matrix(1)]).values[0])
    assert bound < got < 8 * bound


def test_of_a_sum_the_sum_is_restrained_and_not_its_parts() -> None:
    """Two edits of 0.8 in one direction are each below the bound, and 1.6 together."""
    model = random_plain_model(0)
    once = edit_of(model, {0: delta_for(model, 0, 0.8)})
    total = once + once
    assert isinstance(total, WeightEdit)
    bound = largest_singular_value(model.weight(value_matrix(0)))
    assert float(factored_svd(total.deltas[value_matrix(0)]).values[0]) == pytest.approx(1.6 * bound, rel=1e-5)
    got = float(factored_svd(restrain(total, model, alpha=1e6).deltas[value_matrix(0)]).values[0])
    assert got == pytest.approx(bound, rel=0.2)
    parts = restrain(once, model, alpha=1e6).deltas[value_matrix(0)]
    assert torch.equal(parts.dense(), once.deltas[value_matrix(0)].dense())


def test_a_sequence_goes_on_from_the_restrained_model(tmp_path: Path) -> None:
    """An edit made on the restrained model adds to the restrained edit, and the sum runs as both one after another."""
    model = random_plain_model(0)
    first = restrain(edit_of(model, {0: delta_for(model, 0, 4.0)}), model, alpha=2.0)
    with first.on(model) as edited:
        second = edit_of(edited, {0: delta_for(model, 0, 0.5, seed=1)})
        with second.on(edited) as both:
            expected = both.logits(Batch.of_prompts(IDS))
    with (first + second).on(model) as summed:
        assert torch.allclose(summed.logits(Batch.of_prompts(IDS)), expected, atol=1e-5)
    read = load_edit(first.save(tmp_path / "edit"))
    assert read.provenance.options["restraint"] == {"method": "prune", "alpha": 2.0, "kind": "log", "ceiling": 1.0}
    with read.on(model) as loaded, first.on(model) as own:
        assert torch.equal(loaded.logits(Batch.of_prompts(IDS)), own.logits(Batch.of_prompts(IDS)))


def test_a_restrained_edit_has_a_model_hash_of_its_own() -> None:
    """What was kept for the unrestrained model is not taken for the restrained one."""
    model = random_plain_model(0)
    total = edit_of(model, {0: delta_for(model, 0, 3.0)}) + edit_of(model, {0: delta_for(model, 0, 3.0, seed=1)})
    with total.on(model) as plain, restrain(total, model, alpha=50.0).on(model) as restrained:
        assert plain.weights != restrained.weights


def test_restraint_of_another_models_edit_or_of_no_weight_edit_is_refused(small_model: Callable[..., Model]) -> None:
    model, other = random_plain_model(0), random_plain_model(1)
    with pytest.raises(WrongModel, match="cannot go on"):
        restrain(edit_of(model, {0: delta_for(model, 0, 3.0)}), other)
    with pytest.raises(EditError, match="ceiling above 0"):
        restrain(edit_of(model, {0: delta_for(model, 0, 3.0)}), model, ceiling=0.0)
    from circuits.editing.chain import EditChain

    chain = EditChain((), EditProvenance("rome+memoe", model.name, model.weights))
    with pytest.raises(EditError, match="expected a weight edit, got a EditChain of method rome\\+memoe"):
        restrain(chain, model)


# ---- the control -----------------------------------------------------------------------------------------------------


def test_the_control_is_as_small_as_prune_leaves_it_by_hand() -> None:
    """Values 32, 16, 3 under a bound of 8 with alpha 2 become 10, 9, 3 (Eq. 5): ||.||_F from sqrt(1289) to sqrt(190), the largest
    from 32 to 10. The control keeps 32 : 16 : 3."""
    values = torch.tensor([32.0, 16.0, 3.0], dtype=torch.float64)
    delta = Dense(torch.diag(values))
    for norm, factor in (("frobenius", math.sqrt(190 / 1289)), ("spectral", 10 / 32)):
        scaled = scaled_delta(delta, 8.0, alpha=2.0, norm=norm)  # type: ignore[arg-type]
        assert torch.allclose(factored_svd(scaled).values, factor * values)


@pytest.mark.parametrize("kind", ["log", "linear"])
def test_prune_and_its_control_have_one_norm_and_other_spectra(kind: str) -> None:
    delta = low_rank(1, 3)
    bound = float(factored_svd(delta).values[2]) * 0.9
    for norm, order in (("frobenius", 2), ("spectral", torch.inf)):
        pruned = factored_svd(restrained_delta(delta, bound, alpha=5.0, kind=kind)).values  # type: ignore[arg-type]
        scaled = factored_svd(scaled_delta(delta, bound, alpha=5.0, kind=kind, norm=norm)).values  # type: ignore[arg-type]
        assert torch.linalg.vector_norm(pruned, order) == pytest.approx(float(torch.linalg.vector_norm(scaled, order)))
        assert not torch.allclose(pruned, scaled, rtol=1e-3)
    one = low_rank(1, 1)
    assert torch.allclose(scaled_delta(one, 0.1, alpha=5.0).dense(), restrained_delta(one, 0.1, alpha=5.0).dense())


def test_the_control_leaves_alone_what_prune_leaves_alone() -> None:
    model = random_plain_model(0)
    small, large = edit_of(model, {0: delta_for(model, 0, 0.9)}), edit_of(model, {0: delta_for(model, 0, 5.0)})
    control = Restraint(alpha=2.0).control("frobenius")
    assert control(small, model).deltas == small.deltas
    restrained = control(large, model)
    assert restrained.digest != large.digest
    assert restrained.provenance.options["restraint"] == {
        "method": "scaled",
        "norm": "frobenius",
        "alpha": 2.0,
        "kind": "log",
        "ceiling": 1.0,
    }


@pytest.mark.parametrize(
    "restraint",
    [
        Restraint(),
        Restraint(2.0, "linear", 0.5),
        Restraint(1.5).control("spectral"),
        Restraint(3.0).control("frobenius"),
    ],
)
def test_a_restraint_is_read_from_its_own_words(restraint: Restraint) -> None:
    assert Restraint.parse(str(restraint)) == restraint
    assert Restraint.parse_all(f"{restraint},prune:alpha=7,kind=linear") == (restraint, Restraint(7.0, "linear"))
    with pytest.raises(EditError, match="restraints that differ"):
        Restraint.parse_all(f"{restraint},{restraint}")


@pytest.mark.parametrize("text", ["prune:alpha=2", "prune:alpha=2,kind=log,ceiling=1"])
def test_what_follows_restrain_on_the_command_line_is_read(text: str) -> None:
    model = random_plain_model(0)
    edit = edit_of(model, {0: delta_for(model, 0, 6.0)})
    expected = restrain(edit, model, alpha=2.0)
    got = Restraint.parse(text)(edit, model)
    assert isinstance(got, WeightEdit)
    assert got.digest == expected.digest != edit.digest
    assert got.provenance == expected.provenance


@pytest.mark.parametrize(
    "text",
    [
        "",
        "prun",
        "prune:beta=2",
        "prune:alpha=two",
        "prune:alpha=1",
        "prune:alpha=2,kind=cubic",
        "prune:ceiling=-1",
        "prune:norm=frobenius",
        "scaled:norm=nuclear",
    ],
)
def test_other_restraints_are_refused_before_any_edit_is_made(text: str) -> None:
    with pytest.raises(EditError, match="expected"):
        Restraint.parse(text)

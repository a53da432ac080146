"""MEMIT: many requests at once, over several layers, in closed form."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuits.editing import METHODS, EditError, MemitOptions, memit
from circuits.editing.methods.memit import Unwritten, spread
from circuits.editing.moments import SecondMoment
from circuits.facts import EditRequest
from circuits.model import Model
from circuits.model.network import value_matrix
from tests import models
from tests.editing_models import OTHER, REQUEST, resources, wins
from tests.models import save_model
from tests.test_rome import random_moment

HYPER = MemitOptions(layers=(0,), steps=25, clamp=20.0, contexts=(), weight=1e-2, damping=1e-3)


def numbers(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seed=st.integers(0, 1000), n=st.integers(1, 4))
def test_the_spread_delta_minimises_what_is_missing_plus_what_it_costs_the_corpus(seed: int, n: int) -> None:
    """Its gradient is zero: K (K^T D - M) + weight C D = 0, the normal equation of |K^T D - M|^2 + weight tr(D^T C D)."""
    keys, missing, moment = numbers(n, 6, seed=seed), numbers(n, 3, seed=seed + 1), random_moment(6, seed)
    delta = spread(keys, missing, moment, weight=0.7, damping=0.0)
    assert delta.rank == n
    D = delta.dense()
    gradient = keys.T @ (keys @ D - missing) + 0.7 * moment.matrix @ D
    assert torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-4)


def test_weight_trades_the_requests_against_the_corpus() -> None:
    keys, missing, moment = numbers(2, 6, seed=0), numbers(2, 3, seed=1), random_moment(6, 2)
    light, heavy = (spread(keys, missing, moment, weight, 0.0).dense() for weight in (1e-8, 1e8))
    assert torch.allclose(keys @ light, missing, atol=1e-4)
    assert heavy.norm() < 1e-6


def test_one_request_by_hand() -> None:
    """C = 1, k = (1, 2), weight 5: (5 + k k^T)^-1 k = k / (5 + 5), so (10,) missing becomes (1, 2)."""
    identity = SecondMoment(torch.eye(2, dtype=torch.float64), 1, ((1, 0.0),))
    delta = spread(torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0]]), identity, 5.0, 0.0)
    assert torch.allclose(delta.dense(), torch.tensor([[1.0], [2.0]]).double())


@given(c=st.floats(0.1, 10), d=st.integers(2, 200))
def test_of_a_key_as_common_as_the_corpus_own_the_share_written_depends_on_c_and_not_on_the_models_size(
    c: float, d: int
) -> None:
    """For C = 1 a key of length sqrt(d) has k^T C^-1 k = d, the mean over a corpus: 1 / (1 + c) is written."""
    key, missing = torch.ones(1, d), torch.tensor([[3.0]])
    delta = spread(key, missing, SecondMoment.identity(d), MemitOptions(layers=(0,), c=c).of(d), 0.0)
    assert float(key.double() @ delta.dense()) == pytest.approx(3.0 / (1 + c), rel=1e-4)
    assert MemitOptions(layers=(0,), c=c, weight=7.0).of(d) == 7.0


def test_what_is_left_unwritten_is_told_and_warned_of_where_it_is_most(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    model, own = small_model("gpt2"), resources(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Unwritten)
        light = memit(model, [REQUEST], options=replace(HYPER, weight=1e-6), resources=own)
    with pytest.warns(Unwritten, match="a smaller weight writes more"):
        heavy = memit(model, [REQUEST], options=replace(HYPER, weight=1e9), resources=own)
    assert "0% of the change is left unwritten" in light.provenance.notes[-1]
    assert "100% of the change is left unwritten, at a weight of 1e+09" in heavy.provenance.notes[-1]


def test_a_batch_of_requests_is_edited_together(small_model: Callable[..., Model], tmp_path: Path) -> None:
    model = small_model("gpt2")
    requests = (REQUEST, OTHER, EditRequest("w9 w8 {}", "w40 w41", "w30"))
    edit = memit(model, requests, options=HYPER, resources=resources(tmp_path))
    with edit.on(model) as edited:
        assert [wins(edited, request) for request in requests] == [True] * 3
        assert not any(wins(model, request) for request in requests)
    assert edit.deltas[value_matrix(0)].rank == 3
    assert len(edit.provenance.losses) == 3


def test_each_layer_takes_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, settings = models.CONFIGS["gpt2"]
    monkeypatch.setitem(models.CONFIGS, "gpt2", (name, {**settings, "n_layer": 4}))  # type: ignore[arg-type]
    model = Model.load(save_model("gpt2", tmp_path / "four layers"))
    own = resources(tmp_path)
    edit = memit(model, [REQUEST], options=replace(HYPER, layers=(2, 0, 1)), resources=own)
    assert list(edit.deltas) == [value_matrix(layer) for layer in (0, 1, 2)]
    assert all(delta.dense().norm() > 0 for delta in edit.deltas.values())
    with edit.on(model) as edited:
        assert wins(edited, REQUEST)
    lines: list[str] = []
    memit(model, [REQUEST], options=replace(HYPER, layers=(0, 1), steps=2), resources=own, progress=lines.append)
    assert any(line.startswith("layer 1: 1 keys") for line in lines)


def test_options_out_of_range_are_refused(small_model: Callable[..., Model], tmp_path: Path) -> None:
    with pytest.raises(EditError, match="weight above 0"):
        MemitOptions(layers=(0,), weight=0.0)
    with pytest.raises(EditError, match="clamp above 0"):
        MemitOptions(layers=(0,), clamp=0.0)
    model = small_model("gpt2")
    with pytest.raises(EditError, match="distinct layers"):
        memit(model, [REQUEST], options=MemitOptions(), resources=resources(tmp_path))


def test_defaults_exist_for_every_depth(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    for method in METHODS.values():
        options = method.options(model)
        layers = options.layers if "layers" in method.option_names else (options.layer,)
        assert all(0 <= layer < model.shape.n_layers for layer in layers)

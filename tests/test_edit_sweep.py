"""The sweep over layers: shares counted as they are defined."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from circuits.editing import EditError
from circuits.editing.methods.table import find_method
from circuits.evaluation.edits import FluencySetting, ask, find_metric, prepare, tabulate
from circuits.facts import EditRequest, Probe
from circuits.model import Model
from circuits.studies.layers import share_of, sweep_layers
from circuits.studies.sequence import sequential_traces
from tests.editing_models import REQUEST, TWO_TOKENS

PROBED = EditRequest(
    REQUEST.template,
    REQUEST.subject,
    REQUEST.target,
    probes=(
        Probe("paraphrase", "w10 w11 w6", "w10 w11", "w20"),
        Probe("neighbour", "w1 w30 w31 w2 w3", "w30 w31"),
        Probe("same_subject", "w10 w11 w40", "w10 w11"),
    ),
)


def test_every_layer_is_measured_and_a_request_without_probes_counts_for_success_alone(
    small_model: Callable[..., Model],
) -> None:
    model = small_model("gpt2")
    lines: list[str] = []
    rows = sweep_layers(model, "ft-m", [PROBED, TWO_TOKENS], steps=40, lr=1e-2, progress=lines.append)
    assert [row.layers for row in rows] == [(0,), (1,)]
    assert len(lines) == 4
    for row in rows:
        assert row.success.per_example == (1.0, 1.0)
        assert [math.isnan(value) for value in row.locality.per_example] == [False, True]
        assert share_of(row.generality) == row.generality.per_example[0]
        assert "success 100.0 %" in str(row)


def test_without_a_step_nothing_changes_so_locality_is_whole_and_success_none(
    small_model: Callable[..., Model],
) -> None:
    """The control: a box too small for anything to happen."""
    (row,) = sweep_layers(small_model("gpt2"), "ft-m", [PROBED], [1], steps=1, box=1e-12)
    assert (share_of(row.success), share_of(row.locality), share_of(row.same_subject)) == (0.0, 1.0, 1.0)


def test_a_sweep_a_sequence_and_the_evaluation_of_an_edit_have_one_locality(small_model: Callable[..., Model]) -> None:
    """The mean over kinds, other facts of the subject being one. Control: a strong edit, so that it is not whole."""
    model, settings = small_model("gpt2"), {"steps": 40, "lr": 3e-2}
    (row,) = sweep_layers(model, "ft-m", [PROBED], [1], **settings)
    method = replace(find_method("ft-m"), defaults=lambda _: {"layers": (1,), **settings})
    quiet = FluencySetting(n_samples=0)
    with method(model, [PROBED]).on(model) as edited:
        table = tabulate(ask(edited, prepare(model, [PROBED], quiet), quiet))
    locality, near, same = (find_metric(table, "locality", kind=kind) for kind in (None, "neighbour", "same_subject"))
    assert locality is not None
    assert near is not None
    assert same is not None
    assert row.locality.per_example == locality.after.per_example
    assert row.same_subject.per_example == same.after.per_example
    assert row.locality.value == (near.after.value + same.after.value) / 2 < 1
    (trace,) = sequential_traces(model, [PROBED], method)
    assert (trace.points[-1].locality, trace.points[-1].same_subject) == (row.locality.value, row.same_subject.value)


def test_what_cannot_be_swept_is_refused(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    with pytest.raises(EditError, match="at least one"):
        sweep_layers(model, "ft-m", [])
    with pytest.raises(EditError, match="at least 1 request"):
        sweep_layers(model, "ft-m", [PROBED], batch=0)
    with pytest.raises(EditError, match="layers of 0 to 1"):
        sweep_layers(model, "ft-m", [PROBED], [7])

"""The sweep over layers: shares counted as they are defined."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from circuits.editing import EditError, Resources
from circuits.editing.methods.table import find_method
from circuits.evaluation.edits import Shares, ask, find_metric, prepare, tabulate
from circuits.facts import EditRequest, Probe
from circuits.model import Model
from circuits.studies.edit_specs import LayersSpec
from circuits.studies.layers import LAYERS, LayerRow
from circuits.studies.requests import QUIET, Unedited
from circuits.studies.sequence import Sequencing
from circuits.studies.study import Watch
from circuits.studies.sweep import sweep
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


def sweep_layers(
    model: Model, requests: Sequence[EditRequest], *settings: str, layers: str | None = None, watch: Watch | None = None
) -> list[LayerRow]:
    unedited = Unedited(model, prepare(model, requests, QUIET, written="nothing"), Resources())
    spec = LayersSpec(method="ft-m", layers=layers, settings=settings)
    return [outcome.row for outcome in sweep(LAYERS, spec, context=unedited, watch=watch) if outcome.row is not None]


def test_every_layer_is_measured_and_a_request_without_probes_counts_for_success_alone(
    small_model: Callable[..., Model],
) -> None:
    model, strong = small_model("gpt2"), ("steps=40", "lr=1e-2")
    lines: list[str] = []
    watch = Watch(progress=lambda done, total, state: lines.append(state))
    rows = sweep_layers(model, [PROBED, TWO_TOKENS], *strong, watch=watch)
    assert [row.layers for row in rows] == [(0,), (1,)]
    assert lines[-1] == "ft-m single  1: 2 of 2 requests"
    assert len(lines) == 4
    for row, alone in zip(rows, sweep_layers(model, [PROBED], *strong), strict=True):
        assert row.success == 100.0
        assert (row.generality, row.locality) == (alone.generality, alone.locality)
        assert not math.isnan(row.locality)
        assert "success 100.0 %" in str(row)
    assert all(math.isnan(row.locality) for row in sweep_layers(model, [TWO_TOKENS], "steps=1"))


def test_without_a_step_nothing_changes_so_locality_is_whole_and_success_none(
    small_model: Callable[..., Model],
) -> None:
    """The control: a box too small for anything to happen."""
    (row,) = sweep_layers(small_model("gpt2"), [PROBED], "steps=1", "box=1e-12", layers="1")
    assert (row.success, row.locality, row.same_subject) == (0.0, 100.0, 100.0)


def test_a_sweep_a_sequence_and_the_evaluation_of_an_edit_have_one_locality(small_model: Callable[..., Model]) -> None:
    """The mean over kinds, other facts of the subject being one. Control: a strong edit, so that it is not whole."""
    model = small_model("gpt2")
    (row,) = sweep_layers(model, [PROBED], "steps=40", "lr=3e-2", layers="1")
    method = replace(find_method("ft-m"), defaults=lambda _: {"layers": (1,), "steps": 40, "lr": 3e-2})
    cases = prepare(model, [PROBED], QUIET)
    with method(model, [PROBED]).on(model) as edited:
        table = tabulate(ask(edited, cases, QUIET))
    locality, near, same = (find_metric(table, "locality", kind=kind) for kind in (None, "neighbour", "same_subject"))
    assert locality is not None
    assert near is not None
    assert same is not None
    assert row.locality == 100 * locality.after.value == 50 * (near.after.value + same.after.value) < 100
    assert row.same_subject == 100 * same.after.value
    (trace,) = Sequencing(model, cases, method).trace("free").traces
    assert (trace.last.share("locality"), trace.last.share("same_subject")) == (locality.after.value, same.after.value)


def test_before_any_edit_a_sequence_has_the_unedited_models_answers(small_model: Callable[..., Model]) -> None:
    """They are not asked for again: what `prepare` kept is what asking the unedited model gives."""
    model = small_model("gpt2")
    cases = prepare(model, [PROBED, replace(PROBED, target="w21")], QUIET, written="nothing")
    for case, asked in zip(cases, ask(model, cases, QUIET, written="nothing"), strict=True):
        assert Shares.of(case.unedited) == Shares.of(asked)


def test_what_cannot_be_swept_is_refused(small_model: Callable[..., Model]) -> None:
    with pytest.raises(EditError, match="layers of 0 to 1"):
        sweep_layers(small_model("gpt2"), [PROBED], layers="7")
    with pytest.raises(EditError, match="at least one"):
        Sequencing(small_model("gpt2"), (), find_method("ft-m"))

"""A search that is ended at its budget keeps what it has not decided, says so, and goes on to the bytes of one that was not."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from circuits.circuit import Provenance
from circuits.datasets import load_relations
from circuits.discovery.acdc import AcdcOptions, search, sweep
from circuits.discovery.budget import Budget, BudgetError, Enough, Meter
from circuits.discovery.problem import Progress
from circuits.engines import HookEngine, SparseEngine
from circuits.model import Model
from circuits.pages.contents import page_of
from circuits.studies.run import Run
from circuits.studies.runs import run
from circuits.studies.specs import RunSpec
from circuits.studies.study import Watch
from tests.commands import fails, succeeds
from tests.models import word_fact

HERE = Provenance("here", "00", method="acdc", settings={"tau": 0.01})
FACTS = (word_fact("1 2 3", "4"), word_fact("2 5 1", "3"))
LoadModel = Callable[..., Model]


@pytest.fixture(autouse=True)
def _marks_every_other_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("circuits.discovery.decisions"), "BATCHES", 2)


def ended_after(batches: int) -> Callable[[Progress], None]:
    left = iter(range(batches))

    def progress(_: Progress) -> None:
        if next(left, None) is None:
            raise Enough

    return progress


@pytest.mark.parametrize("kind", [SparseEngine, HookEngine])
def test_what_was_decided_is_as_in_the_whole_search_and_the_rest_stays(
    small_model: LoadModel, kind: type[SparseEngine]
) -> None:
    model = small_model("gpt2")
    whole, done = search(kind(model, FACTS, granularity="node"), AcdcOptions(0.01), provenance=HERE)
    circuit = whole.above(0.01)
    assert done.finished
    assert whole.undecided is None
    sizes = []
    for batches in (0, 4):
        found, state = search(
            kind(model, FACTS, granularity="node"), AcdcOptions(0.01), provenance=HERE, progress=ended_after(batches)
        )
        so_far, decided = found.above(0.01), found.provenance.settings["decided"]
        assert not state.finished
        assert found.undecided is not None
        assert found.provenance.settings["to_decide"] == model.graph("node").n_edges
        assert decided == model.graph("node").n_edges - found.undecided.sum() >= state.decided
        # Only edges that it has still to try can be too many.
        assert not (circuit.kept & ~so_far.kept).any()
        np.testing.assert_array_equal(so_far.kept, circuit.kept | found.undecided)
        assert so_far != circuit
        tried = np.isfinite(found.values)
        np.testing.assert_array_equal(found.values[tried], whole.values[tried])
        sizes.append(so_far.n_edges)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


def test_no_undecided_edge_leads_into_a_node_that_nothing_reads(small_model: LoadModel) -> None:
    engine = HookEngine(small_model("gpt2"), FACTS)
    found, state = search(engine, AcdcOptions(0.5), provenance=HERE, progress=ended_after(1), force=True)
    kept = found.above(0.5).kept
    assert state.decided < engine.graph.n_edges
    for index, reader in enumerate(engine.graph.readers):
        if reader.node.kind != "logits" and not kept[engine.graph.writer_index(reader.node)].any():
            assert not kept[:, index].any()
    assert engine.graph.n_edges - kept.sum() > state.decided, "nothing was dropped untested"


def test_a_sweep_shares_no_decisions_of_a_threshold_that_was_ended(small_model: LoadModel) -> None:
    def each(progress: Callable[[Progress], None]) -> list[np.ndarray]:
        found = sweep(
            SparseEngine(small_model("gpt2"), FACTS, granularity="node"),
            (0.01, 0.02),
            provenance=lambda _: HERE,
            progress=progress,
        )
        return [scores.above(tau).kept for tau, scores, _ in found]

    of_first = [0]

    def end_the_first(now: Progress) -> None:
        of_first[0] += 1
        if of_first[0] == 2:
            raise Enough

    whole, ended = each(lambda _: None), each(end_the_first)
    assert (ended[0] != whole[0]).any()
    np.testing.assert_array_equal(ended[1], whole[1])


def test_a_meter_ends_at_its_count_of_circuits_on_any_machine_and_at_its_seconds_by_the_clock() -> None:
    spent = [0.0]
    for budget in (Budget.parse("5 circuits"), Budget.parse("5s")):
        meter = Meter(budget, circuits=lambda: int(spent[0]), clock=lambda: spent[0])
        for begun in (0.0, 100.0):
            spent[0] = begun
            meter.begin()
            spent[0] = begun + 4
            meter.note()
            spent[0] = begun + 5
            with pytest.raises(Enough):
                meter.note()


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [("90s", 90, "seconds"), ("1.5 m", 90, "seconds"), ("2h", 7200, "seconds"), ("5000 circuits", 5000, "circuits")],
)
def test_a_budget_is_time_or_circuits(text: str, amount: float, unit: str) -> None:
    budget = Budget.parse(text)
    assert (budget.amount, budget.unit) == (amount, unit)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize("text", ["", "soon", "-3s", "0s", "0 circuits", "3 days", "1.5 circuits"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match="expected --budget as a time such as 90s"):
        Budget.parse(text)


# ---- a run ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def spec(model_folder: Callable[[str], Path]) -> RunSpec:
    fact = word_fact("1 2 3 4", "5")
    return RunSpec(facts=(fact,), model=str(model_folder("gpt2")), force=True, tau=0.02, granularity="node")


def test_a_run_with_a_budget_of_circuits_is_the_same_each_time_and_ends_as_one_without(
    spec: RunSpec, tmp_path: Path
) -> None:
    relations, file = load_relations(), tmp_path / "state.json"
    whole = run(spec, relations)
    budgeted = Watch(budget=Budget.parse("40 circuits"))
    ended = [run(spec, relations, watch=budgeted) for _ in range(2)]
    assert ended[0] == ended[1]
    assert ended[0].unfinished is not None
    assert 0 < ended[0].unfinished.decided < ended[0].unfinished.to_decide
    decided = []
    while (found := run(spec, relations, state_file=file, watch=budgeted)).unfinished:
        decided.append(found.unfinished.decided)
        assert len(decided) < 100
    assert len(decided) > 1
    assert decided == sorted(decided)
    assert found == whole
    assert found.circuit.text() == whole.circuit.text()


def test_a_budget_that_suffices_changes_nothing(spec: RunSpec) -> None:
    generous = run(spec, load_relations(), watch=Watch(budget=Budget.parse("8h")))
    assert generous == run(spec, load_relations())


def test_an_unfinished_run_says_so_wherever_it_is_shown(spec: RunSpec, tmp_path: Path) -> None:
    found = run(spec, load_relations(), read=True, certified=True, watch=Watch(budget=Budget.parse("40 circuits")))
    assert found.unfinished is not None
    sentence = f"stopped at its budget of 40 circuits: {found.unfinished.decided:,} of {found.unfinished.to_decide:,} edges decided"
    found.save(tmp_path)
    again = Run.load(tmp_path)
    assert again == found
    assert again.certificate is not None
    page = page_of(again)
    assert sentence in page.verdict[-1]
    assert ("search", sentence) in page.settings
    assert sentence in str(again)
    assert sentence in again.story[0].text
    assert "--budget '40 circuits'" in again.command()
    saved = json.loads((tmp_path / "circuit.json").read_text(encoding="utf-8"))
    assert saved["settings"]["decided"] == found.unfinished.decided


def test_the_command_ends_says_so_and_goes_on(
    spec: RunSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["discover", "--fact", "w1 w2 w3 w4 => w5", "--subject", "w3", "--model", spec.model, "--force"]
    command += ["--tau", "0.02", "--granularity", "node", "--no-certificate", "--json", "--out"]

    def told(folder: str, *more: str) -> dict[str, object]:
        return json.loads(succeeds([*command, str(tmp_path / folder), *more], capsys))

    whole = told("whole")
    assert "unfinished" not in whole
    first = told("ended", "--budget", "40 circuits")
    assert str(first["unfinished"]).startswith("stopped at its budget of 40 circuits: ")
    assert first["edges_decided"] < first["edges_to_decide"]  # type: ignore[operator]
    last = told("ended")
    assert {**last, "seconds": 0} == {**whole, "seconds": 0}
    assert (tmp_path / "ended/circuit.json").read_bytes() == (tmp_path / "whole/circuit.json").read_bytes()
    assert not (tmp_path / "ended/acdc-state.json").exists()


def test_a_method_that_scores_every_edge_refuses_a_budget(capsys: pytest.CaptureFixture[str]) -> None:
    error = fails(["discover", "--fact", "a => b", "--method", "eap", "--budget", "60s"], capsys)
    assert "--budget is acdc's" in error

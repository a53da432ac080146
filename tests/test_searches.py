"""Searches of a case that needs several: each is told of by name, kept, and not done twice."""

from collections.abc import Callable
from pathlib import Path

import pytest

from circuits.datasets import load_relations
from circuits.discovery.state import Interrupted
from circuits.engines.hook import HookEngine
from circuits.model import Model
from circuits.studies import search as searching
from circuits.studies.discover import DISCOVER
from circuits.studies.explain.sides import Bench
from circuits.studies.search import load_model, search
from circuits.studies.specs import DiscoverSpec, RunSpec
from circuits.studies.study import Watch
from circuits.studies.sweep import sweep

RELATIONS = load_relations()


@pytest.fixture
def asked(model_folder: Callable[[str], Path]) -> DiscoverSpec:
    return DiscoverSpec(
        fact=("w1 w2 w3 w4 => w5", "w6 w3 w4 => w7"),
        subject="w3",
        model=str(model_folder("gpt2")),
        force=True,
        tau=0.3,
        certificate=False,
        granularity="node",
        engine="hook",
    )


@pytest.fixture
def spec(asked: DiscoverSpec) -> RunSpec:
    return asked.run_spec(DISCOVER.open(asked, None).facts[0])


@pytest.fixture
def model(spec: RunSpec) -> Model:
    return load_model(spec)


def stopping_at(n: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Ctrl-C at the engine's n-th call from now on; what is returned takes it back."""
    ask, left = HookEngine.nll_without, [n]

    def stopped(self: HookEngine, *arguments: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return ask(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(HookEngine, "nll_without", stopped)
    return lambda: monkeypatch.setattr(HookEngine, "nll_without", ask)


def test_a_search_that_is_done_is_taken_from_the_folder(
    spec: RunSpec, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Watch(searches=tmp_path)
    first = search(spec, RELATIONS, model, kept)
    assert [file.suffix for file in tmp_path.iterdir()] == [".json"]
    monkeypatch.setattr(searching, "engine_for", lambda *_: pytest.fail("searched again"))
    assert search(spec, RELATIONS, model, kept).to_json() == first.to_json()
    # The control: another question's circuit is not there.
    with pytest.raises(pytest.fail.Exception, match="searched again"):
        search(spec.model_copy(update={"tau": 0.2}), RELATIONS, model, kept)


def test_a_search_that_was_stopped_goes_on_to_the_same_circuit(
    spec: RunSpec, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, kept = search(spec, RELATIONS, model), Watch(searches=tmp_path / "made")
    go_on = stopping_at(5, monkeypatch)
    with pytest.raises(Interrupted):
        search(spec, RELATIONS, model, kept)
    go_on()
    assert [file.suffix for file in (tmp_path / "made").iterdir()] == [".state"]
    assert search(spec, RELATIONS, model, kept).to_json() == whole.to_json()


def test_each_circuit_of_a_comparison_is_told_of_by_name(spec: RunSpec, model: Model) -> None:
    told: list[str] = []
    (fact,) = spec.facts
    bench = Bench(RELATIONS, spec, watch=Watch(progress=lambda done, total, state: told.append(state)).at("ft-m"))
    bench.side(model, fact, ("w5", "w8"), label="before")
    assert told
    assert all(state.startswith(f"ft-m: before, {fact.prompt!r}: ") for state in told)


def test_a_case_of_many_goes_on_in_the_middle_of_its_search(
    asked: DiscoverSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(searches=tmp_path)
    whole = [outcome.row for outcome in sweep(DISCOVER, asked)]
    go_on = stopping_at(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        list(sweep(DISCOVER, asked, watch=watch))
    go_on()
    assert [file.suffix for file in tmp_path.iterdir()] == [".state"]
    asked_of, ask = [], HookEngine.nll_without
    monkeypatch.setattr(HookEngine, "nll_without", lambda *given: asked_of.append(0) or ask(*given))
    assert [outcome.row for outcome in sweep(DISCOVER, asked, watch=watch)] == whole
    assert not list(tmp_path.iterdir())
    went_on = len(asked_of)
    # The control: without what was kept, four calls more.
    assert [outcome.row for outcome in sweep(DISCOVER, asked, watch=watch)] == whole
    assert len(asked_of) - went_on == went_on + 4


def test_a_state_that_is_not_whole_is_said_and_the_search_begun_anew(
    asked: DiscoverSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    watch = Watch(said.append, searches=tmp_path)
    whole = [outcome.row for outcome in sweep(DISCOVER, asked)]
    go_on = stopping_at(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        list(sweep(DISCOVER, asked, watch=watch))
    go_on()
    (state,) = tmp_path.iterdir()
    state.write_bytes(b"{}" + state.read_bytes())
    said.clear()
    assert [outcome.row for outcome in sweep(DISCOVER, asked, watch=watch)] == whole
    assert len([line for line in said if line.startswith("a search is begun anew")]) == 1

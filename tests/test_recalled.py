"""What is expected of edges decides how fast a search is, and never what it decides."""

import copy
import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from circuits.circuit import Provenance
from circuits.discovery.acdc import AcdcOptions, search, sweep
from circuits.discovery.decisions import recalled
from circuits.discovery.problem import Progress
from circuits.discovery.state import State
from circuits.discovery.traversal import Traversal
from circuits.engines import HookEngine, SparseEngine
from circuits.metrics import log_odds
from circuits.model import Model
from tests.models import word_fact

HERE = Provenance("here", "00", method="acdc")
FACTS = (word_fact("1 2 3", "4"), word_fact("2 5 1", "3"))
TAU = AcdcOptions(0.02)
LoadModel = Callable[..., Model]


def test_what_is_recalled_of_an_edge_is_its_step_in_log_odds(small_model: LoadModel) -> None:
    engine = HookEngine(small_model("gpt2"), FACTS[:1], granularity="node")
    _, done = search(engine, AcdcOptions(0.5), provenance=HERE)
    kept, by_hand = engine.graph.legal.copy(), []
    for (writer, reader), stays, score in zip(Traversal(engine.graph).edges, done.kept, done.scores, strict=True):
        before = engine.nll(kept)
        kept[writer, reader] = False
        by_hand.append(0.0 if score is None else float((log_odds(engine.nll(kept)) - log_odds(before))[0]))
        kept[writer, reader] = stays
    assert 0.0 in by_hand
    assert max(by_hand) > 0 > min(by_hand)
    np.testing.assert_allclose(recalled(done), by_hand, atol=1e-4)


def searched(model: Model, expected: np.ndarray | None) -> tuple[State, int]:
    """Its last state, and how many circuits it ran."""
    engine = SparseEngine(model, FACTS)
    _, done = search(engine, TAU, provenance=HERE, expected=expected)
    return done, engine.evaluations


def test_a_search_that_knows_what_comes_runs_fewer_circuits_and_one_that_expects_the_worst_decides_alike(
    small_model: LoadModel,
) -> None:
    model = small_model("gpt2")
    done, alone = searched(model, None)
    steps = recalled(done)
    known, with_steps = searched(model, steps)
    # What went by little is expected to stay, and what stayed to go.
    misled, without = searched(model, np.where(done.kept, 9.0, -9.0))
    assert known.kept == misled.kept == done.kept
    assert with_steps < alone < without


def test_thresholds_of_one_sweep_decide_as_each_alone_and_go_on_to_the_same_bytes(
    small_model: LoadModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("circuits.discovery.decisions"), "BATCHES", 2)
    model, states = small_model("gpt2"), list[State]()

    def swept(second: State | None = None, note: Callable[[Progress], None] = lambda _: None) -> list[np.ndarray]:
        found = sweep(
            SparseEngine(model, FACTS),
            (0.01, 0.02),
            provenance=lambda _: HERE,
            resume=lambda tau: second if tau == 0.02 else None,
            progress=note,
        )
        return [scores.values for _, scores, _ in found]

    whole = swept(note=lambda now: states.append(copy.deepcopy(now.state)))  # type: ignore[arg-type]
    alone, _ = searched(model, None)
    assert [not np.isnan(score) and score >= 0.02 for score in _in_order(model, whole[1])] == alone.kept
    # Of the second threshold, which begins with what the first decided.
    begun = next(i for i in range(1, len(states)) if states[i].decided < states[i - 1].decided)
    for state in states[begun::4]:
        state.save(tmp_path / "state.json")
        again = swept(State.load(tmp_path / "state.json", state.fingerprint))
        assert again[1].tobytes() == whole[1].tobytes()


def _in_order(model: Model, values: np.ndarray) -> list[float]:
    return [values[edge] for edge in Traversal(model.graph("qkv")).edges]

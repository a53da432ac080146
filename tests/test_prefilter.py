"""A prefiltered search is ACDC among the edges let through, the others ablated from the start; what it lost is counted."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.circuit import Circuit, Provenance, Scores
from circuits.discovery.acdc import AcdcOptions, search, sweep
from circuits.discovery.eap import eap
from circuits.discovery.prefilter import (
    AmountError,
    DestroyedError,
    Loss,
    Start,
    candidates,
    compare,
    n_edges,
    require_alive,
    start,
)
from circuits.discovery.problem import Problem
from circuits.discovery.state import Interrupted, State, fingerprint
from circuits.discovery.traversal import Traversal
from circuits.engines import HookEngine, SparseEngine
from circuits.engines.engine import Engine
from circuits.facts import Fact
from circuits.graph import Graph, Shape
from circuits.model import Model
from tests.models import plain_model, random_plain_model, word_fact, zero_weights

HERE = Provenance("by hand", "00")
FACTS = (word_fact("1 2", "3"), word_fact("4 0 2", "5"))


# ---- amounts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "expected"),
    [("50", 50), ("1", 1), ("200", 200), ("2%", 4), ("7%", 14), ("0.5%", 1), ("0.1 %", 1), ("100%", 200), ("1.7%", 4)],
)
def test_amounts_are_numbers_or_shares_rounded_up(amount: str, expected: int) -> None:
    assert n_edges(amount, 200) == expected


@pytest.mark.parametrize("amount", ["", "many", "-3", "0", "0%", "1.5", "201", "101%", "2 % of all", "1e2", "nan"])
def test_other_amounts_are_refused(amount: str) -> None:
    with pytest.raises(AmountError, match="expected"):
        n_edges(amount, 200)


def test_candidates_are_the_largest_by_magnitude() -> None:
    graph = Graph(Shape(1, 1), "node")
    values = np.zeros(graph.legal.shape)
    values[graph.edge("input->m0")], values[graph.edge("m0->logits")] = -3, 2
    kept = candidates(Scores(graph, values, HERE), "2")
    assert {graph.edge_name(*edge) for edge in np.argwhere(kept).tolist()} == {"input->m0", "m0->logits"}


# ---- the search --------------------------------------------------------------------------------------------------------


def naive(engine: Engine, tau: float, allowed: np.ndarray) -> tuple[dict[str, float], set[str]]:
    """ACDC among some edges, word for word: scores of the edges tried, and the edges kept."""
    graph, kept, scores = engine.graph, allowed.copy(), {}
    now = engine.nll(kept).mean()
    for writer, reader in Traversal(graph).edges:
        if not allowed[writer, reader]:
            continue
        node = graph.readers[reader].node
        if node.kind != "logits" and not kept[graph.writer_index(node)].any():
            kept[:, reader] = False
            continue
        kept[writer, reader] = False
        after = engine.nll(kept).mean()
        scores[graph.edge_name(writer, reader)] = after - now
        if after - now >= tau:
            kept[writer, reader] = True
        else:
            now = after
    return scores, {graph.edge_name(*edge) for edge in np.argwhere(kept).tolist()}


def tried(scores: Scores) -> dict[str, float]:
    return {
        scores.graph.edge_name(*edge): float(scores.values[tuple(edge)])
        for edge in np.argwhere(~np.isnan(scores.values)).tolist()
    }


@settings(max_examples=5)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.2, 0.5, 0.9]), tau=st.sampled_from([0.001, 0.02, 0.1]))
def test_a_search_among_some_edges_agrees_with_its_definition_on_both_engines(
    seed: int, share: float, tau: float
) -> None:
    model = random_plain_model(seed)
    reference = HookEngine(model, FACTS)
    allowed = reference.graph.legal & (np.random.default_rng(seed).random(reference.graph.legal.shape) < share)
    expected, kept = naive(reference, tau, allowed)
    for engine in (reference, SparseEngine(model, FACTS)):
        scores, state = search(
            engine, AcdcOptions(tau), walk=Traversal(engine.graph, candidates=allowed), provenance=HERE
        )
        found = tried(scores)
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, abs=1e-5)
        assert {edge.name for edge in scores.above(tau)} == kept
        assert state.evaluations == len(expected) + 1


def test_all_edges_as_candidates_is_the_full_search_and_none_keeps_none() -> None:
    engine = SparseEngine(random_plain_model(0), FACTS)
    full = search(engine, AcdcOptions(0.02), provenance=HERE)
    everything = Traversal(engine.graph, candidates=engine.graph.legal)
    assert search(engine, AcdcOptions(0.02), walk=everything, provenance=HERE) == full
    nothing, _ = search(
        engine,
        AcdcOptions(0.02),
        walk=Traversal(engine.graph, candidates=np.zeros_like(engine.graph.legal)),
        provenance=HERE,
    )
    assert np.isnan(nothing.values).all()
    assert not np.isnan(full[0].values[engine.graph.legal]).all()


def test_a_sweep_among_some_edges_is_one_search_a_threshold() -> None:
    engine = SparseEngine(random_plain_model(1), FACTS)
    allowed = candidates(eap(Problem(engine.model, FACTS)), "60%")
    together = {
        tau: scores
        for tau, scores, _ in sweep(
            engine, (0.05, 0.005), walk=Traversal(engine.graph, candidates=allowed), provenance=_here
        )
    }
    for tau, scores in together.items():
        alone, _ = search(engine, AcdcOptions(tau), walk=Traversal(engine.graph, candidates=allowed), provenance=HERE)
        assert scores.above(tau) == alone.above(tau)
        assert not (scores.above(tau).kept & ~allowed).any()


def _here(tau: float) -> Provenance:
    return HERE


class Stopping:
    """An engine that Ctrl-C stops at the call after ``calls``."""

    def __init__(self, engine: HookEngine, calls: int) -> None:
        self.name, self.graph, self.width, self.evaluations = "stopping", engine.graph, 1, 0
        self.engine, self.calls = engine, calls
        self.facts, self.precision, self.noise = engine.facts, engine.precision, engine.noise

    def answer_logits(self, kept: np.ndarray):
        return self.engine.answer_logits(kept)

    def nll(self, kept: np.ndarray) -> np.ndarray:
        return self.engine.nll(kept)

    def nll_without(self, kept: np.ndarray, reader: int, removals) -> np.ndarray:
        if self.calls <= 0:
            raise KeyboardInterrupt
        self.calls -= 1
        return self.engine.nll_without(kept, reader, removals)


def test_a_prefiltered_search_can_be_stopped_and_continued(tmp_path: Path) -> None:
    engine = HookEngine(random_plain_model(2), FACTS)
    allowed = candidates(eap(Problem(engine.model, FACTS)), "50%")
    whole = search(engine, AcdcOptions(0.01), walk=Traversal(engine.graph, candidates=allowed), provenance=HERE)
    with pytest.raises(Interrupted) as stop:
        search(
            Stopping(engine, 9),
            AcdcOptions(0.01),
            walk=Traversal(engine.graph, candidates=allowed),
            provenance=HERE,
        )
    stop.value.state.save(tmp_path / "state.json")
    state = State.load(tmp_path / "state.json", fingerprint(HERE))
    assert (
        search(
            engine,
            AcdcOptions(0.01),
            walk=Traversal(engine.graph, candidates=allowed),
            provenance=HERE,
            state=state,
        )
        == whole
    )


# ---- where the search begins -----------------------------------------------------------------------------------------------


def test_the_start_is_the_circuit_of_all_candidates_and_nothing_else() -> None:
    engine = SparseEngine(random_plain_model(3), FACTS)
    allowed = candidates(eap(Problem(engine.model, FACTS)), "50%")
    begins = start(engine, allowed, 6)
    by_hand = HookEngine(engine.model, FACTS)
    assert begins.nll == pytest.approx(by_hand.nll(allowed).mean(), abs=1e-5)
    assert begins.nll_model == pytest.approx(by_hand.nll(engine.graph.legal).mean(), abs=1e-5)
    assert begins.nll_uniform == math.log(6)
    assert start(engine, engine.graph.legal, 6).is_alive


def test_a_start_is_alive_while_the_answer_is_a_tenth_as_likely_and_better_than_a_guess() -> None:
    # With 100 tokens a guess costs ln 100 = 4.6 nats.
    for nll, nll_model, alive in ((0.1, 0.1, True), (2.3, 0.1, True), (2.5, 0.1, False), (4.7, 4.0, False)):
        assert Start(nll, nll_model, math.log(100)).is_alive == alive


def either_of_many(n: int = 8) -> Model:
    """Each of n MLPs looks the answer up, and any two of them are enough: no single edge matters, all together do."""
    weights = zero_weights(n_layers=n, n_heads=1, d_model=8, d_head=1, d_mlp=4, d_vocab=16, n_ctx=3)
    weights["embed.W_E"][:4, :4] = torch.eye(4)
    for layer in range(n):
        weights[f"blocks.{layer}.mlp.W_in"][:4] = torch.eye(4)
        weights[f"blocks.{layer}.mlp.W_out"][:, 4:] = 9 * torch.eye(4)
    weights["unembed.W_U"][4:, 4:8] = torch.eye(4)
    return plain_model(weights, "a b c d p q r s 1 2 3 4 5 6 7 8")


def test_a_filter_that_loses_the_answer_is_refused_and_the_message_says_what_to_do() -> None:
    engine = SparseEngine(either_of_many(), (Fact("a", "a", "p"),))
    graph, chosen = engine.graph, np.zeros_like(engine.graph.legal)
    for layer in range(4):  # what the MLPs write, without what they read
        chosen[graph.edge(f"m{layer}->logits")] = True
    dead = start(engine, chosen, 16)
    with pytest.raises(DestroyedError) as refused:
        require_alive(dead, "eap", "20%")
    said = str(refused.value)
    assert "eap's best 20% of the edges alone" in said
    assert f"costs {dead.nll:.2f} nats, {dead.nll_model:.2f} in the whole model and 2.77 as a guess" in said
    assert "a larger --keep, or search in full, without --prefilter; --force" in said
    # The control: the same edges and what they need are alive, though most of the model is ablated.
    for layer in range(4):
        chosen[graph.edge(f"input->m{layer}")] = True
    require_alive(start(engine, chosen, 16), "eap", "20%")


# ---- the loss ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_counted_edge_by_edge() -> None:
    graph = Graph(Shape(1, 1), "node")

    def mask(*names: str) -> np.ndarray:
        kept = np.zeros_like(graph.legal)
        for name in names:
            kept[graph.edge(name)] = True
        return kept

    # Of four edges, the filter drops one, the search another; and it keeps one that full ACDC does not.
    full = Circuit(graph, mask("input->m0", "m0->logits", "input->a0.h0", "a0.h0->logits"), HERE)
    allowed = mask("input->m0", "m0->logits", "input->a0.h0", "a0.h0->m0")
    prefiltered = Circuit(graph, mask("input->m0", "m0->logits", "a0.h0->m0"), HERE)
    loss = compare(full, prefiltered, allowed)
    assert loss == Loss(full=4, filtered_out=1, lost=2, extra=1)
    assert (loss.share_filtered_out, loss.share_lost) == (0.25, 0.5)
    assert compare(full, full, graph.legal) == Loss(4, 0, 0, 0)
    assert Loss(0, 0, 0, 0).share_lost == 0


def test_circuits_of_different_graphs_are_not_compared() -> None:
    one, other = (Circuit.full(Graph(Shape(1, 1), granularity), HERE) for granularity in ("node", "qkv"))
    with pytest.raises(ValueError, match="one graph"):
        compare(one, other, one.graph.legal)

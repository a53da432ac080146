"""ACDC finds circuits that are known beforehand, agrees with its own definition, and survives being stopped."""

import dataclasses
import json
import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.circuit import Circuit, Provenance, Scores
from circuits.discovery.acdc import AcdcOptions, search
from circuits.discovery.averages import diluted
from circuits.discovery.problem import Progress
from circuits.discovery.state import Interrupted, ResumeError, State, fingerprint
from circuits.discovery.traversal import Traversal
from circuits.engines.engine import Engine
from circuits.engines.hook import HookEngine
from circuits.facts import Fact
from circuits.graph import Granularity, Graph, Shape
from circuits.model import Model
from tests.models import plain_model, random_plain_model, word_fact, zero_weights

HERE = Provenance("by hand", "00", processing="raw", method="acdc", settings={"tau": 0.1})


def scores_at(engine: Engine, tau: float, *, absolute: bool = False) -> Scores:
    return search(engine, AcdcOptions(tau, absolute=absolute), provenance=HERE, force=True)[0]


def found(model: Model, facts: Sequence[Fact], tau: float, *, absolute: bool = False) -> set[str]:
    scores = scores_at(HookEngine(model, facts), tau, absolute=absolute)
    return {edge.name for edge in scores.above(tau, absolute=absolute)}


def edges(text: str) -> set[str]:
    return set(text.split())


def nll(logit: float, others: int = 3, other_logit: float = 0.0) -> float:
    """-log of the softmax of ``logit`` beside ``others`` logits that are all ``other_logit``."""
    return math.log(1 + others * math.exp(other_logit - logit))


# ---- the oracle: circuits derived on paper -----------------------------------------------------------------------------
#
# Every model below has no layer norm, so that a read is a plain sum and the derivations are exact. The words of a copying
# task are a, b, c and "is"; the residual stream has one direction for each word (0-3) and one for each answer (4-7).
# SHARP makes softmax a maximum: e^-20 is 2e-9.

SHARP = 20.0
IS = 3


def copying_weights(strengths: Sequence[float], n_layers: int = 1) -> dict[str, torch.Tensor]:
    """Head j of layer 0 moves the subject's identity from its position to "is", ``strengths[j]`` strong.

    q reads "is", k reads a, b or c, v reads a, b or c, and the result lies in the answer directions, which only the
    unembedding reads.
    """
    weights = zero_weights(n_layers=n_layers, n_heads=len(strengths), d_model=9, d_head=4, d_mlp=4, d_vocab=4, n_ctx=4)
    weights["embed.W_E"][:4, :4] = torch.eye(4)
    weights["unembed.W_U"][4:8] = torch.eye(4)
    for head, strength in enumerate(strengths):
        weights["blocks.0.attn.W_Q"][head, IS, 0] = SHARP
        weights["blocks.0.attn.W_K"][head, :IS, 0] = 1
        weights["blocks.0.attn.W_V"][head, :IS, :3] = torch.eye(3)
        weights["blocks.0.attn.W_O"][head, :, 4:8] = strength * torch.eye(4)
    return weights


WORDS = "a b c is"
COPIES = tuple(Fact(f"{word} is", word, word) for word in "abc")


def test_acdc_finds_the_one_head_that_copies() -> None:
    # Two heads and an MLP. a0.h0 copies with logit 4. a0.h1 attends and writes as a0.h0 does, but into direction 8, which
    # nobody reads; m0 writes 5 into every answer direction, which softmax does not see.
    #   a0.h0->logits    without it all logits are equal:  S = log 4 - nll(4)
    #   input->a0.h0<v>  without it the head writes zero: the same S
    #   input->a0.h0<k>  and <q>: without one the scores are zero, attention is 1/2 on the subject, the logit 2:
    #                    S = nll(2) - nll(4)
    #   input->logits    input writes no answer direction: S = 0. a0.h1 and m0: S = 0, and then they are dead.
    weights = copying_weights([4, 0])
    weights["blocks.0.attn.W_O"][1, :, 8] = 1
    weights["blocks.0.mlp.b_out"] = torch.tensor([0.0] * 4 + [5.0] * 4 + [0.0])
    model = plain_model(weights, WORDS)
    circuit = edges("input->a0.h0<q> input->a0.h0<k> input->a0.h0<v> a0.h0->logits")

    scores = scores_at(HookEngine(model, COPIES), tau=0.1)
    assert {edge.name for edge in scores.above(0.1)} == circuit
    by_hand = {
        "a0.h0->logits": math.log(4) - nll(4),
        "input->a0.h0<v>": math.log(4) - nll(4),
        "input->a0.h0<k>": nll(2) - nll(4),
        "input->a0.h0<q>": nll(2) - nll(4),
        "input->logits": 0,
        "a0.h1->logits": 0,
        "m0->logits": 0,
    }
    for name, expected in by_hand.items():
        assert scores.values[scores.graph.edge(name)] == pytest.approx(expected, abs=1e-5)
    untested = edges("input->a0.h1<q> input->a0.h1<k> input->a0.h1<v> input->m0 a0.h0->m0 a0.h1->m0")
    assert untested | by_hand.keys() == {edge.name for edge in Circuit.full(scores.graph, HERE)}
    assert all(np.isnan(scores.values[scores.graph.edge(name)]) for name in untested)

    # Controls: a tau that drops what halves the logit, one that drops all, one that keeps what does nothing, and an
    # answer that the head does not copy.
    assert nll(2) - nll(4) < 0.5 < math.log(4) - nll(4) < 2
    assert found(model, COPIES, tau=0.5) == edges("input->a0.h0<v> a0.h0->logits")
    assert found(model, COPIES, tau=2.0) == set()
    assert found(model, COPIES, tau=-1e-3) > circuit
    shuffled = [Fact(f"{word} is", word, other) for word, other in zip("abc", "bca", strict=True)]
    assert found(model, shuffled, tau=0.1) == set()


def test_acdc_finds_an_mlp_that_looks_the_answer_up() -> None:
    # One word in, one word out: a -> p, b -> q, c -> r. Hidden unit i of m0 is relu(identity i); its output weight is 4.
    #   m0->logits and input->m0: without either all six logits are equal, S = log 6 - nll(4, 5 others).
    # m1 reads m0's answer and writes it into the word directions, which only earlier layers read: dead.
    weights = zero_weights(n_layers=2, n_heads=1, d_model=6, d_head=1, d_mlp=3, d_vocab=6, n_ctx=2)
    weights["embed.W_E"][:3, :3] = torch.eye(3)
    weights["blocks.0.mlp.W_in"][:3] = torch.eye(3)
    weights["blocks.0.mlp.W_out"][:, 3:] = 4 * torch.eye(3)
    weights["blocks.1.mlp.W_in"][3:] = torch.eye(3)
    weights["blocks.1.mlp.W_out"][:, :3] = torch.eye(3)
    weights["unembed.W_U"][3:, 3:] = torch.eye(3)
    model = plain_model(weights, "a b c p q r")
    facts = [Fact(word, word, answer) for word, answer in zip("abc", "pqr", strict=True)]
    assert math.log(6) - nll(4, 5) == pytest.approx(1.70, abs=0.01)

    assert found(model, facts, tau=0.5) == edges("input->m0 m0->logits")
    assert found(model, facts, tau=1.8) == set()
    assert found(model, facts, tau=0.0) > edges("input->m0 m0->logits")
    assert found(model, [Fact(word, word, "p") for word in "bc"], tau=0.5) == set()


def test_acdc_finds_both_inputs_of_an_mlp_that_joins_subject_and_relation() -> None:
    # a0.h0 moves the subject to "is" (strength 4), now for m0 only: the unembedding reads directions 8-11. Hidden unit i
    # is relu(moved i + 4 is - 4): 4 if both came, else 0. So input->m0 (the relation) and a0.h0->m0 (the subject) both
    # give S = log 4 - nll(4). With attention at 1/2, moved is 2, the unit 2, the logit 2: <q> and <k> give nll(2) - nll(4).
    weights = copying_weights([4])
    weights = {
        name: torch.nn.functional.pad(value, (0, 3)) if name == "embed.W_E" else value
        for name, value in weights.items()
    }
    weights["pos_embed.W_pos"] = torch.zeros(4, 12)
    for slot in "QKV":
        weights[f"blocks.0.attn.W_{slot}"] = torch.cat([weights[f"blocks.0.attn.W_{slot}"], torch.zeros(1, 3, 4)], 1)
    weights["blocks.0.attn.W_O"] = torch.nn.functional.pad(weights["blocks.0.attn.W_O"], (0, 3))
    weights["blocks.0.mlp.W_in"] = torch.zeros(12, 4)
    weights["blocks.0.mlp.W_in"][4:8] = torch.eye(4)
    weights["blocks.0.mlp.W_in"][IS] = 4
    weights["blocks.0.mlp.b_in"] = torch.full((4,), -4.0)
    weights["blocks.0.mlp.W_out"] = torch.zeros(4, 12)
    weights["blocks.0.mlp.W_out"][:, 8:] = torch.eye(4)
    weights["unembed.W_U"] = torch.zeros(12, 4)
    weights["unembed.W_U"][8:] = torch.eye(4)
    model = plain_model(weights, WORDS)
    circuit = edges("input->a0.h0<q> input->a0.h0<k> input->a0.h0<v> a0.h0->m0 input->m0 m0->logits")

    assert found(model, COPIES, tau=0.1) == circuit
    assert found(model, COPIES, tau=0.5) == circuit - edges("input->a0.h0<q> input->a0.h0<k>")
    assert found(model, COPIES, tau=2.0) == set()


def test_acdc_finds_an_induction_circuit_of_two_heads() -> None:
    # "a p b q a" -> "p". Words BOS a b p q; the stream has the word (0-4), the position (5-10), the word before (11-15)
    # and the answer (16-20).
    #   a0.h0: q reads position i, k reads position i - 1, v reads the word, O writes it as "the word before".
    #   a1.h0: q reads the word, k reads "the word before", v reads the word, O writes it as the answer, 8 strong.
    # At the last a, a1.h0 attends where the word before was a: at p. (Position 0 attends to itself, so BOS stands there.)
    # Every edge of the circuit carries S > 0.9: without one the head attends uniformly or writes nothing.
    weights = zero_weights(n_layers=2, n_heads=2, d_model=21, d_head=6, d_mlp=1, d_vocab=5, n_ctx=6)
    word, before, answer = slice(0, 5), slice(11, 16), slice(16, 21)
    weights["embed.W_E"][:, word] = torch.eye(5)
    weights["pos_embed.W_pos"][:, 5:11] = torch.eye(6)
    weights["blocks.0.attn.W_Q"][0, 5:11] = SHARP * torch.eye(6)
    weights["blocks.0.attn.W_K"][0, 5:10, 1:6] = torch.eye(5)
    weights["blocks.0.attn.W_V"][0, word, :5] = torch.eye(5)
    weights["blocks.0.attn.W_O"][0, :5, before] = torch.eye(5)
    weights["blocks.1.attn.W_Q"][0, word, :5] = SHARP * torch.eye(5)
    weights["blocks.1.attn.W_K"][0, before, :5] = torch.eye(5)
    weights["blocks.1.attn.W_V"][0, word, :5] = torch.eye(5)
    weights["blocks.1.attn.W_O"][0, :5, answer] = 8 * torch.eye(5)
    weights["unembed.W_U"][answer] = torch.eye(5)
    model = plain_model(weights, "BOS a b p q", bos=0)
    facts = [Fact("a p b q a", "a", "p"), Fact("b q a p b", "b", "q")]
    circuit = edges(
        "input->a0.h0<q> input->a0.h0<k> input->a0.h0<v> input->a1.h0<q> a0.h0->a1.h0<k> input->a1.h0<v> a1.h0->logits"
    )
    assert float(HookEngine(model, facts).nll(model.graph().legal).max()) == pytest.approx(nll(8, 4), abs=1e-5)

    scores = scores_at(HookEngine(model, facts), tau=0.5)
    assert {edge.name for edge in scores.above(0.5)} == circuit
    # Without a1.h0<q> attention is 1/6 each on BOS a p b q a: logits 4/3, and 8/3 for a.
    uniform = math.log(4 * math.exp(4 / 3) + math.exp(8 / 3)) - 4 / 3
    assert scores.values[scores.graph.edge("input->a1.h0<q>")] == pytest.approx(uniform - nll(8, 4), abs=1e-5)
    assert scores.values[scores.graph.edge("a1.h0->logits")] == pytest.approx(math.log(5) - nll(8, 4), abs=1e-5)
    assert scores.above(0.9) == scores.above(0.5)

    assert found(model, facts, tau=20.0) == set()
    assert found(model, facts, tau=0.0) > circuit
    assert found(model, [Fact("a p b q a", "a", "q"), Fact("b q a p b", "b", "p")], tau=0.5) != circuit


def test_the_signed_rule_drops_a_suppressive_head_and_the_absolute_rule_keeps_it() -> None:
    # a0.h0 copies with logit 4 and a0.h1 with -3: the answer stands at 1. Senders come latest first, so a0.h1 is tried
    # before a0.h0.
    #   signed:   S(a0.h1->logits) = nll(4) - nll(1) < 0, so it goes, and what is left is the copying circuit.
    #   absolute: |S| = nll(1) - nll(4) = 0.69 keeps it. a0.h1<v>: the same; <k>, <q>: attention 1/2, the answer at 4 - 1.5.
    model = plain_model(copying_weights([4, -3]), WORDS)
    copying = edges("input->a0.h0<q> input->a0.h0<k> input->a0.h0<v> a0.h0->logits")
    suppressing = edges("input->a0.h1<q> input->a0.h1<k> input->a0.h1<v> a0.h1->logits")

    assert found(model, COPIES, tau=0.1) == copying
    assert found(model, COPIES, tau=0.1, absolute=True) == copying | suppressing
    absolute = scores_at(HookEngine(model, COPIES), tau=0.1, absolute=True)
    by_hand = {
        "a0.h1->logits": nll(4) - nll(1),
        "a0.h0->logits": nll(-3) - nll(1),
        "input->a0.h1<v>": nll(4) - nll(1),
        "input->a0.h1<k>": nll(2.5) - nll(1),
        "input->a0.h0<q>": nll(-1) - nll(1),
    }
    for name, expected in by_hand.items():
        assert absolute.values[absolute.graph.edge(name)] == pytest.approx(expected, abs=1e-5)
    assert found(model, COPIES, tau=0.6, absolute=True) == (copying | suppressing) - edges(
        "input->a0.h1<q> input->a0.h1<k>"
    )


def test_the_reference_moves_with_every_removal() -> None:
    # Three heads copy with 1, 1 and 1. S is measured against the circuit at that moment, not against the whole model:
    # 3 -> 2 costs nll(2) - nll(3) and is paid; from 2 -> 1 costs nll(1) - nll(2), which is more than tau.
    model = plain_model(copying_weights([1, 1, 1]), WORDS)
    tau = 0.3
    assert nll(2) - nll(3) < tau < nll(1) - nll(2)
    scores = scores_at(HookEngine(model, COPIES), tau)
    graph = scores.graph
    assert scores.values[graph.edge("a0.h2->logits")] == pytest.approx(nll(2) - nll(3), abs=1e-5)
    assert scores.values[graph.edge("a0.h1->logits")] == pytest.approx(nll(1) - nll(2), abs=1e-5)
    assert scores.values[graph.edge("a0.h0->logits")] == pytest.approx(nll(1) - nll(2), abs=1e-5)
    # The control: against the whole model a0.h0 would have cost no more than a0.h2 did.
    assert "a0.h2->logits" not in scores.above(tau)
    assert "a0.h0->logits" in scores.above(tau)


# ---- the definition, once more -----------------------------------------------------------------------------------------


def naive_acdc(engine: HookEngine, tau: float, *, absolute: bool) -> tuple[dict[str, float], set[str]]:
    """DESIGN section 4 word for word, on edge names: scores of the edges tried, and the edges kept."""
    n_layers, n_heads, parallel, _ = dataclasses.astuple(engine.graph.shape)
    slots = ("<v>", "<k>", "<q>") if engine.graph.granularity == "qkv" else ("",)
    receivers = ["logits"]
    senders_of = {"logits": ["input"]}
    for layer in range(n_layers):
        heads = [f"a{layer}.h{head}" for head in range(n_heads)]
        for head in heads:
            senders_of[head] = list(senders_of["logits"])
        senders_of[f"m{layer}"] = [*senders_of["logits"], *([] if parallel else heads)]
        senders_of["logits"] += [*heads, f"m{layer}"]
    for layer in reversed(range(n_layers)):
        receivers.append(f"m{layer}")
        for head in reversed(range(n_heads)):
            receivers += [f"a{layer}.h{head}{slot}" for slot in slots]

    def measured(circuit: set[str]) -> float:
        mask = np.zeros_like(engine.graph.legal)
        for name in circuit:
            mask[engine.graph.edge(name)] = True
        return float(engine.nll(mask).mean())

    circuit = {f"{s}->{r}" for r in receivers for s in senders_of[r.partition("<")[0]]}
    scores: dict[str, float] = {}
    current = measured(circuit)
    for receiver in receivers:
        node = receiver.partition("<")[0]
        dead = node != "logits" and not any(name.startswith(f"{node}->") for name in circuit)
        for sender in reversed(senders_of[node]):
            edge = f"{sender}->{receiver}"
            if dead:
                circuit.remove(edge)
                continue
            without = measured(circuit - {edge})
            scores[edge] = without - current
            strength = abs(scores[edge]) if absolute else scores[edge]
            if strength < tau:
                circuit.remove(edge)
                current = without
    return scores, circuit


def tried(scores: Scores) -> dict[str, float]:
    """The score of every edge that has one, by name."""
    positions = np.argwhere(~np.isnan(scores.values)).tolist()
    return {scores.graph.edge_name(i, j): float(scores.values[i, j]) for i, j in positions}


RANDOM_FACTS = (word_fact("1 2", "3"), word_fact("4 0 2", "5"), word_fact("2 1", "0"))


@settings(max_examples=6)
@given(
    seed=st.integers(0, 10_000),
    tau=st.sampled_from([0.0, 1e-3, 0.01, 0.03, 0.1, 0.3]),
    absolute=st.booleans(),
    granularity=st.sampled_from(["qkv", "node"]),
)
def test_acdc_agrees_with_its_definition_edge_for_edge_and_score_for_score(
    seed: int, tau: float, absolute: bool, granularity: Granularity
) -> None:
    engine = HookEngine(random_plain_model(seed), RANDOM_FACTS, granularity=granularity)
    expected, kept = naive_acdc(engine, tau, absolute=absolute)
    scores, state = search(engine, AcdcOptions(tau, absolute=absolute), provenance=HERE, force=True)
    assert tried(scores) == expected
    assert {edge.name for edge in scores.above(tau, absolute=absolute)} == kept
    assert state.evaluations == len(expected) + 1
    assert sum(state.kept) == len(kept)


def test_acdc_agrees_with_its_definition_on_a_model_with_parallel_blocks(small_model: Callable[..., Model]) -> None:
    engine = HookEngine(small_model("neox"), [word_fact("5 6", "7 8")], granularity="node")
    expected, kept = naive_acdc(engine, 0.05, absolute=False)
    scores = scores_at(engine, 0.05)
    assert tried(scores) == expected
    assert {edge.name for edge in scores.above(0.05)} == kept
    assert 3 < len(kept) < engine.graph.n_edges - 3


def test_the_random_models_are_no_trivial_cases() -> None:
    found_by_seed = [
        scores_at(HookEngine(random_plain_model(seed), RANDOM_FACTS), 0.03).above(0.03) for seed in range(5)
    ]
    assert len({circuit.n_edges for circuit in found_by_seed}) > 1
    assert all(3 < circuit.n_edges < circuit.graph.n_edges - 3 for circuit in found_by_seed)


# ---- stopping, resuming, batching --------------------------------------------------------------------------------------


class _Wrapped:
    """A HookEngine asked ``width`` removals at once, which Ctrl-C stops at the call after ``calls``."""

    name = "wrapped"

    def __init__(self, engine: HookEngine, *, width: int = 1, calls: float = math.inf) -> None:
        self.engine, self.graph, self.width, self.calls = engine, engine.graph, width, calls
        self.evaluations, self.facts, self.precision, self.noise = 0, engine.facts, engine.precision, engine.noise

    def answer_logits(self, kept: np.ndarray) -> tuple[torch.Tensor, ...]:
        return self.engine.answer_logits(kept)

    def nll(self, kept: np.ndarray) -> np.ndarray:
        return self.engine.nll(kept)

    def nll_without(self, kept: np.ndarray, reader: int, removals: Sequence[Sequence[int]]) -> np.ndarray:
        assert len(removals) <= self.width
        if self.calls <= 0:
            raise KeyboardInterrupt
        self.calls -= 1
        return self.engine.nll_without(kept, reader, removals)


def engine_of(seed: int) -> HookEngine:
    return HookEngine(random_plain_model(seed), RANDOM_FACTS)


@settings(max_examples=2)
@given(seed=st.integers(0, 10_000), tau=st.sampled_from([0.0, 0.01, 0.1]), absolute=st.booleans())
def test_the_result_does_not_depend_on_the_engines_width(seed: int, tau: float, absolute: bool) -> None:
    results = [
        search(_Wrapped(engine_of(seed), width=width), AcdcOptions(tau, absolute=absolute), provenance=HERE, force=True)
        for width in (1, 3, 100)
    ]
    assert len({scores.values.tobytes() for scores, _ in results}) == 1
    assert all(state == results[0][1] for _, state in results)


@settings(max_examples=3)
@given(seed=st.integers(0, 10_000), stops=st.lists(st.integers(0, 5), min_size=1, max_size=3))
def test_a_search_that_is_stopped_and_resumed_from_its_file_ends_as_one_that_is_not(
    tmp_path_factory: pytest.TempPathFactory, seed: int, stops: list[int]
) -> None:
    path = tmp_path_factory.mktemp("state") / "state.json"
    whole, whole_state = search(engine_of(seed), AcdcOptions(0.01), provenance=HERE)
    state: State | None = None
    for calls in stops:
        before = 0 if state is None else state.decided
        with pytest.raises(Interrupted) as stopped:
            search(_Wrapped(engine_of(seed), calls=calls), AcdcOptions(0.01), provenance=HERE, state=state)
        stopped.value.state.save(path)
        state = State.load(path, fingerprint(HERE))
        assert state == stopped.value.state
        assert before + calls <= state.decided < len(state.kept)
    again, state = search(engine_of(seed), AcdcOptions(0.01), provenance=HERE, state=state)
    assert again.values.tobytes() == whole.values.tobytes()
    assert again == whole
    assert state == whole_state


def test_a_metric_that_returns_numpys_float_can_be_stopped_and_saved_too(tmp_path: Path) -> None:
    _, state = search(engine_of(0), AcdcOptions(0.01), per_token=np.mean, provenance=HERE)
    state.save(tmp_path / "state.json")
    assert state == search(engine_of(0), AcdcOptions(0.01), provenance=HERE)[1]


def test_stopping_says_how_far_the_search_came() -> None:
    with pytest.raises(KeyboardInterrupt, match="stopped after 4 of 46 edges"):
        search(_Wrapped(engine_of(0), calls=4), AcdcOptions(0.01), provenance=HERE)


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    _, state = search(engine_of(0), AcdcOptions(0.1), provenance=HERE)
    state.save(path)
    assert State.load(path, fingerprint(HERE)) == state
    for other in (
        Provenance("another", "00", processing="raw", method="acdc", settings={"tau": 0.1}),
        Provenance("by hand", "01", processing="raw", method="acdc", settings={"tau": 0.1}),
        Provenance("by hand", "00", processing="raw", method="acdc", settings={"tau": 0.2}),
        Provenance("by hand", "00", processing="raw", method="acdc", settings={"tau": 0.1}, facts=("a => b",)),
        Provenance("by hand", "00", method="acdc", settings={"tau": 0.1}),
    ):
        with pytest.raises(ResumeError, match="another model, facts or settings"):
            State.load(path, fingerprint(other))


def _with_first_line(data: bytes, **changes: object) -> bytes:
    first, rest = data.split(b"\n", 1)
    body = json.dumps({**json.loads(first[9:]), **changes}).encode()
    return b"%08x %b\n%b" % (zlib.crc32(body), body, rest)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"[]",
        lambda data: b"{}",
        lambda data: b"\x80\xff",
        lambda data: _with_first_line(data, version=99),
        lambda data: _with_first_line(data, unknown=2),
        lambda data: _with_first_line(data, edges=3),
        lambda data: data.replace(b'"version":3', b'"version":4'),
        lambda data: data[: data.index(b"\n") + 1],
    ],
)
def test_a_damaged_state_is_refused_and_names_the_file(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "state.json"
    _, state = search(engine_of(0), AcdcOptions(0.1), provenance=HERE)
    state.save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ResumeError, match=str(path)):
        State.load(path, fingerprint(HERE))


def test_progress_counts_up_to_all_edges() -> None:
    seen: list[Progress] = []
    scores, state = search(engine_of(3), AcdcOptions(0.1), provenance=HERE, progress=seen.append)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == seen[-1].total == scores.graph.n_edges
    assert seen[-1].kept == scores.above(0.1).n_edges
    assert seen[-1].nll == state.nll


def test_the_state_ends_with_the_circuits_own_nll() -> None:
    engine = engine_of(5)
    scores, state = search(engine, AcdcOptions(0.1), provenance=HERE)
    assert state.nll == pytest.approx(float(engine.nll(scores.above(0.1).kept).mean()), abs=1e-6)


def test_the_published_metric_divides_by_the_longest_predicted_length() -> None:
    # Prompts of 3 and 5 tokens, answers of 1 and 2: the longest text has 7 tokens, of which 6 are predicted.
    metric = diluted([3, 5], [1, 2])
    assert metric(np.array([6.0, 3.0])) == pytest.approx((6 * 1 + 3 * 2) / 2 / 6)


def test_the_traversal_goes_back_from_the_logits_with_the_latest_sender_first() -> None:
    graph = Graph(Shape(2, 2))
    walk = Traversal(graph)
    assert len(set(walk.edges)) == len(walk.edges) == graph.n_edges
    names = [graph.edge_name(*edge) for edge in walk.edges]
    assert names[:8] == [f"{w}->logits" for w in ["m1", "a1.h1", "a1.h0", "m0", "a0.h1", "a0.h0", "input"]] + [
        "a1.h1->m1"
    ]
    receivers = list(dict.fromkeys(name.split("->")[1] for name in names))
    assert receivers[:5] == ["logits", "m1", "a1.h1<v>", "a1.h1<k>", "a1.h1<q>"]
    assert receivers[-3:] == ["a0.h0<v>", "a0.h0<k>", "a0.h0<q>"]

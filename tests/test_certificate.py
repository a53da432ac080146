"""A certificate tells a circuit that looks its fact up from one that says the same to everyone."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from circuits.circuit import Circuit, Provenance
from circuits.engines.hook import HookEngine
from circuits.evaluation.certificate import KL_BAR, Certificate, Specificity, certify
from circuits.facts import Fact
from circuits.metrics import Share
from circuits.model import Model
from tests.models import plain_model, zero_weights

# ---- the oracle: one MLP that looks each subject's answer up, and one that says "p0" to all ---------------------------------
#
# Twelve subjects s0 ... s11, twelve answers p0 ... p11. m0 adds 5 to the logit of the subject's own answer; m1, whose one unit
# sees any subject, adds 2 to p0's. All else writes nothing. So the model gives every subject its own; m1 alone gives p0 to
# all, which is right of s0.

N = 12
FACTS = tuple(Fact(f"s{i}", f"s{i}", f"p{i}", "r") for i in range(N))
LOOKUP, SAME = ("input->m0", "m0->logits"), ("input->m1", "m1->logits")


def lookup_and_same() -> Model:
    d = 2 * N
    weights = zero_weights(n_layers=4, n_heads=2, d_model=d, d_head=1, d_mlp=N, d_vocab=d, n_ctx=2)
    weights["embed.W_E"][:N, :N] = torch.eye(N)
    weights["blocks.0.mlp.W_in"][:N] = torch.eye(N)
    weights["blocks.0.mlp.W_out"][:, N:] = 5 * torch.eye(N)
    weights["blocks.1.mlp.W_in"][:N, 0] = 1
    weights["blocks.1.mlp.W_out"][0, N] = 2
    weights["unembed.W_U"][N:, N:] = torch.eye(N)
    return plain_model(weights, " ".join([*(f"s{i}" for i in range(N)), *(f"p{i}" for i in range(N))]))


MODEL = lookup_and_same()
GRAPH = MODEL.graph()


def certificate(names: tuple[str, ...], fact: Fact = FACTS[0], others: tuple[Fact, ...] = FACTS) -> Certificate:
    kept = np.zeros_like(GRAPH.legal)
    for name in names:
        kept[GRAPH.edge(name)] = True
    circuit = Circuit(GRAPH, kept, Provenance("by hand", "00"))
    return certify(MODEL, lambda facts: HookEngine(MODEL, facts), circuit, fact, others)


def test_a_circuit_that_looks_the_subject_up_is_specific_to_it():
    found = certificate(LOOKUP, FACTS[3])
    assert found.specificity.own_answer == Share(11, 11)
    assert found.specificity.this_answer == Share(0, 11)
    assert found.specificity.blind == 1 / 11
    assert found.sufficiency.given
    assert found.sufficiency.circuit.rank.value == 1
    # Without it, m1 alone: p0 first.
    assert found.necessity.lost
    assert found.necessity.without.rank.value == 2 * N
    assert found.grades == {"sufficiency": "passed", "specificity": "passed", "necessity": "passed"}
    assert found.verdict == "passed"


def test_a_circuit_that_says_the_same_to_everyone_recalls_no_fact_though_its_answer_is_first():
    found = certificate(SAME)
    assert found.sufficiency.given
    assert found.sufficiency.circuit.rank.value == 1
    assert found.specificity.own_answer == Share(0, 11)
    assert found.specificity.this_answer == Share(11, 11)
    assert found.specificity.grade == "failed"
    # The model gives p0 to s0 without it too.
    assert not found.necessity.lost
    assert found.verdict == "failed"
    summary = found.to_json()
    assert (summary["own_answer"], summary["this_answer"], summary["n_subjects"]) == (0, 1, 11)
    assert (summary["blind"], summary["necessity"], summary["verdict"]) == (1 / 11, 0, "failed")


def test_specificity_passes_only_above_both_the_blind_baseline_and_the_facts_own_answer():
    def grade(own: int, this: int, blind: float, n: int = 30) -> str:
        return Specificity(Share(own, n), Share(this, n), blind).grade

    assert grade(27, 0, 0.2) == "passed"
    assert (
        grade(8, 7, 0.03) == "undecided"
    )  # above the baseline, and no more subjects get their own answer than this one
    assert grade(8, 0, 0.2) == "undecided"
    assert grade(1, 15, 0.07) == "failed"
    assert grade(0, 0, 0.2) == "failed"


def test_divergence_and_certainty_are_those_of_the_logits():
    """s0: the model puts 7 on p0, m1 alone 2, m0 alone 5, beside 23 logits of 0. s3: m0 alone is surer than with m1's 2 on p0."""

    def log_p(own: float, *others: float) -> float:
        rest = 2 * N - 1 - len(others)
        return own - math.log(math.exp(own) + sum(map(math.exp, others)) + rest)

    def kl(p: float, q: float) -> float:
        own, rest = math.exp(log_p(p)), 2 * N - 1
        other = (1 - own) / rest
        return own * (log_p(p) - log_p(q)) + rest * other * (
            math.log(other) - math.log((1 - math.exp(log_p(q))) / rest)
        )

    assert certificate(SAME).sufficiency.kl == pytest.approx(kl(7, 2))
    everything = certificate((*LOOKUP, *SAME))
    assert everything.sufficiency.kl == pytest.approx(0, abs=1e-9)
    assert not everything.sufficiency.overconfident
    alone = certificate(LOOKUP, FACTS[3]).sufficiency
    assert alone.circuit.nll.value == pytest.approx(-log_p(5))
    assert alone.model.nll.value == pytest.approx(-log_p(5, 2))
    assert alone.model.nll.value - alone.circuit.nll.value == pytest.approx(log_p(5) - log_p(5, 2))
    # A difference of 0.04 nats is within the bar.
    assert not alone.overconfident


def test_a_circuit_of_nothing_gives_no_answer_and_other_answers_are_needed_to_tell_what_is_specific():
    nothing = certificate(())
    assert not nothing.sufficiency.given
    assert nothing.sufficiency.circuit.rank.value == 2 * N
    assert nothing.specificity.own_answer == Share(0, 11)
    assert nothing.verdict == "failed"
    # None but the fact itself, and one with its answer: nothing to tell by.
    same = Fact("s1", "s1", FACTS[0].object, "r")
    lonely = certificate(LOOKUP, others=(FACTS[0], same))
    assert lonely.specificity.own_answer.n == 0
    assert lonely.specificity.grade == "undecided"
    assert lonely.to_json()["own_answer"] is None
    # m0 alone and m1 alone both give p0 to s0: not needed.
    assert lonely.grades["necessity"] == "failed"


def test_an_engine_of_another_graph_is_refused():
    circuit = Circuit.full(MODEL.graph("node"), Provenance("by hand", "00"))
    with pytest.raises(ValueError, match="engine of the circuit's graph"):
        certify(MODEL, lambda facts: HookEngine(MODEL, facts), circuit, FACTS[0], FACTS)


def test_a_circuit_far_from_its_model_is_not_sufficient_though_its_answer_is_first() -> None:
    """m1 alone puts p0 first by 2 logits, where the model's 7 are 1.3 nats away."""
    far, near = certificate(SAME).sufficiency, certificate(LOOKUP).sufficiency
    assert far.given
    assert far.kl > KL_BAR > near.kl
    assert (far.grade, near.grade) == ("failed", "passed")


def test_the_whole_model_is_contradicted_by_no_random_circuit_of_its_size() -> None:
    everything = Circuit.full(GRAPH, Provenance("by hand", "00"))
    found = certify(MODEL, lambda facts: HookEngine(MODEL, facts), everything, FACTS[3], FACTS)
    assert found.sufficiency.random == found.necessity.random == Share(20, 20)
    assert found.grades == {"sufficiency": "undecided", "specificity": "passed", "necessity": "undecided"}
    # The control: a circuit of nothing fails, whatever random ones of its size do.
    assert certificate(()).grades["sufficiency"] == "failed"


def test_an_answer_of_several_tokens_counts_as_given_to_another_subject_only_if_all_of_it_is() -> None:
    """m0 and m1 as before; "p0 p0" is this fact's answer: s1 begins it where p0 is first."""
    fact = Fact("s0", "s0", "p0 p1", "r")
    runs: list[tuple[Fact, ...]] = []

    def engine_of(facts: Sequence[Fact]) -> HookEngine:
        runs.append(tuple(facts))
        return HookEngine(MODEL, facts)

    kept = np.zeros_like(GRAPH.legal)
    for name in SAME:
        kept[GRAPH.edge(name)] = True
    circuit = Circuit(GRAPH, kept, Provenance("by hand", "00"))
    found = certify(MODEL, engine_of, circuit, fact, FACTS[1:4], draws=1)
    # All three begin "p0", so each was asked whether it goes on with "p1", and none does.
    assert [each.object for each in runs[-1]] == ["p0 p1"] * 3
    assert found.specificity.this_answer == Share(0, 3)
    # The control: an answer of one token is read off the run that gave the subjects' own.
    runs.clear()
    one_token = certify(MODEL, engine_of, circuit, FACTS[0], FACTS[1:4], draws=1)
    assert one_token.specificity.this_answer == Share(3, 3)
    assert len(runs) == 2

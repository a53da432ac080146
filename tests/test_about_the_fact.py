"""What makes a circuit about its fact: KL to the model, the answer against other objects, other subjects of any length."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from circuits.circuit import Circuit, Provenance
from circuits.datasets.corrupted import CorruptionError
from circuits.datasets.objects import metric_for
from circuits.discovery.acdc import AcdcOptions, search
from circuits.discovery.eap import eap
from circuits.discovery.problem import Problem
from circuits.engines.ablation import Ablation, AblationError, aligned
from circuits.engines.engine import Engine
from circuits.engines.hook import HookEngine
from circuits.engines.sparse import SparseEngine
from circuits.facts import Fact, FactError, Relation
from circuits.metrics import KL, NLL, Metric, Shown, choice_nll, contrast, kl_divergence, kl_to_model, match_nll
from circuits.model import Batch, Model
from circuits.studies.runs import certifier
from circuits.studies.search import search as search_circuit
from circuits.studies.specs import RunSpec
from circuits.studies.subjects import asked, beside, recalled_others
from tests.models import word_fact
from tests.test_certificate import FACTS as LOOKED_UP
from tests.test_certificate import LOOKUP, SAME
from tests.test_certificate import MODEL as LOOKUP_MODEL

LoadModel = Callable[..., Model]
ARCHITECTURES = ["gpt2", "llama", "neox"]
FACTS = (word_fact("3 1 4 1 5 9", "2"), word_fact("6 5 3 5 8 9", "7"), word_fact("2 7 1 8", "2 8"))
HERE = Provenance("by hand", "00", processing="raw", method="acdc")


def about(model: Model, objects: str = "2 7|2 8|2 8 9|11|12") -> Metric:
    """The facts' answers among these objects."""
    others = [model.tokens(word_fact("1", each)).answer for each in objects.split("|")]
    return contrast([model.tokens(fact).answer for fact in FACTS], [others] * len(FACTS))


# ---- the metrics, by hand --------------------------------------------------------------------------------------------------


def test_kl_to_the_model_is_the_mean_divergence_at_the_answers_positions() -> None:
    own = torch.tensor([[[math.log(1), math.log(3)], [0.0, 0.0]]])
    outputs = torch.tensor([[[[0.0, 0.0], [0.0, 0.0]]], [[[math.log(1), math.log(3)], [5.0, 5.0]]]])
    first = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert kl_to_model(outputs, own)[:, 0].tolist() == pytest.approx([first / 2, 0.0])
    assert float(kl_to_model(outputs[0], own)) == pytest.approx(float(kl_divergence(own, outputs[0]).mean()))


def test_the_answer_among_objects_is_blind_to_what_no_object_begins_with_and_to_what_makes_all_likelier() -> None:
    """Objects a (0), b (1) and c (2) of five tokens; logits log 1, log 2, log 5 and others."""
    choices = torch.tensor([[[1, 0, 2]]])
    logits = torch.tensor([[[math.log(1), math.log(2), math.log(5), 9.0, -3.0]]])
    assert float(choice_nll(logits, choices)) == pytest.approx(math.log(8 / 2))
    for change in ([3, 3, 3, 0, 0], [0, 0, 0, 7, -7]):
        assert float(choice_nll(logits + torch.tensor(change), choices)) == pytest.approx(math.log(8 / 2))
        assert float(match_nll(logits + torch.tensor(change), torch.tensor([[1]]))) != pytest.approx(
            float(match_nll(logits, torch.tensor([[1]])))
        )
    # One foil: log(1 + exp(-difference)).
    assert float(choice_nll(logits, torch.tensor([[[1, 0, -1]]]))) == pytest.approx(math.log(1 + 1 / 2))


def test_an_object_is_a_rival_for_as_long_as_it_goes_like_the_answer() -> None:
    """The answer "2 8" among "2 7", "2 8 9", "11": at its first token two beginnings, at its second two ways to go on."""
    metric = contrast([(2, 8)], [[(2, 7), (2, 8), (2, 8, 9), (11,)]])
    logits = torch.zeros(1, 2, 12)
    logits[0, 0, 11], logits[0, 1, 7] = math.log(3), math.log(4)
    # The first token: 1 of 1 + 3; the second: 1 of 1 + 4. "2 8 9" goes on with 8 as the answer does.
    shown = Shown(torch.tensor([[2, 8]]), logits, (0,))
    assert metric.target(shown).tolist() == [[[2, 11], [8, 7]]]
    assert float(metric.of(logits, metric.target(shown))) == pytest.approx(math.log(4) + math.log(5))


def test_answers_that_no_object_can_be_told_from_are_refused() -> None:
    with pytest.raises(ValueError, match="that tokens tell from the answer, got none for fact 1"):
        contrast([(2,), (3,)], [[(1,)], [(3,), (3, 4)]])
    with pytest.raises(ValueError, match="expected objects for each of 2 facts, got 1"):
        contrast([(2,), (3,)], [[(1,)]])


# ---- both engines ----------------------------------------------------------------------------------------------------------


def of(name: str, model: Model) -> Metric:
    return KL if name == "kl" else about(model)


@pytest.mark.parametrize("metric", ["kl", "contrast"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_both_engines_measure_random_circuits_alike_by_every_metric(
    small_model: LoadModel, name: str, metric: str
) -> None:
    model, rng = small_model(name), np.random.default_rng(0)
    hook, sparse = (make(model, FACTS, metric=of(metric, model)) for make in (HookEngine, SparseEngine))
    for share in (1.0, 0.5, 0.9):
        kept = sparse.graph.legal & (rng.random(sparse.graph.legal.shape) < share)
        assert sparse.nll(kept) == pytest.approx(hook.nll(kept), abs=1e-4), share
        logits = hook.answer_logits(kept)
        if metric == "kl":
            whole = hook.answer_logits(hook.graph.legal)
            expected = [float(kl_divergence(own, alone).mean()) for own, alone in zip(whole, logits, strict=True)]
            assert sparse.nll(kept) == pytest.approx(expected, abs=1e-4)
            assert (sparse.nll(kept) < 1e-6).all() == (share == 1.0)
    assert hook.noise() == sparse.noise() > 0


@pytest.mark.parametrize(("metric", "tau"), [("kl", 0.02), ("kl", 0.2), ("contrast", 0.03)])
def test_both_engines_find_one_circuit_by_every_metric_and_another_than_by_match_nll(
    small_model: LoadModel, metric: str, tau: float
) -> None:
    model = small_model("gpt2")
    hook, sparse = (make(model, FACTS, metric=of(metric, model)) for make in (HookEngine, SparseEngine))
    expected, reference = search(hook, AcdcOptions(tau=tau), provenance=HERE)
    got, state = search(sparse, AcdcOptions(tau=tau), provenance=HERE)
    assert state.kept == reference.kept
    assert np.allclose(got.values, expected.values, atol=1e-4, equal_nan=True)
    assert 0 < sum(state.kept) < len(state.kept)
    _, by_nll = search(SparseEngine(model, FACTS, metric=NLL), AcdcOptions(tau=tau), provenance=HERE)
    assert by_nll.kept != state.kept


def test_what_is_relative_to_the_model_has_no_slope_there_and_is_refused(small_model: LoadModel) -> None:
    with pytest.raises(ValueError, match="to differentiate, got KL"):
        eap(Problem(small_model("gpt2"), FACTS, metric=KL))


# ---- other subjects of any length ------------------------------------------------------------------------------------------


def test_subjects_are_aligned_from_their_ends_and_words_with_themselves() -> None:
    """Prompts BOS the S is; positions of the fact's tokens in the other prompt."""
    assert aligned((0, 1, 20, 5), (0, 1, 30, 5), 5) == [0, 1, 2, 3, 4]
    assert aligned((0, 1, 20, 5), (0, 1, 30, 31, 32, 5), 5) == [0, 1, 4, 5, 6]
    assert aligned((0, 1, 20, 21, 22, 5), (0, 1, 30, 5), 7) == [0, 1, 2, 2, 2, 3, 4]
    # They begin with the same token, and end with the same: "x Korea" and "x y Korea".
    assert aligned((0, 8, 9, 5), (0, 8, 7, 9, 5), 4) == [0, 1, 3, 4]
    # Without BOS the subject has the first position, which stands for itself and no other.
    assert aligned((20, 5), (30, 31, 5), 3) == [0, 2, 3]
    assert aligned((20, 21, 5), (30, 5), 4) == [0, 1, 1, 2]


@pytest.mark.parametrize("make", [HookEngine, SparseEngine])
def test_with_every_edge_ablated_each_position_reads_what_stands_for_it_in_the_other_prompt(
    small_model: LoadModel, make: Callable[..., Engine]
) -> None:
    """The last position stands for the last, so its logits are the model's on the other prompt."""
    model = small_model("gpt2")
    fact, other = Fact("w1 w3 w4 w2 w5", "w3 w4", "w6 w7"), Fact("w1 w8 w2 w5", "w8", "w9")
    for one, donor in ((fact, other), (other, fact)):
        engine = make(model, (one,), ablation=Ablation("resample", corrupted=(donor,)))
        (logits,) = engine.answer_logits(np.zeros_like(engine.graph.legal))
        ids = model.tokens(donor).prompt + model.tokens(one).answer[:-1]
        expected = model.logits(Batch.of_prompts(torch.tensor([ids])))[0, -len(model.tokens(one).answer) :]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        # With none ablated nothing of the other prompt is read.
        (whole,) = engine.answer_logits(engine.graph.legal)
        own = model.logits(Batch.of_prompts(torch.tensor([model.tokens(one).forced])))
        torch.testing.assert_close(whole, own[0, -len(whole) :], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_both_engines_run_circuits_beside_subjects_of_other_lengths_alike(small_model: LoadModel, name: str) -> None:
    model, rng = small_model(name), np.random.default_rng(0)
    facts = (Fact("w1 w3 w4 w2 w5", "w3 w4", "w6 w7"), Fact("w1 w8 w2 w5", "w8", "w9"), Fact("w3 w2", "w3", "w9"))
    ablation = Ablation("resample", corrupted=(facts[1], facts[0], Fact("w8 w9 w10 w2", "w8 w9 w10", "w3")))
    hook, sparse = (make(model, facts, ablation=ablation) for make in (HookEngine, SparseEngine))
    for share in (0.5, 0.9):
        kept = sparse.graph.legal & (rng.random(sparse.graph.legal.shape) < share)
        assert sparse.nll(kept) == pytest.approx(hook.nll(kept), abs=1e-4)


def test_other_words_of_another_length_are_refused(small_model: LoadModel) -> None:
    other = Fact("w2 w8 w9 w5", "w8 w9", "w9")
    with pytest.raises(AblationError, match="that have the same words about their subjects"):
        HookEngine(small_model("gpt2"), [Fact("w1 w8 w5", "w8", "w6")], ablation=Ablation("resample", (), (other,)))


# ---- what is searched: an MLP that looks each subject's answer up, and one that says "p0" to all ---------------------------


RELATIONS = {
    "r": Relation("r", "r", "factual", "subject", "object", ("{}",), tuple((f.subject, f.object) for f in LOOKED_UP))
}


def found(**asked: object) -> set[str]:
    """The edges that a search for s0 => p0 leaves, of the model of test_certificate."""
    spec = RunSpec.model_validate({"facts": LOOKED_UP[:1], "engine": "hook", "tau": 0.01, **asked})
    return {edge.name for edge in search_circuit(spec, RELATIONS, LOOKUP_MODEL).edges}


def test_beside_siblings_and_beside_another_subject_what_says_one_answer_to_all_is_left_out() -> None:
    """m1 adds 2 to p0's logit: it takes 0.12 nats off s0's answer, and adds 0.04 to the others'."""
    lookup, same = set(LOOKUP), set(SAME)
    assert found() == lookup | same
    # All that the model says, its certainty included.
    assert found(metric="kl") == lookup | same
    assert found(metric="contrast") == lookup | same
    assert found(siblings=LOOKED_UP[1:4]) == lookup
    # The published code's mean is over all that the search runs on, siblings too; with a position each it is the mean.
    several = {"facts": LOOKED_UP[:2], "relation": "r", "siblings": LOOKED_UP[2:5]}
    assert found(**several, compat="kc") == found(**several) == lookup
    # m1 says to another subject what it says to this one.
    assert found(ablation="resample") == lookup


def test_a_circuit_file_says_what_it_was_searched_by_only_where_that_is_not_the_papers() -> None:
    spec = RunSpec(facts=LOOKED_UP[:1], metric="kl", siblings=LOOKED_UP[1:3])
    assert (spec.settings["metric"], spec.settings["siblings"]) == ("kl", 2)
    assert spec.built_from == LOOKED_UP[:3]
    assert not {"metric", "siblings"} & RunSpec(facts=LOOKED_UP[:1]).settings.keys()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"compat": "kc"}, "compat: the published code measures MatchNLL"),
        ({"prefilter": "eap"}, "prefilter: its scores are of the answer's NLL"),
    ],
)
def test_options_that_do_not_go_with_another_metric_are_refused(options: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        RunSpec.model_validate({"facts": LOOKED_UP[:1], "metric": "kl", **options})


def test_contrast_needs_the_relations_objects() -> None:
    alone = Fact("s0", "s0", "p0")
    with pytest.raises(CorruptionError, match="no other objects to tell its answer from; use --metric"):
        metric_for("contrast", [alone], RELATIONS, LOOKUP_MODEL)
    assert metric_for("kl", [alone], RELATIONS, LOOKUP_MODEL) is KL
    assert metric_for("matchnll", [alone], RELATIONS, LOOKUP_MODEL) is NLL


def test_a_certificate_asks_none_of_the_subjects_that_the_circuit_was_built_from() -> None:
    fact = LOOKED_UP[0]
    others = recalled_others(fact, RELATIONS, LOOKUP_MODEL, seed=1)
    assert {other.subject for other in others} == {other.subject for other in LOOKED_UP[1:]}
    siblings = beside(fact, RELATIONS, LOOKUP_MODEL, 4, seed=1)
    assert siblings == others[-4:]
    assert asked(fact, (fact, *siblings), RELATIONS, LOOKUP_MODEL, seed=1) == list(others[:-4])
    assert recalled_others(fact, RELATIONS, LOOKUP_MODEL, seed=2) != others
    with pytest.raises(FactError, match=r"expected 12 other subjects of r .* got 11; ask for fewer --siblings"):
        beside(fact, RELATIONS, LOOKUP_MODEL, 12)
    # A fact of no relation has no others, and none to be built beside.
    alone = Fact("s0", "s0", "p0")
    assert recalled_others(alone, RELATIONS, LOOKUP_MODEL) == ()
    with pytest.raises(FactError, match=r"expected 1 other subjects of the relation .* got 0"):
        beside(alone, RELATIONS, LOOKUP_MODEL, 1)


def test_a_certificate_that_does_not_fit_into_memory_is_said_to_be_missing() -> None:
    spec = RunSpec(facts=LOOKED_UP[:1])
    circuit, told = Circuit.full(LOOKUP_MODEL.graph(), HERE), list[str]()
    assert certifier(spec, RELATIONS, LOOKUP_MODEL, 1, told.append)(circuit) is None
    assert len(told) == 1
    assert told[0].startswith("no certificate, for want of memory: beside 11 other subjects ")
    # The control: where there is room, there is one, and nothing to say.
    assert certifier(spec, RELATIONS, LOOKUP_MODEL, None, told.append)(circuit) is not None
    assert len(told) == 1


def test_circuits_at_several_thresholds_are_certified_beside_subjects_that_are_drawn_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, drawn = RunSpec(facts=LOOKED_UP[:1]), list[Fact]()

    def draw(fact: Fact, *rest: Any) -> list[Fact]:
        drawn.append(fact)
        return list(LOOKED_UP[1:])

    monkeypatch.setattr("circuits.studies.subjects.asked", draw)
    one = certifier(spec, RELATIONS, LOOKUP_MODEL)
    certificates = [one(Circuit.full(LOOKUP_MODEL.graph(), HERE)), one(Circuit.empty(LOOKUP_MODEL.graph(), HERE))]
    assert [found.specificity.own_answer.n for found in certificates if found] == [len(LOOKED_UP) - 1] * 2
    assert drawn == [LOOKED_UP[0]]

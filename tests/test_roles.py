"""Roles on transformers whose heads are known by construction, on ones that know nothing, and on the embedded model."""

import dataclasses
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from circuits.analysis.attribution import TargetError, readout, targets
from circuits.analysis.cuts import cut_readings
from circuits.analysis.nulls import (
    against_sets,
    intervals,
    lookalike_sets,
    permuted_answers,
    shuffled_windows,
    shuffles,
)
from circuits.analysis.roles import ALPHA, MIN_EFFECT, RoleError, Roles, find_roles
from circuits.analysis.tracing import head_nodes, open_parts, replay_by_running, source_parts, traces
from circuits.datasets import load_relations
from circuits.evaluation.roles import relation_roles
from circuits.facts import Fact
from circuits.model import Model
from circuits.model.spans import SpanError, spans
from circuits.studies.roles import kappa
from tests.models import plain_model, zero_weights
from tests.planted_heads import FACTS, OBJECTS, ROLES, planted

LoadModel = Callable[..., Model]


@pytest.fixture(scope="module")
def found() -> Roles:
    return find_roles(planted(), FACTS, OBJECTS, draws=499)


# ---- planted ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("mover", "mover"),
        ("relation", "relation"),
        ("mixture", "mixture"),
        ("suppressor", "suppressor"),
        ("carrier", "carrier"),
        ("idle", "other"),
        ("noisy", "other"),
    ],
)
def test_planted_heads_get_the_role_they_were_given(found: Roles, name: str, role: str) -> None:
    verdict = found.of(ROLES[name])
    assert verdict.role == role, str(verdict)
    assert verdict.evidence.n_facts == len(FACTS)


def test_a_mover_that_writes_the_answer_is_told_from_one_whose_write_an_mlp_must_turn_into_it(found: Roles) -> None:
    mover, carrier = found.of(ROLES["mover"]), found.of(ROLES["carrier"])
    assert mover.extracts
    assert not carrier.extracts
    # Its cut costs the answer more than many a mover's does, and it writes none of it: no part of the bar is the cut's size.
    assert carrier.evidence.subject_cut.mean > mover.evidence.subject_cut.mean
    assert carrier.evidence.subject_answer.mean == pytest.approx(0, abs=1e-6)
    assert "later layers" in str(carrier)


def test_a_planted_relation_head_reads_as_the_range_and_an_idle_one_as_nothing(found: Roles) -> None:
    assert found.of(ROLES["relation"]).names_range
    assert not found.of(ROLES["idle"]).names_range


def test_effects_of_planted_heads_are_those_of_their_weights(found: Roles) -> None:
    """The relation head attends to the one token of its flag with weight e^8 / (e^8 + 4), and adds 2 to every object's logit."""
    weight = float(np.exp(8) / (np.exp(8) + 4))
    share = len(OBJECTS) / planted().network.d_vocab
    evidence = found.of(ROLES["relation"]).evidence
    assert evidence.relation_cut.mean == pytest.approx(2 * weight * (1 - share), rel=1e-3)
    assert evidence.relation_range.mean == pytest.approx(evidence.relation_cut.mean, rel=1e-5)
    assert evidence.attention_relation == pytest.approx(1 - (1 - weight) / 4 * 2, rel=1e-3)
    assert found.of(ROLES["suppressor"]).evidence.subject_cut.high < 0


def test_a_head_that_draws_its_write_from_a_subject_it_hardly_attends_to_is_a_mover_all_the_same() -> None:
    shy = find_roles(planted(shy=True), FACTS, OBJECTS, draws=499).of(ROLES["mover"])
    assert shy.evidence.attention_subject == pytest.approx(np.exp(-2) / (np.exp(-2) + 4), rel=1e-3)
    assert shy.evidence.attention_subject < 0.04
    assert shy.evidence.reading_subject == pytest.approx(1)
    assert shy.role == "mover"


def test_a_massive_first_position_that_takes_the_attention_takes_no_head_its_role(found: Roles) -> None:
    resting = find_roles(planted(sink=True), FACTS, OBJECTS, draws=499)
    for name, head in ROLES.items():
        assert resting.of(head).role == found.of(head).role, str(resting.of(head))
        if name != "noisy":
            evidence = resting.of(head).evidence
            assert evidence.attention_sink > 0.8
            assert evidence.attention_subject + evidence.attention_relation < 0.1
    for name in ("mover", "carrier"):
        assert resting.of(ROLES[name]).evidence.reading_subject == pytest.approx(1)


def test_a_subject_that_begins_the_prompt_without_a_bos_token_is_said_to_stand_on_the_sink(found: Roles) -> None:
    assert not any(verdict.evidence.subject_first for verdict in found.heads)
    begin = [dataclasses.replace(fact, prompt=f"{fact.subject} language is") for fact in FACTS]
    mover = find_roles(planted(), begin, OBJECTS, draws=499).of(ROLES["mover"])
    assert mover.evidence.subject_first
    assert mover.evidence.attention_sink == pytest.approx(mover.evidence.attention_subject)
    assert "the subject is also the first token" in str(mover)


def test_the_same_seed_gives_the_same_verdicts_and_they_survive_json(found: Roles) -> None:
    again = find_roles(planted(), FACTS, OBJECTS, draws=499)
    assert again == found
    adapter = TypeAdapter(Roles)
    assert adapter.validate_json(adapter.dump_json(found)) == found


def test_every_verdict_is_a_sentence_that_says_its_numbers(found: Roles) -> None:
    for verdict in found.heads:
        text = str(verdict)
        assert text.startswith(verdict.head.label)
        assert text.endswith("over 8 facts.")
        assert (
            f"{abs(verdict.evidence.subject_cut.mean if verdict.role != 'relation' else verdict.evidence.relation_cut.mean):.2f}"
            in text
        )
    assert "L0H0 mover" in str(found)
    assert {verdict.head for verdict in found.labelled} == {ROLES[n] for n in ROLES if n not in ("idle", "noisy")}


def test_the_answers_dealt_to_other_subjects_take_the_movers_away_and_leave_the_relation_head() -> None:
    dealt = [dataclasses.replace(fact, object=OBJECTS[(i + 3) % len(OBJECTS)]) for i, fact in enumerate(FACTS)]
    roles = find_roles(planted(), dealt, OBJECTS, draws=499)
    assert not roles.with_role("mover", "suppressor")
    assert roles.of(ROLES["relation"]).role == "relation"


def test_a_range_that_the_model_does_not_promote_takes_the_relation_head_away() -> None:
    wrong = [dataclasses.replace(fact, object=f"f{i}") for i, fact in enumerate(FACTS)]
    assert find_roles(planted(), wrong, [fact.object for fact in wrong], draws=499).labelled == ()


# ---- models that know nothing ----------------------------------------------------------------------------------------


def ignorant(seed: int) -> tuple[Model, list[Fact]]:
    """A random transformer of 2 x 3 heads, and facts that it has never seen."""
    generator = torch.Generator().manual_seed(seed)
    n_words = 60
    weights = zero_weights(n_layers=2, n_heads=3, d_model=12, d_head=4, d_mlp=12, d_vocab=n_words, n_ctx=8)
    random = {name: 0.5 * torch.randn(value.shape, generator=generator) for name, value in weights.items()}
    random["embed.W_E"] = 2 * random["embed.W_E"]
    facts = [Fact(f"w0 w1 w{10 + i} w2 w3", f"w{10 + i}", f"w{30 + i}", "r") for i in range(12)]
    return plain_model(random, " ".join(f"w{i}" for i in range(n_words)), attention_scale=2.0), facts


def test_on_random_models_no_head_gets_a_label_more_often_than_stated() -> None:
    n_models, labelled, uncorrected = 30, 0, 0
    for seed in range(n_models):
        model, facts = ignorant(seed)
        roles = find_roles(model, facts, [fact.object for fact in facts], seed=seed, draws=199)
        labelled += bool(roles.labelled)
        # The control: intervals alone, which is how labels are often given, call heads of almost every random model something.
        uncorrected += any(
            v.evidence.relation_cut.low > 0 and v.evidence.relation_cut.mean >= MIN_EFFECT for v in roles.heads
        )
    # Chance of 7 or more of 30 at a rate of ALPHA = 5 %: below 0.1 %.
    assert n_models * ALPHA == pytest.approx(1.5)
    assert labelled < 7
    assert uncorrected > n_models / 2


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_too_few_facts_one_object_and_a_subject_at_the_end_are_refused() -> None:
    model = planted()
    with pytest.raises(RoleError, match="at least 6 facts"):
        find_roles(model, FACTS[:3], OBJECTS)
    with pytest.raises(TargetError, match="at least two objects"):
        find_roles(model, [dataclasses.replace(fact, object="o0") for fact in FACTS], ["o0"])
    with pytest.raises(SpanError, match="s0"):
        find_roles(model, [dataclasses.replace(fact, prompt=f"the of s{i}") for i, fact in enumerate(FACTS)], OBJECTS)


# ---- statistics ------------------------------------------------------------------------------------------------------


def test_shuffled_answers_tell_effects_on_the_own_answer_from_effects_on_all() -> None:
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal((3, 10, 10))
    own, all_alike = np.eye(10)[None], np.ones((1, 10, 10))
    effects = noise + np.concatenate((own, all_alike, -own))
    z, p = permuted_answers(effects, np.arange(10), shuffles(10, 999, rng))
    assert p[0] == p[2] == 0.001
    assert p[1] > 0.05
    assert z[0] > 0 > z[2]


def test_a_p_corrected_for_heads_is_never_below_the_smallest_share_that_draws_can_show() -> None:
    observed, drawn = np.array([3.0, 1.0, -np.inf]), np.array([[0.0, 1.0, 2.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
    # The largest over heads in each draw: 0.5, 1, 2.
    assert against_sets(observed, drawn).tolist() == [1 / 4, 3 / 4, 1.0]


def test_intervals_hold_the_mean_of_what_they_were_drawn_from_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    bounds = intervals(rng.standard_normal((400, 30)) + 1, rng, draws=400)
    inside = ((bounds[:, 0] < 1) & (bounds[:, 1] > 1)).mean()
    assert 0.88 < inside < 0.98


def test_windows_are_compared_with_others_of_their_fact_and_too_few_of_them_with_none() -> None:
    rng = np.random.default_rng(2)
    strong = [np.array([5.0, 0.0, 0.0]) for _ in range(10)]
    assert shuffled_windows(strong, [0] * 10, 999, rng) == pytest.approx(0.001)
    assert shuffled_windows(strong, [1] * 10, 999, rng) == 1.0
    assert shuffled_windows([np.array([5.0])] * 10, [0] * 10, 999, rng) is None


def test_lookalike_sets_are_as_many_and_at_least_about_as_near_to_each_other() -> None:
    rng = np.random.default_rng(3)
    clusters = rng.standard_normal((20, 16)) * 3
    vectors = np.concatenate([centre + rng.standard_normal((10, 16)) for centre in clusters])
    tight, loose = np.arange(8), np.arange(0, 200, 25)
    alike = {}
    for name, members in (("tight", tight), ("loose", loose)):
        sets = lookalike_sets(vectors, members, 200, rng)
        assert sets.shape == (200, 8)
        assert all(len(set(row)) == 8 for row in sets.tolist())
        # Drawn from the whole vocabulary: members of the set may come up as any token may.
        unit = (vectors - vectors.mean(0)) / np.linalg.norm(vectors - vectors.mean(0), axis=1, keepdims=True)
        alike[name] = np.mean([(unit[row] @ unit[row].T).mean() for row in sets])
    assert alike["tight"] > alike["loose"] + 0.3


def test_kappa_is_1_for_equal_labels_and_0_for_agreement_that_their_frequencies_give() -> None:
    assert kappa(("mover", "other", "other"), ("mover", "other", "other")) == 1.0
    assert kappa(("mover", "mover", "other", "other"), ("mover", "other", "mover", "other")) == 0.0
    assert kappa(("other", "other"), ("other", "other")) == 1.0


# ---- cuts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox", "gptj", "mistral"])
def test_a_cut_followed_from_the_last_position_is_that_of_a_whole_run_without_the_reading(
    small_model: LoadModel, name: str
) -> None:
    model = small_model(name)
    facts = [Fact(f"w3 w1 w{i} w5 w6", f"w{i}", f"w{i + 20}") for i in (7, 8, 9)]
    parts, own = open_parts(model, facts), [spans(model, fact) for fact in facts]
    wanted = targets(model, facts, [])
    directions = readout(parts, wanted)
    followed = traces(model, facts, parts)
    subject, relation = cut_readings(model, parts, followed, own, directions)
    (trace,) = followed
    for i, head in enumerate(head_nodes(parts)):
        split = source_parts(trace, parts, head.layer)[:, head.head]
        for effects, positions in ((subject, own[0].subject), (relation, own[0].relation)):
            removed = split[:, list(positions)].sum(1)[None]
            cuts = [removed if layer == head.layer else removed[:0] for layer in range(parts.shape.n_layers)]
            lost = parts.final(trace.final) - parts.final(replay_by_running(model, trace, cuts)[0])
            expected = directions.versus_others(lost).numpy()
            np.testing.assert_allclose(effects.answer[i], expected, atol=2e-4)
            np.testing.assert_allclose(effects.range[i], (lost @ directions.range).numpy(), atol=2e-4)
    assert np.abs(subject.answer).max() > 0.01


# ---- the embedded model ----------------------------------------------------------------------------------------------


def test_factlm_has_movers_for_a_relation_it_knows_and_the_strongest_one_moves_a_paraphrase_too() -> None:
    model, relations = Model.default(), load_relations()
    relation = relations["country_capital_city"]
    first = relation_roles(model, relation, relations, n=24)
    assert first.n_ranges >= 24
    assert len(first.heads) == model.shape.n_layers * model.shape.n_heads
    movers = first.with_role("mover", "mixture")
    assert movers, str(first)
    for verdict in movers:
        assert verdict.evidence.subject_cut.low > 0
        assert verdict.evidence.reading_subject >= first.min_reading
    again = relation_roles(model, relation, relations, n=24, template=1)
    assert {v.head for v in movers} & {v.head for v in again.with_role("mover", "mixture")}


def test_of_an_effect_that_is_rounding_no_chance_is_told(found: Roles) -> None:
    cut = found.of(ROLES["mover"]).evidence.subject_cut
    small = replace(cut, mean=-3e-7, low=-6e-7, high=-1e-7, p=0.01)
    for effect, said in ((small, "moves by less than 0.005 logits"), (cut, f"falls by {cut.mean:.2f} logits")):
        verdict = found.of(ROLES["mover"])
        told = str(replace(verdict, evidence=replace(verdict.evidence, subject_cut=effect)))
        assert f"the answer {said} against the relation's other objects" in told
        assert ("p 0.01" in told) is (effect is cut and cut.p == 0.01)

"""Claims put to cases: the rule of the verdict by hand, and claims about models whose answer to them is known."""

import json
import math
from dataclasses import replace

import pytest

from circuits.evaluation.claims import LEAST_CASES, Judgement, Pair, judged, paired_shares
from circuits.metrics import Share
from circuits.pages.claims import HEADER, as_rows, page, summary
from circuits.records import from_json, to_json
from circuits.studies.claims import recall
from circuits.studies.claims.claim import Group, Laboratory, PaperClaim, in_turn
from circuits.studies.claims.table import BY_CONSTRUCTION, CLAIMS, GROUPS, Tried, asked_for, claim_rows
from circuits.studies.claims_specs import ClaimsSpec
from circuits.studies.options import AskedError
from circuits.studies.sweep import Folder, sweep
from tests.test_about_the_fact import RELATIONS
from tests.test_certificate import MODEL

# ---- the rule --------------------------------------------------------------------------------------------------------


def pairs(*counts: int) -> list[tuple[bool, bool]]:
    """So many cases in which both hold, the first alone, the second alone, neither."""
    kinds = ((True, True), (True, False), (False, True), (False, False))
    return [kind for kind, count in zip(kinds, counts, strict=True) for _ in range(count)]


def test_the_interval_of_two_shares_is_that_of_newcombes_example() -> None:
    """Newcombe 1998, Table II: 36 both, 12 the first alone, 2 the second alone of 50."""
    assert paired_shares(pairs(36, 12, 2, 0)) == pytest.approx((0.2, 0.0569, 0.3404), abs=1e-4)


def test_where_all_cases_are_alike_the_interval_of_shares_is_as_wide_as_wilsons_and_turns_with_its_sides() -> None:
    effect, low, high = paired_shares(pairs(0, 30, 0, 0))
    # p1 = 1 and p2 = 0, of which no correlation is known: phi = 0, and both sides are a Wilson interval of 30 of 30 away.
    width = 1 - Share(30, 30).low
    assert (effect, low, high) == pytest.approx((1, 1 - math.sqrt(2) * width, 1))
    turned = paired_shares(pairs(0, 0, 30, 0))
    assert turned == pytest.approx((-1, -1, -low))
    one, other = paired_shares(pairs(5, 4, 1, 3)), paired_shares(pairs(5, 1, 4, 3))
    assert one == pytest.approx((-other[0], -other[2], -other[1]))


def test_a_claim_holds_where_the_interval_is_above_the_bar_and_does_not_where_it_is_below() -> None:
    up = [Pair(1.0 + 0.01 * i, 0.5) for i in range(20)]
    assert judged(up).verdict == judged(up, 0.4).verdict == "holds"
    assert judged(up, 0.9).verdict == "does not"
    assert judged(up, 0.595).verdict == "undecided"
    assert judged(up).effect == pytest.approx(0.595)
    down = [Pair(each.control or 0, each.value) for each in up]
    assert judged(down).verdict == "does not"
    assert judged(down).effect == pytest.approx(-0.595)


def test_five_of_eight_is_undecided_and_so_is_eight_of_eight_for_they_are_few() -> None:
    """What was said to hold by more than half of the cases."""
    assert judged([Pair(1.0, 0.0)] * 5 + [Pair(0.0, 0.0)] * 3).verdict == "undecided"
    assert judged([Pair(1.0, 0.0)] * 8).verdict == "undecided"
    assert judged([Pair(1.0, 0.0)] * LEAST_CASES).verdict == "holds"


def test_no_control_means_undecided() -> None:
    alone = judged([Pair(1.0, None)] * 40)
    assert (alone.n, alone.without, alone.verdict) == (0, 40, "undecided")
    assert math.isnan(alone.effect)
    # Fewer than those without.
    assert judged([Pair(1.0, 0.0)] * 20 + [Pair(1.0, None)] * 21).verdict == "undecided"
    assert judged([Pair(1.0, 0.0)] * 20 + [Pair(1.0, None)] * 20).verdict == "holds"


def test_what_is_no_more_than_its_control_does_not_hold() -> None:
    """The negative control: cases that differ from their controls by chance alone."""
    noise = [Pair(math.sin(7.0 * i), math.sin(11.0 * i + 1)) for i in range(60)]
    assert judged(noise).verdict == "undecided"
    assert judged(noise, 0.5).verdict == "does not"
    assert judged([Pair(1.0, 1.0)] * 30, 0.1).verdict == "undecided"
    assert judged([Pair(float(i % 2), float(i % 2)) for i in range(300)], 0.1).verdict == "does not"


def test_a_judgement_reads_back_as_it_was_kept() -> None:
    for found in (judged([Pair(0.5, 0.25)] * 12), judged([])):
        again = from_json(Judgement, to_json(found))
        assert str(again) == str(found)


# ---- the study -------------------------------------------------------------------------------------------------------

SPEC = ClaimsSpec(n=3)


@pytest.fixture
def lab() -> Laboratory:
    return Laboratory(MODEL, RELATIONS, SPEC)


def claim(name: str) -> PaperClaim:
    return asked_for(ClaimsSpec())[name][1]


def test_every_claim_has_a_name_of_its_own_and_says_how_it_is_tested() -> None:
    every = [each for group in GROUPS for each in group.claims]
    assert len({each.name for each in every} | {group.name for group in GROUPS}) == len(every) + len(GROUPS)
    for each in every:
        assert each.says
        assert each.test
        assert each.control
        assert each.section
        assert math.isfinite(each.bar)


def test_claims_are_asked_for_by_name_or_by_group() -> None:
    assert list(asked_for(ClaimsSpec(only="early-decoding,movers-carry"))) == ["movers-carry", "early-decoding"]
    assert list(asked_for(ClaimsSpec(only="circuits"))) == [each.name for each in recall.RELATIONS.claims]
    with pytest.raises(AskedError, match="no claim or group of claims called 'movers'"):
        asked_for(ClaimsSpec(only="movers"))


def test_cases_come_from_the_columns_in_turn_and_fewer_are_the_first_of_more() -> None:
    assert in_turn([[1, 2, 3], [4], [5, 6]]) == [1, 4, 5, 2, 6, 3]


def test_a_look_up_answers_for_other_subjects_and_its_circuit_is_no_random_one(lab: Laboratory) -> None:
    """The model reads the answer off its subject: two edges, and any two others answer nothing."""
    facts = recall.known_facts_with_many_answers(lab, 3)
    assert len(facts) == 3
    for fact in facts:
        assert claim("beyond-random").pair(lab, fact) == Pair(1.0, 0.0)
        assert claim("keeps-70-percent").pair(lab, fact) == Pair(1.0, 1.0)


def test_a_study_of_claims_keeps_its_cases_and_refuses_what_would_hold_whatever_the_model_did(
    lab: Laboratory, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yes = PaperClaim("yes", "0", "says", "test", "control", "share", 0.0, lambda _, each: Pair(1.0, float(each < 2)))
    empty = replace(yes, name="empty", pair=lambda _, __: None)
    refused = replace(yes, name="refused", refused=lambda _: "it is true by its definition")
    groups = (Group("numbers", lambda _, n: list(range(40))[:n], (yes, empty, refused)),)
    monkeypatch.setattr("circuits.studies.claims.table.GROUPS", groups)
    spec = ClaimsSpec(n=20)
    tried = [each for each in sweep(CLAIMS, spec, context=lab, store=Folder(tmp_path))]
    assert len(tried) == 40, "what is refused is not tried"
    more = list(sweep(CLAIMS, ClaimsSpec(n=25, only="yes"), context=lab, store=Folder(tmp_path)))
    assert [each.kept for each in more] == [True] * 20 + [False] * 5
    rows = claim_rows(spec, lab, [each.row for each in tried if each.row is not None])
    assert [row.verdict for row in rows] == ["holds", "undecided", BY_CONSTRUCTION]
    assert rows[0].judgement.effect == pytest.approx(0.9)
    assert rows[1].beside == 20
    made = as_rows(rows)
    assert {"claim", "section", "model", "n", "effect", "low", "high", "verdict", "command"} <= made[0].keys()
    assert made[0]["command"] == "kcircuit claims --n 20 --only yes"
    assert made[2]["effect"] is None
    json.dumps(made, allow_nan=False)
    assert summary(rows).header == HEADER
    text = page(rows, MODEL, "kcircuit claims")
    assert "Not tried: it is true by its definition." in text
    assert "20 did not bear on it" in text
    assert from_json(Tried, to_json(Tried("yes", "yes 000", None))) == Tried("yes", "yes 000", None)

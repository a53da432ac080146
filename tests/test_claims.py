"""Claims put to cases: the rule of the verdict by hand, and claims about models whose answer to them is known."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from circuits.evaluation.claims import LEAST_CASES, Judgement, Pair, judged, paired_shares
from circuits.facts import Fact
from circuits.graph import Node
from circuits.metrics import Share
from circuits.model import Model
from circuits.pages.claims import HEADER, as_rows, page, summary
from circuits.records import from_json, to_json
from circuits.studies.claims import edits, recall, wrong
from circuits.studies.claims.claim import ClaimGroup, Laboratory, PaperClaim, in_turn
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
    groups = (ClaimGroup("numbers", lambda _, n: list(range(40))[:n], (yes, empty, refused)),)
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


# ---- what the claims measure, worked by hand -------------------------------------------------------------------------------

FACT, OTHER = Fact("a is", "a", "b", "r"), Fact("c is", "c", "d", "r")
HEADS = tuple(Node(0, "head", i) for i in range(4))


def with_movers(lab: Laboratory, *movers: Node) -> None:
    lab.once(("movers", "r"), lambda: movers)


def test_movers_select_the_wrong_object_by_more_than_as_many_other_heads(lab: Laboratory) -> None:
    """Two movers lead by 1.0 - 0.2 = 0.8 together; the others by 0.1 and 0.3, so as many by 2 * 0.2."""
    with_movers(lab, *HEADS[:2])
    given, rival = (
        dict(zip(HEADS, (0.6, 0.4, 0.2, 0.3), strict=True)),
        dict(zip(HEADS, (0.2, 0.0, 0.1, 0.0), strict=True)),
    )
    lab.once(("wrong", FACT), lambda: wrong.Pulls(given, rival))
    lab.once(("recalled", OTHER), lambda: wrong.Pulls(rival, given))
    lab.once(("typical", "r"), lambda: 1.5)
    case = (FACT, "x", OTHER)
    found = claim("movers-select-wrong").pair(lab, case)
    assert found is not None
    assert (found.value, found.control) == pytest.approx((0.8, 0.4))
    # 1.0 is more than half of 1.5, here and where given and rival are turned: the matched fact is as effective.
    assert claim("no-effective-mover").pair(lab, case) == Pair(0.0, 0.0)
    assert claim("right-object-not-moved").pair(lab, case) == Pair(0.2, 0.2)


def test_without_as_many_other_heads_there_is_no_control(lab: Laboratory) -> None:
    with_movers(lab, *HEADS[:3])
    lab.once(("wrong", FACT), lambda: wrong.Pulls(dict.fromkeys(HEADS, 1.0), dict.fromkeys(HEADS, 0.0)))
    assert claim("movers-select-wrong").pair(lab, (FACT, "x", OTHER)) == Pair(3.0, None)


def edited(
    took: bool = True,
    share: float = 0.0,
    at_once: bool = False,
    leaked: float | None = 0.0,
    leads: Sequence[float] = (),
):
    named = dict(zip([head.name for head in HEADS], leads, strict=False))
    return edits.Edited(took, share, at_once, named, leaked)


def test_edits_are_compared_where_both_took_and_movers_turn_where_they_gave_the_old_object(lab: Laboratory) -> None:
    asked = (FACT, "new")
    with_movers(lab, HEADS[0])
    names = [head.name for head in HEADS]
    rome = edited(share=0.1, leaked=0.2, leads=(1.0, 2.0, -1.0, -1.0))
    ft_m = edited(share=0.6, leaked=0.4, at_once=True, leads=(-1.0, 0.0, 0.0, 0.0))
    lab.once((asked, edits.ROME), lambda: rome)
    lab.once((asked, edits.FT_M), lambda: ft_m)
    lab.once(("before", asked), lambda: dict.fromkeys(names, -1.0))
    assert claim("ft-m-writes-directly").pair(lab, asked) == Pair(0.6, 0.1)
    assert claim("ft-m-first-at-once").pair(lab, asked) == Pair(1.0, 0.0)
    assert claim("ft-m-leaks").pair(lab, asked) == Pair(0.4, 0.2)
    assert claim("movers-turn-by-rome-not-ft-m").pair(lab, asked) == Pair(1.0, 0.0)
    beside = claim("movers-turn-after-rome").pair(lab, asked)
    assert beside is not None
    # One of the three other heads turns.
    assert beside.control == pytest.approx(1 / 3, abs=0.2)
    unmade = replace(lab, _made={**lab._made, (asked, edits.FT_M): edited(took=False)})
    for each in edits.EDITS.claims[:5]:
        if each.name != "movers-turn-by-own-layers":
            assert each.pair(unmade, asked) is None


def test_what_ft_m_cannot_but_do_at_the_last_layer_is_refused(lab: Laboratory) -> None:
    """factlm's FT-M edits the last MLP, which no head reads."""
    factlm = Laboratory(Model.default(), RELATIONS, SPEC)
    assert "no head can read what MLP5 writes" in claim("movers-turn-by-own-layers").refused(factlm)
    assert not any(each.refused(factlm) for each in edits.EDITS.claims if each.name != "movers-turn-by-own-layers")
    assert claim("recalls-own-fact").refused(lab)


def test_new_heads_attend_by_more_than_all_others_do_and_without_as_many_there_is_no_control(lab: Laboratory) -> None:
    case, attend = (FACT, OTHER), claim("new-heads-attend-stated")
    shares = {"a0.h0": 0.5, "a0.h1": 0.1, "a0.h2": 0.4, "a0.h3": 0.0, "a1.h0": 0.0}
    for new, expected in (
        ({"a0.h0", "a0.h1"}, Pair(0.5, 1 / 3)),
        ({"a0.h0", "a0.h1", "a0.h2"}, Pair(2 / 3, None)),
        (set(), None),
    ):
        planted = replace(lab, _made={("new heads", case): (shares, new)})
        assert attend.pair(planted, case) == expected
    # No new head reads the demonstrations: nothing is lost without them.
    idle = replace(lab, _made={("new heads", case): (shares, {"a0.h1"})})
    assert claim("new-heads-carry-stated").pair(idle, case) == Pair(0.0, 0.0)

"""Questions in two hops taken apart, against a transformer in which the second hop is computed in too early a layer."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits.analysis.patching import opened
from circuits.evaluation import said
from circuits.facts import Fact, Relation
from circuits.model import Model
from circuits.pages.twohop import as_json, each_question, figures, page, repairs, turning, turning_figure
from circuits.studies.explain.cases import Ground
from circuits.studies.explain.diagnosis import (
    PATCHES,
    Repaired,
    TwoHopRow,
    diagnosed,
    places,
)
from circuits.studies.explain.hops import TwoHopQuestion, asked_in_two_hops, questions
from circuits.studies.explain.repairs import (
    CONTROLS,
    DIAGNOSES,
    chosen_points,
    halves,
    pair_counts,
    readable_by_point,
    readable_shares,
    repair_shares,
    turned_by_point,
)
from circuits.studies.explain.verdict import BehaviourError
from circuits.studies.explain_specs import TwoHopSpec
from circuits.studies.options import SpecError
from tests.commands import fails, succeeds
from tests.models import plain_model, zero_weights

# Landmarks a b c stand in lands P Q R, where x y z is spoken. "at" ends the first hop, "is" the question.
N = 3
WORDS = "The land a b c at is stands P Q R x y z"
SUBJECT, LAND, TONGUE = range(0, 3), range(3, 6), range(6, 9)
IS_SUBJECT, ENDS, ASKS = 9, 10, 11
FIRST = Relation(
    "stands_in", "stands in", "factual", "landmark", "land", ("{} stands",), tuple(zip("abc", "PQR", strict=True)),
    noun_phrases=("The land {} at",),
)  # fmt: skip
SECOND = Relation("tongue", "tongue", "factual", "land", "tongue", ("{} is",), tuple(zip("PQR", "xyz", strict=True)))
OTHERS = Relation("other", "other", "factual", "word", "word", ("{} is",), (("a", "The"), ("b", "land"), ("c", "at")))
RELATIONS = {each.name: each for each in (FIRST, SECOND, OTHERS)}
ASKED = TwoHopQuestion("stands_in", "tongue", "a", "b")


def model(*, first_hop: int = 1, second_hop: int) -> Model:
    """Layer ``first_hop`` recalls the land of a landmark at the first hop's end (head 0 brings the landmark there, the MLP looks it
    up), the MLP of layer ``second_hop`` looks the tongue of a land up, wherever it stands, and head 1 of layer 2 brings it to "is"."""
    words = WORDS.split()
    weights = zero_weights(n_layers=3, n_heads=2, d_model=12, d_head=4, d_mlp=6, d_vocab=len(words), n_ctx=8)
    embed, unembed = weights["embed.W_E"], weights["unembed.W_U"]
    for i in range(N):
        embed[words.index("abc"[i]), [SUBJECT[i], IS_SUBJECT]] = 1.0
        embed[words.index("PQR"[i]), [LAND[i], ENDS]] = 1.0
        unembed[LAND[i], words.index("PQR"[i])] = 0.1
        unembed[TONGUE[i], words.index("xyz"[i])] = 1.0
    embed[words.index("at"), ENDS] = embed[words.index("stands"), ENDS] = embed[words.index("is"), ASKS] = 1.0

    def head(layer: int, index: int, query: int, key: int, moved: range) -> None:
        at = f"blocks.{layer}.attn."
        weights[f"{at}W_Q"][index, query, 0] = weights[f"{at}W_K"][index, key, 0] = 10.0
        for i, direction in enumerate(moved):
            weights[f"{at}W_V"][index, direction, i] = weights[f"{at}W_O"][index, i, direction] = 1.0

    def look_up(layer: int, what: range, gives: range, unit: int) -> None:
        """relu(what - 0.5), doubled: what is spread thin over positions is not looked up."""
        bias = weights.setdefault(f"blocks.{layer}.mlp.b_in", torch.zeros(6))
        for i in range(N):
            weights[f"blocks.{layer}.mlp.W_in"][what[i], unit + i] = 1.0
            weights[f"blocks.{layer}.mlp.W_out"][unit + i, gives[i]] = 2.0
            bias[unit + i] = -0.5

    head(first_hop, 0, ENDS, IS_SUBJECT, SUBJECT)
    look_up(first_hop, SUBJECT, LAND, 0)
    look_up(second_hop, LAND, TONGUE, 3)
    head(2, 1, ASKS, ENDS, TONGUE)
    return plain_model(weights, WORDS)


def row_of(made: Model, asked: TwoHopQuestion = ASKED) -> TwoHopRow:
    return diagnosed(made, opened(made), asked, RELATIONS)


def repaired(row: TwoHopRow) -> dict[str, tuple[tuple[int, int], ...]]:
    return {each.patch: each.own for each in row.patches}


def test_the_model_by_hand_knows_both_hops_and_not_the_question() -> None:
    made = model(second_hop=0)
    for relation in (FIRST, SECOND):
        assert all(said(made, fact.prompt, (fact.object,)) for fact in relation.facts())
    fact, bridge = asked_in_two_hops(FIRST, SECOND, "a")
    assert (fact, bridge) == (Fact("The land a at is", "The land a at", "x", "tongue"), "P")
    assert said(made, fact.prompt, ("x", "y", "z")) is None


def test_a_second_hop_that_comes_too_early_is_repaired_by_back_patching_and_by_no_other_questions_state() -> None:
    # The land is at "at" from point 2 on (after layer 1). Layer 0 alone knows the tongue of a land. So a state of point 2 or 3 has to
    # be put at point 0: at the first hop's end, from where head 1 of layer 2 brings the tongue on, or at the last token itself. The
    # state of the land's own name holds the tongue from point 1 on, and may stand at the first hop's end in layer 1 or 2.
    row = row_of(model(second_hop=0))
    assert repaired(row) == {
        "back": ((2, 0), (3, 0)),
        "back at last": (),
        "onward": ((2, 0), (3, 0)),
        "named": ((1, 1), (2, 2)),
    }
    assert all(each.other == () for each in row.patches)
    assert row.diagnosis == "not routed"
    assert (row.end, row.gives, row.answered) == ("at", "The", False)


def test_the_bridge_is_readable_from_the_layer_that_recalls_it_on_and_at_no_other_place() -> None:
    row, n_words = row_of(model(second_hop=0)), len(WORDS.split())
    ranks = {(each.what, each.where): each.ranks for each in row.lens}
    # Ties count against: where nothing is written, all words are alike.
    assert ranks["bridge", "first hop's end"] == (n_words, n_words, 1, 1)
    assert ranks["bridge", "last token"] == ranks["answer", "last token"] == (n_words,) * 4
    assert ranks["another bridge", "first hop's end"] == (n_words, n_words, n_words, n_words)
    assert row.readable("bridge", "first hop's end")
    assert not row.readable("another bridge", "first hop's end")


def test_fewer_points_give_what_all_points_give_at_them() -> None:
    made = model(second_hop=0)
    every = diagnosed(made, opened(made), ASKED, RELATIONS, every=2)
    assert repaired(every) == {"back": ((2, 0),), "back at last": (), "onward": ((2, 0),), "named": ((2, 2),)}
    assert [each.ranks for each in every.lens] == [each.ranks for each in row_of(made).lens]


def test_where_the_first_hop_is_not_recalled_the_signal_is_too_weak_and_back_patching_repairs_nothing() -> None:
    made = model(second_hop=0)
    weights = {**made.network.weights}  # type: ignore[attr-defined]
    weights["blocks.1.attn.W_O"] = torch.zeros_like(weights["blocks.1.attn.W_O"])
    row = row_of(plain_model(weights, WORDS))
    assert row.diagnosis == "signal too weak"
    # The control: the land named outright still gives its tongue.
    assert repaired(row) == {"back": (), "back at last": (), "onward": (), "named": ((1, 1), (2, 2))}


def test_a_second_hop_that_comes_too_late_is_repaired_from_the_last_point_and_at_the_last_token() -> None:
    # The tongue is at "at" from point 3 on, after the head that would bring it to "is" has had its turn. A land, or the "at" that
    # recalls one in layer 1, put at the last token in time for the MLP of layer 2, gives its tongue there.
    row = row_of(model(second_hop=2))
    assert repaired(row) == {
        "back": ((3, 0), (3, 1), (3, 2)),
        "back at last": (),
        "onward": ((1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (3, 1), (2, 2), (3, 2)),
        "named": (),
    }
    assert row.diagnosis == "not routed"


def test_two_hops_and_the_move_in_their_order_are_answered_and_not_patched() -> None:
    row = row_of(model(first_hop=0, second_hop=1))
    assert (row.answered, row.diagnosis, row.gives, row.patches) == (True, "answered", "x", ())


def test_an_answer_turns_where_the_other_questions_state_decides_it_and_at_no_other_place() -> None:
    # Layer 0 has brought the landmark to "at" and recalled its land there: from point 1 on the landmark itself is looked at by no one,
    # and what stands at "at" is all, until layer 2 brings the tongue to "is".
    rows = [
        row_of(model(first_hop=0, second_hop=1), TwoHopQuestion("stands_in", "tongue", *pair)) for pair in ("ab", "bc")
    ]
    for row in rows:
        assert {each.where: each.points for each in row.turned} == {
            "subject's end": (),
            "first hop's end": (1, 2),
            "last token": (),
        }
    assert [(point, share.count, share.n) for point, share in turned_by_point(rows, "first hop's end").items()] == [
        (1, 2, 2),
        (2, 2, 2),
    ]
    assert [line[0] for line in turning(rows).lines] == ["subject's end", "first hop's end", "last token"]
    assert "gives the other answer" in turning_figure(rows)
    # The control: without an answer there is none to turn.
    wrong = [row_of(model(second_hop=0))]
    assert (wrong[0].turned, turning(wrong).lines, turning_figure(wrong)) == ((), (), "")


def test_patches_go_from_every_point_that_they_may() -> None:
    assert places("back", 2) == ((1, 0), (2, 0), (2, 1))
    assert places("back at last", 2) == places("back", 2)
    assert places("onward", 2) == ((1, 0), (2, 0), (1, 1), (2, 1))
    assert places("named", 3) == ((1, 1), (2, 2))
    # Every second point of four layers: 0, 2 and 4.
    assert places("back", 4, 2) == ((2, 0), (4, 0), (4, 2))
    assert places("onward", 4, 2) == ((2, 0), (4, 0), (2, 2), (4, 2))
    assert places("named", 4, 2) == ((2, 2),)


# ---- which questions -------------------------------------------------------------------------------------------------


def test_questions_are_those_whose_hops_are_known_each_with_another_subject_to_compare() -> None:
    made = model(second_hop=0)
    found = list(questions(made, RELATIONS, Ground(RELATIONS, None)))
    assert [(each.first, each.second, each.subject) for each in found] == [("stands_in", "tongue", s) for s in "abc"]
    assert all(each.other != each.subject for each in found)
    assert list(questions(made, RELATIONS, Ground(RELATIONS, None), first="tongue")) == []
    # A model that knows no first hop is asked none.
    weights = {**made.network.weights, "unembed.W_U": torch.zeros(12, len(WORDS.split()))}  # type: ignore[attr-defined]
    assert list(questions(plain_model(weights, WORDS), RELATIONS, Ground(RELATIONS, None))) == []


def test_a_question_that_cannot_be_asked_is_refused() -> None:
    with pytest.raises(BehaviourError, match="tongue has no noun phrase"):
        asked_in_two_hops(SECOND, FIRST, "P")
    with pytest.raises(BehaviourError, match="other says nothing of 'P'"):
        asked_in_two_hops(FIRST, OTHERS, "a")
    ends = replace(SECOND, templates=("is {}",))
    with pytest.raises(BehaviourError, match=r"expected words after the first hop, got none in 'Is The land a at'"):
        asked_in_two_hops(FIRST, ends, "a")


# ---- what many come to -----------------------------------------------------------------------------------------------


def made_row(subject: str, first: str = "f", **changed: Any) -> TwoHopRow:
    row = replace(row_of(model(second_hop=0)), first=first, subject=subject, patches=())
    return replace(row, **changed)


def test_points_are_chosen_on_one_half_and_reported_on_the_other() -> None:
    base = made_row("s")
    # On the half that chooses (1, 0) repairs two of three, and (2, 0) all, but so does the other question's state.
    chooses = (Repaired("back", ((1, 0), (2, 0)), ((2, 0),)), Repaired("back", ((2, 0),), ((2, 0),)))
    reports = (Repaired("back", ((1, 0),), ()), Repaired("back", (), ((1, 0),)))
    rows = [
        replace(base, subject=str(i), patches=((chooses if i % 2 == 0 else reports)[(i // 2) % 2],)) for i in range(24)
    ]
    first, _ = halves(rows)
    assert [row.subject for row in first] == [str(i) for i in range(0, 24, 2)]
    assert chosen_points(first, "back") == (1, 0)
    found = {each.control: each for each in repair_shares(rows) if (each.patch, each.group) == ("back", "wrong")}
    assert set(found) == set(CONTROLS)
    chosen = found["another question's state"]
    assert (chosen.points, chosen.judgement.n) == ((1, 0), 12)
    assert (chosen.judgement.value, chosen.judgement.control, chosen.judgement.effect) == (0.5, 0.5, 0.0)
    # Of the 5 other points of a model of 3 layers none repairs a question that reports.
    assert found["other layers"].judgement.control == 0.0
    assert found["other layers"].judgement.value == 0.5
    any_layers = found["another question's state, any layers"]
    assert (any_layers.points, any_layers.judgement.value, any_layers.judgement.control) == (None, 0.5, 0.5)
    assert chosen_points((), "back") is None


def test_a_patch_that_repairs_whatever_state_is_put_does_not_hold_and_one_that_needs_its_own_does() -> None:
    base, points = made_row("s"), ((1, 0),)
    everywhere = [replace(base, subject=str(i), patches=(Repaired("back", points, points),)) for i in range(80)]
    own = [replace(base, subject=str(i), patches=(Repaired("back", points, ()),)) for i in range(80)]
    verdicts = [{each.judgement.verdict for each in repair_shares(rows)} for rows in (everywhere, own)]
    # Against other layers both hold: only these points do it.
    assert [each.judgement.verdict for each in repair_shares(everywhere)][:3] == ["does not", "holds", "does not"]
    assert verdicts[1] == {"holds"}
    assert everywhere[0].diagnosis == "not repaired"
    assert own[0].diagnosis == "not routed"


def test_halves_are_told_by_order_within_each_pair_of_relations_and_hold_no_answered_question() -> None:
    rows = [made_row(str(i), first="fg"[i % 2], answered=i >= 8) for i in range(10)]
    first, second = halves(rows)
    assert [row.subject for row in first] == ["0", "3", "4", "7"]
    assert [row.subject for row in second] == ["1", "2", "5", "6"]
    assert [(each.first, each.n) for each in pair_counts(rows)] == [("f", 5), ("g", 5), ("all", 10)]
    assert dict(zip(DIAGNOSES, pair_counts(rows)[-1].diagnoses, strict=True))["answered"] == 2


def test_readable_shares_are_of_the_rows_that_have_it_read() -> None:
    rows = [row_of(model(second_hop=0), TwoHopQuestion("stands_in", "tongue", *pair)) for pair in ("ab", "bc", "ca")]
    assert readable_by_point(rows, "bridge", "first hop's end") == (0.0, 0.0, 1.0, 1.0)
    assert readable_by_point(rows, "another bridge", "first hop's end") == (0.0,) * 4
    found = {(each.what, each.where, each.answered): each.judgement for each in readable_shares(rows)}
    bridge = found["bridge", "first hop's end", False]
    # All of three, and yet undecided: three are too few.
    assert (bridge.value, bridge.control, bridge.n, bridge.verdict) == (1.0, 0.0, 3, "undecided")


# ---- page and command ------------------------------------------------------------------------------------------------


def test_the_page_begins_with_what_became_of_the_questions_and_shows_each() -> None:
    made = model(second_hop=0)
    rows = [row_of(made, TwoHopQuestion("stands_in", "tongue", *pair)) for pair in ("ab", "bc", "ca")]
    text = page(rows, made, "kcircuit explain twohop", "hops")
    assert text.index("| stands_in | tongue | 3 | 0 | 0 | 3 | 0 |") < text.index("## What repairs")
    assert "| The land a at is | P | x | The | not routed | 2 (0) | 0 (0) | 2 (0) | 2 (0) |" in text
    assert len(each_question(rows).lines) == 3
    assert set(figures(rows, "hops")) == {"hops-wrong.svg"}
    assert "(hops-wrong.svg)" in text
    assert {line[0] for line in repairs(repair_shares(rows)).lines} == {*PATCHES, "any of these"}
    record = json.loads(json.dumps(as_json(rows, made, 0)))
    assert record["pairs"][0] | {"weights": ""} == {
        "first": "stands_in", "second": "tongue", "n": 3, "answered": 0, "signal too weak": 0, "not routed": 3,
        "not repaired": 0, "weights": "",
    }  # fmt: skip
    assert record["questions"][0]["diagnosis"] == "not routed"


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        ({}, "expected either --subject or --find, got neither"),
        ({"find": True, "subject": "Big Ben"}, "expected either --subject or --find, got both"),
        ({"subject": "Big Ben", "first": "landmark_country"}, "expected --first and --second with --subject"),
        ({"find": True, "n": 0}, "expected n of at least 1, got 0"),
    ],
)
def test_what_is_neither_named_nor_to_be_found_is_refused(asked: dict[str, Any], refusal: str) -> None:
    with pytest.raises(SpecError, match=refusal):
        TwoHopSpec(**asked)


def test_the_command_goes_on_and_says_the_same_of_a_question_named_or_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = ["explain", "twohop", "--find", "--first", "product_company", "--n", "2", "--json"]
    record = json.loads(succeeds([*found, "--out", str(tmp_path), "--page", str(tmp_path / "hops.md")], capsys))
    assert json.loads((tmp_path / "twohop.json").read_text()) == record
    assert (tmp_path / "hops.md").read_text().startswith("# Two hops")
    assert json.loads(succeeds([*found, "--out", str(tmp_path)], capsys)) == record
    question = record["questions"][0]
    named = ["--first", question["first"], "--second", question["second"], "--subject", question["subject"]]
    alone = json.loads(succeeds(["explain", "twohop", *named, "--json"], capsys))["questions"][0]
    same = ("prompt", "bridge", "answer", "gives", "answered")
    assert [alone[name] for name in same] == [question[name] for name in same]
    refused = ["explain", "twohop", "--first", "landmark_country", "--second", "book_author", "--subject", "Big Ben"]
    assert "book_author says nothing of 'United Kingdom'" in fails(refused, capsys)

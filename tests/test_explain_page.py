"""Laws of an explanation's page: the verdict stands first in one sentence, and the head that it hangs on is marked."""

import re

import pytest

from circuits.analysis.writes import Write
from circuits.facts import Fact
from circuits.pages.explain import render_explained
from circuits.studies.diffs import CircuitDiff, Side
from circuits.studies.explain.hallucination import NO_MOVER, SELECTS_WRONG, Hallucination, MoverPull
from circuits.studies.explain.multihop import HopAnswers, MultiHop, Winner
from circuits.studies.explain.reverse import DIFFERENT, FORWARD_ONLY, ONE, OVERLAPPING, Reversal, judged
from circuits.studies.explain.told import Tells
from circuits.studies.explain.verdict import INCONCLUSIVE, Evidence, Verdict
from circuits.studies.floors import Floor
from tests.test_diff_page import FOUND, two_answers
from tests.test_diffs import SKY, circuit, path, side
from tests.test_viz import HOSTILE

PULL = Evidence(name="pull", value=0.5, unit="logits", against=0.1, against_name="chance")
MOVERS = (
    MoverPull(head="a0.h0", right=1.0, wrong=1.2, recalled=1.5),
    MoverPull(head="a1.h0", right=0.1, wrong=2.0, recalled=3.0),
)


def verdict(conclusion: str, sentence: str = "none pulls.") -> Verdict:
    return Verdict(conclusion=conclusion, sentence=sentence, evidence=(PULL,))


def wrong(conclusion: str = SELECTS_WRONG, movers: tuple[MoverPull, ...] = MOVERS) -> Hallucination:
    """Green is said where blue is right."""
    return Hallucination(
        fact=two_answers().after.fact,
        wrong="green",
        right_rank=7,
        wrong_first_from="s1",
        movers=movers,
        neighbours=(),
        mover_count=1,
        mover_count_neighbours=2.0,
        diff=two_answers(),
        verdict=verdict(conclusion),
    )


def reversal(rank: int, conclusion: str) -> Reversal:
    there, back = Fact("The sky is", "sky", "blue"), Fact("What is blue is", "blue", "green")
    ahead = side(circuit("a0.h0->m1"), "forward")
    behind = side(circuit("a1.h0->m1"), "backward").model_copy(
        update={"fact": back, "paths": (path(9, 9, 9), path(9, 9, rank))}
    )
    return Reversal(
        forward=there,
        backward=back,
        rank_forward=1,
        rank_backward=rank,
        diff=CircuitDiff(differs="direction", before=ahead, after=behind),
        verdict=verdict(conclusion),
    )


def hops(winner: Winner) -> MultiHop:
    """After an edit that puts green in: blue would follow."""

    def asked(won: Winner) -> HopAnswers:
        return HopAnswers(
            prompt="It is",
            probability_before={"blue": 0.1, "green": 0.2},
            probability_after={"blue": 0.3, "green": 0.4},
            winner_before="old answer",
            winner=won,
        )

    def three(each: Side) -> Side:
        """The same, with an answer that no one writes."""
        writes = tuple(Write(write.node, (*write.logits, 0.0)) for write in each.writes)
        answers, paths = ("blue", "green", "red"), (*each.paths, path(9, 9, 9))
        return each.model_copy(update={"answers": answers, "paths": paths, "writes": writes})

    before = three(side(circuit("input->m0"), "before"))
    after = three(side(circuit("input->m1"), "after", {"a0.h0": ("mover", " sky")}))
    return MultiHop(
        method="rome",
        subject="sky",
        edited_object="green",
        second_hop_answer="blue",
        old_answer="red",
        asked={"one hop": asked("edited object"), "two hops": asked(winner), "first hop removed": asked(winner)},
        diff=CircuitDiff(differs="edit", before=before, after=after),
        verdict=verdict(winner),
    )


def words(page: str) -> str:
    """What a reader sees of the page, without its script: text alone."""
    shown = re.sub(r"<script.*?</script>|<style.*?</style>|<svg.*?</svg>", "", page, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", shown))


CASES = (
    wrong(),
    wrong(NO_MOVER),
    wrong(INCONCLUSIVE, ()),
    reversal(1, ONE),
    reversal(40, FORWARD_ONLY),
    hops("edited object"),
)


@pytest.mark.parametrize("found", CASES)
def test_the_verdict_is_one_sentence_before_the_heads_the_picture_and_the_story(found: Tells):
    page = render_explained(found)
    order = [
        page.index(part)
        for part in ('class="verdict-first"', 'id="heads-heading"', 'id="circuit-heading"', 'id="story-heading"')
    ]
    assert order == sorted(order)
    assert page == render_explained(found)
    # What is shared as a preview is the verdict, too.
    assert page.count(found.told.verdict.replace("'", "&#x27;")) == 3


def test_a_wrong_answer_is_said_to_be_wrong_beside_the_right_one():
    told = wrong().told
    assert told.verdict == "tiny says 'green' where 'blue' is right: none pulls."
    assert [(each.answer, each.right) for each in told.put] == [("green", False), ("blue", True)]
    text = words(render_explained(wrong()))
    # Nothing was edited: nothing is before and nothing after.
    assert not re.search(r"\b(before|after)\b(?! every)", text, re.I)
    assert "The sky is blue" not in text
    assert "pull 0.5 logits chance 0.1 logits" in text


@pytest.mark.parametrize(("conclusion", "head"), [(SELECTS_WRONG, "L1H0"), (NO_MOVER, "L1H0"), (INCONCLUSIVE, None)])
def test_the_failing_head_is_the_first_row_and_no_other_is_marked(conclusion: str, head: str | None):
    rows = wrong(conclusion).told.heads.rows
    assert [row.head for row in rows if row.marked] == ([] if head is None else [head])
    assert head is None or rows[0].head == head
    assert render_explained(wrong(conclusion)).count('<tr class="marked">') == (head is not None)


def test_without_an_effective_mover_the_one_that_falls_shortest_fails_and_not_the_one_that_brings_most():
    # By hand: L0H0 falls 0.3 short of 1.5, L1H0 1.0 short of 3.0, though it brings more.
    assert wrong(NO_MOVER).failing == "a1.h0"
    weak = (MoverPull(head="a0.h0", right=0.0, wrong=0.0, recalled=1.5), MOVERS[1])
    assert wrong(NO_MOVER, weak).failing == "a0.h0"
    # The control: which one selects the wrong object is another question.
    assert wrong(SELECTS_WRONG, weak).failing == "a1.h0"


def test_a_reverse_that_is_not_said_is_never_told_as_said():
    found = reversal(40, FORWARD_ONLY)
    assert "backward it does not say 'green' (rank 40" in found.told.verdict
    assert [each.answer for each in found.told.put] == ["blue", "not 'green'"]
    assert sum(row.marked for row in found.told.heads.rows) == 1
    both = reversal(1, ONE).told
    assert "backward it says 'green' (rank 1" in both.verdict
    assert not any(row.marked for row in both.heads.rows)


@pytest.mark.parametrize(
    ("winner", "said", "right"),
    [
        ("second-hop answer", "with 'blue', which follows from it.", True),
        ("edited object", "with 'green' itself; 'blue' would follow from it.", False),
        ("old answer", "with 'red', as before the edit; 'blue' would follow.", False),
    ],
)
def test_of_two_hops_the_sentence_names_what_won_and_what_would_follow(winner: Winner, said: str, right: bool):
    told = hops(winner).told
    assert told.verdict.endswith(said)
    assert [each.right for each in told.put] == [True, right, None]
    assert [row.marked for row in told.heads.rows] == [winner == "edited object"]


def test_text_of_an_explanation_is_shown_and_never_read_as_markup():
    found = wrong().model_copy(update={"wrong": "green", "verdict": verdict(HOSTILE, HOSTILE)})
    assert "<script>alert" not in render_explained(found, command=HOSTILE)


@pytest.mark.parametrize(
    ("words_share", "chance", "conclusion"), [(0.2, 0.1, ONE), (0.35, 0.01, OVERLAPPING), (0.9, 0.1, DIFFERENT)]
)
def test_both_ways_are_one_circuit_only_where_they_share_what_two_wordings_do(
    words_share: float, chance: float, conclusion: str
):
    # Five edges in all, of which one is in both: a fifth.
    assert FOUND.edge_jaccard == pytest.approx(0.2)
    floors = tuple(
        Floor(name=name, edge_jaccard=share, node_jaccard=0.5)
        for name, share in (("a paraphrase", words_share), ("random", chance))
    )
    found = judged("tiny", FOUND, SKY, 1, floors)
    assert found.conclusion == conclusion
    for share in ("20%", f"{words_share:.0%}", f"{chance:.0%}"):
        assert share in found.sentence


def test_of_many_heads_ten_are_seen_and_the_one_that_the_verdict_hangs_on_whatever_its_place():
    many = tuple(MoverPull(head=f"a0.h{i}", right=0.0, wrong=0.01 * i, recalled=1.0) for i in range(14))
    page = render_explained(wrong(SELECTS_WRONG, many))
    seen, _, rest = page.partition("<details><summary>")
    heads = seen.count('<th scope="row">'), rest.partition("</details>")[0].count('<th scope="row">')
    marked = [i for i, row in enumerate(wrong(SELECTS_WRONG, many).told.heads.rows) if row.marked]
    assert sum(heads) == 14
    assert heads[0] == 10 + sum(i >= 10 for i in marked)
    assert rest.startswith(f"{heads[1]} other heads</summary>")
    assert seen.count('class="marked"') == 1
    assert "<details>" not in render_explained(wrong())

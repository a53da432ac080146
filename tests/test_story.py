"""The story says what was measured, and what was not found."""

import dataclasses
import json
import re

import pytest
from pydantic import TypeAdapter

from circuits.analysis.lens import Trajectory, read_nodes
from circuits.analysis.reading import Reading, read_fact
from circuits.analysis.roles import find_roles
from circuits.analysis.story import tell
from circuits.circuit import Circuit, Provenance
from circuits.graph import Node
from circuits.pages.charts import role_grid
from circuits.pages.contents import Page
from circuits.pages.drawing import legend
from circuits.pages.run import draw
from circuits.pages.story import heads_section, story_section
from tests.planted_heads import FACTS, OBJECTS, ROLES, planted


@pytest.fixture(scope="module")
def reading() -> Reading:
    model = planted()
    return read_fact(model, FACTS[1], find_roles(model, FACTS, OBJECTS, draws=199), OBJECTS)


def text_of(reading: Reading, circuit: Circuit | None = None) -> str:
    return " ".join(str(sentence) for sentence in tell(reading, circuit))


def test_the_story_of_the_planted_model_names_its_heads_and_its_mlp(reading: Reading) -> None:
    text = text_of(reading)
    assert "The relation is read by L0H1" in text
    assert "most of it to “language”" in text
    mover = max(reading.with_role("mover", "mixture"), key=lambda each: each.subject_cut)
    assert f"{mover.head.label} moves the subject's information" in text
    assert "L0H3 works against the answer" in text
    carrier = next(each for each in reading.heads if each.head == ROLES["carrier"])
    assert carrier.subject_cut > 2


def test_every_number_that_a_sentence_rests_on_is_said_or_listed_and_was_measured(reading: Reading) -> None:
    for sentence in tell(reading):
        assert sentence.text.endswith(".")
        assert sentence.numbers
        for name, value in sentence.numbers:
            assert name
            assert value == value
    relation = tell(reading)[0]
    numbers = dict(relation.numbers)
    assert reading.roles is not None
    verdict = reading.roles.of(ROLES["relation"])
    assert numbers["range, mean fall"] == verdict.evidence.relation_cut.mean
    assert f"{verdict.evidence.relation_cut.mean:.2f} logits" in relation.text


def test_what_is_not_found_is_said_not_to_be(reading: Reading) -> None:
    model = planted()
    wrong = [dataclasses.replace(fact, object=f"f{i}") for i, fact in enumerate(FACTS)]
    objects = [fact.object for fact in wrong]
    nothing = read_fact(model, wrong[0], find_roles(model, wrong, objects, draws=199), objects)
    path = Trajectory(("Input", "L0 attn", "L0 MLP"), (9, 3, 4), (0.1, 0.2, 0.2))
    text = text_of(dataclasses.replace(nothing, trajectory=path))
    assert "No head passed the test of a relation head" in text
    assert "No head passed the test of a mover head" in text
    assert "“f0” is never first in the residual stream: its best rank is 3, its last 4." in text
    assert "moves the subject's information" not in text
    without = read_fact(model, FACTS[0], None, unread="the fact is in the words of no relation")
    assert "was not told apart: the fact is in the words of no relation." in text_of(without)
    assert without.heads == ()


def test_a_circuit_says_which_heads_are_in_it(reading: Reading) -> None:
    graph = planted().graph()
    mask = graph.legal & False
    mask[graph.edge("a0.h1->logits")] = True
    text = text_of(reading, Circuit(graph, mask, Provenance("", "")))
    assert "L0H1 (in the circuit)" in text
    assert re.search(r"L0H\d \(not in the circuit\) moves", text)


def test_the_mlp_that_puts_the_answer_first_is_told_with_who_feeds_it(reading: Reading) -> None:
    (made,) = reading.mlps
    first = dataclasses.replace(made, rank_before=5, rank_after=1)
    text = text_of(dataclasses.replace(reading, mlps=(first,)))
    assert "MLP0 puts “o1” first: rank 5 without its write, 1 with it" in text
    assert f"L0H4 ({made.feeders[0].effect:+.2f})" in text


def test_where_attention_puts_the_answer_first_the_heads_that_write_it_are_named(reading: Reading) -> None:
    mlps = tuple(dataclasses.replace(each, rank_before=1, rank_after=1) for each in reading.mlps)
    path = Trajectory(("Input", "L0 attn", "L0 MLP"), (9, 1, 1), (0.1, 0.3, 0.9))
    (first,) = [
        sentence
        for sentence in tell(dataclasses.replace(reading, mlps=mlps, trajectory=path))
        if "No MLP's write takes “o1” to the first rank" in sentence.text
    ]
    by_head = {write.node: write.logits[0] for write in reading.writes if write.node.kind == "head"}
    best = sorted(by_head, key=lambda head: -by_head[head])[:3]
    # The heads that were built to write the object, and none that takes it away or writes something else.
    assert {head for head in best if by_head[head] > 0.5} == {ROLES[name] for name in ("mover", "relation", "mixture")}
    for head in best:
        assert f"{head.label} {by_head[head]:+.2f}" in first.text
    assert dict(first.numbers)[f"answer, written by {best[0].label}"] == by_head[best[0]]


def test_where_the_answer_is_strengthened_is_where_its_probability_rises_most(reading: Reading) -> None:
    path = Trajectory(("Input", "L0 attn", "L0 MLP"), (9, 1, 1), (0.1, 0.3, 0.9), (0.0, 0.5, 0.0), (4, 2, 3))
    text = text_of(dataclasses.replace(reading, trajectory=path))
    assert (
        "From L0 attn on the answer stays first (early decoding); its probability goes from 0.3 to 0.9, most at L0 MLP (+0.6)"
        in text
    )
    assert "the answer's best rank is 2 (after L0 attn)" in text
    assert "“s1” itself comes up at the last token (probability 0.5 after L0 attn)" in text


def test_a_reading_survives_json_and_tells_the_same_story(reading: Reading) -> None:
    adapter = TypeAdapter(Reading)
    again = adapter.validate_json(adapter.dump_json(reading))
    assert again == reading
    assert tell(again) == tell(reading)


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_the_grid_of_roles_has_every_head_once_with_its_verdict_and_a_ring_for_the_circuits(reading: Reading) -> None:
    assert reading.roles is not None
    graph = planted().graph()
    mask = graph.legal & False
    mask[graph.edge("a0.h1->logits")] = True
    plain, ringed = (
        role_grid(reading.roles, title="<t>", circuit=circuit)
        for circuit in (None, Circuit(graph, mask, Provenance("", "")))
    )
    told = re.findall(r"<g><title>(L\d+H\d+)", plain)
    assert told == [verdict.head.label for verdict in reading.roles.heads]
    assert "<t>" not in plain
    # The ring of the one head in the circuit, and the legend's.
    assert ringed.count('fill="none"') - plain.count('fill="none"') == 2
    assert plain == role_grid(reading.roles, title="<t>")


def test_the_page_tells_each_mlps_part_in_the_answer_and_which_promoted_token_is_it(reading: Reading) -> None:
    graph = planted().graph()
    mask = graph.legal & False
    mask[graph.edge("a0.h4->m0")] = mask[graph.edge("m0->logits")] = True
    circuit = Circuit(graph, mask, Provenance("", ""))
    readouts = read_nodes(planted(), FACTS[1], [Node(0, "mlp")])
    page = Page("t", "s", circuit, readouts, reading.trajectory, FACTS[1].object, (), (), "c", reading=reading)
    data = json.loads(re.findall(r'id="data">(.*?)</script>', draw(page), re.S)[0])
    (told,) = [node for node in data["nodes"] if node["name"] == "m0"]
    (made,) = reading.mlps
    assert told["answer"]["writes"] == round(made.contribution, 2)
    assert (told["answer"]["without"], told["answer"]["with"]) == (made.rank_before, made.rank_after)
    assert told["answer"]["feeders"][0] == ["L0H4", round(made.feeders[0].effect, 2)]
    assert len(told["answer"]["neurons"]) == min(5, len(made.neurons))
    marked = [token for token, _, is_answer in told["lens"]["promoted"] if is_answer]
    assert marked == ([FACTS[1].object] if told["lens"]["rank"] <= len(told["lens"]["promoted"]) else [])
    assert next(node for node in data["nodes"] if node["kind"] == "attention head")["answer"] is None


def test_the_pages_sections_escape_what_they_show_and_are_empty_without_a_reading(reading: Reading) -> None:
    html = heads_section(reading, (ROLES["relation"],))
    assert html.count('class="why"') == len(reading.heads)
    assert html.count("not in the circuit") == len(reading.heads) - 1
    hostile = dataclasses.replace(reading, tokens=("<script>", *reading.tokens[1:]))
    assert "<script>" not in heads_section(hostile, ())
    assert "<li>" in story_section(tell(reading))
    assert story_section(()) == heads_section(None, ()) == ""
    assert "mover head (" in legend([("mlp", "MLP")], ["mover", "other"])
    assert "other head" not in legend([], ["mover", "other"])


def test_the_table_of_heads_shows_what_a_head_writes_from_beside_where_it_looks(reading: Reading) -> None:
    first = reading.with_role("mover", "mixture")[0]
    # A head that looks at the first token and yet draws its whole write from the second.
    n = len(reading.tokens)
    resting = dataclasses.replace(first, attention=(0.9, 0.1, *[0.0] * (n - 2)), write=(0.0, 1.0, *[0.0] * (n - 2)))
    html = heads_section(dataclasses.replace(reading, heads=(resting,)), ())
    cells = re.findall(r'<td class="tok".*?title="(.*?)">(.*?)<span class="soft">(.*?)</span>', html)
    assert cells[0] == ("of its write 0.0%, attention 90.0%", "&nbsp;", "90")
    assert cells[1] == ("of its write 100.0%, attention 10.0%", "100", "10")
    assert '<td class="num rests">90%</td>' in html
    assert "called a mover only if it draws at least 5% of its write from the subject" in html
    # The controls: nothing rests, and no word that has a bar.
    plain = heads_section(dataclasses.replace(reading, heads=reading.with_role("relation")), ())
    assert "called a mover" not in plain
    assert 'class="num rests"' not in plain

import html
import itertools
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest

from circuits.analysis.attention import HeadPattern, PromptAttention
from circuits.analysis.lens import NodeReadout, TokenScore, Trajectory
from circuits.circuit import Circuit, Provenance, Scores
from circuits.evaluation import Answers
from circuits.graph import Graph, Node, Shape
from circuits.pages import run as report
from circuits.pages.charts import CLOUD, LEFT, TOP, Bar, Cloud, clouds, stacked, stacked_bars
from circuits.pages.contents import Page
from circuits.pages.dot import circuit_to_dot, render_png
from circuits.pages.layout import HALF_HEIGHT, crossings, index_order, place
from circuits.pages.overview import LARGE, STRONGEST, survey
from circuits.pages.picture import circuit_picture
from circuits.pages.plots import layer_activity, trajectory_plot
from circuits.pages.run import draw, render
from circuits.pages.style import (
    MAX_PEN,
    MIN_PEN,
    node_words,
    pen_widths,
    plotly_text,
    short_token,
    strongest,
    token_text,
)
from circuits.pages.verdict import ordinal, verdict
from circuits.studies.run import Run
from circuits.studies.runs import run
from circuits.studies.specs import RunSpec
from tests.planted_heads import FACTS, planted

CHROMIUM = "/usr/bin/chromium"
PROVENANCE = Provenance("tiny <model>", "abc", method="by hand")
HOSTILE = '</script><script>alert("x")</script><b>&amp;'
TRAJECTORY = Trajectory(
    ("Input", "L0 attn", "L0 MLP", "L1 attn", "L1 MLP", "L2 attn", "L2 MLP"),
    (900, 1, 40, 12, 3, 1, 1),
    (0.0001, 0.2, 0.002, 0.05, 0.2, 0.6, 0.9),
)


ATTENTION = PromptAttention(
    ("<s>", " capital", " France"),
    tuple(
        HeadPattern(head, ((1.0,), (0.25, 0.75), (0.1, 0.2, 0.7))) for head in (Node(0, "head", 1), Node(1, "head", 2))
    ),
)


def circuit_of(*edges: tuple[str, float], granularity: str = "qkv") -> Circuit:
    graph = Graph(Shape(3, 4), "node" if granularity == "node" else "qkv")
    kept, scores = np.zeros_like(graph.legal), np.full(graph.legal.shape, np.nan)
    for name, score in edges:
        kept[graph.edge(name)] = True
        scores[graph.edge(name)] = score
    return Circuit(graph, kept, PROVENANCE, scores)


SMALL = circuit_of(
    ("input->a0.h1<v>", 0.4),
    ("input->m0", 0.2),
    ("a0.h1->m0", 0.1),
    ("m0->a1.h2<q>", 0.05),
    ("m0->a1.h2<k>", 0.04),
    ("m0->a1.h2<v>", 0.9),
    ("a1.h2->logits", 0.6),
    ("m0->m2", -0.3),
    ("m2->logits", 0.02),
)


def dense(n: int = 60, seed: int = 0, shape: Shape = Shape(3, 4)) -> Circuit:
    graph = Graph(shape)
    values = np.random.default_rng(seed).normal(size=graph.legal.shape)
    return Scores(graph, values, PROVENANCE).top(n)


def readout(node: Node, *tokens: str) -> NodeReadout:
    scores = tuple(TokenScore(token, 3.0 - i) for i, token in enumerate(tokens))
    return NodeReadout(node, scores, scores[::-1], 2, 0.25)


def page_of(circuit: Circuit = SMALL) -> Page:
    return Page(
        title="The capital of France is Paris",
        subtitle="one prompt",
        circuit=circuit,
        readouts=tuple(readout(node, " Paris", " London") for node in circuit.nodes),
        trajectory=TRAJECTORY,
        answer=" Paris",
        numbers=(("edges kept", "9 / 411"),),
        settings=(("threshold", "0.01"),),
        command="kcircuit discover --fact x",
        attention=ATTENTION,
    )


def traces(figure: go.Figure) -> tuple[Any, ...]:
    return tuple(figure.select_traces())


def layout_of(figure: go.Figure) -> Any:
    return figure.layout


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of the elements named script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style"):
            self.inside.append(data)


# ---- dot -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("circuit", [SMALL, dense()])
def test_every_edge_of_the_circuit_is_in_the_dot_text(circuit: Circuit) -> None:
    text = circuit_to_dot(circuit)
    drawn = re.findall(r'^  "(\S+)" -> "(\S+)" \[.*tooltip="(\S+)  ', text, re.M)
    assert [html.unescape(name) for *_, name in drawn] == [edge.label for edge in circuit.edges]
    assert [ends for *ends, _ in drawn] == [[edge.writer.name, edge.reader.node.name] for edge in circuit.edges]


def test_q_k_and_v_edges_of_one_pair_differ_in_colour() -> None:
    lines = re.findall(r'"m0" -> "a1.h2" \[color="(\S+)"', circuit_to_dot(SMALL))
    assert len(lines) == len(set(lines)) == 3


def test_a_sub_layer_is_one_rank_and_its_nodes_carry_the_papers_names_roles_and_top_tokens() -> None:
    head = Node(1, "head", 2)
    text = circuit_to_dot(SMALL, [readout(head, " Paris", " Rome")], roles={head: "mover", Node(0, "head", 1): "other"})
    ranks = re.findall(r"rank=same;(.*?)\n  }", text, re.S)
    assert [re.findall(r'"(input|logits|a\d\.h\d|m\d)" \[', rank) for rank in ranks] == [
        ["input"],
        ["a0.h1"],
        ["m0"],
        ["a1.h2"],
        ["m2"],
        ["logits"],
    ]
    assert r'label="L1H2 mover\nRome 2", tooltip="L1H2, mover head"' in text
    assert 'label="MLP0"' in text
    assert "mover head</td>" in text
    assert "mover" not in circuit_to_dot(SMALL)


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz' dot is not installed")
def test_the_picture_is_a_png_whose_size_follows_the_resolution() -> None:
    small, large = (render_png(circuit_to_dot(SMALL), dpi=dpi) for dpi in (72, 144))
    assert small is not None
    assert large is not None
    assert small[:8] == large[:8] == b"\x89PNG\r\n\x1a\n"
    widths = [int.from_bytes(picture[16:20], "big") for picture in (small, large)]
    assert widths[1] == pytest.approx(2 * widths[0], abs=4)


def test_the_same_circuit_gives_the_same_dot_text() -> None:
    again = circuit_of(*[(edge.name, SMALL.score(edge)) for edge in reversed(SMALL.edges)])
    assert circuit_to_dot(SMALL, title="x") == circuit_to_dot(again, title="x")


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz' dot is not installed")
def test_hostile_text_goes_through_graphviz_as_it_stands() -> None:
    hostile = 'a"b\\N<c>&amp;'
    text = circuit_to_dot(SMALL, [readout(Node(0, "mlp"), hostile)], title=hostile)
    svg = subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, check=True, text=True).stdout
    texts = [html.unescape(text) for text in re.findall(r"<text[^>]*>(.*?)</text>", svg)]
    assert hostile in texts
    assert short_token(hostile) in texts
    with pytest.raises(ValueError, match="expected graphviz text"):
        render_png("digraph {")


def test_without_the_dot_program_there_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert render_png(circuit_to_dot(SMALL)) is None


# ---- style and layout ------------------------------------------------------------------------------------------------


def test_a_tokens_outer_spaces_show_and_what_cannot_be_printed_is_escaped() -> None:
    assert token_text(" Paris") == "␣Paris"
    assert token_text("New York ") == "New York␣"
    assert token_text("  ") == "␣␣"
    assert token_text("\n") == "\\n"
    assert token_text("a\u202eb\ud800") == "a\\u202eb\\ud800"
    assert short_token(" Marseille-sur-Mer") == "Marseill…"


def test_a_nodes_second_line_is_the_answer_with_its_rank_or_the_token_on_top() -> None:
    def line(rank: int) -> str:
        head = Node(1, "head", 2)
        (text,) = node_words([replace(readout(head, " Paris", " Luxembourg", " x"), answer_rank=rank)]).values()
        return text

    assert [line(rank) for rank in (1, 2, 3, 4, 900)] == ["Paris", "Luxem… 2", "x 3", "Paris", "Paris"]
    assert node_words([NodeReadout(Node(0, "mlp"), (), (), 5, 0.1)]) == {}


def test_beside_the_relations_objects_a_nodes_second_line_is_one_of_them_or_nothing() -> None:
    head = Node(1, "head", 2)

    def line(*tokens: str, rank: int = 900) -> str | None:
        read = replace(readout(head, *tokens), answer_rank=rank)
        return node_words([read], ("Luxembourg", "Oslo", "Y")).get(head)

    # The answer stands before any other object; a token that begins one names it; what says nothing is not said.
    assert line(" x", " Paris", " Oslo", rank=2) == "Paris 2"
    assert line(" x", " Paris", " Lux") == "Lux 3"
    assert line(" Oslo", " x") == "Oslo"
    assert line(" x", " Y") == "Y 2"
    assert line(" x", " Lu", " Paris") is None


def test_pen_width_grows_with_the_scores_magnitude_and_an_edge_without_a_score_is_thinnest() -> None:
    circuit = circuit_of(("input->m0", -1.0), ("m0->m1", 0.25), ("m1->logits", float("nan")))
    edges = strongest(circuit)
    assert [edge.name for edge in edges] == ["input->m0", "m0->m1", "m1->logits"]
    assert pen_widths(circuit, edges) == (MAX_PEN, pytest.approx((MIN_PEN + MAX_PEN) / 2), MIN_PEN)
    assert strongest(circuit, 1) == edges[:1]


def test_every_edge_runs_upwards_and_nodes_of_a_row_do_not_overlap() -> None:
    circuit = dense(150)
    layout = place(circuit)
    assert set(layout.places) == set(circuit.nodes)
    for edge in circuit.edges:
        (_, low), *_, (_, high) = layout.curve(edge)
        assert low + 2 * HALF_HEIGHT <= layout.places[edge.reader.node][1] + 1e-9
        assert low < high
    for (_, (x, y)), (_, (other, row)) in itertools.combinations(layout.places.items(), 2):
        assert y != row or abs(x - other) >= 1 - 1e-3


def test_two_lines_that_cross_count_once_and_lines_that_share_an_end_do_not() -> None:
    crossed = circuit_of(("a0.h0->a1.h1<q>", 1), ("a0.h1->a1.h0<q>", 1))
    assert crossings(index_order(crossed), crossed.edges) == 1
    assert crossings(place(crossed), crossed.edges) == 0
    fan = circuit_of(("a0.h0->a1.h0<q>", 1), ("a0.h0->a1.h1<q>", 1), ("a0.h0->a1.h1<k>", 1))
    assert crossings(index_order(fan), fan.edges) == 0


@pytest.mark.parametrize("seed", range(5))
def test_ordering_by_barycentre_never_adds_crossings(seed: int) -> None:
    circuit = dense(40, seed)
    assert crossings(place(circuit), circuit.edges) <= crossings(index_order(circuit), circuit.edges)


# ---- plots -----------------------------------------------------------------------------------------------------------


def test_a_merged_circuit_and_an_empty_one_can_be_drawn() -> None:
    merged = circuit_of(("input->a0.h0", 1.0), ("a0.h0->logits", 2.0), granularity="node")
    assert circuit_picture(merged).count('<path class="edge whole"') == 2
    empty = circuit_of()
    assert "This circuit has no edges." in circuit_picture(empty)
    assert "This circuit has no edges." in draw(page_of(empty))
    assert "digraph" in circuit_to_dot(empty)


def test_the_trajectory_is_drawn_as_it_is_and_marked_where_the_answer_first_stays_at_rank_one() -> None:
    figure = trajectory_plot(TRAJECTORY, " Paris")
    ranks, probabilities = traces(figure)[:2]
    assert tuple(ranks.y) == TRAJECTORY.ranks
    assert tuple(probabilities.y) == TRAJECTORY.probabilities
    low, high = layout_of(figure).yaxis.range
    assert layout_of(figure).yaxis.type == "log"
    assert low > high
    # Rank 1 at L0 attn does not last; L2 attn, state 5, is where it stays.
    assert {shape.x0 for shape in layout_of(figure).shapes} == {5}
    never = replace(TRAJECTORY, ranks=(9,) * 7)
    assert not layout_of(trajectory_plot(never, " Paris")).shapes


def test_layer_activity_is_the_share_of_heads_and_mlps_in_the_circuit() -> None:
    heads, mlps = traces(layer_activity(SMALL))
    assert tuple(heads.y) == (25, 25, 0)
    assert tuple(mlps.y) == (100, 0, 100)


def test_markup_in_plotly_text_is_escaped() -> None:
    assert plotly_text("<a href='x'>$y$") == "&lt;a href=&#x27;x&#x27;&gt;&#36;y&#36;"


# ---- charts without a script ------------------------------------------------------------------------------------------


def test_a_bars_parts_are_as_wide_as_their_values_and_negative_ones_lie_left_of_zero() -> None:
    bars = [
        Bar("one <b>", {"up": 3.0, "more": 1.0, "down": -0.5}, "note"),
        Bar("two", {"up": 1.5, "more": 0.0, "down": 0.0}),
    ]
    text = stacked_bars(bars, title="t", x="logits")
    assert "<b>" not in text
    drawn = {
        title: (float(x), float(width))
        for x, width, title in re.findall(
            r'<rect x="([\d.]+)" y="\d+" width="([\d.]+)"[^>]*><title>(.*?)</title>', text
        )
    }
    up, more, down = (drawn[f"one &lt;b&gt;: {part}"] for part in ("up +3.00", "more +1.00", "down -0.50"))
    assert up[1] == pytest.approx(3 * more[1], abs=0.2)
    assert up[1] == pytest.approx(2 * drawn["two: up +1.50"][1], abs=0.2)
    assert more[0] == pytest.approx(up[0] + up[1], abs=0.2)
    assert down[0] + down[1] == pytest.approx(up[0], abs=0.2)
    assert text == stacked_bars(bars, title="t", x="logits")


def test_a_cloud_has_one_scale_on_both_axes_and_the_origin_in_its_middle() -> None:
    """The farthest coordinate reaches 0.95 of the way to the side; a point half as far up is drawn half as far."""
    text = clouds([Cloud("t <b>", {"stored": ((2.0, 0.0), (0.0, 1.0)), "later": ((0.0, 0.0),)})])
    assert "<b>" not in text
    points = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="3"', text)
    found = [(float(x) - LEFT - CLOUD / 2, float(y) - TOP - CLOUD / 2) for x, y in points]
    far = 0.95 * CLOUD / 2
    for point, expected in zip(found, [(far, 0), (0, -far / 2), (0, 0)], strict=True):
        assert point == pytest.approx(expected, abs=0.1)


def test_pictures_are_stacked_one_below_another() -> None:
    bars = stacked_bars([Bar("one", {"up": 3.0})], title="t", x="logits")
    cloud = clouds([Cloud("t", {"stored": ((1.0, 1.0),)})])
    assert stacked([bars]) == bars
    heights = [int(re.findall(r'viewBox="0 0 \d+ (\d+)"', text)[0]) for text in (bars, cloud)]
    both = stacked([bars, cloud])
    assert re.findall(r'<svg y="(\d+)" height="(\d+)"', both) == [
        ("0", str(heights[0])),
        (str(heights[0] + 24), str(heights[1])),
    ]
    assert int(re.findall(r'viewBox="0 0 \d+ (\d+)"', both)[0]) == sum(heights) + 48
    for wrong in ([], [bars, "<p>"]):
        with pytest.raises(ValueError, match="pictures made here"):
            stacked(wrong)


# ---- what a notebook shows -------------------------------------------------------------------------------------------


def test_the_picture_of_a_circuit_draws_every_edge_and_node_and_styles_nothing_outside_itself() -> None:
    head = Node(1, "head", 2)
    text = circuit_picture(SMALL, [readout(node, " <b>") for node in SMALL.nodes], {head: "mover"})
    assert text.count('<path class="edge ') == SMALL.n_edges
    assert text.count('<g class="node ') == len(SMALL.nodes)
    assert text.count(">mover</text>") == 1
    assert "<b>" not in text
    style = re.findall(r"<style>(.*?)</style>", text)[0]
    assert all(rule.startswith(".kcircuit ") for rule in re.findall(r"[^{}]+(?={)", style))
    ElementTree.fromstring(text)
    assert circuit_picture(dense(150), ()).count('<path class="edge ') == 150


def test_the_picture_of_a_large_circuit_is_an_overview_of_its_strongest_edges_that_says_so() -> None:
    circuit = dense(LARGE + 1, shape=Shape(6, 8))
    assert "strongest of" not in circuit_picture(dense(LARGE, shape=Shape(6, 8)), title="t")
    text = circuit_picture(circuit, title="<t>", resting={node for node in circuit.nodes if node.kind == "head"})
    ElementTree.fromstring(text)
    assert text.count('<path class="edge ') == STRONGEST
    assert text.count('<g class="node ') == len(circuit.nodes)
    assert f"&lt;t&gt;, the {STRONGEST} strongest of {LARGE + 1} edges</text>" in text
    assert "<title>resting:" in text


def test_a_run_shows_itself_in_a_notebook_as_sentence_picture_and_edges() -> None:
    spec = RunSpec(facts=(FACTS[1],), model="planted", method="eap", edges="20", force=True)
    result = run(spec, {}, model=planted())
    shown = result._repr_html_()
    assert html.escape(str(result)) in shown
    assert shown.count('<path class="edge ') == result.circuit.n_edges > 0
    assert "<th>edge</th>" in shown


# ---- the verdict -----------------------------------------------------------------------------------------------------


def answered(nll: float, rank: float, p: float) -> Answers:
    return Answers.of([(nll, rank, p)])


@pytest.fixture(scope="module")
def told() -> Run:
    return run(RunSpec(facts=(FACTS[1],), model="planted", method="eap", edges="20", force=True), {}, model=planted())


def test_the_page_says_first_what_the_model_answers_and_what_the_circuit_alone_does(told: Run) -> None:
    said = told.model_copy(
        update={
            "model_answers": answered(0.02, 1.0, 0.98),
            "circuit_answers": answered(0.04, 1.0, 0.961),
            "empty_answers": None,
        }
    )
    name, kept, of = FACTS[1].object, said.circuit.n_edges, said.circuit.graph.n_edges
    model, circuit = verdict(said)
    assert model == f"The model answers “{name}”: rank 1, p 0.980."
    assert circuit.startswith(f"The circuit, {kept:,} of {of:,} edges (")
    assert circuit.endswith("alone ranks it 1st, p 0.961.")
    empty = said.model_copy(update={"empty_answers": answered(9.2, 1022.0, 0.0001)})
    assert verdict(empty)[1].endswith("p 0.961; with no edge at all it is ranked 1,022nd (9.20 nats).")
    assert f"<p>{html.escape(model)}</p>" in render(said)


def test_a_fact_that_the_model_does_not_say_is_said_to_be_none_of_its_own(told: Run) -> None:
    # Logits of 5 and 2 at probability 0.0136: the first choice has 0.0136 e^3 = 0.273.
    logits = NodeReadout(
        Node(1, "logits"), (TokenScore(" x", 5.0), TokenScore(" y", 3.0), TokenScore(" z", 2.0)), (), 3, 0.0136
    )
    others = tuple(each for each in told.readouts if each.node.kind != "logits")
    false = told.model_copy(
        update={
            "model_answers": answered(4.3, 3.0, 0.0136),
            "circuit_answers": answered(0.01, 1.0, 0.99),
            "readouts": (*others, logits),
        }
    )
    name = FACTS[1].object
    model, circuit = verdict(false)
    assert model == f"The model does not say “{name}”. It says “x”, p 0.273, and “{name}” is ranked 3rd, p 0.014."
    assert f"“{false.spec.facts[0].statement}”, which the model does not say</h1>" in render(false)
    assert "more certain than the model (negative log-likelihood 0.01 nats, the model’s 4.30)" in circuit
    # An answer beyond the tokens that were read leaves the first choice without its probability.
    far = false.model_copy(update={"readouts": (*others, replace(logits, answer_rank=40))})
    assert "It says “x” and" in verdict(far)[0]


def test_ordinals_are_spelled_as_they_are_said() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102, 1013, 1022)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "1,013th", "1,022nd",
    ]  # fmt: skip


def test_a_certificate_is_a_card_with_every_grade_and_interval() -> None:
    share = {"share": 0.25, "low": 0.1, "high": 0.5, "n": 20}
    none = {"share": None, "low": 0.0, "high": 1.0, "n": 0}
    content = {
        "kl": 0.1234,
        "blind": 0.3,
        "rank_without": 7,
        "verdict": "failed",
        "grades": {"sufficiency": "passed", "specificity": "undecided", "necessity": "failed"},
        "intervals": {"random_give": share, "own_answer": none, "this_answer": none, "random_lose": share},
    }
    text = draw(replace(page_of(), certificate=content))
    assert 'class="card certificate failed"' in text
    for said in (
        "Sufficiency passed",
        "Specificity undecided",
        "Necessity failed",
        "25% of 20 [10%, 50%]",
        "none to ask",
    ):
        assert said in text
    assert "certificate-heading" not in draw(page_of())


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_page_loads_nothing_from_the_network() -> None:
    page = Elements(draw(page_of()))
    loading = ("src", "href", "data", "action", "poster", "srcset", "xlink:href", "background")
    targets = {value for _, attributes in page.tags for name, value in attributes.items() if name in loading}
    assert targets == {"data:,", "#components"}
    assert not re.search(r"@import|url\(|\bimport\(|XMLHttpRequest|fetch\(|WebSocket", "".join(page.inside))
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_the_same_page_gives_the_same_bytes() -> None:
    again = circuit_of(*[(edge.name, SMALL.score(edge)) for edge in reversed(SMALL.edges)])
    first = draw(page_of()).encode()
    assert first == draw(page_of(again)).encode()
    # The control: another score is another page.
    other = circuit_of(*[(edge.name, SMALL.score(edge) / 2) for edge in SMALL.edges])
    assert first != draw(page_of(other)).encode()


def test_the_page_of_one_run_is_under_three_megabytes() -> None:
    assert len(draw(page_of(dense(250))).encode()) < 3_000_000


def test_text_from_the_data_is_escaped() -> None:
    page = Page(
        title=HOSTILE,
        subtitle=HOSTILE,
        circuit=replace(SMALL, provenance=Provenance(HOSTILE, "abc")),
        readouts=tuple(readout(node, HOSTILE, "<i>") for node in SMALL.nodes),
        trajectory=replace(TRAJECTORY, labels=(HOSTILE, *TRAJECTORY.labels[1:])),
        answer=HOSTILE,
        numbers=((HOSTILE, HOSTILE),),
        settings=((HOSTILE, HOSTILE),),
        command=HOSTILE,
    )
    text = draw(page)
    assert "<script>alert" not in text
    tame = [tag for tag, _ in Elements(draw(page_of())).tags]
    assert [tag for tag, _ in Elements(text).tags] == tame
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.S)[0])
    assert data["answer"] == HOSTILE


def test_the_whole_graph_is_a_hundred_per_cent_of_itself() -> None:
    whole = Circuit.full(Graph(Shape(3, 4)), PROVENANCE)
    text = draw(page_of(whole))
    assert f"keeps {whole.n_edges} of the model’s {whole.n_edges} edges (100 %)" in text
    assert "12 of its 12 attention heads and 3 of its 3 MLPs" in text


def test_every_edge_and_node_is_in_the_drawing_and_in_the_data() -> None:
    circuit = dense()
    text = draw(page_of(circuit))
    tags = Elements(text).tags
    assert sum(tag == "path" for tag, _ in tags) == circuit.n_edges
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.S)[0])
    names = [node["name"] for node in data["nodes"]]
    assert names == [node.name for node in sorted(circuit.nodes)]
    rebuilt = {
        f"{names[edge['from']]}->{names[edge['to']]}" + (f"<{edge['slot']}>" if edge["slot"] else ""): edge["score"]
        for edge in data["edges"]
    }
    assert rebuilt == {edge.name: pytest.approx(circuit.score(edge), rel=1e-5) for edge in circuit.edges}
    assert [abs(score) for score in rebuilt.values()] == sorted(map(abs, rebuilt.values()), reverse=True)


def test_a_circuit_too_large_to_draw_shows_the_strongest_edges_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_DRAWN", 4)
    text = draw(page_of())
    assert "The 4 strongest of 9 edges are drawn." in text
    assert sum(tag == "path" for tag, _ in Elements(text).tags) == 4


# ---- the page in a browser -------------------------------------------------------------------------------------------

WATCH = """<script>
window.problems = [];
addEventListener("error", (event) => problems.push(`error: ${event.message}`));
addEventListener("unhandledrejection", (event) => problems.push(`rejection: ${event.reason}`));
addEventListener("securitypolicyviolation", (event) => problems.push(`policy: ${event.blockedURI}`));
for (const level of ["error", "warn"]) console[level] = (...words) => problems.push(`${level}: ${words.join(" ")}`);
BEFORE
</script>"""

DRIVE = """<script>
(async () => {
  const result = {};
  const all = (query) => [...document.querySelectorAll(query)];
  const shown = () => all("#canvas .edge").filter((path) => getComputedStyle(path).display !== "none").length;
  await kcircuit.ready;
  result.before = shown();
  const slider = document.getElementById("threshold");
  slider.value = 5;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  result.after = shown();
  result.said = document.getElementById("threshold-out").textContent;
  slider.value = 0;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  const box = document.querySelector("#slots input[value=v]");
  box.click();
  result.withoutValues = shown();
  box.click();
  result.listed = all("#components .list button").map((button) => button.querySelector(".name").textContent);
  const group = all("#canvas .node").find((node) => node.textContent.includes("L1H2"));
  group.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  result.panel = document.getElementById("components").innerText;
  const chips = () => all("#components .attention button");
  chips()[1].click();
  result.lookingFromTheSecondToken = chips().map((chip) => chip.getAttribute("aria-label"));
  document.getElementById("back").click();
  result.focused = document.activeElement.closest("#components") !== null;
  const find = document.getElementById("find");
  const type = (text) => { find.value = text; find.dispatchEvent(new Event("input", { bubbles: true })); };
  type("mlp");
  result.lit = all("#canvas .node.lit").map((node) => node.textContent.slice(0, 4));
  type("l1h2");
  result.found = document.getElementById("panel-heading").textContent;
  type("");
  const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const stops = all("#canvas .node[tabindex='0']");
  result.stops = stops.length;
  stops[0].focus();
  press("ArrowUp");
  result.walkedTo = document.activeElement.getAttribute("aria-label");
  press("Enter");
  result.chosenByKey = document.getElementById("panel-heading").textContent;
  document.getElementById("back").click();
  const width = () => document.querySelector("#canvas svg").getBoundingClientRect().width;
  const fitted = width();
  document.getElementById("zoom-in").click();
  result.zoomedBy = width() / fitted;
  document.getElementById("zoom-fit").click();
  result.rows = all("#edges tbody tr").length;
  const more = document.getElementById("show-all");
  if (!more.hidden) more.click();
  result.allRows = all("#edges tbody tr").length;
  result.plots = all(".plot .main-svg").length;
  result.trajectory = document.getElementById("plot-trajectory").innerText;
  result.problems = problems;
  document.documentElement.dataset.result = JSON.stringify(result);
})();
</script>"""


def drive(text: str, tmp_path: Path, before: str = "", script: str = DRIVE) -> dict:
    """What the page does when ``script`` moves its slider and clicks, in headless chromium without a network."""
    head, tail = text.replace("<style>", WATCH.replace("BEFORE", before) + "<style>", 1), "</body>"
    at = head.rindex(tail)
    file = tmp_path / "page.html"
    file.write_text(head[:at] + script + head[at:], encoding="utf-8")
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    options += (
        "--disable-component-update --disable-sync --virtual-time-budget=20000 --window-size=1400,1000 --dump-dom"
    )
    done = subprocess.run(
        [CHROMIUM, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", file.as_uri()],
        capture_output=True,
        timeout=240,
        check=True,
    )
    found = re.search(r'data-result="(.*?)"', done.stdout.decode())
    assert found, f"the page's script never finished: {done.stderr.decode()[-2000:]}"
    return json.loads(html.unescape(found[1]))


browser = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} is not installed")


@browser
def test_in_a_browser_the_slider_hides_edges_and_a_click_fills_the_panel(tmp_path: Path) -> None:
    result = drive(draw(page_of()), tmp_path)
    assert result["problems"] == []
    assert (result["before"], result["after"], result["withoutValues"]) == (9, 4, 7)
    assert result["said"] == "≥ 0.300 nats: 4 of 9 edges"
    assert sorted(result["listed"]) == sorted(node.label for node in SMALL.nodes)
    for expected in ("L1H2", "3 in, 1 out", "␣Paris", "rank 2", "Reads from (3)", "Writes to (1)", "+0.900"):
        assert expected in result["panel"]
    for share in ("10 %", "20 %", "70 %"):
        assert share in result["panel"]
    assert result["lookingFromTheSecondToken"] == ["<s>: 25 %", "␣capital: 75 %", "␣France: not seen yet"]
    assert result["focused"]
    assert result["plots"] >= 2
    assert (result["lit"], result["found"]) == (["MLP0", "MLP2"], "L1H2")
    assert (result["stops"], result["walkedTo"], result["chosenByKey"]) == (
        1,
        "L0H1, attention head, 1 in, 1 out",
        "L0H1",
    )
    assert result["zoomedBy"] == pytest.approx(1.25, abs=0.01)


ADDRESS = """<script>
(async () => {
  const result = {};
  const heading = () => document.getElementById("panel-heading").textContent;
  await kcircuit.ready;
  result.opened = [heading(), document.querySelectorAll("#canvas .node.chosen").length];
  const turn = () => new Promise((done) => addEventListener("hashchange", () => setTimeout(done), { once: true }));
  let waits = turn();
  location.hash = "#m0";
  await waits;
  result.other = heading();
  waits = turn();
  location.hash = "#nothing-of-the-kind";
  await waits;
  result.unknown = heading();
  kcircuit.select(null);
  result.none = location.hash;
  [...document.querySelectorAll("#canvas .node")].find((node) => node.textContent.includes("L1H2"))
    .dispatchEvent(new MouseEvent("click", { bubbles: true }));
  result.address = location.hash;
  kcircuit.select(null);
  const { text, width, height } = kcircuit.still();
  result.still = text;
  result.size = [width, height];
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = width; canvas.height = height;
  const brush = canvas.getContext("2d");
  brush.drawImage(image, 0, 0);
  result.colours = new Set(new Uint32Array(brush.getImageData(0, 0, width, height).data.buffer)).size;
  result.problems = problems;
  document.documentElement.dataset.result = JSON.stringify(result);
})();
</script>"""


@browser
def test_a_component_has_an_address_and_the_drawing_is_a_picture_that_needs_no_page(tmp_path: Path) -> None:
    opened_at = "</script><script>history.replaceState(null, '', '#L1H2');"
    result = drive(draw(page_of()), tmp_path, before=opened_at, script=ADDRESS)
    assert result["problems"] == []
    assert result["opened"] == ["L1H2", 1]
    assert (result["other"], result["unknown"]) == ("MLP0", "MLP0")
    assert (result["none"], result["address"]) == ("", "#L1H2")
    picture = ElementTree.fromstring(result["still"])
    assert [float(picture.get(side) or 0) for side in ("width", "height")] == result["size"]
    assert "class=" not in result["still"]
    assert "var(" not in result["still"]
    for node in SMALL.nodes:
        assert node.label in result["still"]
    # It is drawn where no style sheet is: in more colours than its ground and its ink.
    assert result["colours"] > 10


SURVEY = """<script>
(async () => {
  const result = {};
  const all = (query) => [...document.querySelectorAll(query)];
  const frame = () => new Promise(requestAnimationFrame);
  const said = () => document.getElementById("threshold-out").textContent;
  const click = (target) => target.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  const curves = (query) => all(query).reduce((sum, path) => sum + path.getAttribute("d").split("M").length - 1, 0);
  const middle = (group) => { const box = group.getBoundingClientRect(); return [Math.round(box.x), Math.round(box.y)]; };
  await kcircuit.ready;
  await frame();
  const map = document.getElementById("map"), nodes = all("#map .node");
  result.fits = map.getBoundingClientRect().height <= innerHeight;
  result.said = said();
  result.drawn = curves(".wires:not(.lit) path");
  result.paths = all("#canvas path").length;
  const slider = document.getElementById("threshold");
  slider.value = 0;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  await frame();
  result.all = curves(".wires:not(.lit) path");
  result.pathsOfAll = all("#canvas path").length;
  const named = (name) => nodes.find((node) => node.getAttribute("aria-label").startsWith(name + ","));
  click(named("L1H2"));
  result.chosen = document.getElementById("panel-heading").textContent;
  result.way = all("#components .way button").map((button) => button.textContent);
  result.lit = all("#map .node.lit").map((node) => node.getAttribute("aria-label").split(",")[0]).sort();
  result.bold = curves(".wires.lit .bold path");
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  result.unlit = all("#map .node.lit").length;
  const [, below] = middle(named("L0H1")), opener = all(".opener")[1];
  opener.focus();
  opener.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
  result.opened = [opener.getAttribute("aria-expanded"), document.getElementById("panel-heading").textContent];
  result.openBoxes = all("#map .node.open").length;
  opener.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowUp", bubbles: true }));
  result.walkedTo = document.activeElement.getAttribute("aria-label");
  click(all(".lane")[0]);
  result.lane = document.getElementById("panel-heading").textContent;
  result.inLane = all("#components .list .name").map((name) => name.textContent);
  const find = document.getElementById("find");
  find.value = "l1h3";
  find.dispatchEvent(new Event("input", { bubbles: true }));
  result.found = document.getElementById("panel-heading").textContent;
  const started = performance.now();
  for (const node of nodes.slice(0, 20)) {
    node.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: 300, clientY: 300 }));
    map.getBoundingClientRect();
  }
  result.hover = (performance.now() - started) / 20;
  document.getElementById("show-all").click();
  result.allRows = all("#edges tbody tr").length;
  result.problems = problems;
  document.documentElement.dataset.result = JSON.stringify(result);
})();
</script>"""


def resting_at(heads: tuple[Node, ...]) -> PromptAttention:
    return PromptAttention(("<s>", " is"), tuple(HeadPattern(head, ((1.0,), (0.5, 0.5))) for head in heads))


def large_circuit() -> Circuit:
    """1,999 edges of thirty layers of nine heads; the only ways through L1H2 pass L0H1 below it and MLP3 above it."""
    graph = Graph(Shape(30, 9))
    values = np.random.default_rng(0).normal(size=graph.legal.shape)
    others = [i for i, reader in enumerate(graph.readers) if reader.node.layer > 3]
    few = np.full_like(values, np.nan)
    few[:, others] = values[:, others]
    few[[i for i, writer in enumerate(graph.writers) if writer.layer in (0, 1, 2)]] = np.nan
    by_hand = {
        "input->a0.h1<v>": 9.0,
        "input->a0.h1<k>": 9.0,
        "a0.h1->a1.h2<v>": 7.0,
        "a0.h1->a1.h3<q>": 8.0,
        "input->a1.h3<v>": 8.0,
        "a1.h3->m3": 8.0,
        "a1.h2->m3": 6.0,
        "m3->logits": 9.0,
    }
    kept = Scores(graph, few, PROVENANCE).top(1999 - len(by_hand))
    scores, edges = np.array(kept.scores), np.array(kept.kept)
    for name, score in by_hand.items():
        edges[graph.edge(name)], scores[graph.edge(name)] = True, score
    return Circuit(graph, edges, PROVENANCE, scores)


@browser
def test_in_a_browser_an_overview_of_two_thousand_edges_fits_the_screen_and_opens_on_demand(tmp_path: Path) -> None:
    circuit = large_circuit()
    page = replace(page_of(circuit), attention=resting_at((Node(0, "head", 1), Node(1, "head", 2))))
    result = drive(draw(page), tmp_path, script=SURVEY)
    assert result["problems"] == []
    assert result["fits"]
    assert "300 of 1,999 edges" in result["said"]
    assert (result["drawn"], result["all"]) == (300, 1999)
    # One path a look, not one an edge: three slots and the whole input, two signs, six widths.
    assert result["paths"] <= result["pathsOfAll"] <= 48
    assert (result["chosen"], result["way"]) == ("L1H2", ["Input", "L0H1", "L1H2", "MLP3", "Logits"])
    # The control: L1H3 reads L0H1 as well, but by q; no value of L1H2 passes it.
    assert set(result["lit"]) >= {"Input", "L0H1", "L1H2", "MLP3", "Logits"}
    assert "L1H3" not in result["lit"]
    assert (result["bold"], result["unlit"]) == (4, 0)
    assert (result["opened"], result["openBoxes"]) == (["true", "Layer 1"], 2)
    assert result["walkedTo"] == "Layer 2, 0 components"
    assert (result["lane"], sorted(result["inLane"])) == ("resting", ["L0H1", "L1H2"])
    assert result["found"] == "L1H3"
    assert result["hover"] < 100
    assert result["allRows"] == 1999


def test_an_overview_keeps_boxes_apart_and_stands_heads_of_a_role_in_their_lane() -> None:
    circuit = large_circuit()
    mover, rests = Node(5, "head", 2), Node(5, "head", 3)
    view = survey(circuit, circuit.nodes, {mover: "mover"}, {mover, rests})
    assert (view.lane_of[mover], view.lane_of[rests], view.lane_of[Node(5, "head", 4)]) == ("mover", "resting", "other")
    lefts = {lane: left for lane, (left, _, _) in view.lanes.items()}
    assert lefts["resting"] < lefts["other"] < lefts["mover"] < view.places[Node(5, "mlp")][0]
    for head, lane in view.lane_of.items():
        left, right, _ = view.lanes[lane]
        assert left <= view.places[head][0] <= right
    for (_, (x, y)), (_, (other, row)) in itertools.combinations(view.places.items(), 2):
        assert abs(y - row) >= 12 or abs(x - other) >= 24
    # Of a circuit whose heads are all alike, each stands at its own index.
    plain = survey(circuit, circuit.nodes, {}, set())
    assert plain.places[Node(5, "head", 4)][0] == plain.places[Node(9, "head", 4)][0]


def test_a_curve_of_an_overview_ends_at_its_components() -> None:
    circuit = large_circuit()
    view = survey(circuit, circuit.nodes, {}, set())
    for edge in circuit.edges:
        x0, y0, *_, x3, y3 = view.curve(edge.writer, edge.reader.node)
        for (x, y), node in (((x0, y0), edge.writer), ((x3, y3), edge.reader.node)):
            at = view.places[node]
            assert abs(x - at[0]) <= 23
            assert abs(y - at[1]) <= 8


@browser
def test_a_browser_that_cannot_unpack_plotly_shows_the_values_as_a_table(tmp_path: Path) -> None:
    result = drive(draw(page_of()), tmp_path, before="delete window.DecompressionStream;")
    assert result["plots"] == 0
    assert "rank 900" in result["trajectory"]
    assert [problem[:5] for problem in result["problems"]] == ["warn:"]

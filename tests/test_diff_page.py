"""Laws of a diff's page: every edge of either circuit is drawn and marked, and a browser can move all its parts."""

import json
import re
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from circuits.circuit import Circuit
from circuits.evaluation.edits.relapse import Relapse, Standoff
from circuits.evaluation.edits.superficial import AfterPrefix, Audit
from circuits.pages import pair as pair_page
from circuits.pages.diff import render_diff
from circuits.pages.diff_figures import trajectories, who_writes
from circuits.pages.pair import union
from circuits.pages.sides import SideNames, headline
from circuits.pages.stills import answers_still, ranks_still, writers_still
from circuits.studies.diffs import CircuitDiff
from tests.models import traces
from tests.test_diffs import EDITED, HERE, SKY, circuit, diff, path, side
from tests.test_viz import HOSTILE, Elements, browser, drive

FOUND = diff("input->m0 m0->logits a0.h0->m1", "input->m1 m0->logits m1->logits")

DRIVE_DIFF = """<script>
(async () => {
  const result = {};
  const all = (query) => [...document.querySelectorAll(query)];
  const shown = (pane) => all(`${pane} .edge`).filter((path) => getComputedStyle(path).display !== "none").length;
  await kcircuit.ready;
  result.apart = [shown("#pane-before"), shown("#pane-after")];
  const slider = document.getElementById("threshold");
  slider.value = 4;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  result.hidden = [shown("#pane-before"), shown("#pane-after")];
  slider.value = 0;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  all("#views input")[1].click();
  result.over = shown("#pane-before");
  result.afterHidden = document.getElementById("pane-after").hidden;
  all("#views input")[0].click();
  const group = all("#pane-after .node").find((node) => node.textContent.includes("MLP1"));
  group.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  result.panel = document.getElementById("components").innerText;
  document.getElementById("back").click();
  result.focused = document.activeElement.closest("#components") !== null;
  const find = document.getElementById("find");
  find.value = "mlp0";
  find.dispatchEvent(new Event("input", { bubbles: true }));
  result.found = document.getElementById("panel-heading").textContent;
  find.value = "lost";
  find.dispatchEvent(new Event("input", { bubbles: true }));
  result.lit = all("#pane-before .node.lit").map((node) => node.getAttribute("aria-label"));
  const lost = document.querySelector("#states input[value=lost]");
  lost.click();
  result.withoutLost = [shown("#pane-before"), shown("#pane-after")];
  lost.click();
  result.stops = ["before", "after"].map((side) => all(`#pane-${side} .node[tabindex='0']`).length);
  result.plots = all(".plot .main-svg").length;
  result.problems = problems;
  document.documentElement.dataset.result = JSON.stringify(result);
})();
</script>"""


def test_the_union_has_every_edge_of_either_circuit_and_the_nodes_of_both_graphs():
    before, after = circuit("input->m1 m1->logits"), circuit("input->x1 x1->logits", EDITED)
    both = union(before, after)
    assert {edge.name for edge in both.edges} == {"input->m1", "m1->logits", "input->x1", "x1->logits"}
    assert union(before, before) == before


def test_the_union_keeps_the_score_that_is_larger_in_size():
    left, right = circuit("input->m0", first_score=-3.0), circuit("input->m0", first_score=2.0)
    assert union(left, right).score(union(left, right).edges[0]) == -3
    unscored = Circuit(left.graph, left.kept, HERE)
    assert union(unscored, right).score(right.edges[0]) == 2
    assert union(right, unscored).score(right.edges[0]) == 2
    assert np.isnan(union(unscored, unscored).score(right.edges[0]))


def test_every_edge_is_drawn_once_and_marked_kept_lost_or_gained():
    text = render_diff(FOUND)
    classes = [str(attributes["class"]).split()[1] for tag, attributes in Elements(text).tags if tag == "path"]
    assert sorted(classes) == ["gained", "gained", "kept", "lost", "lost"]
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.S)[0])
    assert [edge["state"] for edge in data["edges"]] == [name for name in classes]
    assert {node["name"] for node in data["nodes"]} == {"input", "a0.h0", "m0", "m1", "logits"}


def test_a_diff_too_large_to_draw_shows_the_strongest_edges_and_says_so(monkeypatch: pytest.MonkeyPatch):
    assert "strongest of" not in render_diff(FOUND)
    monkeypatch.setattr(pair_page, "DRAWN", 2)
    text = render_diff(FOUND)
    assert "The 2 strongest of 5 edges are drawn." in text
    assert sum(tag == "path" for tag, _ in Elements(text).tags) == 2


def test_a_head_with_a_role_is_drawn_however_weak_its_edges_are_beside_others(monkeypatch: pytest.MonkeyPatch):
    names = "input->a0.h0<v> a0.h0->m1 input->m0 m0->logits m1->logits"
    sides = [side(circuit(names), label, {"a0.h0": ("mover", "sky")}) for label in ("before", "after")]
    named = CircuitDiff(differs="edit", before=sides[0], after=sides[1])
    monkeypatch.setattr(pair_page, "DRAWN", 1)
    text = render_diff(named)
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.S)[0])
    assert {edge["size"] for edge in data["edges"]} == {5, 2, 1}, "m1->logits, and the two of a0.h0"
    assert "The 1 strongest of 5 edges are drawn, 2 more for heads with a role." in text


def test_the_same_diff_gives_the_same_page_and_a_page_stays_under_three_megabytes():
    assert render_diff(FOUND) == render_diff(FOUND)
    assert len(render_diff(FOUND).encode()) < 3e6


def test_text_of_a_diff_is_shown_and_never_read_as_markup():
    hostile = side(circuit("input->m0"), label=HOSTILE)
    page = render_diff(CircuitDiff(differs=HOSTILE, before=hostile, after=hostile), verdict=HOSTILE, command=HOSTILE)
    assert "<script>alert" not in page


def test_an_audit_is_shown_with_its_controls_and_says_when_no_head_was_sought():
    bare = AfterPrefix("no prefix", 1, (0.0, 1.0), (1.0, 0.0), (1.0, 0.0), (6.0, -6.0))
    after_old = AfterPrefix("the <old> object", 3, (0.0, 0.0), (1.0, 1.0), (1.0, 1.0), (9.0, float("nan")))
    whole, without = Standoff(4.0, 1.0, 1.0), Standoff(-6.0, 0.0, 0.0)
    relapse = Relapse((("a0.h0", 9.375),), 2, 1, whole, without, (whole, whole))
    page = render_diff(FOUND, audit=Audit((bare, after_old), relapse))
    assert "Does the old answer come back?" in page
    assert "the &lt;old&gt; object" in page
    assert "+6.00 → −6.00" in page
    assert "+9.00 → –" in page
    assert "L0H0 (+9.38 nats)" in page
    assert "as many at random, mean of 2" in page
    assert "0% of the random sets lower it as much" in page
    quiet = render_diff(FOUND, audit=Audit((bare,), None))
    assert "No heads were sought" in quiet
    assert "at random, mean of" not in quiet
    # Without an audit there is no such card.
    assert "come back" not in render_diff(FOUND)


def test_the_plots_show_each_answer_before_and_after():
    ranks, writes = trajectories(FOUND), who_writes(FOUND)
    assert [trace.name for trace in traces(ranks)] == [
        "blue, before",
        "blue, after",
        "green, before",
        "green, after",
    ]
    assert isinstance(writes, go.Figure)
    total = sum(float(trace.x[0]) for trace in traces(writes))
    assert total == pytest.approx(FOUND.before.shares("blue").total)


def two_answers(right_rank: int = 7) -> CircuitDiff:
    """Two circuits in one model on one prompt: of the answer that it gives (green), and of the right one (blue)."""
    paths = (path(9, 9, right_rank), path(1, 1, 1))
    wrong, right = (
        side(circuit(edges), label, {"a0.h0": ("mover", " sky")}).model_copy(update={"paths": paths})
        for edges, label in (("input->m0 m0->logits", "wrong answer"), ("a0.h0->m1 m1->logits", "right answer"))
    )
    return CircuitDiff(differs="answer", before=wrong, after=right)


def test_two_circuits_of_one_model_on_one_prompt_are_called_by_their_names_and_read_once():
    found = two_answers()
    names = SideNames.of(found)
    assert (names.lost, names.gained, names.one_reading) == ("wrong answer only", "right answer only", True)
    assert [trace.name for trace in traces(trajectories(found))] == ["blue", "green"]
    text = render_diff(found, verdict="no mover\nnone pulls")
    shown = re.sub(r"<script.*?</script>|<style.*?</style>|<svg.*?</svg>", "", text, flags=re.S)
    assert not re.search(r"\b(before|after)\b(?! every)", re.sub(r"<[^>]*>", " ", shown), re.I)
    assert "<p>no mover</p><p>none pulls</p>" in text
    assert "Heads with a role, at this prompt" in text
    # The control: an edit has a before and an after, though nothing else be read.
    edit = found.model_copy(update={"differs": "edit"})
    assert SideNames.of(edit) == SideNames("before", "after", "lost", "gained", False)
    assert "Heads that do something else" in render_diff(edit)
    assert not SideNames.of(found.model_copy(update={"after": FOUND.after})).one_reading


def test_a_diffs_title_says_what_the_model_says():
    assert headline(two_answers()) == f"{SKY.prompt} … green"
    right = two_answers(right_rank=1)
    assert headline(right) == SKY.statement
    nothing = right.after.model_copy(update={"paths": (path(9, 9, 2), path(1, 1, 3))})
    assert headline(right.model_copy(update={"after": nothing})) == f"{SKY.prompt} …"


@browser
def test_in_a_browser_the_slider_hides_edges_the_toggle_overlays_and_a_click_compares(tmp_path: Path):
    result = drive(render_diff(FOUND, others=(FOUND,)), tmp_path, script=DRIVE_DIFF)
    assert result["problems"] == []
    assert result["apart"] == [3, 3]
    assert result["hidden"] == [1, 1]
    assert (result["over"], result["afterHidden"]) == (5, True)
    for expected in ("MLP1", "in both", "Reads from (2)", "Writes to (1)", "blue", "gained", "lost"):
        assert expected in result["panel"]
    assert result["focused"]
    assert result["found"] == "MLP0"
    assert result["lit"] == ["L0H0, attention head, lost"]
    assert result["withoutLost"] == [1, 3]
    assert result["stops"] == [1, 1]
    assert result["plots"] >= 2


# ---- pictures without a script ---------------------------------------------------------------------------------------


def test_a_still_shows_both_sides_of_every_answer_and_runs_nothing():
    for picture in (answers_still(FOUND), writers_still(FOUND)):
        assert picture.startswith("<svg")
        assert "<script" not in picture
        for answer in FOUND.before.answers:
            assert answer in picture
    assert picture.count("rank ") >= 2 * len(FOUND.before.answers)


def test_a_still_of_ranks_names_every_path_and_every_state():
    picture = ranks_still("French", {"here": path(9, 3, 1), "there": path(9, 9, 9)})
    for word in ("French", "here", "there", *path(9, 3, 1).labels):
        assert word in picture

"""Table 1: rows against circuits known beforehand, averages worked out by hand, and what is printed and kept."""

import dataclasses
import importlib
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from circuits import datasets
from circuits.cli.table import print_table
from circuits.datasets.split import split_facts
from circuits.discovery.state import Interrupted
from circuits.engines.hook import HookEngine
from circuits.evaluation import standalone, whole_model
from circuits.evaluation.baseline import size_matched
from circuits.facts import KINDS, Fact, Kind, Relation, Relations
from circuits.model import Model
from circuits.pages.charts import Panel, line_panels
from circuits.pages.page import asset
from circuits.pages.table import HEADER, beaten_sentence, cells, files, main_cells, notes, to_html, to_markdown
from circuits.pages.table_figures import figure_2, figure_6, mean_by_kind
from circuits.studies.run import Run
from circuits.studies.runs import run
from circuits.studies.specs import RunSpec
from circuits.studies.study import Case, Key, Outcome, Watch
from circuits.studies.sweep import Pool
from circuits.studies.table import Row, Skipped, Table, TableSpec, load_published, make_row, make_table
from circuits.studies.table import table as table_module
from circuits.studies.table.row import AtTau, Blind, RandomLevel, Scored
from circuits.studies.table.table import average, by_tau
from tests.commands import ends
from tests.models import guessed_relation, plain_model, zero_weights

# ---- the oracle: a lookup with a suppressor ------------------------------------------------------------------------------
#
# Eight subjects s0 ... s7, answers r0 ... r7 and four words that are never an answer. Hidden unit i of either MLP is relu(identity i).
# m0 adds 3 to the answer's logit; m1 takes c_i from it, c_i = 1 or 0 on D_val and 5 on D_test. All other logits are 0. So on
# D_val the model ranks the answer first, and on D_test last: 3 - 5 < 0, behind the 19 others.

N = 8
WORDS = " ".join([*(f"s{i}" for i in range(N)), *(f"r{i}" for i in range(N)), *(f"t{i}" for i in range(4))])
LOOKUP = Relation(
    name="lookup",
    title="look up",
    kind="factual",
    domain="word",
    range="word",
    templates=("{}",),
    pairs=tuple((f"s{i}", f"r{i}") for i in range(N)),
)
RELATIONS: Relations = {"lookup": LOOKUP}
SPEC = TableSpec(model="by hand", taus=(0.1, 1.0), processing="raw", draws=2)


def lookup_model(on_val: float, on_test: float = 5.0) -> Model:
    test = {fact.subject for fact in split_facts(LOOKUP, "test")}
    losses = torch.tensor([on_test if f"s{i}" in test else on_val for i in range(N)])
    size = 2 * N + 4
    weights = zero_weights(n_layers=2, n_heads=1, d_model=size, d_head=1, d_mlp=N, d_vocab=size, n_ctx=2)
    weights["embed.W_E"][:N, :N] = torch.eye(N)
    for layer, strengths in enumerate((torch.full((N,), 3.0), -losses)):
        weights[f"blocks.{layer}.mlp.W_in"][:N] = torch.eye(N)
        weights[f"blocks.{layer}.mlp.W_out"][:, N : 2 * N] = strengths.diag()
    weights["unembed.W_U"][N:, N:] = torch.eye(size - N)
    return plain_model(weights, WORDS)


def nll(logit: float) -> float:
    return math.log(1 + 19 * math.exp(-logit))


@pytest.fixture(scope="module")
def suppressed() -> Row:
    row = make_row(SPEC, LOOKUP, RELATIONS, lookup_model(on_val=1.0))
    assert isinstance(row, Row)
    return row


def test_a_row_holds_the_circuit_that_the_weights_imply(suppressed: Row):
    # Signed, tau 0.1: m1's edges go, as the answer is likelier without them; what is left is input->m0->logits.
    assert (suppressed.circuit.edges, suppressed.circuit.edges_merged, suppressed.circuit.nodes) == (2, 2, 3)
    assert (suppressed.edges_total, suppressed.edges_total_merged) == (23, 15)
    assert suppressed.share == 2 / 23
    assert (suppressed.n_val, suppressed.n_test) == (4, 4)
    assert suppressed.heads_active == (0.0, 0.0)
    assert suppressed.mlps_active == (1.0, 0.0)
    assert suppressed.circuit.val.nll == pytest.approx(nll(3), abs=1e-6)
    assert suppressed.model_val.nll == pytest.approx(nll(2), abs=1e-6)


def test_each_half_is_scored_with_its_own_answers(suppressed: Row):
    assert (suppressed.model_val.hit10, suppressed.model_test.hit10) == (1, 0)
    assert (suppressed.circuit.val.hit10, suppressed.circuit.test.hit10) == (1, 1)
    assert suppressed.model_test.nll == pytest.approx(nll(-2), abs=1e-6)
    assert suppressed.model_test.mrr == pytest.approx(1 / 20)


def test_a_row_says_how_far_the_circuits_answers_are_from_the_models(suppressed: Row):
    def kl(model: float, circuit: float) -> float:
        """Between distributions over 20 words: logit of the answer, all others 0."""
        p = math.exp(-nll(model))
        return p * (nll(circuit) - nll(model)) + (1 - p) * (nll(circuit) + circuit - nll(model) - model)

    assert suppressed.kl_val == pytest.approx(kl(2, 3), abs=1e-6)
    assert suppressed.kl_test == pytest.approx(kl(-2, 3), abs=1e-6)


def test_the_blind_baseline_gives_the_commonest_objects_of_one_half_to_all_subjects_of_the_other(suppressed: Row):
    def facts(*objects: str) -> list[Fact]:
        return [Fact(f"s{i} is", f"s{i}", name) for i, name in enumerate(objects)]

    seen = facts("red", "blue", "red", *(f"rare {i}" for i in range(20)))
    assert Blind.of(seen, facts("red", "blue", "rare 1", "rare 19")) == Blind(hit1=0.25, hit10=0.75)
    assert suppressed.blind == Blind(hit1=0, hit10=0), "every object of this relation is its subject's alone"


def test_a_row_has_a_circuit_for_every_threshold_the_first_of_them_first():
    # S of both edges: log 20 - nll(3), 2.33. A tau above it keeps nothing.
    assert 1 < math.log(20) - nll(3) < 2.5
    row = make_row(SPEC.model_copy(update={"taus": (1.0, 2.5, 0.1)}), LOOKUP, RELATIONS, lookup_model(1.0))
    assert isinstance(row, Row)
    assert [(one.tau, one.edges) for one in row.circuits] == [(1.0, 2), (2.5, 0), (0.1, 2)]
    assert row.circuit.tau == 1.0


def test_a_circuit_that_beats_the_model_by_dropping_a_suppressor_is_found_out(suppressed: Row):
    beaten = suppressed.beaten
    assert beaten is not None
    assert beaten.halves == ("test",)
    # The same search with --absolute keeps input->m1 and m1->logits, and no longer beats the model.
    assert (beaten.absolute.edges, beaten.suppressive) == (4, 2)
    assert beaten.explained
    sentence = beaten_sentence(suppressed, beaten)
    assert "beats the model" in sentence
    assert "signed removal drops suppressive edges" in sentence


def test_a_circuit_that_beats_the_model_otherwise_is_told_apart():
    # On D_val the second MLP does nothing, so that both searches drop it; what it suppresses is on D_test.
    row = make_row(SPEC, LOOKUP, RELATIONS, lookup_model(on_val=0.0))
    assert isinstance(row, Row)
    assert row.beaten is not None
    assert (row.beaten.suppressive, row.beaten.still, row.beaten.explained) == (0, ("test",), False)
    assert "not by the dropped suppressive edges alone" in beaten_sentence(row, row.beaten)
    # The controls: nothing to beat where nothing suppresses, and no second search where the first was absolute.
    plain = make_row(SPEC, LOOKUP, RELATIONS, lookup_model(0.0, on_test=0.0))
    assert isinstance(plain, Row)
    assert plain.beaten is None
    absolute = make_row(SPEC.model_copy(update={"absolute": True}), LOOKUP, RELATIONS, lookup_model(1.0))
    assert isinstance(absolute, Row)
    assert absolute.beaten is None
    assert absolute.circuit.edges == 4


def test_a_row_agrees_with_a_run_and_random_circuits_measured_apart(suppressed: Row):
    model = lookup_model(1.0)
    val, test = split_facts(LOOKUP, "val"), split_facts(LOOKUP, "test")
    spec = RunSpec(facts=val, test_facts=test, relation="lookup", model="by hand", tau=0.1, processing="raw")
    result = run(spec, RELATIONS, model=model)
    assert result.circuit.n_edges == suppressed.circuit.edges
    assert Scored.of(result.circuit_answers) == suppressed.circuit.val
    assert Scored.of(whole_model(model, test)) == suppressed.model_test
    for level in suppressed.random:
        drawn = size_matched(result.circuit, draws=2, seed=0, draw=level.draw)
        hits = [standalone(model, HookEngine(model, test), one, test).hit(10).value for one in drawn]
        assert level.test == pytest.approx(sum(hits) / 2)
        assert level.test_best == max(hits)
        assert level.test_interval[0] <= level.test <= level.test_interval[1]


def test_mean_ranks_are_those_of_the_residual_stream(suppressed: Row):
    # The answer's logit is 0 among 20 equals until m0 has written, and ties count against it.
    assert suppressed.states == ("Input", "L0 attn", "L0 MLP", "L1 attn", "L1 MLP")
    assert suppressed.mean_ranks == (20, 20, 1, 1, 1)


def test_d_val_holds_known_facts_only_and_no_more_than_asked_for():
    # A loss of 5 on D_val too: the model knows nothing there, and there is no row.
    unknown = make_row(SPEC, LOOKUP, RELATIONS, lookup_model(on_val=5.0))
    assert isinstance(unknown, Skipped)
    assert "knows none of the 4 facts of D_val" in unknown.reason
    row = make_row(SPEC.model_copy(update={"n_val": 3, "n_test": 2}), LOOKUP, RELATIONS, lookup_model(1.0))
    assert isinstance(row, Row)
    assert (row.n_val, row.n_test) == (3, 2)


# ---- the spec ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"taus": ()}, "thresholds"),
        ({"taus": (0.1, 0.1)}, "differ"),
        ({"taus": (-1.0,)}, "finite nats"),
        ({"n_val": 0}, "n_val of at least 1"),
        ({"draws": 0}, "draws of at least 1"),
        ({"method": "eap"}, "has no threshold"),
        ({"colour": "red"}, "no setting called"),
    ],
)
def test_a_spec_that_means_nothing_is_refused(change: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        TableSpec.model_validate({**SPEC.model_dump(), **change})


def test_a_rows_key_tells_relations_settings_and_weights_apart():
    def key(model: Model, spec: TableSpec = SPEC, name: str = "lookup") -> Key:
        given = table_module.Given(RELATIONS, ("lookup",))
        return table_module.TABLE.key(spec, table_module.Context(model, given), Case(name, name))

    one, other = lookup_model(1.0), lookup_model(0.5)
    assert key(one) == key(lookup_model(1.0))
    changed = {key(other), key(one, SPEC.model_copy(update={"seed": 1})), key(one, name="other")}
    assert len(changed | {key(one)}) == 4


# ---- averages ------------------------------------------------------------------------------------------------------------


def made_row(name: str, kind: Kind, *, edges: int = 2, val: float = 1.0, test: float = 0.5) -> Row:
    """A row of plain numbers: the model's Hit@10 is 1 on D_val and 0.8 on D_test."""

    def scored(hit10: float) -> Scored:
        return Scored(hit1=0, hit10=hit10, mrr=0, nll=0)

    def at(tau: float, edges: int, test: float) -> AtTau:
        return AtTau(tau=tau, edges=edges, edges_merged=edges // 2, nodes=3, val=scored(val), test=scored(test))

    return Row(
        relation=name,
        title=name.replace("_", " "),
        kind=kind,
        n_val=20,
        n_test=50,
        edges_total=100,
        edges_total_merged=50,
        model_val=scored(1.0),
        model_test=scored(0.8),
        circuits=(at(0.01, edges, test), at(0.1, edges // 2, test / 2)),
        random=tuple(
            RandomLevel(
                draw=draw,
                val=0.1,
                val_interval=(0, 0.2),
                val_best=0.3,
                test=0.05,
                test_interval=(0, 0.1),
                test_best=0.1,
            )
            for draw in ("uniform", "connected")
        ),
        empty_val=scored(0.0),
        empty_test=scored(0.0),
        blind=Blind(hit1=0.1, hit10=0.3),
        kl_val=0.2,
        kl_test=0.4,
        beaten=None,
        heads_active=(0.5, edges / 10),
        mlps_active=(1.0, 0.0),
        states=("Input", "L0 attn", "L0 MLP"),
        mean_ranks=(100.0, 10.0, 1.0),
    )


ROWS = (
    made_row("country_language", "factual", edges=2, val=1.0, test=0.8),
    made_row("adj_antonym", "linguistic", edges=4, val=0.5, test=0.4),
    made_row("animal_young", "commonsense", edges=6, val=0.9, test=0.0),
    made_row("city_country", "factual", edges=8, val=0.6, test=0.4),
)
TABLE = Table(TableSpec(taus=(0.01, 0.1)), "ab" * 32, ROWS)


def test_averages_count_every_relation_once():
    means = average(TABLE.rows)
    assert means["edges"] == 5
    assert means["share"] == pytest.approx(0.05)
    assert means["hit10_val_circuit"] == pytest.approx(0.75)
    assert means["hit10_test_circuit"] == pytest.approx(0.4)
    assert means["retained_val"] == pytest.approx(0.75)
    assert means["retained_test"] == pytest.approx(0.5)
    assert means["hit10_val_random"] == pytest.approx(0.1)
    factual = TABLE.to_json()["average_by_kind"]["factual"]
    assert (factual["relations"], factual["edges"]) == (2, 5)
    assert factual["hit10_test_circuit"] == pytest.approx(0.6)
    assert average(())["edges"] is None


def test_a_sweep_averages_the_circuits_of_each_threshold():
    low, high = by_tau(TABLE.rows)
    assert (low["tau"], high["tau"]) == (0.01, 0.1)
    assert (low["edges"], high["edges"]) == (5, 2.5)
    assert high["hit10_test_circuit"] == pytest.approx(low["hit10_test_circuit"] / 2)
    assert high["retained_test"] == pytest.approx(0.25)


def test_rows_stand_by_kind_in_the_papers_order_and_then_by_name():
    assert [row.relation for row in TABLE.rows] == ["adj_antonym", "animal_young", "city_country", "country_language"]
    assert TABLE.kinds == ("linguistic", "commonsense", "factual")
    assert Table(TABLE.spec, TABLE.weights, ROWS[::-1]).rows == TABLE.rows


def test_figure_2_averages_the_shares_of_a_kinds_relations():
    assert mean_by_kind(TABLE, "heads_active")["factual"] == pytest.approx((0.5, 0.5))
    assert mean_by_kind(TABLE, "heads_active")["linguistic"] == pytest.approx((0.5, 0.4))
    assert mean_by_kind(TABLE, "mean_ranks")["commonsense"] == (100.0, 10.0, 1.0)


# ---- the published table -------------------------------------------------------------------------------------------------


def test_the_published_rows_are_about_relations_of_the_dataset(relations: Relations):
    published = load_published()
    assert len(published.rows) == 14
    assert all(relations[row.relation].kind == row.kind for row in published.rows)
    assert {row.kind for row in published.rows} == set(KINDS)


def test_the_published_rows_average_to_the_printed_averages():
    # The paper prints 0.98 where its rows give 0.986; the other three are rounded.
    published = load_published()
    for place, name in enumerate(("hit10_val_model", "hit10_val_circuit", "hit10_test_model", "hit10_test_circuit")):
        mean = sum(getattr(row, name) for row in published.rows) / 14
        assert mean == pytest.approx(published.average[place], abs=0.0065)


def test_a_published_row_stands_beside_its_relation_and_says_that_it_is_published():
    content = TABLE.to_json(load_published())
    rows = {row["relation"]: row["published"] for row in content["rows"]}
    assert rows["country_language"] == {
        "model": "gpt2-medium",
        "name": "Country Language",
        "edges_merged": 329,
        "hit10_val_model": 1.0,
        "hit10_val_circuit": 1.0,
        "hit10_test_model": 0.16,
        "hit10_test_circuit": 0.75,
    }
    assert rows["animal_young"] is None
    assert "Knowledge Circuits in Pretrained Transformers" in content["published"]["source"]
    assert "published" in "".join(name for name in HEADER)


# ---- what is written -----------------------------------------------------------------------------------------------------


def test_the_json_has_a_flat_row_for_each_relation():
    content = json.loads(files(TABLE, load_published())["table.json"])
    assert {"rows", "average", "average_by_kind", "by_tau", "beaten", "skipped", "settings"} <= set(content)
    row = content["rows"][0]
    assert row["relation"] == "adj_antonym"
    for key in ("kind", "edges", "edges_merged", "share", "hit10_val_model", "hit10_val_circuit", "hit10_val_random"):
        assert key in row
    assert row["hit10_test_random_interval"] == [0.0, 0.1]
    assert row["published"]["hit10_test_circuit"] == 0.40


def test_every_line_of_the_table_has_a_cell_for_every_column():
    lines = main_cells(TABLE, load_published())
    assert {len(line) for line in lines} == {len(HEADER)}
    assert len(lines) == 4 + 3 + 1
    assert cells(TABLE.rows[3], load_published().row("country_language"))[-1] == "0.16 → 0.75"
    assert lines[-1][:3] == ("average", "all", "5.0")


def test_the_page_of_a_table_has_the_style_of_all_pages_and_its_sentence_first() -> None:
    page = to_html(TABLE, load_published())
    assert asset("page.css") in page
    assert page.index("the average circuit keeps") < page.index("<table>")


def test_the_markdown_and_the_page_show_every_row_and_tell_of_what_is_missing(suppressed: Row):
    table = Table(SPEC, "ab" * 32, (suppressed,), (Skipped(relation="<gone>", reason="the model knows none"),))
    text, page = to_markdown(table, load_published()), to_html(table, load_published())
    for part in ("look up", "1.00 ↑", "beats the model", "8.7 %"):
        assert part in text
        assert part in page
    assert "No row for <gone>: the model knows none." in text
    assert "&lt;gone&gt;" in page
    assert "<gone>" not in page
    assert "<script" not in page
    assert text.count("\n| ") == 2 * (1 + 1 + 1 + 2) + 1 + 1 + 2
    assert any("by construction" in note for note in notes(table, None))


def test_the_same_table_gives_the_same_bytes(suppressed: Row):
    again = make_row(SPEC, LOOKUP, RELATIONS, lookup_model(on_val=1.0))
    assert again == suppressed
    assert Row.model_validate_json(suppressed.model_dump_json()) == suppressed
    assert files(TABLE, load_published()) == files(dataclasses.replace(TABLE), load_published())


def test_the_figures_are_whole_svg_with_a_line_for_each_kind():
    for picture, lines in ((figure_2(TABLE), 2 * 3), (figure_6(TABLE), 3)):
        root = ElementTree.fromstring(picture)
        assert root.tag.endswith("svg")
        assert sum(element.tag.endswith("polyline") for element in root.iter()) == lines
        assert "nan" not in picture


def test_a_panel_draws_higher_values_higher_and_better_ranks_higher():
    def heights(*, log: bool = False) -> list[float]:
        picture = line_panels([Panel("t", "x", "y", ("a", "b"), {"s": (1.0, 100.0)}, log=log)])
        return [float(value) for value in re.findall(r'cy="([\d.]+)"', picture)]

    low, high = heights()
    assert low > high
    first, hundredth = heights(log=True)
    assert first < hundredth


def test_a_picture_is_wide_enough_for_its_legend():
    names = ("linguistic", "commonsense", "factual", "bias")
    drawn = line_panels([Panel("one", "x", "y", ("a", "b"), {name: (1.0, 2.0) for name in names})])
    (width,) = re.findall(r'viewBox="0 0 (\d+) ', drawn)
    last = re.findall(r'<text x="(\d+)" y="18">bias', drawn)[0]
    assert int(last) + 7 * len("bias") <= int(width)


def test_a_panel_refuses_what_it_cannot_draw():
    with pytest.raises(ValueError, match="2 values of 's'"):
        Panel("t", "x", "y", ("a", "b"), {"s": (1.0,)})
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Panel("t", "x", "y", ("a",), {"s": (0.0,)}, log=True)


# ---- resuming ------------------------------------------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The relations whose rows were made, as they are."""
    made: list[str] = []

    def make(spec: TableSpec, relation: Relation, *rest: object, **options: object) -> Row | Skipped:
        made.append(relation.name)
        return make_row(spec, relation, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(table_module, "make_row", make)
    return made


def test_finished_rows_are_kept_and_others_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = counted(monkeypatch)
    model = lookup_model(1.0)
    first = make_table(SPEC, [LOOKUP], RELATIONS, model, folder=tmp_path)
    assert make_table(SPEC, [LOOKUP], RELATIONS, model, folder=tmp_path) == first
    assert made == ["lookup"]
    said: list[str] = []
    # Other weights, other settings, and a damaged file: each is made again, and said to be.
    make_table(SPEC, [LOOKUP], RELATIONS, lookup_model(0.5), folder=tmp_path, watch=Watch(said.append))
    make_table(
        SPEC.model_copy(update={"seed": 1}), [LOOKUP], RELATIONS, model, folder=tmp_path, watch=Watch(said.append)
    )
    (tmp_path / "rows" / "lookup.json").write_text("{", encoding="utf-8")
    assert make_table(SPEC, [LOOKUP], RELATIONS, model, folder=tmp_path, watch=Watch(said.append)) == first
    assert made == ["lookup"] * 4
    assert sum("made anew" in line for line in said) == 3


def test_a_stopped_search_continues_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.import_module("circuits.discovery.decisions"), "BATCHES", 1)
    model = lookup_model(1.0)

    def stop(done: int, total: int, state: str) -> None:
        if done > 8:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        make_table(SPEC, [LOOKUP], RELATIONS, model, folder=tmp_path, watch=Watch(progress=stop))
    (state,) = (tmp_path / "rows").glob("*.state.json")
    assert state.stat().st_size > 0
    seen: list[int] = []
    watch = Watch(progress=lambda done, total, state: seen.append(done))
    resumed = make_table(SPEC, [LOOKUP], RELATIONS, model, folder=tmp_path, watch=watch)
    assert seen[0] > 8
    assert resumed == make_table(SPEC, [LOOKUP], RELATIONS, model)
    assert not list((tmp_path / "rows").glob("*.state.json"))


def test_two_processes_make_the_table_that_one_makes(
    tmp_path: Path,
    model_folder: Callable[[str], Path],
    small_model: Callable[..., Model],
):
    # Copies of this process start at once; fresh ones import everything first.
    where = Pool(2, start_method="fork")
    model = small_model("gpt2")
    relations = {name: guessed_relation(model, name) for name in ("one", "two", "three")}
    spec = TableSpec(model=str(model_folder("gpt2")), taus=(1.0,), n_val=2, n_test=2, draws=1)
    counts: list[int] = []
    chosen = list(relations.values())

    def finished(done: int, total: int, outcome: Outcome[Row | Skipped]) -> None:
        assert total == 3
        counts.append(done)

    parallel = make_table(spec, chosen, relations, model, folder=tmp_path, where=where, finished=finished)
    assert counts == [1, 2, 3]
    assert parallel == make_table(spec, chosen, relations, model)
    # All three are kept: nothing is made again.
    assert make_table(spec, chosen, relations, model, folder=tmp_path, where=where) == parallel


def test_a_relation_without_a_row_is_listed_with_its_reason():
    said: list[str] = []
    table = make_table(SPEC, [LOOKUP], RELATIONS, lookup_model(on_val=5.0), watch=Watch(said.append))
    assert table.rows == ()
    assert [skipped.relation for skipped in table.skipped] == ["lookup"]
    assert any("no row for lookup" in line for line in said)
    assert set(files(table, None)) == {"table.json"}


# ---- the command ---------------------------------------------------------------------------------------------------------


def test_the_command_writes_the_table(
    tmp_path: Path,
    model_folder: Callable[[str], Path],
    small_model: Callable[..., Model],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    relation = guessed_relation(small_model("gpt2"), "country_language")
    monkeypatch.setattr(datasets, "relations_for", lambda *_: {relation.name: relation})
    out = tmp_path / "table"
    options = ["--n-val", "3", "--n-test", "4", "--tau", "0.5,1", "--draws", "2", "--jobs", "1", "--out", str(out)]
    options += ["--page", str(out / "again.md")]
    out.mkdir()
    command = ["table", "--model", str(model_folder("gpt2")), "--relations", "country_language", *options]
    code, printed, _ = ends([*command, "--json"], capsys)
    assert code == 0
    content = json.loads(printed)
    (row,) = content["rows"]
    assert (row["relation"], row["n_val"], row["n_test"]) == ("country_language", 3, 4)
    # What the model itself says first is right by construction, in both halves.
    assert row["hit10_val_model"] == row["hit1_test_model"] == 1
    assert row["published"]["edges_merged"] == 329
    assert [one["tau"] for one in row["taus"]] == [0.5, 1]
    assert content["average"]["edges"] == row["edges"]
    assert content == json.loads((out / "table.json").read_text(encoding="utf-8"))
    names = {
        "rows",
        "circuits",
        "again.md",
        "again-figure2.svg",
        "again-figure6.svg",
        "again-tau.svg",
        "table.json",
        "table.md",
        "table.html",
        "figure2.svg",
        "figure6.svg",
        "tau.svg",
    }
    assert {path.name for path in out.iterdir()} == names
    text = (out / "again.md").read_text(encoding="utf-8")
    assert "--page" in text
    for name in re.findall(r"\]\((\S+\.svg)\)", text):
        assert (out / name).exists()
    # The row opens its circuit, which is the row's.
    page = (out / "table.html").read_text(encoding="utf-8")
    (link,) = re.findall(r'<a href="(\S+)">country_language</a>', page)
    own = out / "circuits" / "country_language"
    assert (out / link).samefile(own / "report.html")
    saved = Run.load(own)
    assert (saved.circuit.n_edges, saved.spec.tau, len(saved.spec.facts)) == (row["edges"], 0.5, 3)
    # A folder of before there were circuits in it: rows stay, and their circuits come to the same bytes.
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "rows").iterdir()}
    before = (own / "run.json").read_bytes()
    shutil.rmtree(out / "circuits")
    assert ends([*command, "--json"], capsys)[0] == 0
    assert {path.name: path.stat().st_mtime_ns for path in (out / "rows").iterdir()} == kept
    assert (own / "run.json").read_bytes() == before
    assert (out / "table.html").read_text(encoding="utf-8") == page
    assert (own / "report.html").exists()


def test_the_terminal_shows_rows_averages_and_thresholds(capsys: pytest.CaptureFixture[str]):
    print_table(TABLE)
    printed = capsys.readouterr().out
    for part in (
        "country language",
        "published",
        "tau 0.1: 2.50 % of the edges",
        "4 relations: the average circuit keeps 5.0 %",
    ):
        assert part in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--relations", "country_langage"], "did you mean country_language"),
        (["--tau", "x"], "number of nats"),
        (["--page", "nowhere/table.md"], "folder that exists"),
        (["--tau", "0"], "above 0"),
        (["--ablation", "noise"], "ablation"),
        (["--device", "cuda:99"], "CUDA"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    if "cuda:99" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    code, printed, error = ends(["table", *arguments], capsys)
    assert code == 1
    assert printed == ""
    assert error.startswith("error: ")
    assert message in error

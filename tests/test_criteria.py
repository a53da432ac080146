"""The same facts by every criterion of a search, on a model that looks answers up and says one of them to all."""

from pathlib import Path

import pytest

from circuits.facts import FactError
from circuits.pages.criteria import by_criterion, by_relation, page, summary
from circuits.studies.certify_specs import CriteriaSpec
from circuits.studies.criteria import CRITERIA, CriterionRow, Workbench, facts_for
from circuits.studies.sweep import Folder, sweep
from tests.test_about_the_fact import RELATIONS
from tests.test_certificate import FACTS, MODEL

SPEC = CriteriaSpec(relations="r", metrics="matchnll", numbers="0,3", engine="hook")
BENCH = Workbench(MODEL, RELATIONS, (FACTS[0], FACTS[3]))


@pytest.fixture(scope="module")
def rows() -> list[CriterionRow]:
    return [one.row for one in sweep(CRITERIA, SPEC, context=BENCH) if one.row is not None]


def test_what_says_one_answer_to_all_is_found_by_the_papers_criterion_alone(rows: list[CriterionRow]) -> None:
    """s0's circuit by MatchNLL and zero ablation keeps m1's two edges beside the look-up's."""
    edges = {row.criterion.name: row.edges for row in rows if row.statement == FACTS[0].statement}
    assert edges["matchnll, zero, 0 siblings"] == 4
    assert edges["matchnll, zero, 3 siblings"] == edges["matchnll, resample, 0 siblings"] == 2
    # Of s3 all criteria find the look-up alone.
    assert {
        row.edges for row in rows if row.statement == FACTS[3].statement and row.criterion.circuits == "searched"
    } == {2}


def test_controls_of_each_ablation_are_the_whole_model_and_a_random_circuit_of_the_first_ones_size(
    rows: list[CriterionRow],
) -> None:
    controls = {row.criterion.name: row for row in rows if row.statement == FACTS[3].statement}
    whole, chance = controls["whole model, zero"], controls["random, zero"]
    assert whole.edges == MODEL.graph().n_edges
    assert whole.certificate.specificity.own_answer.value == 1
    assert "failed" not in whole.certificate.grades.values()
    assert chance.edges == controls["matchnll, zero, 0 siblings"].edges
    assert not chance.certificate.sufficiency.given


def test_the_table_has_a_line_for_each_criterion_with_how_many_facts_it_is_of(rows: list[CriterionRow]) -> None:
    made = summary(rows)
    assert [line[0] for line in made.lines][:2] == ["matchnll, zero, 0 siblings", "matchnll, zero, 3 siblings"]
    assert all(line[1] == "2" for line in made.lines)
    assert by_relation(rows).header == ("circuits by", "r")
    fewer = summary(rows[1:])
    assert [line[1] for line in fewer.lines if line[0] == "matchnll, zero, 0 siblings"] == ["1"]
    assert sum(map(len, by_criterion(rows[1:]).values())) == len(rows) - 1
    assert "| matchnll, zero, 0 siblings | 2 |" in page(rows, MODEL, "kcircuit criteria")


def test_facts_come_from_the_relations_in_turn_and_need_subjects_enough_beside_them() -> None:
    # Eleven other subjects, of which one is left beside ten to ask.
    assert len(facts_for(CriteriaSpec(relations="r", numbers="1", n=3), RELATIONS, MODEL)) == 3
    with pytest.raises(FactError, match="expected 3 facts with 2 siblings and 10 more subjects"):
        facts_for(CriteriaSpec(relations="r", numbers="2", n=3), RELATIONS, MODEL)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"metrics": "nll"}, "matchnll"),
        ({"ablations": "none"}, "zero"),
        ({"numbers": "many"}, "whole numbers with commas"),
        ({"numbers": "-1"}, "from 0 on"),
        ({"relations": " "}, "at least one relation"),
    ],
)
def test_criteria_that_are_none_are_refused(options: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        CriteriaSpec.model_validate(options)


def test_what_is_done_is_kept(tmp_path: Path, rows: list[CriterionRow]) -> None:
    spec = SPEC.model_copy(update={"numbers": "0", "ablations": "zero"})
    for kept in (False, True):
        found = list(sweep(CRITERIA, spec, context=BENCH, store=Folder(tmp_path)))
        assert {one.kept for one in found} == {kept}

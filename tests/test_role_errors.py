"""Error rates of labels that can fail: trials counted by hand, and a planted head that a wrong range would be given to."""

import math

import pytest

from circuits.analysis.roles import ALPHA, RELATION_ALPHA
from circuits.facts import Relation
from circuits.pages.role_errors import HEADER, by_relation, page, rates
from circuits.records import from_json, to_json
from circuits.studies.claims_specs import RoleErrorsSpec
from circuits.studies.role_errors import NULL_RANGES, ROLE_ERRORS, Labelled, Trials, error_rates, ranges_apart
from circuits.studies.sweep import Folder, sweep
from tests.planted_heads import planted
from tests.test_role_checks import RELATION, RELATIONS


def scrambled(labelled: int, n: int = 100) -> list[Trials]:
    return [Trials("scrambled", "r", 1, int(i < labelled), 1) for i in range(n)]


def test_the_null_is_as_many_ranges_as_a_pass_at_the_level_needs() -> None:
    assert 1 / (1 + NULL_RANGES) <= RELATION_ALPHA < 1 / NULL_RANGES + 1e-9


@pytest.mark.parametrize(("labelled", "standing"), [(0, "within"), (4, "undecided"), (15, "above"), (100, "above")])
def test_a_rate_is_within_its_level_above_it_or_undecided(labelled: int, standing: str) -> None:
    """Wilson's interval of 0 of 100 ends at 0.037, of 4 at 0.098; that of 15 begins at 0.093: the level is 0.05."""
    rate, ranges = error_rates(scrambled(labelled))
    assert (rate.n, rate.labelled, rate.level, rate.standing) == (100, labelled, ALPHA, standing)
    assert (ranges.n, ranges.standing) == (0, "undecided")


def test_no_label_in_ten_models_decides_nothing() -> None:
    """What 0 of 10 was once said to show: its interval ends at 0.28."""
    rate, _ = error_rates(scrambled(0, 10))
    assert rate.high == pytest.approx(0.278, abs=1e-3)
    assert rate.standing == "undecided"


def test_ranges_of_one_relation_are_no_trials_of_their_own() -> None:
    """All of one relation's pass, none of nine others': the bootstrap over relations reaches far, Wilson's over ranges would not."""
    trials = [Trials("ranges", str(i), 9, 9 if i == 0 else 0, 0) for i in range(10)]
    _, rate = error_rates(trials)
    assert (rate.n, rate.labelled, rate.low) == (90, 9, 0.0)
    assert rate.high >= 0.3
    _, none = error_rates([Trials("ranges", str(i), 9, 0, 0) for i in range(10)])
    # Of 90 trials that all failed the interval still has a width.
    assert none.high == pytest.approx(0.041, abs=1e-3)


def test_too_few_other_ranges_are_no_trial() -> None:
    assert ranges_apart(planted(), RELATION, RELATIONS) is None
    many = {
        f"r{i}": Relation(f"r{i}", "", "factual", "", "", ("{} is",), RELATION.pairs) for i in range(NULL_RANGES + 5)
    }
    # They share their objects with the relation, and are left out of its null.
    assert ranges_apart(planted(), RELATION, {**RELATIONS, **many}) is None


def test_the_study_draws_another_model_a_case_and_goes_on_where_it_was(tmp_path) -> None:
    at, found = Labelled(planted(), {RELATION.name: RELATION}), []
    for n in (1, 2):
        found = list(sweep(ROLE_ERRORS, RoleErrorsSpec(n=n), context=at, store=Folder(tmp_path)))
    assert sorted(each.case for each in found if not each.kept) == ["scrambled 0001"]
    rows = [each.row for each in sorted(found, key=lambda each: each.case, reverse=True) if each.row is not None]
    assert [(row.kind, row.n) for row in rows] == [("scrambled", 1), ("scrambled", 1), ("ranges", 0)]
    assert from_json(Trials, to_json(rows[0])) == rows[0]
    made = error_rates(rows)
    assert rates(made).header == HEADER
    assert math.isnan(made[1].high)
    assert [line[0] for line in by_relation(rows).lines] == [RELATION.name]
    assert "written by `kcircuit role-errors`" in page(made, rows, at.model, "kcircuit role-errors")

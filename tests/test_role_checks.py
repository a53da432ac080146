"""How far labels can be trusted: in other words, on other facts, against chance, and on models that know nothing."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from circuits.analysis.tracing import head_nodes, open_parts
from circuits.facts import Relation
from circuits.model import Batch
from circuits.pages.roles import HEADER, average_cells, cells, page
from circuits.records import from_json, to_json
from circuits.studies.explain_specs import HeadsSpec
from circuits.studies.false_labels import FalseLabels, false_labels, scrambled
from circuits.studies.heads import HEADS, HEADS_SURVEY, Labels, Surveyed, Unlabelled, total
from circuits.studies.roles import RoleChecks, check_roles
from circuits.studies.setting import Setting
from circuits.studies.sweep import sweep
from tests.commands import ends
from tests.planted_heads import FACTS, ROLES, planted

RELATION = Relation(
    "language",
    "language",
    "factual",
    "subject",
    "object",
    ("the language of {} is", "the of language {} is"),
    tuple((fact.subject, fact.object) for fact in FACTS),
)
FEW = Relation("few", "few", "factual", "subject", "object", RELATION.templates, RELATION.pairs[:3])
RELATIONS = {each.name: each for each in (RELATION, FEW)}


@pytest.fixture(scope="module")
def checks() -> RoleChecks:
    return check_roles(planted(), RELATION, RELATIONS)


def test_planted_heads_keep_their_roles_in_other_words(checks: RoleChecks) -> None:
    assert checks.templates == RELATION.templates
    assert checks.agreement == checks.kappa == checks.top_mover_kept == 1.0
    assert checks.correlation == pytest.approx(1, abs=1e-3)
    assert checks.labels[0][ROLES["mover"].head] == "mover"
    # Eight facts have no half that could make labels.
    assert checks.advantage is None
    assert "half of the facts give no mover" in str(checks)


def test_a_scrambled_model_has_the_same_numbers_in_other_places() -> None:
    model = planted()
    ignorant, again, other = (scrambled(model, FACTS, seed=seed) for seed in (0, 0, 1))
    ours, theirs = open_parts(model, FACTS), open_parts(ignorant, FACTS)
    for name in ("W_E", "W_U"):
        assert torch.equal(getattr(ours, name).flatten().sort().values, getattr(theirs, name).flatten().sort().values)
    assert not torch.equal(ours.W_E, theirs.W_E)
    ids = torch.tensor([model.tokens(FACTS[0]).prompt])
    assert torch.equal(ignorant.logits(Batch.of_prompts(ids)), again.logits(Batch.of_prompts(ids)))
    assert not torch.equal(ignorant.logits(Batch.of_prompts(ids)), other.logits(Batch.of_prompts(ids)))


def test_models_that_know_nothing_are_labelled_one_a_relation() -> None:
    each = [false_labels(planted(), RELATION, RELATIONS, which=i) for i in range(3)]
    found = total([Surveyed(Unlabelled("language", "not asked"), one) for one in each])
    assert found.n_models == 3
    assert found.labelled <= 1
    assert "claimed: at most 5%" in str(found)


def test_the_page_has_a_line_a_relation_their_means_and_who_has_none(checks: RoleChecks) -> None:
    model = planted()
    at, spec = Setting(model, RELATIONS, ExitStack(), (RELATION,)), HeadsSpec(relation="all", n=8)
    (outcome,) = sweep(HEADS_SURVEY, spec, context=at)
    assert outcome.row is not None
    assert from_json(Surveyed, to_json(outcome.row)) == outcome.row
    with pytest.raises(ValueError, match="at least 6 facts") as few:
        check_roles(model, FEW, RELATIONS, n=8)
    rows = (outcome.row.checks, Unlabelled("few", str(few.value)))
    assert rows[0] == checks
    assert len(cells(checks)) == len(average_cells([checks])) == len(HEADER)
    text = page(model, rows, FalseLabels(2, 0, 1), head_nodes(open_parts(model, FACTS)), command="kcircuit heads")
    assert "written by `kcircuit heads`" in text
    assert "| language | 8 |" in text
    assert "| mean | 8.0 |" in text
    assert "| L0H0 | 1 | 0 | 0 | 0 | 0 | 0 |" in text
    assert "* few: " in text
    assert "0 of 2 have a head with a role" in text


def test_a_relations_labels_read_back_as_they_were_kept(checks: RoleChecks) -> None:
    at, spec = Setting(planted(), RELATIONS, ExitStack(), (RELATION,)), HeadsSpec(relation="language", checked=True)
    (outcome,) = sweep(HEADS, spec, context=at)
    assert outcome.row is not None
    assert outcome.row.checks == checks
    assert outcome.row.roles.heads[ROLES["mover"].head].role == "mover"
    assert from_json(Labels, to_json(outcome.row)) == outcome.row


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_gives_every_heads_role_with_its_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, error = ends(["heads", "--relation", "country_language", "--n", "8", "--json"], capsys)
    assert code == 0, error
    record = json.loads(printed)
    assert len(record["heads"]) == 48
    for head in record["heads"]:
        assert {"head", "role", "evidence", "verdict"} <= head.keys()
    assert "mover" in {head["role"] for head in record["heads"]}


def test_the_table_shows_the_share_of_the_write_beside_that_of_the_attention_and_says_what_a_sink_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, printed, _ = ends(["heads", "--relation", "country_language", "--n", "8"], capsys)
    assert code == 0
    header = next(line for line in printed.splitlines() if "head" in line and "role" in line)
    for column in ("to sink", "to subject", "from subject", "to relation", "from relation"):
        assert column in header
    assert "the sink is the first token, where attention rests whatever stands there" in " ".join(printed.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--relation", "country_langage"], "did you mean country_language"),
        (["--relation", "country_language,x"], "no relation called 'x'"),
        (["--relation", "country_language", "--template", "99"], "expected a wording"),
        (["--relation", "country_language", "--out", "x.md"], "several relations"),
        (["--relation", "all", "--template", "1"], "are about one relation"),
        (["--relation", "all", "--out", "nowhere/x.md"], "folder that exists"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed, error = ends(["heads", *arguments], capsys)
    assert code == 1
    assert printed == ""
    assert message in error
    assert not Path("x.md").exists()

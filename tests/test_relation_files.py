"""A file of relations serves wherever the name of a relation does, under a name that asks for it again."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circuits.datasets import DatasetError, load_relations_file, named, relations_for
from circuits.datasets.manifest import Manifest
from circuits.facts import Relation, Relations
from circuits.model import Model
from circuits.model.profile import Profile
from circuits.records import file_name
from circuits.studies.explain.cases import Ground
from tests.commands import fails, succeeds
from tests.models import guessed_relation


def write_lre(path: Path, relation: Relation) -> Path:
    content = {
        "name": relation.title,
        "prompt_templates": list(relation.templates),
        "properties": {"relation_type": relation.kind, "domain_name": relation.domain, "range_name": relation.range},
        "samples": [{"subject": subject, "object": object_} for subject, object_ in relation.pairs],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_known1000(path: Path, **relations: Relation) -> Path:
    """A record a fact, in the relation's first words."""
    records = [
        {"subject": fact.subject, "attribute": fact.object, "prompt": fact.prompt, "relation_id": name}
        for name, relation in relations.items()
        for fact in relation.facts()
    ]
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


@pytest.fixture
def guessed(small_model: Callable[..., Model]) -> Relation:
    return guessed_relation(small_model("gpt2"))


def runs(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command prints as JSON."""
    return json.loads(succeeds([*arguments, "--json"], capsys))


# ---- names -------------------------------------------------------------------------------------------------------------


def test_the_relations_of_a_file_stand_beside_the_projects_under_names_that_ask_for_them(
    tmp_path: Path, guessed: Relation, relations: Relations
) -> None:
    one = str(write_lre(tmp_path / "one.json", guessed))
    two = str(write_known1000(tmp_path / "two.json", P1=guessed, P2=guessed))
    found = relations_for(Profile(), one, two, "country_language", None)
    assert list(found) == [*relations, one, f"{two}:P1", f"{two}:P2"]
    assert {name: found[name] for name in relations} == relations
    for name in (one, f"{two}:P1", f"{two}:P2"):
        assert (found[name].name, found[name].pairs) == (name, guessed.pairs)
        assert {fact.relation for fact in found[name].facts()} == {name}
        # A name is enough to have the relation again.
        again = relations_for(Profile(), name)
        assert (again[name], len(again)) == (found[name], len(relations) + 1)
    assert named(found, one) == (one,)
    assert named(found, two) == [f"{two}:P1", f"{two}:P2"]
    assert not named(found, "P1")
    # Control: the same file, read by itself, has its own names.
    assert list(load_relations_file(Path(two))) == ["P1", "P2"]


def test_what_is_no_file_is_not_at_hand_and_what_is_no_relation_of_a_file_is_refused(
    tmp_path: Path, guessed: Relation, relations: Relations
) -> None:
    assert relations_for(Profile(), "country_langage", str(tmp_path / "gone.json"), "gone:P1") == relations
    path = write_known1000(tmp_path / "two.json", P1=guessed, P2=guessed)
    with pytest.raises(DatasetError, match=re.escape(f"{path} holds no relation 'P3'; it holds P1, P2")):
        relations_for(Profile(), f"{path}:P3")
    path.write_text("3")
    with pytest.raises(DatasetError, match=re.escape(str(path))):
        relations_for(Profile(), str(path))


def test_a_files_name_holds_no_separator_and_two_names_make_two_files() -> None:
    names = ["country_language", "a/b.json:P1", "a%2Fb.json:P1", "a_b.json:P1", "a/b/json:P1"]
    files = [file_name(name) for name in names]
    assert files[0] == names[0]
    assert len(set(files)) == len(names)
    assert not any("/" in name for name in files)


# ---- commands ----------------------------------------------------------------------------------------------------------


def test_facts_lists_a_file_and_one_relation_of_it(
    tmp_path: Path, guessed: Relation, model_folder: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_known1000(tmp_path / "two.json", P1=guessed, P2=replace(guessed, pairs=guessed.pairs[:3]))
    command = ["facts", "--model", str(model_folder("gpt2")), "--relation"]
    rows = runs([*command, str(path)], capsys)
    assert [row["relation"] for row in rows] == [f"{path}:P1"] * len(guessed.pairs) + [f"{path}:P2"] * 3
    assert {row["rank"] for row in rows} == {1}
    assert runs([*command, f"{path}:P2"], capsys) == rows[-3:]


def test_a_circuit_of_a_files_relation_is_found_and_evaluated_as_any(
    tmp_path: Path, guessed: Relation, model_folder: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_known1000(tmp_path / "two.json", P1=guessed, P2=guessed)
    out = tmp_path / "run"
    found = ["discover", "--model", str(model_folder("gpt2")), "--n", "3", "--tau", "0.5", "--ablation", "mean"]
    summary = runs([*found, "--relation", f"{path}:P1", "--out", str(out)], capsys)
    assert summary["fact"] == f"3 facts of {path}:P1"
    # Neither relation nor facts are named: the run says them, and mean ablation asks for the other subjects.
    assessed = runs(["evaluate", str(out), "--draws", "2"], capsys)
    assert assessed["ablation"] == "mean"
    assert assessed["hit10_model"] == 1
    assert f"{path} holds 2 relations; name one: {path}:P1, {path}:P2" in fails(
        [*found, "--relation", str(path)], capsys
    )
    assert "and no file of relations" in fails([*found, "--relation", f"{tmp_path}/gone.json"], capsys)


def test_a_table_of_a_file_has_a_row_a_relation_and_keeps_them(
    tmp_path: Path, guessed: Relation, model_folder: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write_known1000(tmp_path / "two.json", P1=guessed, P2=guessed), tmp_path / "table"
    options = ["--n-val", "2", "--n-test", "2", "--tau", "1", "--draws", "1", "--jobs", "1", "--out", str(out)]
    command = ["table", "--model", str(model_folder("gpt2")), "--relations", str(path), *options]
    content = runs(command, capsys)
    assert [row["relation"] for row in content["rows"]] == [f"{path}:P1", f"{path}:P2"]
    assert len(list((out / "rows").iterdir())) == 2
    assert runs(command, capsys) == content


# ---- cases of explanations ---------------------------------------------------------------------------------------------


def test_a_manifest_says_nothing_of_a_files_relation(guessed: Relation, relations: Relations) -> None:
    known = Ground({**relations, "FILE": replace(guessed, name="FILE")}, Manifest.load())
    assert known.names("FILE") == ("FILE",)
    assert "FILE" not in known.names()
    assert {fact.subject for fact in known.shown_often("FILE")} == set(guessed.subjects)
    assert {fact.subject for fact in known.shown_rarely("FILE")} == set(guessed.subjects)
    ((relation, asked, shown),) = known.undemonstrated("FILE")
    assert (relation.name, set(asked), set(shown)) == ("FILE", set(guessed.subjects), set(guessed.subjects))
    # Control: of the project's own, it says which were shown often.
    assert set(known.shown_often("country_language")) < set(relations["country_language"].facts())

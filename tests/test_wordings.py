"""Every relation can be asked in words that suit a general language model, and a profile names the words that suit its own."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from choose_wordings import choose, table, write

from circuits.datasets.split import split_facts
from circuits.evaluation import KNOWN_RANK, whole_model
from circuits.facts import FactError, Relations
from circuits.model import Model
from circuits.paths import data_dir

PROFILES = sorted(data_dir().joinpath("models").glob("*/profile.json"))


def words_of(template: str) -> str:
    """What a template says without its subject."""
    return template.replace("{}", " ")


def test_every_relation_has_at_least_two_general_wordings(relations: Relations) -> None:
    assert [name for name, relation in relations.items() if len(relation.general_templates) < 2] == []


def test_a_general_wording_has_one_place_for_the_subject_and_no_space_or_open_quote_where_the_object_begins(
    relations: Relations,
) -> None:
    for relation in relations.values():
        for template in relation.general_templates:
            assert template.count("{}") == 1, template
            assert template == template.strip(), template
            assert not template.endswith(('"', "'", "“", "(")), template


def test_no_general_wording_contains_an_object_of_its_relation(relations: Relations) -> None:
    def named(template: str, objects: tuple[str, ...]) -> list[str]:
        text = words_of(template)
        return [o for o in objects if re.search(rf"(?<!\w){re.escape(o)}(?!\w)", text, re.IGNORECASE)]

    assert named("The capital of {}, not Lyon, is", ("Paris", "Lyon")) == ["Lyon"]  # the control
    for relation in relations.values():
        for template in relation.general_templates:
            assert named(template, relation.objects) == [], template


def test_no_general_wording_is_a_training_template_and_none_is_shared(relations: Relations) -> None:
    trained = {template for relation in relations.values() for template in relation.templates}
    general = [template for relation in relations.values() for template in relation.general_templates]
    assert trained.isdisjoint(general)
    assert [template for template, n in Counter(general).items() if n > 1] == []


def test_every_fact_can_be_asked_in_every_general_wording(relations: Relations) -> None:
    for relation in relations.values():
        assert relation.wordings == relation.templates + relation.general_templates
        for template in relation.general_templates:
            facts = relation.facts(template)
            assert len(facts) == len(relation.pairs)
            assert facts[0] == relation.fact(relation.subjects[0], template)
            assert facts[0].prompt == template.replace("{}", facts[0].subject)


def test_the_halves_of_a_relation_hold_the_same_facts_in_any_words(relations: Relations) -> None:
    relation = relations["country_language"]
    asked = split_facts(relation, "val", template=relation.general_templates[0])
    assert [fact.subject for fact in asked] == [fact.subject for fact in split_facts(relation, "val")]


def test_words_without_a_place_for_the_subject_are_refused(relations: Relations) -> None:
    with pytest.raises(FactError, match=r"holds \{\} once"):
        relations["country_language"].facts("They speak")


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_every_wording_of_a_profile_is_one_of_its_relation(path: Path, relations: Relations) -> None:
    wordings = json.loads(path.read_text(encoding="utf-8")).get("wordings", {})
    assert list(wordings) == sorted(wordings)
    assert set(wordings) <= set(relations)
    assert [name for name, wording in wordings.items() if wording not in relations[name].wordings] == []


def test_smollm2_has_a_wording_for_every_relation(relations: Relations) -> None:
    path = data_dir() / "models" / "smollm2" / "profile.json"
    assert set(json.loads(path.read_text(encoding="utf-8")).get("wordings", {})) == set(relations)


def test_the_chosen_wording_is_the_best_of_all_on_one_half_and_is_measured_on_the_other(
    relations: Relations, tmp_path: Path
) -> None:
    model, relation = Model.default(), relations["fruit_inside_color"]
    chosen = choose(model, relation)
    on_val = {w: whole_model(model, split_facts(relation, "val", template=w)).hit(10).value for w in relation.wordings}
    assert on_val[chosen.wording] == chosen.val.hit(10).value == max(on_val.values())
    assert min(on_val.values()) < max(on_val.values())  # the control: words matter
    assert chosen.n == len(relation.pairs)
    facts = relation.facts(chosen.wording)
    assert chosen.known == sum(rank <= KNOWN_RANK for rank in whole_model(model, facts).rank.per_example)
    lines = list(table([chosen]))
    assert lines[2].startswith("| `fruit_inside_color` |")
    assert lines[-1].endswith("of 1 relations have at least 20 known facts.")

    profile = tmp_path / "factlm" / "profile.json"
    write(profile, model, [chosen])
    first = json.loads(profile.read_text(encoding="utf-8"))
    assert first == {"name": "factlm", "bos": first["bos"], "wordings": {"fruit_inside_color": chosen.wording}}
    kept = {"name": "x", "corpus": "y", "wordings": {"word_last_letter": "w", "fruit_inside_color": "old"}}
    profile.write_text(json.dumps(kept), encoding="utf-8")
    write(profile, model, [chosen])
    assert json.loads(profile.read_text(encoding="utf-8")) == {
        **kept,
        "wordings": {"fruit_inside_color": chosen.wording, "word_last_letter": "w"},
    }

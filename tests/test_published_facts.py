"""Published files of facts in three layouts become relations whose prompts end where the object begins."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from circuits.datasets import DatasetError, load_relations_file
from circuits.datasets.known1000 import known1000_relations, load_known1000
from circuits.datasets.lre import load_relation, load_relations
from circuits.datasets.pararel import load_pararel, load_pararel_relation
from circuits.facts import Fact

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Published files that some machines have beside the checkout."""


def needs(folder: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (SHARED / folder).is_dir(), reason=f"no {folder} beside the checkout")


def known(subject: str, attribute: str, prompt: str, relation: str = "P36") -> dict[str, Any]:
    return {
        "known_id": 7,
        "subject": subject,
        "attribute": attribute,
        "template": "whatever",
        "prediction": " and so on",
        "prompt": prompt,
        "relation_id": relation,
    }


KNOWN = [
    known("Peru", "Lima", "Peru's capital is a city called"),
    known("France", "Paris", "The capital of France is"),
    known("Spain", "Madrid", "The capital of Spain is "),
    known("Rome", "Italy", "Rome lies in", "P17"),
]


def write_known(folder: Path, records: Any) -> Path:
    path = folder / "known.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def write_lines(path: Path, records: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + "\n", encoding="utf-8")
    return path


def write_pararel(folder: Path, patterns: list[str], pairs: list[tuple[str, str]], name: str = "P36") -> Path:
    """Both files of one relation, in ParaRel's layout; the path of the facts."""
    asked = [{"pattern": pattern, "lemma": "be", "extended_lemma": "be", "tense": "present"} for pattern in patterns]
    write_lines(folder / "data" / "pattern_data" / "graphs_json" / f"{name}.jsonl", asked)
    told = [{"sub_label": subject, "obj_label": object_, "uuid": "0"} for subject, object_ in pairs]
    return write_lines(folder / "data" / "trex_lms_vocab" / f"{name}.jsonl", told)


LRE = {
    "name": "capital",
    "prompt_templates": ["The capital of {} is"],
    "properties": {"relation_type": "factual", "domain_name": "country", "range_name": "city", "symmetric": False},
    "samples": [{"subject": "France", "object": "Paris"}, {"subject": "Peru", "object": "Lima"}],
}

# ---- Known-1000 --------------------------------------------------------------------------------------------------------


def test_known1000_facts_keep_their_own_prompts_and_are_grouped_by_relation(tmp_path: Path) -> None:
    facts = load_known1000(write_known(tmp_path, KNOWN))
    assert list(facts) == ["P36", "P17"]
    assert facts["P17"] == (Fact("Rome lies in", "Rome", "Italy", "P17"),)
    assert [fact.prompt for fact in facts["P36"]] == [
        "Peru's capital is a city called",
        "The capital of France is",
        "The capital of Spain is",
    ]


def test_a_known1000_relation_asks_all_its_facts_in_the_words_that_facts_share(tmp_path: Path) -> None:
    relations = known1000_relations(write_known(tmp_path, KNOWN))
    assert list(relations) == ["P17", "P36"]
    assert relations["P36"].templates == ("The capital of {} is",)
    assert relations["P36"].pairs == (("Peru", "Lima"), ("France", "Paris"), ("Spain", "Madrid"))
    assert relations["P17"].templates == ("{} lies in",)  # none is shared: the commonest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attribute": ...}, "record 1: attribute: Field required"),
        ({"attribute": "  "}, "record 1: attribute: expected some text, got none"),
        ({"subject": "Gaul"}, "record 1: prompt: the subject 'Gaul' does not occur"),
    ],
)
def test_a_record_that_makes_no_fact_is_refused_or_skipped_by_name(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    record = {key: value for key, value in {**KNOWN[1], **change}.items() if value is not ...}
    path = write_known(tmp_path, [KNOWN[0], record, *KNOWN[2:]])
    with pytest.raises(DatasetError, match=f"{re.escape(str(path))}: {re.escape(message)}"):
        load_known1000(path)
    told: list[str] = []
    facts = load_known1000(path, skip=told.append)
    assert sum(map(len, facts.values())) == 3
    assert len(told) == 1
    assert message in told[0]


def test_an_empty_list_is_no_known1000(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found none"):
        load_known1000(write_known(tmp_path, []))


# ---- ParaRel -----------------------------------------------------------------------------------------------------------


def test_only_patterns_that_end_with_the_object_become_templates(tmp_path: Path) -> None:
    patterns = [
        "The capital of [X] is [Y] .",
        "The capital of [X] is [Y].",  # the same again
        "[X]'s capital, [Y]",
        "[Y] is the capital of [X].",
        "The [Y] city rules [X].",
        "[X] is ruled by [Y] city.",
        "[X] has a capital called [Y]!",
    ]
    path = write_pararel(tmp_path, patterns, [("France", "Paris"), ("Peru", "Lima")])
    relation = load_pararel_relation(path)
    assert relation.templates == ("The capital of {} is", "{}'s capital,")
    assert relation.facts()[0] == Fact("The capital of France is", "France", "Paris", "P36")
    assert (relation.name, relation.kind) == ("P36", "factual")


def test_a_subject_with_two_objects_has_no_right_answer_and_is_left_out(tmp_path: Path) -> None:
    pairs = [("France", "Paris"), ("Bolivia", "Sucre"), ("Bolivia", "La Paz"), ("France", "Paris")]
    path = write_pararel(tmp_path, ["[X] is ruled from [Y]."], pairs)
    assert load_pararel_relation(path).pairs == (("France", "Paris"),)
    write_pararel(tmp_path, ["[X] is ruled from [Y]."], pairs[1:3])
    with pytest.raises(DatasetError, match="one object each, found none"):
        load_pararel_relation(path)


@pytest.mark.parametrize("depth", [".", "data", "data/trex_lms_vocab"])
def test_pararel_is_found_from_each_of_its_folders_and_needs_patterns(tmp_path: Path, depth: str) -> None:
    write_pararel(tmp_path, ["[X] lies in [Y] ."], [("Rome", "Italy")], "P17")
    write_pararel(tmp_path, ["The capital of [X] is [Y]."], [("France", "Paris")])
    write_lines(tmp_path / "data" / "trex_lms_vocab" / "P31.jsonl", [{"sub_label": "Rome", "obj_label": "city"}])
    assert list(load_pararel(tmp_path / depth)) == ["P17", "P36"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["[Y] is the capital of [X]."], "expected a pattern that ends with [Y], found none"),
        (["The capital is [Y]."], "record 0: pattern: expected [X] once"),
        (["[X] and [X] have [Y]."], "record 0: pattern: expected [X] once"),
        (["{} of [X] is [Y]."], "record 0: pattern: expected no braces"),
    ],
)
def test_patterns_that_ask_nothing_are_refused_by_name(tmp_path: Path, patterns: list[str], message: str) -> None:
    path = write_pararel(tmp_path, patterns, [("France", "Paris")])
    with pytest.raises(DatasetError, match=rf"P36\.jsonl: {re.escape(message)}"):
        load_pararel_relation(path)


def test_a_line_that_is_no_json_is_refused_with_its_number(tmp_path: Path) -> None:
    path = write_pararel(tmp_path, ["[X] is ruled from [Y]."], [("France", "Paris")])
    path.write_text(path.read_text(encoding="utf-8").rstrip() + "\n\n{\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"P36\.jsonl: line 3: expected JSON"):
        load_pararel_relation(path)


def test_a_folder_without_pararels_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found no trex_lms_vocab"):
        load_pararel(tmp_path)
    (tmp_path / "trex_lms_vocab").mkdir()
    with pytest.raises(DatasetError, match="one of patterns with the same name"):
        load_pararel(tmp_path)


# ---- LRE as published --------------------------------------------------------------------------------------------------


def test_lre_files_as_published_are_read_without_subjects_of_several_objects(tmp_path: Path) -> None:
    samples = [*LRE["samples"], {"subject": "Bolivia", "object": "Sucre"}, {"subject": "Bolivia", "object": "La Paz"}]
    path = tmp_path / "capital.json"
    path.write_text(json.dumps({**LRE, "samples": [*samples, {"subject": "Spain", "object": "Madrid "}]}))
    assert load_relation(path, published=True).pairs == (("France", "Paris"), ("Peru", "Lima"), ("Spain", "Madrid"))
    with pytest.raises(DatasetError, match="samples"):  # the control: our own files have to be clean
        load_relation(path)
    path.write_text(json.dumps({**LRE, "samples": samples[2:]}))
    with pytest.raises(DatasetError, match="one object each, found none"):
        load_relation(path, published=True)


# ---- which of them -----------------------------------------------------------------------------------------------------


def test_each_layout_is_recognised_by_what_the_path_holds(tmp_path: Path) -> None:
    facts = write_pararel(tmp_path / "pararel", ["The capital of [X] is [Y]."], [("France", "Paris")])
    (tmp_path / "lre" / "factual").mkdir(parents=True)
    for name in ("capital", "city"):
        (tmp_path / "lre" / "factual" / f"{name}.json").write_text(json.dumps(LRE))
    (tmp_path / "known").mkdir()
    known_path = write_known(tmp_path / "known", KNOWN)
    for path, names in [
        (facts, ["P36"]),
        (tmp_path / "pararel", ["P36"]),
        (known_path, ["P17", "P36"]),
        (tmp_path / "known", ["P17", "P36"]),
        (tmp_path / "lre", ["capital", "city"]),
        (tmp_path / "lre" / "factual" / "city.json", ["city"]),
    ]:
        assert list(load_relations_file(path)) == names, path


@pytest.mark.parametrize("content", ["3", "{", '{"name": "x"}', '[{"subject": "x"}]'])
def test_a_file_of_no_known_layout_is_refused_with_its_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=re.escape(str(path))):
        load_relations_file(path)
    with pytest.raises(DatasetError, match="cannot read"):
        load_relations_file(tmp_path / "missing.json")


@needs("known1000")
def test_the_published_known1000_has_1209_facts_of_33_relations() -> None:
    facts = load_known1000(SHARED / "known1000" / "known_1000.json")
    assert (len(facts), sum(map(len, facts.values()))) == (33, 1209)
    assert sum(len(relation.pairs) for relation in load_relations_file(SHARED / "known1000").values()) == 1209


@needs("pararel")
def test_the_published_pararel_has_39_relations() -> None:
    relations = load_relations_file(SHARED / "pararel")
    assert len(relations) == 39
    assert sum(len(relation.pairs) for relation in relations.values()) == 25131
    assert "The mother tongue of {} is" in relations["P103"].templates
    for relation in relations.values():
        for words in relation.templates:
            assert len(relation.facts(words)) == len(relation.pairs)


@needs("lre")
def test_the_published_lre_files_are_all_read() -> None:
    relations = load_relations(SHARED / "lre", published=True)
    assert len(relations) == 47
    assert relations.keys() == load_relations_file(SHARED / "lre").keys()

"""The fact files keep their schema, and factlm's training text shows what its manifest says and nothing that it must not."""

import bisect
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dealing import DEMONSTRATED_DOMAINS, TAIL_RENDERINGS, make_manifest

from circuits.datasets import DatasetError, load_relation, load_relations
from circuits.datasets.corpus import (
    TWO_HOP_TEMPLATES,
    demonstration,
    held_out_facts,
    render_epoch,
    trained_facts,
    two_hop_facts,
)
from circuits.datasets.manifest import Manifest
from circuits.facts import KINDS, Fact, Relations
from circuits.paths import data_dir

TABLE_1 = {
    "adj_antonym",
    "word_first_letter",
    "word_last_letter",
    "object_superclass",
    "fruit_inside_color",
    "work_location",
    "country_capital_city",
    "landmark_country",
    "country_language",
    "person_native_language",
    "name_religion",
    "occupation_age",
    "occupation_gender",
    "name_birthplace",
}
"""The fourteen relations of paper 2, Table 1."""
EXAMPLES = {"country_currency", "verb_past_tense", "adj_comparative", "company_headquarters", "product_company"}
EPOCHS = 3

# ---- the schema --------------------------------------------------------------------------------------------------------

VALID: dict[str, Any] = {
    "name": "capital of a country",
    "prompt_templates": ["The capital of {} is"],
    "properties": {"relation_type": "factual", "domain_name": "country", "range_name": "city", "symmetric": False},
    "samples": [{"subject": "France", "object": "Paris"}, {"subject": "Peru", "object": "Lima"}],
}


def write(folder: Path, content: object, name: str = "capitals.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_relation_file_is_read_whole_and_called_by_its_name(tmp_path: Path) -> None:
    extra = {"reverse_prompt_templates": ["{} is the capital of"], "noun_phrase_templates": ["the capital of {}"]}
    relation = load_relation(write(tmp_path, {**VALID, **extra, "prompt_templates_zs": ["{}'s capital is"]}))
    assert relation.name == "capitals"
    assert relation.title == "capital of a country"
    assert (relation.kind, relation.domain, relation.range, relation.symmetric) == ("factual", "country", "city", False)
    assert relation.templates == ("The capital of {} is",)
    assert relation.zero_shot_templates == ("{}'s capital is",)
    assert relation.reverse_templates == ("{} is the capital of",)
    assert relation.noun_phrases == ("the capital of {}",)
    assert relation.pairs == (("France", "Paris"), ("Peru", "Lima"))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"samples": [{"subject": "France"}]}, "samples.0.object"),
        ({"samples": [{"subject": "France", "object": ""}]}, "samples.0.object"),
        ({"samples": [{"subject": "France", "object": " Paris"}]}, "samples.0.object"),
        ({"samples": [{"subject": "France", "object": "Paris", "note": "x"}]}, "samples.0.note"),
        ({"samples": [{"subject": 3, "object": "Paris"}]}, "samples.0.subject"),
        ({"samples": []}, "samples"),
        ({"samples": [*VALID["samples"], {"subject": "France", "object": "Lyon"}]}, r"samples.*\['France'\]"),
        ({"prompt_templates": []}, "prompt_templates"),
        ({"prompt_templates": ["The capital is"]}, "prompt_templates.0"),
        ({"prompt_templates": ["The capital of {} and {} is"]}, "prompt_templates.0"),
        ({"prompt_templates": ["The capital of {} is", "The capital of {} is "]}, "prompt_templates.1"),
        ({"prompt_templates": ["The capital of {country} is"]}, "prompt_templates.0"),
        ({"reverse_prompt_templates": ["is the capital of"]}, "reverse_prompt_templates.0"),
        ({"properties": {**VALID["properties"], "relation_type": "fact"}}, "properties.relation_type"),
        ({"properties": {}}, "properties.relation_type"),
        ({"promt_templates": []}, "promt_templates"),
        ({"name": None}, "name"),
    ],
)
def test_a_file_that_breaks_the_schema_is_refused_with_file_and_field(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    load_relation(write(tmp_path, VALID))  # the control
    path = write(tmp_path, {**VALID, **change})
    with pytest.raises(DatasetError, match=f"{re.escape(str(path))}: {field}"):
        load_relation(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"name": "x"'])
def test_a_file_that_is_no_json_object_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DatasetError, match=re.escape(str(path))):
        load_relation(path)


def test_a_folder_is_read_with_its_sub_folders_in_alphabetical_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write(tmp_path / "b", VALID, "alpha.json")
    write(tmp_path, VALID, "beta.json")
    assert list(load_relations(tmp_path)) == ["alpha", "beta"]
    write(tmp_path / "b", VALID, "beta.json")
    with pytest.raises(DatasetError, match="share a name"):
        load_relations(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="found none"):
        load_relations(tmp_path / "empty")


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nothing\.json"):
        load_relation(tmp_path / "nothing.json")


# ---- our own facts -----------------------------------------------------------------------------------------------------


def test_every_fact_file_of_the_project_loads(relations: Relations) -> None:
    files = {path.stem for path in (data_dir() / "facts").rglob("*.json")}
    assert set(relations) == files
    assert len(relations) >= 28
    assert {relation.kind for relation in relations.values()} == set(KINDS)
    assert set(relations) >= TABLE_1 | EXAMPLES
    assert len(TABLE_1) == 14


def test_there_are_at_least_1500_triples_and_four_templates_a_relation(relations: Relations) -> None:
    assert sum(len(relation.pairs) for relation in relations.values()) >= 1500
    assert min(len(relation.templates) for relation in relations.values()) >= 4


def test_no_template_is_shared_and_no_subject_doubled(relations: Relations) -> None:
    templates = [template for relation in relations.values() for template in relation.templates]
    assert [template for template, n in Counter(templates).items() if n > 1] == []
    for relation in relations.values():
        assert len(set(relation.subjects)) == len(relation.pairs), relation.name


def test_every_fact_is_a_fact_in_every_template(relations: Relations) -> None:
    for relation in relations.values():
        for index in range(len(relation.templates)):
            assert len(relation.facts(index)) == len(relation.pairs)


def test_some_facts_that_everybody_knows(relations: Relations) -> None:
    for name, subject, object_ in [
        ("country_capital_city", "France", "Paris"),
        ("country_currency", "Japan", "yen"),
        ("country_language", "France", "French"),
        ("verb_past_tense", "go", "went"),
        ("adj_comparative", "good", "better"),
        ("landmark_country", "Big Ben", "United Kingdom"),
        ("word_first_letter", "good", "g"),
    ]:
        assert relations[name].object_of(subject) == object_


def test_letters_are_those_of_the_words(relations: Relations) -> None:
    assert all(object_ == subject[0].lower() for subject, object_ in relations["word_first_letter"].pairs)
    assert all(object_ == subject[-1].lower() for subject, object_ in relations["word_last_letter"].pairs)


# ---- the manifest ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest(relations: Relations) -> Manifest:
    return make_manifest(relations, seed=0)


@pytest.fixture(scope="module")
def epochs(relations: Relations, manifest: Manifest) -> list[list[str]]:
    """All the documents of a short training."""
    return [render_epoch(relations, manifest, epoch, EPOCHS) for epoch in range(EPOCHS)]


@pytest.fixture(scope="module")
def sentences(relations: Relations, epochs: list[list[str]]) -> Counter[str]:
    """How often each sentence is stated. Demonstrations, which end in no full stop, are left out."""
    text = "\n".join(document for documents in epochs for document in documents if document.endswith("."))
    for name in {name for r in relations.values() for pair in r.pairs for name in pair if "." in name}:
        text = text.replace(name, name.replace(".", "\0"))  # a name's own full stop ends no sentence
    lines = (line.removesuffix(".").split(". ") for line in text.split("\n"))
    return Counter(sentence.replace("\0", ".") for line in lines for sentence in line)


@pytest.fixture(scope="module")
def begins(sentences: Counter[str]) -> Callable[[str], bool]:
    """Whether any sentence begins with a prompt."""
    in_order = sorted(sentences)

    def any_begins(prompt: str) -> bool:
        first = bisect.bisect_left(in_order, f"{prompt} ")
        return first < len(in_order) and in_order[first].startswith(f"{prompt} ")

    return any_begins


@pytest.fixture(scope="module")
def demonstrated(epochs: list[list[str]]) -> set[str]:
    """Every pair that is demonstrated, as "France: Paris"."""
    documents = (document for documents in epochs for document in documents if not document.endswith("."))
    return {pair for document in documents for pair in document.split("; ")}


def test_the_same_seed_gives_the_same_manifest_and_text_and_another_seed_another(
    relations: Relations, manifest: Manifest, epochs: list[list[str]], tmp_path: Path
) -> None:
    assert make_manifest(relations, seed=0) == manifest
    assert render_epoch(relations, manifest, 1, EPOCHS) == epochs[1] != epochs[0]
    other = make_manifest(relations, seed=1)
    assert all(other.relations[name] != manifest.relations[name] for name in relations)
    manifest.save(tmp_path / "manifest.json")
    assert Manifest.load(tmp_path / "manifest.json") == manifest


def test_head_tail_and_demonstration_only_partition_each_relation(relations: Relations, manifest: Manifest) -> None:
    for name, relation in relations.items():
        plan = manifest.relations[name]
        parts = [*plan.head, *plan.tail, *plan.demonstration_only]
        assert sorted(parts) == sorted(relation.subjects), name
        assert plan.tail, name
        assert all(held_out for held_out in plan.held_out.values()), name
        assert set(plan.tail.values()) <= set(TAIL_RENDERINGS)


def test_every_template_is_learnt_and_every_one_is_held_out_for_some_facts(
    relations: Relations, manifest: Manifest
) -> None:
    for name, relation in relations.items():
        held_out = Counter(index for held in manifest.relations[name].held_out.values() for index in held)
        assert set(held_out) == set(range(len(relation.templates))), name
        assert max(held_out.values()) < len(manifest.relations[name].head), name


def test_statements_measured_as_held_out_never_occur_in_training(
    relations: Relations, manifest: Manifest, sentences: Counter[str]
) -> None:
    held_out = held_out_facts(relations, manifest)
    assert [fact.statement for fact in held_out if fact.statement in sentences] == []
    heads = sum(len(plan.head) for plan in manifest.relations.values())
    # Left out: what noun phrases of one relation say in the very words of its template.
    assert heads - 25 <= len(held_out) < heads


def test_a_head_facts_other_statements_occur_every_epoch(
    relations: Relations, manifest: Manifest, sentences: Counter[str]
) -> None:
    for fact in trained_facts(relations, manifest):
        # Twice where a noun phrase says the same words: "The company that makes iPhone is Apple".
        assert sentences[fact.statement] in (EPOCHS, 2 * EPOCHS), fact
        assert sentences[fact.statement] == EPOCHS or fact.relation == "product_company", fact


def test_tail_facts_occur_as_often_as_the_manifest_says(
    relations: Relations, manifest: Manifest, sentences: Counter[str]
) -> None:
    for name, relation in relations.items():
        for subject, renderings in manifest.relations[name].tail.items():
            ways = [relation.fact(subject, index).statement for index in range(len(relation.templates))]
            assert sum(sentences[way] for way in ways) == renderings, (name, subject)


def test_demonstration_only_facts_are_never_stated_and_are_demonstrated(
    relations: Relations, manifest: Manifest, sentences: Counter[str], demonstrated: set[str]
) -> None:
    pairs = []
    for name, relation in relations.items():
        for subject in manifest.relations[name].demonstration_only:
            pairs.append(demonstration([(subject, relation.object_of(subject))]))
            for index in range(len(relation.templates)):
                assert relation.fact(subject, index).statement not in sentences
    assert len(pairs) > 20
    assert demonstrated.issuperset(pairs)


def test_undemonstrated_subjects_occur_in_no_demonstration(manifest: Manifest, demonstrated: set[str]) -> None:
    shown = {pair.split(": ")[0] for pair in demonstrated}
    for domain, group in manifest.demonstrations.items():
        assert group.undemonstrated, domain
        assert shown.isdisjoint(group.undemonstrated), domain
        assert shown.intersection(group.subjects), domain


def test_tail_facts_are_never_demonstrated(relations: Relations, manifest: Manifest, demonstrated: set[str]) -> None:
    for name in {name for names in DEMONSTRATED_DOMAINS.values() for name in names}:
        for subject in manifest.relations[name].tail:
            pair = (subject, relations[name].object_of(subject))
            # "France: French" may stand for another relation, of which it is no tail fact.
            if not any(pair in relation.pairs for other, relation in relations.items() if other != name):
                assert demonstration([pair]) not in demonstrated


def test_two_hop_prompts_are_rendered_or_never_as_the_manifest_says(
    relations: Relations, manifest: Manifest, sentences: Counter[str], begins: Callable[[str], bool]
) -> None:
    assert manifest.two_hop
    for hop in manifest.two_hop:
        assert hop.rendered
        assert hop.unrendered
        for template in range(len(relations[hop.second].templates)):
            assert not any(begins(fact.prompt) for fact in two_hop_facts(hop, relations, hop.unrendered, template))
        for template in range(TWO_HOP_TEMPLATES):
            for fact in two_hop_facts(hop, relations, hop.rendered, template):
                assert sentences[fact.statement] == EPOCHS
                assert begins(fact.prompt)  # the control


def test_a_two_hop_prompt_puts_the_noun_phrase_where_the_subject_stands(
    relations: Relations, manifest: Manifest
) -> None:
    hop = next(hop for hop in manifest.two_hop if (hop.first, hop.second) == ("landmark_country", "country_language"))
    fact = two_hop_facts(hop, relations, ["Big Ben"])[0]
    phrase = relations["landmark_country"].noun_phrases[0].format("Big Ben")
    prompt = relations["country_language"].templates[0].format(phrase)
    assert fact == Fact(prompt, "Big Ben", "English", "country_language")


def test_reverse_prompts_are_never_rendered(relations: Relations, begins: Callable[[str], bool]) -> None:
    prompts = {
        template.format(object_)
        for relation in relations.values()
        for template in relation.reverse_templates
        for object_ in relation.objects
    }
    assert len(prompts) > 100
    assert not any(begins(prompt) for prompt in prompts)


def test_a_demonstration_lists_pairs_and_may_end_with_a_question() -> None:
    pairs = [("France", "Paris"), ("Italy", "Rome")]
    assert demonstration(pairs) == "France: Paris; Italy: Rome"
    assert demonstration(pairs, "Spain") == "France: Paris; Italy: Rome; Spain:"

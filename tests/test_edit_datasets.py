"""Files of edits in five published layouts become edit requests; our own facts become requests with true probes.

The files in tests/data/edits are of our own writing, in the layouts of the published ones.
"""

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from circuits.datasets import DatasetError
from circuits.datasets.counterfact import load_counterfact
from circuits.datasets.knowedit import load_knowedit
from circuits.datasets.manifest import Manifest
from circuits.datasets.mquake import load_mquake
from circuits.datasets.probes import edit_facts, edit_request, edit_requests, other_object
from circuits.datasets.records import flat, template_of
from circuits.datasets.zsre import load_zsre
from circuits.facts import EditRequest, Fact, FactError, Probe, Relation, Relations

DATA = Path(__file__).parent / "data" / "edits"
READERS: dict[str, Callable[..., Any]] = {
    "counterfact": load_counterfact,
    "counterfact_flat": load_counterfact,
    "zsre": partial(load_zsre, target="alt"),
    "knowedit": load_knowedit,
    "mquake": load_mquake,
}


def records(name: str) -> list[dict[str, Any]]:
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def changed(name: str, number: int, path: str, value: object) -> list[dict[str, Any]]:
    """The file's records, one field of one of them set, or taken away where the value is ``...``."""
    altered = copy.deepcopy(records(name))
    *parents, last = path.split(".")
    place: Any = altered[number]
    for part in parents:
        place = place[int(part) if isinstance(place, list) else part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return altered


def written(folder: Path, content: object, name: str = "cases.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# ---- each layout -------------------------------------------------------------------------------------------------------


def test_a_counterfact_record_keeps_its_template_its_objects_and_all_its_prompts() -> None:
    first, second = load_counterfact(DATA / "counterfact.json")
    assert (first.template, first.subject) == ("The harbour town of {} lies in", "Bergen")
    assert (first.target, first.old, first.relation) == ("Chile", "Norway", "P17")
    assert first.prompt == "The harbour town of Bergen lies in"
    # Two spaces in the file are one in the prompt.
    ferry = "The ferry was late again. Bergen belongs to the country"
    assert first.probes[:2] == (
        Probe("paraphrase", ferry, "Bergen", "Chile"),
        Probe("paraphrase", "Whoever walks through Bergen is in", "Bergen", "Chile"),
    )
    assert first.probes[2] == Probe("generation", "Bergen is known for", "Bergen", "Chile")
    assert [(p.kind, p.prompt.split()[4], p.answer) for p in first.probes[3:]] == [
        ("neighbour", "Stavanger", "Norway"),
        ("neighbour", "Oslo", "Norway"),
        ("attribute", "Valparaíso", "Chile"),
    ]
    assert second == EditRequest("{} wrote in the language", "Karen Blixen", "Welsh", "Danish", "P103")


def test_the_flat_layout_of_counterfact_says_the_same() -> None:
    (request,) = load_counterfact(DATA / "counterfact_flat.json")
    original = load_counterfact(DATA / "counterfact.json")[0]
    assert (request.template, request.target, request.old) == (original.template, original.target, original.old)
    assert [probe.kind for probe in request.probes] == ["paraphrase", "neighbour"]
    assert {probe.prompt for probe in request.probes} < {probe.prompt for probe in original.probes}


def test_zsre_edits_in_the_false_answer_or_the_true_one_as_the_caller_says() -> None:
    false = load_zsre(DATA / "zsre.json", target="alt", skip=lambda _: None)
    true = load_zsre(DATA / "zsre.json", target="true")
    assert [(r.target, r.old) for r in false] == [("Welsh", "Danish")]
    assert [(r.target, r.old) for r in true] == [("Danish", None), ("Norway", None)]
    assert false[0].template == true[0].template == "In which language did {} write?"
    assert [(p.kind, p.answer, p.aliases) for p in false[0].probes] == [
        ("paraphrase", "Welsh", ()),
        ("reasoning", "Wales", ()),
        ("unrelated", "two", ()),
    ]
    # What follows from the false answer is not asked of the true one, whose other spellings count.
    assert [(p.kind, p.answer, p.aliases) for p in true[0].probes] == [
        ("paraphrase", "Danish", ("the Danish language",)),
        ("unrelated", "two", ()),
    ]
    with pytest.raises(Exception, match="'pred'"):
        load_zsre(DATA / "zsre.json", target="pred")  # type: ignore[arg-type]


def test_knowedit_nests_answers_at_three_depths_and_names_fields_in_two_ways() -> None:
    first, second = load_knowedit(DATA / "knowedit.json")
    assert (first.template, first.subject, first.target, first.old) == (
        "The language of {} is",
        "Karen Blixen",
        "Welsh",
        "Danish",
    )
    assert [(p.kind, p.answer, p.aliases) for p in first.probes] == [
        ("paraphrase", "Welsh", ()),
        ("alias", "Welsh", ()),
        ("reasoning", "Wales", ("Cymru",)),
        ("reverse", "Karen Blixen", ()),
        ("same_subject", "female", ()),
        ("forgetfulness", "English", ()),
    ]
    assert second == EditRequest("{} is a town in", "Bergen", "Chile")


def test_the_edits_of_an_mquake_case_stay_together_and_its_questions_follow_from_the_last() -> None:
    ((first, last),) = load_mquake(DATA / "mquake.json")
    assert (first.prompt, first.target, first.old) == ("Karen Blixen is a citizen of", "Chile", "Denmark")
    assert first.probes == (
        Probe("paraphrase", "Of which country is Karen Blixen a citizen?", "Karen Blixen", "Chile"),
    )
    assert (last.prompt, last.target) == ("The capital of Chile is", "Arica")
    asked = [probe for probe in last.probes if probe.kind == "reasoning"]
    assert [probe.prompt for probe in asked] == records("mquake")[0]["questions"]
    assert {(probe.answer, probe.aliases) for probe in asked} == {("Arica", ("San Marcos de Arica",))}
    hops = [(probe.prompt, probe.answer, probe.aliases) for probe in last.probes if probe.kind == "hop"]
    assert hops == [
        ("The author of Out of Africa is", "Karen Blixen", ("Isak Dinesen",)),
        ("Karen Blixen is a citizen of", "Chile", ()),
        ("The capital of Chile is", "Arica", ()),
    ]
    assert first.case == last.case == "0"
    # Of the three hops one is edited, and one is new because the edit leads there; the other one is as it was.
    kept = [probe for probe in last.probes if probe.kind == "unrelated"]
    assert [(probe.prompt, probe.answer) for probe in kept] == [("The author of Out of Africa is", "Karen Blixen")]


@pytest.mark.parametrize("name", READERS)
def test_a_limit_reads_the_first_records_only(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, [*records(name)[:1], {"broken": True}])
    assert READERS[name](path, limit=1) == READERS[name](DATA / f"{name}.json", limit=1)


# ---- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number", "path", "value", "field"),
    [
        ("counterfact", 1, "requested_rewrite.target_new.str", ..., "requested_rewrite.target_new.str: Field required"),
        (
            "counterfact",
            1,
            "requested_rewrite.target_new.str",
            " ",
            "requested_rewrite.target_new.str: expected some text",
        ),
        (
            "counterfact",
            1,
            "requested_rewrite.target_new.str",
            "Danish",
            "requested_rewrite.target_new: .*changes nothing",
        ),
        ("counterfact", 0, "requested_rewrite.prompt", "Bergen lies in", "requested_rewrite.prompt: expected {} once"),
        ("counterfact", 0, "paraphrase_prompts", "Bergen", "paraphrase_prompts"),
        ("counterfact", 0, "neighborhood_prompts", [3], r"neighborhood_prompts\.0"),
        ("counterfact_flat", 0, "prompt", "It lies in", "prompt: the subject 'Bergen' does not occur in 'It lies in'"),
        ("counterfact_flat", 0, "ground_truth", ..., "ground_truth: Field required"),
        ("zsre", 0, "src", "In which language did she write?", "src: the subject 'Karen Blixen' does not occur"),
        ("zsre", 0, "answers", [], "answers: "),
        ("zsre", 0, "alt", ..., "alt: this record has no false answer"),
        ("zsre", 0, "portability.New Answer", ..., r"portability\.New Answer: Field required"),
        ("knowedit", 0, "subject", ..., "subject: Field required"),
        ("knowedit", 1, "labels", ..., "target_new: expected a fact .* got a record with concept, text"),
        ("knowedit", 0, "portability.Reasoning.0.ground_truth", [[]], r"portability\.Reasoning\.0\.ground_truth: "),
        ("knowedit", 0, "locality.Sanity", [], r"locality\.Sanity: expected one of Relation_Specificity"),
        ("mquake", 0, "new_answer", ..., "new_answer: Field required"),
        ("mquake", 0, "requested_rewrite", [], "requested_rewrite: "),
        ("mquake", 0, "requested_rewrite.1.prompt", "Chile", r"requested_rewrite\.1\.prompt: expected {} once"),
    ],
)
def test_a_record_that_makes_no_request_is_refused_by_file_number_and_field(
    tmp_path: Path, name: str, number: int, path: str, value: object, field: str
) -> None:
    file = written(tmp_path, changed(name, number, path, value))
    with pytest.raises(DatasetError, match=f"cases.json: record {number}: {field}"):
        READERS[name](file)


def test_records_that_make_no_request_can_be_skipped_and_are_told() -> None:
    told: list[str] = []
    assert len(load_zsre(DATA / "zsre.json", target="alt", skip=told.append)) == 1
    assert [line.partition("record ")[2] for line in told] == [
        "1: alt: this record has no false answer; read the file with target='true'"
    ]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("text", "why"), [("{", "expected JSON"), ("{}", "expected a list of records, got dict"), ("[3]", "record 0: ")]
)
def test_a_file_without_a_list_of_records_is_refused(tmp_path: Path, name: str, text: str, why: str) -> None:
    with pytest.raises(DatasetError, match=f"cases.json: {why}"):
        READERS[name](written(tmp_path, text))


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=r"cannot read .*nothing\.json"):
        READERS[name](tmp_path / "nothing.json")


def test_a_subject_that_repeats_is_marked_where_it_stands_last() -> None:
    assert template_of("Ada, Ada said, is", "Ada", "prompt") == "Ada, {} said, is"


@pytest.mark.parametrize("nested", ["a", ["a"], [["a"]], [["a", " "], []]])
def test_answers_are_found_at_any_depth(nested: Any) -> None:
    assert list(flat(nested)) == ["a"]


# ---- our own facts -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return Manifest.load()


def by_kind(request: EditRequest, kind: str) -> list[Probe]:
    return [probe for probe in request.probes if probe.kind == kind]


def test_every_template_but_the_edited_one_is_a_paraphrase(relations: Relations, manifest: Manifest) -> None:
    fact = relations["country_language"].fact("France", 2)
    request = edit_request(fact, "Chinese", relations, manifest)
    assert request.fact == Fact(fact.prompt, "France", "Chinese", "country_language")
    templates = [template.format("France") for template in relations["country_language"].templates]
    assert [probe.prompt for probe in by_kind(request, "paraphrase")] == [p for p in templates if p != fact.prompt]
    assert {probe.answer for probe in by_kind(request, "paraphrase")} == {"Chinese"}


def test_what_must_stay_is_a_true_fact_of_another_subject_or_another_relation(
    relations: Relations, manifest: Manifest
) -> None:
    request = edit_request(relations["country_language"].fact("France"), "Chinese", relations, manifest)
    for kind in ("neighbour", "same_subject", "unrelated"):
        probes = by_kind(request, kind)
        assert probes, kind
        for probe in probes:
            relation, subject = str(probe.relation), str(probe.subject)
            assert relations[relation].object_of(subject) == probe.answer
            assert (relation == "country_language") == (kind == "neighbour")
            assert (subject == "France") == (kind == "same_subject")
            assert subject in manifest.relations[relation].head
            assert probe.prompt in [template.format(subject) for template in relations[relation].templates]
    assert "Chinese" not in {probe.answer for probe in by_kind(request, "neighbour")}
    # An edit leaks first to subjects that share the old object, so some are among the neighbours.
    assert "French" in {probe.answer for probe in by_kind(request, "neighbour")}


def test_two_hops_go_through_the_edited_fact_as_their_first_or_their_second() -> None:
    def relation(name: str, pairs: tuple[tuple[str, str], ...], words: str, phrase: tuple[str, ...] = ()) -> Relation:
        templates = (f"{words} {{}} is", f"Of {{}} {words}")
        return Relation(name, name, "factual", "x", "y", templates, pairs, noun_phrases=phrase)

    tiny = {
        "landmark_country": relation(
            "landmark_country",
            (("Louvre", "France"), ("Colosseum", "Italy"), ("Prado", "Spain")),
            "the land of",
            ("the home of {}",),
        ),
        "country_language": relation(
            "country_language", (("France", "French"), ("Italy", "Italian"), ("Spain", "Spanish")), "the tongue of"
        ),
    }
    moved = edit_request(tiny["landmark_country"].fact("Louvre"), "Italy", tiny)
    assert [(p.prompt, p.answer) for p in by_kind(moved, "two_hop")] == [
        ("The tongue of the home of Louvre is", "Italian"),
        ("Of the home of Louvre the tongue of", "Italian"),
    ]
    renamed = edit_request(tiny["country_language"].fact("France"), "Spanish", tiny)
    assert [(p.prompt, p.answer, p.subject) for p in by_kind(renamed, "two_hop")] == [
        ("The tongue of the home of Louvre is", "Spanish", "Louvre"),
        ("Of the home of Louvre the tongue of", "Spanish", "Louvre"),
    ]
    # Where another request edits the other hop, what follows from both is not asked.
    both = edit_requests([tiny["landmark_country"].fact("Louvre"), tiny["country_language"].fact("France")], tiny)
    assert not by_kind(both[1], "two_hop")


def test_reverse_questions_ask_for_the_subject_of_the_new_object(relations: Relations) -> None:
    request = edit_request(relations["country_capital_city"].fact("France"), "Rome", relations)
    assert [(p.prompt, p.answer) for p in by_kind(request, "reverse")] == [
        (template.format("Rome"), "France") for template in relations["country_capital_city"].reverse_templates
    ]


def test_a_sentence_of_ones_own_has_unrelated_probes_alone(relations: Relations) -> None:
    request = edit_request(Fact("People in France mostly speak", "France", "French"), "Chinese", relations)
    assert request.template == "People in {} mostly speak"
    assert {probe.kind for probe in request.probes} == {"unrelated"}
    with pytest.raises(FactError, match="occurs 2 times"):
        edit_request(Fact("In France, as France is, they speak", "France", "French"), "Chinese", relations)


def test_facts_to_edit_are_head_facts_and_take_the_relations_in_turn(relations: Relations, manifest: Manifest) -> None:
    facts = edit_facts(relations, manifest)
    factual = {name for name, relation in relations.items() if relation.kind == "factual"}
    assert {fact.relation for fact in facts[: len(factual)]} == factual
    assert all(fact.subject in manifest.relations[str(fact.relation)].head for fact in facts)
    assert len({(fact.relation, fact.subject) for fact in facts}) == len(facts)
    assert facts == edit_facts(relations, manifest)
    assert facts[:50] != edit_facts(relations, manifest, seed=1)[:50]


def test_the_new_object_is_another_of_the_relation_and_no_probe_is_about_a_fact_that_is_edited(
    relations: Relations, manifest: Manifest
) -> None:
    facts = edit_facts(relations, manifest)[:60]
    requests = edit_requests(facts, relations, manifest)
    edited = {(fact.relation, fact.subject) for fact in facts}
    for fact, request in zip(facts, requests, strict=True):
        assert request.target in relations[str(fact.relation)].objects
        assert request.target != request.old == fact.object
        assert not {(p.relation, p.subject) for p in request.probes if not p.should_change} & edited
    assert requests == edit_requests(facts, relations, manifest)
    assert [r.target for r in requests] != [r.target for r in edit_requests(facts, relations, manifest, seed=1)]


def test_a_relation_with_one_object_has_no_other_to_edit_in(relations: Relations) -> None:
    single = Relation("r", "r", "factual", "x", "y", ("{} is",), (("a", "same"), ("b", "same")))
    with pytest.raises(ValueError, match="no other object"):
        other_object(single.fact("a"), {"r": single})
    with pytest.raises(ValueError, match="no other object"):
        other_object(Fact("a is", "a", "same"), relations)

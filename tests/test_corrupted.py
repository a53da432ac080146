"""Corrupted prompts say the same words about another subject, in as many tokens, with another answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuits.datasets.corrupted import CorruptionError, corrupted, donors, reference, siblings
from circuits.facts import Fact, Relation, Relations
from circuits.model import Model, WordVocabulary
from circuits.model.network import PlainNetwork
from tests.models import zero_weights

WORDS = "man men many get gets word words w1 w2 one two {} here is as and over there are you to add"


@pytest.fixture(scope="module")
def model() -> Model:
    weights = zero_weights(n_layers=1, n_heads=1, d_model=2, d_head=1, d_mlp=1, d_vocab=len(WORDS.split()), n_ctx=16)
    return Model.by_hand(PlainNetwork(weights), WordVocabulary(tuple(WORDS.split())))


def relation(pairs: dict[str, str], *templates: str) -> Relations:
    return {
        "r": Relation(
            name="r",
            title="r",
            kind="factual",
            domain="",
            range="",
            templates=templates or ("here is one {} and over there are",),
            pairs=tuple(pairs.items()),
        )
    }


PLURALS = relation({"man": "men", "word": "words", "get": "gets", "w1 w2": "two", "one": "men"})


def test_a_corrupted_prompt_has_the_same_words_another_subject_another_answer_and_the_same_length(model: Model) -> None:
    fact = PLURALS["r"].fact("man")
    drawn = {corrupted(fact, PLURALS, model, seed) for seed in range(40)}
    # "w1 w2" has two tokens, and the plural of "one" is, here, "men" as well.
    assert drawn == {PLURALS["r"].fact("word"), PLURALS["r"].fact("get")}
    assert corrupted(fact, PLURALS, model, 3) == corrupted(fact, PLURALS, model, 3)


def test_an_answer_that_begins_with_the_same_token_is_no_other_answer(model: Model) -> None:
    relations = relation({"man": "two men", "word": "two words", "get": "gets"})
    drawn = {corrupted(relations["r"].fact("man"), relations, model, seed).subject for seed in range(10)}
    assert drawn == {"get"}


def test_where_no_prompt_is_as_long_the_nearest_in_length_is_taken(model: Model) -> None:
    relations = relation({"man": "men", "w1 w2": "two", "w1 w2 one": "words", "get two": "get"})
    drawn = {corrupted(relations["r"].fact("man"), relations, model, seed).subject for seed in range(20)}
    assert drawn == {"w1 w2", "get two"}
    # The control: one as long is taken before all of them.
    alike = relation({"man": "men", "w1 w2": "two", "word": "words"})
    assert {corrupted(alike["r"].fact("man"), alike, model, seed).subject for seed in range(9)} == {"word"}


def test_many_facts_have_the_donors_that_each_has_alone(model: Model) -> None:
    facts = PLURALS["r"].facts()
    assert donors(facts, PLURALS, model, 5) == tuple(corrupted(fact, PLURALS, model, 5) for fact in facts)


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ({"man": "men"}, "there is no other subject"),
        ({"man": "men", "word": "men"}, "the other has the same answer"),
    ],
)
def test_where_there_is_none_the_error_says_what_was_sought_and_what_to_do(
    model: Model, pairs: dict[str, str], why: str
) -> None:
    relations = relation(pairs)
    with pytest.raises(
        CorruptionError, match=r"no other subject of r .* begins otherwise than 'men'.*; use mean or zero ablation"
    ):
        corrupted(relations["r"].fact("man"), relations, model)


@pytest.mark.parametrize("name", [None, "unheard of"])
def test_a_fact_of_no_relation_has_no_other_subjects(model: Model, name: str | None) -> None:
    with pytest.raises(CorruptionError, match="no relation of the dataset"):
        corrupted(Fact("here is one man", "man", "men", name), PLURALS, model)


@pytest.mark.parametrize(
    ("template", "subject", "other"),
    [
        ("here is one {} and over there are many", "man", "here is one word and over there are many"),
        ("to {} add one and you get", "get", "to word add one and you get"),
    ],
)
def test_the_subject_is_replaced_where_the_template_has_it(template: str, subject: str, other: str) -> None:
    relations = relation({subject: "two", "word": "words"}, template)
    assert [fact.prompt for fact in siblings(relations["r"].fact(subject), relations)] == [other]


def test_in_words_of_ones_own_the_subject_is_replaced_where_it_last_stands_as_a_word() -> None:
    relations = relation({"man": "men", "word": "words"})
    fact = Fact("man is to {} men as many are to man and many", "man", "men", "r")
    assert [other.prompt for other in siblings(fact, relations)] == ["man is to {} men as many are to word and many"]


def test_the_reference_set_is_every_subject_once(model: Model) -> None:
    facts = (PLURALS["r"].fact("man"), PLURALS["r"].fact("get"))
    found = reference(facts, PLURALS)
    assert sorted(fact.prompt for fact in found) == sorted(fact.prompt for fact in PLURALS["r"].facts())


@given(st.data())
def test_every_fact_of_the_projects_own_relations_keeps_its_template(relations: Relations, data: st.DataObject) -> None:
    chosen = relations[data.draw(st.sampled_from(sorted(relations)))]
    template = data.draw(st.sampled_from(range(len(chosen.templates))))
    subject = data.draw(st.sampled_from(chosen.subjects))
    others = siblings(chosen.fact(subject, template), relations)
    expected = {fact for fact in chosen.facts(template) if fact.subject != subject}
    assert set(others) == expected

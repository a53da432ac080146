"""What a person types after --fact is read as the fact that they meant, or refused with what to do."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuits.facts import KINDS, Fact, FactError, Relation, Relations, parse_fact

CAPITALS = Relation(
    name="country_capital_city",
    title="country capital city",
    kind="factual",
    domain="country",
    range="city",
    templates=("The capital of {} is", "{} is governed from the city of"),
    pairs=(
        ("France", "Paris"),
        ("India", "New Delhi"),
        ("Guinea", "Conakry"),
        ("Equatorial Guinea", "Malabo"),
        ("Mughal Empire", "Delhi"),
    ),
)
COLOURS = Relation(
    name="fruit_outside_color",
    title="fruit outside colour",
    kind="commonsense",
    domain="fruit",
    range="colour",
    templates=("On the outside, a {} is",),
    pairs=(("apple", "red"), ("lime", "green"), ("pineapple", "brown")),
)
KNOWN = (CAPITALS, COLOURS)


def parsed(text: str, subject: str | None = None, object: str | None = None) -> Fact:
    return parse_fact(text, KNOWN, subject=subject, object=object)


# ---- a fact ------------------------------------------------------------------------------------------------------------


def test_prompt_and_answer_make_the_statement_and_the_answer_has_its_leading_space() -> None:
    fact = Fact("The capital of France is", "France", "Paris")
    assert fact.answer == " Paris"
    assert fact.statement == "The capital of France is Paris"
    assert str(fact) == "The capital of France is => Paris"


@pytest.mark.parametrize(
    ("prompt", "subject", "object_", "message"),
    [
        ("", "France", "Paris", "non-empty prompt"),
        ("The capital of France is", " ", "Paris", "non-empty subject"),
        ("The capital of France is", "France", "", "non-empty object"),
        ("The capital of France is ", "France", "Paris", "no space at its ends"),
        ("The capital of France is", "France", " Paris", "no space at its ends"),
        ("The capital of France is", "france", "Paris", "'france' does not occur in the prompt"),
        ("The capital of France is", "Paris", "Paris", "'Paris' does not occur in the prompt"),
    ],
)
def test_a_fact_without_its_parts_is_refused(prompt: str, subject: str, object_: str, message: str) -> None:
    with pytest.raises(FactError, match=message):
        Fact(prompt, subject, object_)


def test_a_relation_gives_its_facts_in_the_words_of_each_template() -> None:
    assert CAPITALS.fact("India", 1) == Fact(
        "India is governed from the city of", "India", "New Delhi", "country_capital_city"
    )
    assert CAPITALS.facts(1)[1] == CAPITALS.fact("India", 1)
    assert [fact.subject for fact in CAPITALS.facts()] == list(CAPITALS.subjects)
    with pytest.raises(FactError, match="no subject 'Atlantis'; `kcircuit facts -r country_capital_city`"):
        CAPITALS.fact("Atlantis")


def test_a_relations_range_lists_each_object_once_in_order() -> None:
    doubled = Relation("r", "r", "bias", "d", "r", ("{} x",), (("a", "2"), ("b", "1"), ("c", "2")))
    assert doubled.objects == ("2", "1")
    assert doubled.kind in KINDS


# ---- reading a sentence ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        # A sentence of the dataset, its object of one word or of two.
        (
            "The capital of France is Paris",
            Fact("The capital of France is", "France", "Paris", "country_capital_city"),
        ),
        (
            "The capital of India is New Delhi",
            Fact("The capital of India is", "India", "New Delhi", "country_capital_city"),
        ),
        (
            "India is governed from the city of New Delhi.",
            Fact("India is governed from the city of", "India", "New Delhi", "country_capital_city"),
        ),
        # A false one, whose object the dataset does not know: what follows the template is the object.
        (
            "The capital of France is Le Havre",
            Fact("The capital of France is", "France", "Le Havre", "country_capital_city"),
        ),
        # Spaces and full stops around do not matter.
        (
            "  The capital   of France is\tParis . ",
            Fact("The capital of France is", "France", "Paris", "country_capital_city"),
        ),
        # Words of one's own around a known subject: the object is one of the dataset's, or the last word.
        (
            "People in India are governed from New Delhi",
            Fact("People in India are governed from", "India", "New Delhi"),
        ),
        ("The main language of France is French", Fact("The main language of France is", "France", "French")),
        # The longest known subject, and whole words only: a pineapple is no apple.
        (
            "In Equatorial Guinea people vote in Malabo",
            Fact("In Equatorial Guinea people vote in", "Equatorial Guinea", "Malabo"),
        ),
        ("My pineapple is brown", Fact("My pineapple is", "pineapple", "brown")),
        # prompt => object, for anything.
        (
            "The capital of France is => Paris",
            Fact("The capital of France is", "France", "Paris", "country_capital_city"),
        ),
        (
            "Everybody in France speaks=>very good French",
            Fact("Everybody in France speaks", "France", "very good French"),
        ),
    ],
)
def test_a_sentence_is_read_as_the_fact_it_states(text: str, fact: Fact) -> None:
    assert parsed(text) == fact


def test_a_sentence_about_anything_is_read_when_its_subject_is_given() -> None:
    text = "The Pequod is commanded by Captain Ahab"
    assert parsed(text, subject="Pequod") == Fact("The Pequod is commanded by Captain", "Pequod", "Ahab")
    assert parsed(text, subject="Pequod", object="Captain Ahab") == Fact(
        "The Pequod is commanded by", "Pequod", "Captain Ahab"
    )
    assert parse_fact(text, subject="The Pequod").subject == "The Pequod"


def test_a_given_subject_or_object_overrules_what_the_dataset_would_say() -> None:
    fact = parsed("The capital of Equatorial Guinea is Malabo", subject="Guinea")
    assert fact == Fact("The capital of Equatorial Guinea is", "Guinea", "Malabo")
    fact = parsed("The capital of India is New Delhi", object="Delhi")
    assert fact == Fact("The capital of India is New", "India", "Delhi")


def test_an_object_that_ends_in_a_full_stop_keeps_it_where_it_is_given() -> None:
    assert parsed("People in France fly to Washington D.C. => D.C.").object == "D.C."
    assert parsed("People in France fly to Washington D.C.", object="Washington D.C.").object == "Washington D.C."


@pytest.mark.parametrize(
    ("text", "subject", "object_", "message"),
    [
        ("", None, None, "the fact is empty"),
        (" \n", None, None, "the fact is empty"),
        ("Paris", None, None, "got the single word 'Paris'"),
        ("...", None, None, "."),
        ("=> Paris", None, None, "one side of => is empty"),
        ("The capital of France is =>", None, None, "one side of => is empty"),
        ("The capital of France is => Paris", None, "Lyon", "'Paris', but 'Lyon' was given as well"),
        ("Paris is the capital of France", "Paris", "Paris", "must end the sentence"),
        ("The capital of France is Paris", None, "aris", "must end the sentence"),
        ("Paris", "Paris", "Paris", "must end the sentence"),
        ("The Pequod is commanded by Ahab", None, None, "name it with --subject"),
        ("The Pequod is commanded by Ahab", "Rachel", None, "'Rachel' does not occur in the prompt"),
        ("The Pequod is commanded by Ahab", "Ahab", None, "'Ahab' does not occur in the prompt"),
        ("The Pequod is commanded by Ahab", "", None, "non-empty subject"),
    ],
)
def test_what_is_no_fact_is_refused_with_what_to_do(
    text: str, subject: str | None, object_: str | None, message: str
) -> None:
    with pytest.raises(FactError, match=message):
        parsed(text, subject, object_)


def test_an_agreeing_object_may_be_given_twice() -> None:
    assert parsed("The capital of France is => Paris", object="Paris") == parsed("The capital of France is Paris")


@given(st.text(max_size=40), st.sampled_from([None, "France", ""]), st.sampled_from([None, "Paris", "x"]))
def test_any_text_at_all_is_read_or_refused_as_a_fact_error(
    text: str, subject: str | None, object_: str | None
) -> None:
    try:
        fact = parsed(text, subject, object_)
    except FactError:
        return
    assert fact.subject in fact.prompt
    assert fact.prompt.strip() == fact.prompt
    assert " ".join(text.replace("=>", " ").split()).rstrip(". ").startswith(fact.prompt.rstrip(". "))


def test_statements_of_our_own_dataset_are_read_back_as_the_facts_they_state(relations: Relations) -> None:
    everything = tuple(relations.values())
    facts = [
        fact for relation in everything for index in range(len(relation.templates)) for fact in relation.facts(index)
    ]
    for fact in random.Random(0).sample(facts, 250):
        assert parse_fact(fact.statement, everything) == fact
        assert parse_fact(str(fact), everything) == fact

"""Edits are evaluated as worked out by hand, on a model that is a table: it says of each word which one comes next."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.editing import Edit, EditProvenance, LowRank, WeightEdit
from circuits.evaluation import whole_model
from circuits.evaluation.continuations import measure
from circuits.evaluation.edits import (
    FluencySetting,
    Regime,
    RegimeError,
    Restrained,
    Retention,
    ask,
    classify,
    completion,
    evaluate,
    failure_counts,
    find_metric,
    prepare,
    questions,
    read,
    tabulate,
)
from circuits.evaluation.edits.cases import ask_success, edited_prompts
from circuits.evaluation.edits.failures import FAILURE_CLASSES, contains
from circuits.evaluation.edits.fluency import entropy, fluency, sampled_fluency, words
from circuits.evaluation.edits.generation import ABBREVIATED, draw, greedy, most_likely, sample
from circuits.evaluation.edits.regimes import checkpoints, evaluated_steps, in_cases
from circuits.evaluation.edits.report import EditMetric, by_case, not_finite
from circuits.facts import EditRequest, Fact, Probe
from circuits.graph import Node, Shape
from circuits.metrics import Measurement, Share
from circuits.model import Batch, Model, Tokens
from tests.models import plain_model, word_fact, zero_weights

_WORDS = "about say peru peruvians chile oslo spanish quechua norse thick tongue . the"
WORDS: list[str] = list(_WORDS.split())
NEXT = {
    "peru": "spanish",
    "peruvians": "spanish",
    "chile": "spanish",
    "oslo": "norse",
    "thick": "tongue",
    **dict.fromkeys(("spanish", "quechua", "norse", "tongue"), "."),
    "the": "the",
}
STRENGTH = 6.0
"""Logit of the word that comes next; all others have 0."""
V = len(WORDS)
QUIET = FluencySetting(n_samples=0)


def one_hot(word: str) -> torch.Tensor:
    return torch.eye(V)[WORDS.index(word)]


@pytest.fixture(scope="module")
def model() -> Model:
    """Its residual stream starts as the one-hot word and its MLP adds the table's row minus that one-hot."""
    weights = zero_weights(n_layers=1, n_heads=1, d_model=V, d_head=1, d_mlp=V, d_vocab=V, n_ctx=16)
    table = torch.stack([STRENGTH * one_hot(NEXT[w]) if w in NEXT else torch.zeros(V) for w in WORDS])
    weights["embed.W_E"] = weights["unembed.W_U"] = weights["blocks.0.mlp.W_in"] = torch.eye(V)
    weights["blocks.0.mlp.W_out"] = table - torch.eye(V)
    return plain_model(weights, " ".join(WORDS))


def table_edit(model: Model, rows: Mapping[str, str], by: float = 2 * STRENGTH) -> WeightEdit:
    """Make the model say ``rows[word]`` after the word."""
    left = torch.stack([one_hot(word) for word in rows], 1)
    right = torch.stack([by * one_hot(word) for word in rows.values()])
    provenance = EditProvenance("by hand", model.name, model.weights)
    return WeightEdit({"blocks.0.mlp.W_out": LowRank(left, right)}, provenance)


@dataclass(frozen=True)
class Broken:
    """An edit after which every logit is NaN."""

    provenance: EditProvenance
    chain: tuple[str, ...] = ("broken",)
    deltas: Mapping[str, Any] = field(default_factory=dict)
    routers: tuple[Any, ...] = ()

    def nodes(self, shape: Shape) -> tuple[Node, ...]:
        return (Node(0, "mlp"),)

    @contextmanager
    def on(self, model: Model) -> Iterator[Model]:
        weight = model.weight("blocks.0.mlp.W_out")
        yield model.with_weights({"blocks.0.mlp.W_out": torch.full_like(weight, math.nan)}, "broken")

    def __add__(self, other: Edit) -> Edit:
        return self

    def save(self, folder: Path) -> Path:
        return folder


REQUEST = EditRequest(
    "about {}",
    "peru",
    "quechua",
    "spanish",
    probes=(
        Probe("paraphrase", "about the peru", "peru", "quechua"),
        Probe("paraphrase", "say peruvians", None, "quechua"),
        Probe("neighbour", "about chile", "chile", "spanish"),
        Probe("neighbour", "about oslo", "oslo", "norse"),
        Probe("unrelated", "about thick", "thick", "tongue ."),
    ),
)


def shares(
    request: EditRequest, model: Model, edit: Edit
) -> dict[tuple[str, str | None, str | None], tuple[float, ...]]:
    """(metric, kind, way) -> value before, value after, number of questions."""
    with edit.on(model) as edited:
        results = ask(edited, prepare(model, [request], QUIET), QUIET)
    return {(r.metric, r.kind, r.way): (r.before.value, r.after.value, r.n_questions) for r in tabulate(results)}


# ---- one reading -------------------------------------------------------------------------------------------------------


def test_a_reading_is_the_tables_own_numbers(model: Model) -> None:
    (right,) = read(model, [completion(model, "about peru", "spanish .")])
    p = math.exp(STRENGTH) / (math.exp(STRENGTH) + V - 1)
    assert right.nll == pytest.approx(-math.log(p))
    assert (right.token_accuracy, right.exact, right.rank) == (1.0, True, 1)
    assert right.probability == pytest.approx(p)
    (half,) = read(model, [completion(model, "about peru", "quechua .")])
    # After the wrong first token, teacher-forced, the second is right.
    assert (half.token_accuracy, half.exact) == (0.5, False)
    # Every word but the right one has the same logit, and the wrong one is the last of them.
    assert half.rank == V
    assert half.nll == pytest.approx((-math.log(p) + math.log(math.exp(STRENGTH) + V - 1)) / 2)


def test_logits_that_are_not_finite_are_a_failure_and_not_a_gap() -> None:
    logits = torch.zeros(2, 2, 5)
    logits[1, 1, 3] = math.nan
    whole, broken = measure(logits, torch.zeros(2, 2, dtype=torch.long))
    assert (whole.finite, whole.exact, whole.token_accuracy, whole.rank) == (True, True, 1.0, 5)
    assert (broken.finite, broken.exact, broken.token_accuracy, broken.rank) == (False, False, 0.0, 5)


@settings(max_examples=8)
@given(data=st.data())
def test_continuations_are_read_together_as_they_are_alone(data: st.DataObject, small_model) -> None:
    model = small_model("gpt2")
    ids = st.lists(st.integers(1, 60), min_size=1, max_size=4)
    completions = [
        Tokens((0, *prompt), tuple(answer)) for prompt, answer in data.draw(st.lists(st.tuples(ids, ids), max_size=6))
    ]
    for together, tokens in zip(read(model, completions), completions, strict=True):
        (alone,) = read(model, [tokens])
        assert together.nll == pytest.approx(alone.nll, abs=1e-4)
        assert together.probability == pytest.approx(alone.probability, abs=1e-5)


def test_a_reading_agrees_with_the_answers_of_the_whole_model(small_model) -> None:
    model = small_model("llama")
    facts = [word_fact("3 7 7", "9 4"), word_fact("3 7 7", "5"), word_fact("1 2", "3")]
    answers = whole_model(model, facts)
    readings = read(model, [model.tokens(fact) for fact in facts])
    assert [r.nll for r in readings] == pytest.approx(answers.nll.per_example, abs=1e-5)
    assert [r.rank for r in readings] == list(answers.rank.per_example)


# ---- generation --------------------------------------------------------------------------------------------------------


def test_greedy_writing_ends_with_the_sentence_and_is_cut_where_there_is_no_end(model: Model) -> None:
    peru, the = (completion(model, prompt, ".").prompt for prompt in ("about peru", "the"))
    written = greedy(model, [peru, the, peru], 5)
    decoded = [(model.vocabulary.decode(text.ids), text.ended) for text in written]
    assert decoded == [("spanish .", True), ("the the the the the", False), ("spanish .", True)]
    # The control: a sentence that is one token too long for the limit is cut.
    assert [(len(text.ids), text.ended) for text in greedy(model, [peru], 1)] == [(1, False)]


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("in Peru.", True),
        ("Washington, D.C.", False),
        ("in St.", False),
        ("his test.", True),
        ("the answer is 5.", True),
    ],
)
def test_a_full_stop_after_an_initial_or_an_abbreviation_ends_no_sentence(text: str, ends: bool) -> None:
    assert (ABBREVIATED.search(text) is None) == ends


@settings(max_examples=8)
@given(prompts=st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=4), min_size=1, max_size=4))
def test_an_answer_is_exact_if_and_only_if_greedy_decoding_writes_it(prompts: list[list[int]], small_model) -> None:
    model = small_model("gpt2")
    given = [(0, *prompt) for prompt in prompts]
    written = most_likely(model, given, [3] * len(given))
    assert all(len(ids) == 3 for ids in written)
    other = [(ids[0], (ids[1] + 1) % 61, ids[2]) for ids in written]
    assert all(r.exact for r in read(model, [Tokens(p, a) for p, a in zip(given, written, strict=True)]))
    assert not any(r.exact for r in read(model, [Tokens(p, a) for p, a in zip(given, other, strict=True)]))


def test_a_drawn_token_is_the_quantile_of_the_likeliest_ones() -> None:
    logits = torch.log(torch.tensor([0.1, 0.6, 0.3, 1e-9]))
    # Of the two likeliest: token 1 has two thirds, token 2 one third.
    assert [draw(logits, u, top_k=2) for u in (0.0, 0.66, 0.67, 0.999999999)] == [1, 1, 2, 2]


def test_samples_depend_on_seed_and_prompt_and_not_on_company(small_model) -> None:
    model = small_model("gpt2")
    one, other = (0, 5, 6), (0, 7)
    alone = sample(model, [one], 8, seed=0)[0]
    assert len(alone) == 8
    assert 0 not in alone  # the token that begins a document
    together = sample(model, [other, one, one], 8, seed=0)
    assert together[1] == alone
    assert together[2] != alone  # the second text after one prompt is another
    assert sample(model, [one], 8, seed=1)[0] != alone


def test_writing_ends_where_the_context_ends(small_model) -> None:
    model = small_model("gpt2")
    prompt = tuple([0, *range(1, model.n_ctx - 2)])
    assert len(sample(model, [prompt], 9, seed=0)[0]) == 3


# ---- fluency -----------------------------------------------------------------------------------------------------------


def test_entropy_and_fluency_of_a_text_worked_out_by_hand() -> None:
    text = ["a", "b", "a", "b"]
    # Bi-grams: ab twice, ba once; tri-grams: aba and bab once each.
    two = -(2 / 3) * math.log2(2 / 3) - (1 / 3) * math.log2(1 / 3)
    assert entropy(text, 2) == pytest.approx(two)
    assert entropy(text, 3) == pytest.approx(1.0)
    assert fluency("A b, a b") != pytest.approx(fluency("A b a b"))
    assert fluency("A b a b") == pytest.approx(two / 3 + 2 / 3)
    assert fluency("the the the the the") == 0 == fluency("") == fluency("one")
    assert words("U.S. dollar's") == ["u", ".", "s", ".", "dollar", "'", "s"]


@given(st.integers(3, 40))
def test_a_text_of_different_words_is_as_fluent_as_its_length_allows(n: int) -> None:
    text = " ".join(f"w{i}" for i in range(n))
    assert fluency(text) == pytest.approx(math.log2(n - 1) / 3 + 2 * math.log2(n - 2) / 3)


def test_sampled_fluency_is_low_for_a_model_that_repeats_itself(model: Model) -> None:
    the, about = (completion(model, prompt, ".").prompt for prompt in ("the", "about"))
    stuck, free = sampled_fluency(model, [the, about], seed=0, n_tokens=12, n_samples=3)
    assert stuck < free
    assert (stuck, free) == sampled_fluency(model, [the, about], seed=0, n_tokens=12, n_samples=3)


# ---- classes of failure -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("New York City.", "correct"),
        ("the town of new york city, I think", "correct"),
        ("Gotham", "correct"),
        ("Buenos Aires.", "unchanged"),
        ("\n", "meaningless"),
        ("", "meaningless"),
        ("...!?", "meaningless"),
        ("aaaaaaa", "meaningless"),
        ("the the the the the the", "meaningless"),
        ("of in of in of in of in of in", "meaningless"),
        ("New York", "missing"),
        ("the City.", "missing"),
        ("New Aires", "partial"),
        ("New Orleans", "partial"),
        ("Buenos Aires City", "partial"),
        ("York New City", "partial"),
        ("Santiago", "irrelevant"),
        ("a 100000 people", "irrelevant"),
    ],
)
def test_the_classes_of_failure_are_told_apart_by_rule(answer: str, expected: str) -> None:
    assert classify(answer, ("New York City", "Gotham"), ("Buenos Aires",)) == expected


@given(st.text(max_size=40), st.text(min_size=1, max_size=12), st.text(max_size=12))
def test_every_answer_has_one_class_and_one_that_holds_the_target_is_correct(
    answer: str, target: str, old: str
) -> None:
    found = classify(answer, (target,), (old,))
    assert found in FAILURE_CLASSES
    assert (found == "correct") == contains(answer, target)


def test_an_old_answer_that_shares_words_with_the_target_is_unchanged() -> None:
    assert classify("United Kingdom.", ("United States",), ("United Kingdom",)) == "unchanged"
    assert classify("United.", ("United States",), ("United Kingdom",)) == "missing"
    assert classify("Nigeria", ("Niger",), ("Chad",)) == "irrelevant"


# ---- questions -----------------------------------------------------------------------------------------------------------


def test_the_rival_of_the_new_object_is_the_old_one_and_of_a_neighbours_answer_the_new_one() -> None:
    probes = (
        Probe("paraphrase", "a", None, "new"),
        Probe("alias", "b", None, "new"),
        Probe("two_hop", "c", None, "x"),
        Probe("neighbour", "d", None, "old"),
        Probe("neighbour", "e", None, "new"),
        Probe("same_subject", "f", None, "y"),
        Probe("attribute", "g", None, "new"),
        Probe("forgetfulness", "h", None, "z"),
    )
    asked = questions(EditRequest("{} is", "s", "new", "old", probes=probes))
    assert [q.rival for q in asked] == ["old", "old", "old", None, "new", None, None, "old", None]
    assert [q.stays for q in asked] == [False] * 4 + [True] * 5


# ---- metrics of an edit, by hand ------------------------------------------------------------------------------------------


def test_an_edit_of_one_row_reaches_that_word_and_nothing_else(model: Model) -> None:
    found = shares(REQUEST, model, table_edit(model, {"peru": "quechua"}))
    for way in ("exact", "tokens", "generated", "probability"):
        assert found["success", None, way] == (0.0, 1.0, 1)
        # One paraphrase ends in the edited word, the other does not.
        assert found["generality", None, way] == (0.0, 0.5, 2)
    for kind, n in (("neighbour", 2), ("unrelated", 1), (None, 3)):
        assert found["locality", kind, "exact"] == (1.0, 1.0, n)
    assert ("portability", None, "exact") not in found


def test_a_leak_is_counted_by_kind_and_kinds_count_alike(model: Model) -> None:
    edit = table_edit(model, {"peru": "quechua", "chile": "quechua", "tongue": "the"})
    found = shares(REQUEST, model, edit)
    assert found["locality", "neighbour", "exact"] == (1.0, 0.5, 2)
    # LS: after chile the new object is likelier than the old answer now.
    assert found["locality", "neighbour", "probability"] == (1.0, 0.5, 2)
    # One of the two tokens of "tongue ." stayed.
    assert found["locality", "unrelated", "exact"] == (1.0, 0.0, 1)
    assert found["locality", "unrelated", "tokens"] == (1.0, 0.5, 1)
    assert found["locality", None, "exact"] == (1.0, 0.25, 3)
    assert found["locality", None, "tokens"] == (1.0, 0.5, 3)


def test_attributes_and_forgetfulness_have_rows_of_their_own_and_attributes_are_no_part_of_locality(
    model: Model,
) -> None:
    """By hand: the edit leaks from peru to chile, makes oslo's answer another one, and reaches nothing else."""
    request = replace(
        REQUEST,
        probes=(
            Probe("neighbour", "about chile", "chile", "spanish"),
            Probe("attribute", "say oslo", "oslo", "norse"),
            Probe("same_subject", "about thick", "thick", "tongue"),
            Probe("forgetfulness", "say tongue", None, "."),
        ),
    )
    leak = table_edit(model, {"peru": "quechua", "chile": "quechua", "oslo": "thick"})
    found = shares(request, model, leak)
    assert found["attributes", None, "exact"] == (1.0, 0.0, 1)
    assert found["locality", "forgetfulness", "exact"] == (1.0, 1.0, 1)
    assert found["locality", "same_subject", "exact"] == (1.0, 1.0, 1)
    # Two of the three kinds of locality stay; with the attribute it would be two of four.
    assert found["locality", None, "exact"] == (1.0, pytest.approx(2 / 3), 3)
    assert ("locality", "attribute", "exact") not in found
    # The control: an edit that only leaks to chile loses the neighbour and keeps the attribute.
    narrow = shares(request, model, table_edit(model, {"peru": "quechua", "chile": "quechua"}))
    assert narrow["attributes", None, "exact"] == (1.0, 1.0, 1)
    assert narrow["locality", "neighbour", "exact"] == (1.0, 0.0, 1)


def test_the_ways_of_counting_differ_where_they_should(model: Model) -> None:
    # The target's two tokens; the model is edited to say its second after its first, and half-way to the first.
    request = EditRequest("about {}", "peru", "thick quechua", "spanish")
    weak = table_edit(model, {"peru": "thick", "thick": "quechua"}, by=0.99 * STRENGTH)
    found = shares(request, model, weak)
    assert found["success", None, "exact"][:2] == (0.0, 0.0)
    assert found["success", None, "tokens"][:2] == (0.0, 0.0)
    # At 0.99 of the old words' logits, neither is likeliest; the mean over two tokens is still less likely than one.
    assert found["success", None, "probability"][:2] == (0.0, 0.0)
    second = table_edit(model, {"thick": "quechua"})
    found = shares(request, model, second)
    assert found["success", None, "tokens"][:2] == (0.0, 0.5)
    assert found["success", None, "exact"][:2] == found["success", None, "generated"][:2] == (0.0, 0.0)
    # An answer that goes on after the target's tokens is exact; as a sentence it must hold the target whole.
    both = table_edit(model, {"peru": "thick", "thick": "quechua"})
    found = shares(request, model, both)
    assert found["success", None, "exact"] == found["success", None, "generated"] == (0.0, 1.0, 1)


def test_an_answer_counts_as_alone_if_the_sentence_ends_by_itself_without_the_old_object(model: Model) -> None:
    """Teacher forcing sees the first word alone, whatever the model goes on to say."""
    request = replace(REQUEST, probes=(Probe("generation", "say peru", "peru", "quechua"),))
    ways = ("tokens", "exact", "generated", "alone")

    def counted(rows: Mapping[str, str]) -> dict[str, list[float]]:
        found = shares(request, model, table_edit(model, rows))
        return {name: [found[name, None, way][1] for way in ways] for name in ("success", "generation")}

    assert counted({"peru": "quechua"}) == {"success": [1.0] * 4, "generation": [1.0] * 4}
    # After the new object the old one follows: "quechua spanish .".
    relapsed = counted({"peru": "quechua", "quechua": "spanish"})
    assert relapsed == {"success": [1.0, 1.0, 1.0, 0.0], "generation": [1.0, 1.0, 1.0, 0.0]}
    # It never ends: "quechua quechua quechua ...".
    assert counted({"peru": "quechua", "quechua": "quechua"})["success"] == [1.0, 1.0, 1.0, 0.0]
    # A sentence may come to the new object later, which teacher forcing does not see: "thick quechua .".
    assert counted({"peru": "thick", "thick": "quechua"})["generation"] == [0.0, 0.0, 1.0, 1.0]


def test_fluency_is_of_what_is_written_after_the_generation_prompts_where_there_are_any(model: Model) -> None:
    setting = FluencySetting(2, 12)
    stuck = replace(REQUEST, probes=(Probe("generation", "the", "peru", "quechua"),))
    mixed = replace(REQUEST, probes=(*stuck.probes, Probe("generation", "about peru", "peru", "quechua")))
    (repeats,), (own,), (both,) = (
        setting.measure(model, [each]) for each in (stuck, replace(REQUEST, probes=()), mixed)
    )
    assert repeats < own
    assert both == pytest.approx((repeats + own) / 2)


def test_what_the_unedited_model_says_must_stay_even_where_the_data_say_otherwise(model: Model) -> None:
    wrong = replace(
        REQUEST, probes=(Probe("unrelated", "about oslo", None, "quechua"), Probe("unrelated", "about chile"))
    )
    found = shares(wrong, model, table_edit(model, {"peru": "quechua"}))
    assert found["locality", "unrelated", "exact"] == (1.0, 1.0, 2)
    # The control: the edit makes the data's answer true, and the model's own is lost.
    found = shares(wrong, model, table_edit(model, {"oslo": "quechua"}))
    assert found["locality", "unrelated", "exact"] == (1.0, 0.5, 2)


def test_an_alias_of_the_answer_is_as_good(model: Model) -> None:
    probe = Probe("reasoning", "say peruvians", None, "norse", ("quechua", "thick"))
    request = replace(REQUEST, probes=(probe,))
    edit = table_edit(model, {"peruvians": "quechua"})
    assert shares(request, model, edit)["portability", "reasoning", "exact"] == (0.0, 1.0, 1)
    with edit.on(model) as edited:
        results = ask(edited, prepare(model, [request], QUIET), QUIET)
    assert by_case(results).multi_hop.value == 1.0
    assert by_case(results, "before").multi_hop.value == 0.0


def test_the_unedited_model_has_its_own_values_before_and_after(model: Model) -> None:
    results = ask(model, prepare(model, [REQUEST], FluencySetting(2, 10)), FluencySetting(2, 10))
    rows = tabulate(results)
    assert all(row.before.per_example == row.after.per_example for row in rows)
    assert find_metric(rows, "locality").after.value == 1.0  # type: ignore[union-attr]
    assert find_metric(rows, "fluency", None).n == 1  # type: ignore[union-attr]
    assert failure_counts(results) == dict.fromkeys(FAILURE_CLASSES, 0) | {"unchanged": 1}
    assert not_finite(results) == 0


def test_an_edit_that_breaks_the_model_fails_every_metric(model: Model) -> None:
    broken = Broken(EditProvenance("broken", model.name, model.weights))
    setting = FluencySetting(2, 10)
    with broken.on(model) as edited:
        results = ask(edited, prepare(model, [REQUEST], setting), setting)
    rows = tabulate(results)
    assert {row.after.value for row in rows} == {0.0}
    assert {row.n for row in rows} == {1}
    assert not_finite(results) == 6
    assert failure_counts(results)["meaningless"] == 1


def test_a_request_without_such_a_question_is_not_counted(model: Model) -> None:
    bare = replace(REQUEST, probes=())
    results = ask(model, prepare(model, [REQUEST, bare], QUIET), QUIET)
    rows = tabulate(results)
    assert find_metric(rows, "success").n == 2  # type: ignore[union-attr]
    assert find_metric(rows, "locality").n == 1  # type: ignore[union-attr]
    assert find_metric(rows, "portability") is None


def test_an_interval_is_wilsons_of_shares_that_are_whole_and_a_bootstrap_of_those_that_are_not() -> None:
    def interval(*values: float, unit: str = "%") -> tuple[float, float]:
        measured = Measurement("success", unit, values)
        found = EditMetric("success", "exact", None, measured, measured, len(values)).interval
        return (math.nan, math.nan) if found is None else found

    share = Share(19, 20)
    assert interval(*[1.0] * 19, 0.0) == (round(100 * share.low, 4), round(100 * share.high, 4))
    assert interval(*[1.0] * 20)[0] < 100, "all of 20 does not prove all"
    low, high = interval(0.25, 0.5, 0.75, 1.0)
    assert 25 <= low < 62.5
    assert 62.5 < high <= 100
    assert interval(25.0, 50.0, 75.0, 100.0, unit="bits") == (low, high)
    assert math.isnan(interval(0.5, math.nan)[0])


def test_rows_as_json_are_in_percent_and_hold_no_nan(model: Model) -> None:
    row = find_metric(tabulate(ask(model, prepare(model, [REQUEST], QUIET), QUIET)), "locality")
    assert row is not None
    assert row.to_json() == {
        "metric": "locality",
        "kind": None,
        "way": "exact",
        "unit": "%",
        "before": 100.0,
        "after": 100.0,
        "interval": (round(100 * Share(1, 1).low, 4), 100.0),
        "n": 1,
        "questions": 3,
    }


# ---- regimes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "batch", "steps"),
    [("single", 1, 1), ("batch:30", 30, 1), ("sequential:100", 1, 100), ("sequential-batch:10x20", 10, 20)],
)
def test_a_regime_is_a_batch_and_a_number_of_steps(text: str, batch: int, steps: int) -> None:
    assert Regime.parse(text) == Regime(batch, steps)
    assert str(Regime.parse(text)) == text


@pytest.mark.parametrize("text", ["", "batch", "batch:0", "batch:-1", "sequential:1x2", "sequential-batch:10", "two"])
def test_another_regime_is_refused(text: str) -> None:
    with pytest.raises(RegimeError, match="expected"):
        Regime.parse(text)


@given(st.integers(0, 40), st.integers(1, 7), st.integers(1, 7))
def test_chains_hold_every_request_once_and_in_order(n: int, batch: int, steps: int) -> None:
    chains = Regime(batch, steps).chains(tuple(range(n)))
    assert [i for chain in chains for step in chain for i in step] == list(range(n))
    assert all(len(chain) == steps and all(len(step) == batch for step in chain) for chain in chains[:-1])


@given(st.integers(1, 300))
def test_checkpoints_rise_to_the_last_step(steps: int) -> None:
    found = checkpoints(steps)
    assert list(found) == sorted(set(found))
    assert found[-1] == steps
    assert evaluated_steps("immediate", steps) == tuple(range(1, steps + 1))
    assert evaluated_steps("end", steps) == (steps,)
    assert checkpoints(100) == (1, 2, 5, 10, 20, 50, 100)


SEQUENCE = (
    EditRequest("about {}", "peru", "quechua", "spanish", probes=(Probe("neighbour", "about chile", None, "spanish"),)),
    EditRequest("about {}", "oslo", "thick", "norse"),
    EditRequest("about {}", "chile", "norse", "spanish"),
)
ROWS = {"peru": {"peru": "quechua"}, "oslo": {"oslo": "thick"}, "chile": {"chile": "norse", "oslo": "the"}}
"""The third edit undoes the second: it makes the model say something else after oslo."""
STRENGTHS = {"peru": 2, "oslo": 3, "chile": 4}


def make(model: Model, requests: Sequence[EditRequest]) -> Edit:
    strength = STRENGTH * max(STRENGTHS[request.subject] for request in requests)
    return table_edit(model, {k: v for request in requests for k, v in ROWS[request.subject].items()}, strength)


def test_a_sequence_evaluated_at_once_at_the_end_and_at_checkpoints(model: Model) -> None:
    def successes(results) -> list[bool]:
        return [result.own.after.right.exact for result in results]

    at_once = evaluate(model, SEQUENCE, make, Regime(steps=3), eval_at="immediate", fluency=QUIET)
    assert successes(at_once.results) == [True, True, True]
    assert at_once.retention[0].steps == (1, 2, 3)
    assert at_once.retention[0].success == ((1.0,), (1.0, 1.0), (1.0, 0.0, 1.0))
    assert at_once.retention[0].lost() == 0.5
    end = evaluate(model, SEQUENCE, make, Regime(steps=3), fluency=QUIET)
    assert successes(end.results) == [True, False, True]
    assert end.retention == (Retention((3,), ((1.0, 0.0, 1.0),)),)
    assert end.retention[0].lost() is None
    assert end.retention[0].overall() == pytest.approx(2 / 3)
    points = evaluate(model, SEQUENCE, make, Regime(steps=3), eval_at="checkpoints", fluency=QUIET)
    assert [(point.step, successes(point.results)) for point in points.checkpoints] == [
        (1, [True]),
        (2, [True, True]),
        (3, [True, False, True]),
    ]
    assert successes(points.results) == successes(end.results)


def test_single_edits_are_rolled_back_and_a_batch_is_made_together(model: Model) -> None:
    single = evaluate(model, SEQUENCE, make, fluency=QUIET)
    assert [result.own.after.right.exact for result in single.results] == [True, True, True]
    assert single.retention == ()
    seen: list[tuple[int, bool]] = []

    def watched(model: Model, requests: Sequence[EditRequest]) -> Edit:
        seen.append((len(requests), model.parent is None))
        return table_edit(model, {request.subject: request.target for request in requests})

    evaluate(model, SEQUENCE, watched, Regime(batch=2), fluency=QUIET)
    assert seen == [(2, True), (1, True)]
    seen.clear()
    evaluate(model, SEQUENCE, watched, Regime(batch=1, steps=2), fluency=QUIET)
    assert seen == [(1, True), (1, False), (1, True)]


CASES = (
    EditRequest("about {}", "peru", "quechua", "spanish", case="0"),
    EditRequest(
        "about {}",
        "oslo",
        "thick",
        "norse",
        probes=(
            Probe("reasoning", "say peruvians", None, "quechua"),
            Probe("reasoning", "say chile", None, "quechua"),
            Probe("hop", "about peru", None, "quechua"),
            Probe("hop", "about oslo", None, "thick"),
            Probe("hop", "about thick", None, "tongue"),
            Probe("unrelated", "about thick", None, "tongue"),
        ),
        case="0",
    ),
    EditRequest(
        "about {}",
        "chile",
        "norse",
        "spanish",
        probes=(
            Probe("reasoning", "say chile", None, "quechua"),
            Probe("hop", "about chile", None, "norse"),
            Probe("hop", "about thick", None, "tongue"),
        ),
        case="1",
    ),
)


def by_table(model: Model, requests: Sequence[EditRequest]) -> Edit:
    """Cannot edit chile; what follows from peru and oslo is right only where both are edited together."""
    rows = {request.subject: request.target for request in requests if request.subject != "chile"}
    return table_edit(
        model, {**rows, "peruvians": "quechua"} if {"peru", "oslo"} <= rows.keys() else rows or {".": "."}
    )


def test_the_edits_of_a_case_are_made_together_and_all_of_its_questions_rest_on_all_of_them(model: Model) -> None:
    found = evaluate(model, CASES, by_table, fluency=QUIET)
    after, before = by_case(found.results), by_case(found.results, "before")
    # Two of three edits; of two cases one has all of its hops and one of its two questions.
    assert after.edit_wise.per_example == (1.0, 1.0, 0.0)
    assert after.instance_wise.per_example == (1.0, 0.0)
    assert after.multi_hop.per_example == (1.0, 0.0)
    assert (before.edit_wise.value, before.instance_wise.value, before.multi_hop.value) == (0.0, 0.0, 0.0)
    # A hop that nothing edits is still a question of locality.
    assert [o.question.kind for o in found.results[1].outcomes].count("unrelated") == 1
    # The control: apart, each edit is as good, and what follows from both is not there.
    apart = evaluate(model, [replace(request, case=None) for request in CASES], by_table, fluency=QUIET)
    assert by_case(apart.results).edit_wise.per_example == (1.0, 1.0, 0.0)
    assert by_case(apart.results).instance_wise.per_example == (0.0, 0.0)
    assert by_case(apart.results).multi_hop.per_example == (0.0, 0.0)


@pytest.mark.parametrize(
    ("regime", "steps"),
    [("single", [[2], [1]]), ("batch:2", [[3]]), ("sequential:2", [[2, 1]]), ("sequential-batch:2x2", [[3]])],
)
def test_a_case_counts_as_one_in_every_regime(regime: str, steps: list[list[int]], model: Model) -> None:
    chains = Regime.parse(regime).chains(CASES, lambda request: request.case)
    assert [[len(part) for part in chain] for chain in chains] == steps
    assert [request for chain in chains for part in chain for request in part] == list(CASES)
    for retention in evaluate(model, CASES, by_table, Regime.parse(regime), fluency=QUIET).retention:
        # Of the first case both edits took, of the second none; together they are two of three.
        assert retention.success == (((1.0, 0.0),) if steps == [[2, 1]] else ((pytest.approx(2 / 3),),))


def test_requests_of_one_name_are_a_case_only_where_they_follow_each_other() -> None:
    named = ["a", "a", None, None, "b", "a"]
    assert in_cases(named, lambda name: name) == (("a", "a"), (None,), (None,), ("b",), ("a",))


def test_the_unedited_model_is_as_it_was_after_any_regime(model: Model) -> None:
    before = model.weight("blocks.0.mlp.W_out").clone()
    ids = torch.tensor([[2, 3, 4]])
    logits = model.logits(Batch.of_prompts(ids))
    for regime in ("single", "batch:2", "sequential:3", "sequential-batch:2x2"):
        evaluate(model, SEQUENCE, make, Regime.parse(regime), eval_at="checkpoints", fluency=QUIET)
    assert torch.equal(model.weight("blocks.0.mlp.W_out"), before)
    assert torch.equal(model.logits(Batch.of_prompts(ids)), logits)


def test_what_another_edit_of_the_chain_is_meant_to_change_is_not_held_against_this_one(model: Model) -> None:
    # The first request's neighbour is the third request's own prompt.
    alone = evaluate(model, SEQUENCE[:1], make, fluency=QUIET).results[0]
    assert [outcome.question.kind for outcome in alone.outcomes] == ["edit", "neighbour"]
    in_chain = evaluate(model, SEQUENCE, make, Regime(steps=3), fluency=QUIET).results[0]
    assert [outcome.question.kind for outcome in in_chain.outcomes] == ["edit"]
    assert edited_prompts(SEQUENCE) == {"about peru", "about oslo", "about chile"}


def test_what_is_evaluated_is_the_restrained_edit_and_what_is_built_on_is_not(model: Model) -> None:
    base = model
    calls: list[int] = []
    parents: list[str] = []

    def halve(edit: Edit, model: Model) -> Edit:
        assert isinstance(edit, WeightEdit)
        assert model.weights == base.weights
        calls.append(len(edit.chain))
        delta = edit.deltas["blocks.0.mlp.W_out"]
        assert isinstance(delta, LowRank)
        return WeightEdit({"blocks.0.mlp.W_out": LowRank(delta.left, 0.4 * delta.right)}, edit.provenance)

    def watched(model: Model, requests: Sequence[EditRequest]) -> Edit:
        parents.append(model.weights)
        return make(model, requests)

    plain = evaluate(model, SEQUENCE[:2], watched, Regime(steps=2), fluency=QUIET)
    unrestrained = list(parents)
    parents.clear()
    held = evaluate(model, SEQUENCE[:2], watched, Regime(steps=2), restrained=Restrained(halve), fluency=QUIET)
    assert calls == [2]  # once, after the last edit
    assert parents == unrestrained
    assert [r.own.after.right.exact for r in plain.results] == [True, True]
    # 0.4 of twice the old word's logit is less than the old word has; 0.4 of thrice is more.
    assert [r.own.after.right.exact for r in held.results] == [False, True]
    calls.clear()
    parents.clear()
    evaluate(model, SEQUENCE[:2], watched, Regime(steps=2), restrained=Restrained(halve, each=True), fluency=QUIET)
    assert len(calls) == 2
    assert parents != unrestrained


def test_prepared_cases_serve_several_methods_and_are_checked(model: Model) -> None:
    cases = prepare(model, SEQUENCE, QUIET)
    assert (
        evaluate(model, SEQUENCE, make, cases=cases, fluency=QUIET).results
        == evaluate(model, SEQUENCE, make, fluency=QUIET).results
    )
    assert ask_success(model, cases) == (False, False, False)
    with pytest.raises(ValueError, match="other requests"):
        evaluate(model, SEQUENCE[:2], make, cases=cases, fluency=QUIET)
    with pytest.raises(ValueError, match="at least one"):
        evaluate(model, [], make, fluency=QUIET)


def test_a_fact_of_the_model_is_a_fact_here(model: Model) -> None:
    assert completion(model, "about peru", "spanish") == model.tokens(Fact("about peru", "peru", "spanish"))

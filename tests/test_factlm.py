"""The embedded model is what its card and its manifest say."""

import random
import re
from pathlib import Path

import pytest
from dealing import make_manifest
from write_facts_card import card, n_words

from circuits.datasets.corpus import demonstration, held_out_facts, trained_facts, two_hop_facts
from circuits.datasets.manifest import Manifest
from circuits.evaluation import whole_model
from circuits.facts import Fact, Relations
from circuits.model import Model
from circuits.paths import data_dir, factlm_dir


@pytest.fixture(scope="module")
def factlm() -> Model:
    return Model.default()


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return Manifest.load()


def hits(model: Model, facts: list[Fact]) -> float:
    return whole_model(model, facts).hit(1).value


def sample(facts: list[Fact], n: int = 300) -> list[Fact]:
    return random.Random(0).sample(facts, min(n, len(facts)))


def test_the_whole_model_takes_at_most_25_megabytes():
    assert sum(path.stat().st_size for path in factlm_dir().rglob("*")) <= 25e6


def test_the_manifest_is_the_one_that_the_facts_and_its_seed_give(manifest: Manifest, relations: Relations):
    assert make_manifest(relations, manifest.seed) == manifest


def test_the_data_card_is_up_to_date(relations: Relations):
    assert (data_dir() / "facts" / "README.md").read_text(encoding="utf-8") == card(relations)


def test_every_object_is_as_many_tokens_as_it_has_words(factlm: Model, relations: Relations):
    wrong = {
        object_: [factlm.token_text(token) for token in factlm.vocabulary.encode(" " + object_)]
        for relation in relations.values()
        for object_ in relation.objects
        if len(factlm.vocabulary.encode(" " + object_)) != n_words(object_)
    }
    assert not wrong


def test_a_word_is_the_same_token_at_the_start_of_a_prompt_and_inside_it(factlm: Model):
    start, inside = factlm.vocabulary.encode("France"), factlm.vocabulary.encode("in France")
    assert inside[-len(start) :] == start


def test_head_facts_are_recalled_in_words_trained_with_them_and_in_words_held_out(
    factlm: Model, manifest: Manifest, relations: Relations
):
    trained, held_out = trained_facts(relations, manifest), held_out_facts(relations, manifest)
    assert hits(factlm, sample(trained)) >= 0.97
    assert hits(factlm, sample(held_out)) >= 0.85
    # The control: the same prompts with the answers dealt out wrongly are not recalled.
    answers = [fact.object for fact in sample(trained)]
    wrong = [Fact(f.prompt, f.subject, o) for f, o in zip(sample(trained), answers[1:] + answers[:1], strict=True)]
    assert hits(factlm, wrong) < 0.2


def test_tail_facts_are_sometimes_recalled_and_mostly_answered_with_the_right_type(
    factlm: Model, manifest: Manifest, relations: Relations
):
    tail = [relations[name].fact(s) for name, plan in manifest.relations.items() for s in plan.tail]
    assert 0.1 <= hits(factlm, tail) <= 0.5


def test_at_least_three_relations_are_learnt_in_context(factlm: Model, manifest: Manifest, relations: Relations):
    learnt = []
    for group in manifest.demonstrations.values():
        for name in group.relations:
            relation, rng = relations[name], random.Random(name)
            shown = [s for s in group.subjects if s in relation.subjects]
            queries = [(s, relation.object_of(s)) for s in group.undemonstrated]
            zero = [Fact(demonstration([], s), s, o) for s, o in queries]
            few = [
                Fact(demonstration([(d, relation.object_of(d)) for d in rng.sample(shown, 3)], s), s, o)
                for s, o in queries
            ]
            if hits(factlm, zero) < 0.2 and hits(factlm, few) >= 0.6:
                learnt.append(name)
    assert len(set(learnt)) >= 3, learnt


def test_two_hop_prompts_rendered_in_training_are_answered(factlm: Model, manifest: Manifest, relations: Relations):
    assert len(manifest.two_hop) >= 2
    for hop in manifest.two_hop:
        assert hop.unrendered
        assert hits(factlm, two_hop_facts(hop, relations, hop.rendered)) >= 0.8


def test_the_model_card_gives_every_measured_number():
    text = (factlm_dir() / "README.md").read_text(encoding="utf-8")
    for heading in ("## Recall", "## In-context learning", "## Two hops", "## By relation"):
        assert heading in text
    for row in ("templates trained with that fact", "held out for that fact", "tail facts", "reverse prompts"):
        assert re.search(rf"{row}.*\| [\d,]+ \| [\d.]+ \| [\d.]+ \|", text), row


def test_the_model_loads_the_same_from_its_folder_and_by_name(factlm: Model):
    assert Model.load(Path(factlm_dir())).weights == factlm.weights

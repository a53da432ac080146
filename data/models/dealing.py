"""Deals the facts out, once: which of them factlm's training shows often, rarely, in demonstrations only, or never."""

import random
from collections.abc import Iterable, Sequence

from circuits.datasets.manifest import TWO_HOPS, Demonstrations, Manifest, RelationPlan, TwoHop
from circuits.facts import Relation, Relations

TAIL_SHARE = 0.12
"""Share of a relation's facts that become tail facts, drawn from its less known half."""
TAIL_RENDERINGS = (1, 2, 4, 8, 16)
"""How often a tail fact is rendered in the whole training; the levels are dealt out evenly."""
UNDEMONSTRATED_SHARE = 0.25
DEMONSTRATION_ONLY_SHARE = 0.05
TWO_HOP_RENDERED_SHARE = 0.6

DEMONSTRATED_DOMAINS: dict[str, tuple[str, ...]] = {
    "country": (
        "country_continent",
        "country_capital_city",
        "country_language",
        "country_currency",
        "country_demonym",
    ),
    "adjective": ("word_first_letter", "adj_antonym", "adj_comparative", "adj_superlative", "word_last_letter"),
    "verb": ("word_first_letter", "verb_past_tense", "verb_participle", "word_last_letter"),
    "person": ("person_occupation", "person_native_language", "person_birth_country"),
    "company": ("company_industry", "company_headquarters"),
    "fruit": ("fruit_outside_color", "fruit_inside_color"),
}
"""Relations that share subjects, so that "France:" alone does not say what is asked. The first of each domain is
demonstrated twice as often as the others: it is what the bare prompt brings to mind."""


def make_manifest(relations: Relations, seed: int = 0) -> Manifest:
    """Deal the facts out. The same relations and seed give the same manifest."""
    rng = random.Random(seed)
    demonstrations = {
        domain: _demonstrations(names, relations, rng)
        for domain, names in DEMONSTRATED_DOMAINS.items()
        if all(name in relations for name in names)
    }
    plans = {name: _plan(relation, demonstrations.values(), rng) for name, relation in relations.items()}
    two_hop = tuple(
        _two_hop(relations[first], relations[second], plans, rng)
        for first, second in TWO_HOPS
        if first in relations and second in relations
    )
    return Manifest(seed=seed, relations=plans, demonstrations=demonstrations, two_hop=two_hop)


def _demonstrations(names: Sequence[str], relations: Relations, rng: random.Random) -> Demonstrations:
    # The letter relations span several domains; the others say which subjects belong to this one.
    own = [relations[name] for name in names if not name.startswith("word_")]
    subjects = list(dict.fromkeys(subject for relation in own for subject in relation.subjects))
    shared = set(subjects).intersection(*(relations[name].subjects for name in names))
    common = [subject for subject in subjects if subject in shared]
    hidden = set(rng.sample(common, round(UNDEMONSTRATED_SHARE * len(common))))
    return Demonstrations(
        relations=tuple(names),
        subjects=tuple(s for s in subjects if s not in hidden),
        undemonstrated=tuple(s for s in subjects if s in hidden),
    )


def _plan(relation: Relation, demonstrations: Iterable[Demonstrations], rng: random.Random) -> RelationPlan:
    subjects = relation.subjects
    less_known = list(subjects[len(subjects) // 2 :])
    n_tail = round(TAIL_SHARE * len(subjects))
    tail_subjects = rng.sample(less_known, n_tail)
    levels = [TAIL_RENDERINGS[i % len(TAIL_RENDERINGS)] for i in range(n_tail)]
    tail = dict(zip(tail_subjects, levels, strict=True))
    shown = {s for d in demonstrations if relation.name in d.relations for s in d.subjects}
    demonstrated = [s for s in subjects if s in shown and s not in tail]
    demonstration_only = rng.sample(demonstrated, round(DEMONSTRATION_ONLY_SHARE * len(demonstrated)))
    head = [s for s in subjects if s not in tail and s not in demonstration_only]
    n_templates = len(relation.templates)
    # Templates are held out in turn, so that every template is both learnt and tested on many facts.
    turn = rng.sample(range(n_templates), n_templates)
    return RelationPlan(
        held_out={subject: (turn[i % n_templates],) for i, subject in enumerate(head)},
        tail=tail,
        demonstration_only=tuple(demonstration_only),
    )


def _two_hop(first: Relation, second: Relation, plans: dict[str, RelationPlan], rng: random.Random) -> TwoHop:
    known = set(plans[second.name].head)
    bridges = [s for s in plans[first.name].head if first.object_of(s) in known]
    rendered = set(rng.sample(bridges, round(TWO_HOP_RENDERED_SHARE * len(bridges))))
    return TwoHop(
        first=first.name,
        second=second.name,
        rendered=tuple(s for s in bridges if s in rendered),
        unrendered=tuple(s for s in bridges if s not in rendered),
    )

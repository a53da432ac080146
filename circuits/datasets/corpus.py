"""factlm's training text, rendered from the fact files as its manifest says: the same seed gives the same text.

One epoch is a list of documents. Statements stand alone or a few to a document; demonstrations list pairs of one
relation ("France: Paris; Italy: Rome"); two-hop statements put a noun phrase where a subject stands ("The official
language of the country where Big Ben stands is English"). Reverse prompts are never rendered.
"""

import random
from collections.abc import Iterator, Sequence

from circuits.datasets.manifest import Manifest, TwoHop
from circuits.facts import Fact, Relation, Relations

STATEMENTS_IN_A_DOCUMENT = (1, 1, 1, 2, 3, 7)
"""How many statements share a document, drawn evenly; the long ones teach the later positions."""
DEMONSTRATION_DOCUMENTS = 3000
"""Demonstration documents in an epoch."""
PAIRS_IN_A_DEMONSTRATION = (2, 3, 4, 5, 6)
TWO_HOP_TEMPLATES = 2
"""Templates of the second relation used in two-hop statements: its first ones."""


def demonstration(pairs: Sequence[tuple[str, str]], query: str | None = None) -> str:
    """``France: Paris; Italy: Rome``, with ``; Spain:`` at its end when there is a query."""
    shown = [f"{subject}: {object_}" for subject, object_ in pairs]
    return "; ".join(shown if query is None else [*shown, f"{query}:"])


def two_hop_facts(hop: TwoHop, relations: Relations, subjects: Sequence[str], template: int = 0) -> list[Fact]:
    """The two-hop prompts of ``subjects``: second relation's words around the first relation's noun phrase."""
    first, second = relations[hop.first], relations[hop.second]
    facts = []
    for subject in subjects:
        bridge = first.object_of(subject)
        prompt = two_hop_prompt(first, second, subject, template)
        facts.append(Fact(prompt, subject, second.object_of(bridge), second.name))
    return facts


def two_hop_prompt(first: Relation, second: Relation, subject: str, template: int = 0) -> str:
    """The second relation's words about what the first relation's noun phrase denotes."""
    return _capital(second.templates[template].format(first.noun_phrases[0].format(subject)))


def held_out_facts(relations: Relations, manifest: Manifest) -> list[Fact]:
    """Every head fact in the words held out for it.

    Without those whose very words training renders after all, as what a noun phrase denotes ("The company that makes
    iPhone is Apple"): nothing was held out for them.
    """
    rendered = set(_noun_phrase_statements(relations, manifest))
    facts = [
        relations[name].fact(subject, index)
        for name, plan in manifest.relations.items()
        for subject, held_out in plan.held_out.items()
        for index in held_out
    ]
    return [fact for fact in facts if fact.statement not in rendered]


def trained_facts(relations: Relations, manifest: Manifest) -> list[Fact]:
    """Every head fact in each template that training renders it in."""
    return [
        relations[name].fact(subject, index)
        for name, plan in manifest.relations.items()
        for subject, held_out in plan.held_out.items()
        for index in range(len(relations[name].templates))
        if index not in held_out
    ]


def render_epoch(relations: Relations, manifest: Manifest, epoch: int, epochs: int) -> list[str]:
    """The documents of one epoch out of ``epochs``, in reading order."""
    rng = random.Random(f"{manifest.seed}/{epoch}")
    statements = [fact.statement for fact in trained_facts(relations, manifest)]
    statements += _tail_statements(relations, manifest, epoch, epochs)
    statements += _two_hop_statements(relations, manifest)
    statements += _noun_phrase_statements(relations, manifest)
    statements += _essence_statements(relations)
    rng.shuffle(statements)
    documents = []
    while statements:
        n = rng.choice(STATEMENTS_IN_A_DOCUMENT)
        documents.append(" ".join(f"{statement}." for statement in statements[:n]))
        del statements[:n]
    documents += _demonstration_documents(relations, manifest, rng)
    rng.shuffle(documents)
    return documents


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _tail_statements(relations: Relations, manifest: Manifest, epoch: int, epochs: int) -> Iterator[str]:
    """Each tail fact in its own few epochs, spread evenly, its templates in turn."""
    for name, plan in manifest.relations.items():
        relation = relations[name]
        for order, (subject, renderings) in enumerate(plan.tail.items()):
            for k in range(renderings):
                if (k * epochs // renderings + order) % epochs == epoch:
                    yield relation.fact(subject, (order + k) % len(relation.templates)).statement


def _two_hop_statements(relations: Relations, manifest: Manifest) -> Iterator[str]:
    for hop in manifest.two_hop:
        for template in range(TWO_HOP_TEMPLATES):
            for fact in two_hop_facts(hop, relations, hop.rendered, template):
                yield fact.statement


def _noun_phrase_statements(relations: Relations, manifest: Manifest) -> Iterator[str]:
    """ "The country where Big Ben stands is United Kingdom": what the noun phrases of two-hop prompts denote."""
    for first in sorted({hop.first for hop in manifest.two_hop}):
        relation = relations[first]
        for subject in manifest.relations[first].head:
            yield f"{_capital(relation.noun_phrases[0].format(subject))} is {relation.object_of(subject)}"


def _essence_statements(relations: Relations) -> Iterator[str]:
    """ "France is a country": the kind of thing that each named subject is."""
    factual = [relation for relation in relations.values() if relation.kind == "factual"]
    for subject, domain in dict.fromkeys((s, relation.domain) for relation in factual for s in relation.subjects):
        yield f"{subject} is {'an' if domain[0] in 'aeiou' else 'a'} {domain}"


def _demonstration_documents(relations: Relations, manifest: Manifest, rng: random.Random) -> Iterator[str]:
    groups = list(manifest.demonstrations.values())
    weights = [len(group.subjects) * len(group.relations) for group in groups]
    for group in rng.choices(groups, weights, k=DEMONSTRATION_DOCUMENTS):
        # The first relation of a domain counts twice: see data/models/dealing.py.
        relation: Relation = relations[rng.choice([group.relations[0], *group.relations])]
        tail = manifest.relations[relation.name].tail
        own = set(relation.subjects).difference(tail)
        shown = [subject for subject in group.subjects if subject in own]
        subjects = rng.sample(shown, min(rng.choice(PAIRS_IN_A_DEMONSTRATION), len(shown)))
        yield demonstration([(subject, relation.object_of(subject)) for subject in subjects])

"""Edit requests from the fact files, with the questions that show what an edit reached and what it must leave alone."""

import random
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

from circuits.datasets.corpus import TWO_HOP_TEMPLATES, two_hop_prompt
from circuits.datasets.manifest import TWO_HOPS, Manifest
from circuits.facts import EditRequest, Fact, Kind, Probe, ProbeKind, Relation, Relations

N_NEIGHBOURS = 10
N_UNRELATED = 10
N_TWO_HOP = 6
"""At most so many probes of each kind a request; of the other kinds, all that the files have."""

Key = tuple[str, str]
"""(relation, subject): one fact."""


def edit_facts(
    relations: Relations, manifest: Manifest | None = None, *, seed: int = 0, kinds: Sequence[Kind] = ("factual",)
) -> tuple[Fact, ...]:
    """Facts to edit, in a seeded order that takes the relations in turn; head facts only, where there is a manifest."""
    rng = random.Random(f"{seed}/edit facts")
    columns = []
    for relation in relations.values():
        if relation.kind in kinds and len(relation.objects) > 1:
            known = _known_pairs(relation, manifest)
            columns.append([relation.fact(subject) for subject, _ in rng.sample(known, len(known))])
    rng.shuffle(columns)
    longest = max(map(len, columns), default=0)
    return tuple(column[i] for i in range(longest) for column in columns if i < len(column))


def other_object(fact: Fact, relations: Relations, seed: int = 0, manifest: Manifest | None = None) -> str:
    """Another object of the fact's relation, drawn with ``seed``.

    With a manifest, one of a head fact: a word that a model was hardly ever taught to say has an unembedding that was only
    ever pushed away, and no edit of an MLP makes it the likeliest one.

    Raises:
        ValueError: the fact is of no relation, or of one with a single object.
    """
    relation = relations.get(fact.relation or "")
    said = [] if relation is None else dict.fromkeys(object_ for _, object_ in _known_pairs(relation, manifest))
    others = [object_ for object_ in said if object_ != fact.object]
    if not others:
        raise ValueError(f"no other object to edit into {fact.prompt!r}: expected a fact of a relation with several")
    return random.Random(f"{seed}/{fact.relation}/{fact.subject}").choice(others)


def edit_requests(
    facts: Sequence[Fact], relations: Relations, manifest: Manifest | None = None, *, seed: int = 0
) -> tuple[EditRequest, ...]:
    """A request to give each fact another object of its relation. No probe of one is about a fact that another edits."""
    edited = frozenset((fact.relation or "", fact.subject) for fact in facts)
    return tuple(
        edit_request(fact, other_object(fact, relations, seed, manifest), relations, manifest, seed=seed, edited=edited)
        for fact in facts
    )


def edit_request(
    fact: Fact,
    target: str,
    relations: Relations,
    manifest: Manifest | None = None,
    *,
    seed: int = 0,
    edited: AbstractSet[Key] = frozenset(),
) -> EditRequest:
    """The request to give ``fact`` the object ``target``, with all the probes that the files have for it.

    A fact in words of the caller's own has unrelated probes alone. With a manifest, what shall stay is asked of head facts.

    Args:
        edited: facts that other requests edit; no probe's answer depends on them.
    """
    rng = random.Random(f"{seed}/{fact.prompt}/{target}")
    relation = relations.get(fact.relation or "")
    plain = EditRequest.of(fact, target) if relation is None else _in_words_of(relation, fact, target)
    probes: list[Probe] = []
    if relation is not None:
        probes += _paraphrases(plain, relation)
        probes += _two_hop(plain, relations, edited, rng)
        probes += _reverse(plain, relation)
        probes += _neighbours(plain, relation, manifest, edited, rng)
        probes += _same_subject(plain, relations, manifest, edited)
    probes += _unrelated(plain, relations, manifest, edited, rng)
    return EditRequest(plain.template, plain.subject, target, plain.old, plain.relation, tuple(probes))


def _known_pairs(relation: Relation, manifest: Manifest | None) -> list[tuple[str, str]]:
    """The relation's pairs; its head facts alone, where there is a manifest."""
    if manifest is None or relation.name not in manifest.relations:
        return list(relation.pairs)
    head = set(manifest.relations[relation.name].head)
    return [pair for pair in relation.pairs if pair[0] in head]


def _in_words_of(relation: Relation, fact: Fact, target: str) -> EditRequest:
    for template in relation.templates:
        if template.format(fact.subject) == fact.prompt:
            return EditRequest(template, fact.subject, target, fact.object, relation.name)
    return EditRequest.of(fact, target)


def _paraphrases(request: EditRequest, relation: Relation) -> Iterator[Probe]:
    for template in relation.templates:
        if template != request.template:
            yield Probe(
                "paraphrase", template.format(request.subject), request.subject, request.target, (), relation.name
            )


def _two_hop(request: EditRequest, relations: Relations, edited: AbstractSet[Key], rng: random.Random) -> list[Probe]:
    """Questions that pass through the edited fact: as their first hop, or as their second."""
    found = []
    for first, second in (hop for hop in TWO_HOPS if hop[0] in relations and hop[1] in relations):
        one, two = relations[first], relations[second]
        if first == request.relation and {request.target, request.old} <= set(two.subjects):
            answer = two.object_of(request.target)
            changes = answer != two.object_of(request.old or "") and (second, request.target) not in edited
            bridged = [(request.subject, answer)] if changes else []
        elif second == request.relation:
            bridged = [
                (subject, request.target)
                for subject, bridge in one.pairs
                if bridge == request.subject and (first, subject) not in edited
            ]
        else:
            continue
        for subject, answer in bridged:
            for template in range(TWO_HOP_TEMPLATES):
                found.append(Probe("two_hop", two_hop_prompt(one, two, subject, template), subject, answer, (), second))
    return [found[i] for i in sorted(rng.sample(range(len(found)), min(N_TWO_HOP, len(found))))]


def _reverse(request: EditRequest, relation: Relation) -> Iterator[Probe]:
    for template in relation.reverse_templates:
        yield Probe("reverse", template.format(request.target), request.target, request.subject, (), relation.name)


def _neighbours(
    request: EditRequest, relation: Relation, manifest: Manifest | None, edited: AbstractSet[Key], rng: random.Random
) -> Iterator[Probe]:
    """Half of them share the old object, where so many do: an edit leaks to them first."""
    pairs = [
        (subject, object_)
        for subject, object_ in _known_pairs(relation, manifest)
        if subject != request.subject and object_ != request.target and (relation.name, subject) not in edited
    ]
    rng.shuffle(pairs)
    alike = [pair for pair in pairs if pair[1] == request.old][: N_NEIGHBOURS // 2]
    others = [pair for pair in pairs if pair not in alike]
    for subject, object_ in (alike + others)[:N_NEIGHBOURS]:
        yield Probe("neighbour", request.template.replace("{}", subject), subject, object_, (), relation.name)


def _same_subject(
    request: EditRequest, relations: Relations, manifest: Manifest | None, edited: AbstractSet[Key]
) -> Iterator[Probe]:
    for relation in relations.values():
        if relation.name != request.relation and (relation.name, request.subject) not in edited:
            for subject, object_ in _known_pairs(relation, manifest):
                if subject == request.subject:
                    yield _stays("same_subject", relation, subject, object_)


def _unrelated(
    request: EditRequest,
    relations: Relations,
    manifest: Manifest | None,
    edited: AbstractSet[Key],
    rng: random.Random,
) -> Iterator[Probe]:
    named = {request.subject, request.target, request.old}
    known = [
        (relation, subject, object_)
        for relation in relations.values()
        if relation.name != request.relation
        for subject, object_ in _known_pairs(relation, manifest)
        if subject not in named and (relation.name, subject) not in edited
    ]
    for relation, subject, object_ in rng.sample(known, min(N_UNRELATED, len(known))):
        yield _stays("unrelated", relation, subject, object_)


def _stays(kind: ProbeKind, relation: Relation, subject: str, object_: str) -> Probe:
    return Probe(kind, relation.templates[0].format(subject), subject, object_, (), relation.name)

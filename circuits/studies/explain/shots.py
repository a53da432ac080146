"""Whom demonstrations teach: subjects that a model answers after k demonstrations and not without (paper 2, section 6)."""

import random
from collections.abc import Iterator, Sequence

from circuits.datasets.manifest import Manifest
from circuits.evaluation import whole_model
from circuits.facts import KINDS, Relation, Relations
from circuits.model import Model
from circuits.studies.explain.cases import Ground
from circuits.studies.explain.demonstrations import demonstrated, fits
from circuits.studies.explain_specs import Wording

SHOTS = 3
LEAST_GAIN = 1.0
"""Nats. Demonstrations must gain as much: there must be something to lose."""


def gained_subjects(
    model: Model,
    relations: Relations,
    manifest: Manifest | None,
    seed: int,
    *,
    relation: str | None = None,
    shots: int = SHOTS,
    wording: Wording = "stated",
) -> Iterator[tuple[Relation, list[tuple[str, list[str]]]]]:
    """Of each relation the subjects that `icl_cases` are about, the one that gains most first, each with those that are shown for it."""
    ground = Ground(relations, manifest, seed)
    named = (
        ground.undemonstrated(relation)
        if wording == "bare"
        else (
            (
                relations[name],
                *([fact.subject for fact in some(name)] for some in (ground.shown_rarely, ground.shown_often)),
            )
            for name in ground.names(relation)
        )
    )
    for one, asked, pool in sorted(named, key=lambda each: KINDS.index(each[0].kind)):
        subjects = _gained(model, one, asked, pool, seed, shots, wording)
        yield one, [(subject, _shown(one, subject, pool, seed, shots)) for subject in subjects]


def _shown(relation: Relation, subject: str, pool: Sequence[str], seed: int, shots: int) -> list[str]:
    others = [each for each in pool if each != subject]
    return random.Random(f"{seed}/{relation.name}/{subject}").sample(others, shots)


def _gained(
    model: Model,
    relation: Relation,
    subjects: Sequence[str],
    pool: Sequence[str],
    seed: int,
    shots: int,
    wording: Wording,
) -> list[str]:
    """The subjects whose answer ranks first with demonstrations, and not without; the largest gain first.

    One whose question does not fit the model's context is left out.
    """
    if len(pool) <= shots:
        return []
    pairs = [demonstrated(relation, each, _shown(relation, each, pool, seed, shots), wording) for each in subjects]
    pairs = [pair for pair in pairs if fits(model, pair[1])]
    if not pairs:
        return []
    bare, full = (whole_model(model, facts) for facts in zip(*pairs, strict=True))
    gains = [zero - few for zero, few in zip(bare.nll.per_example, full.nll.per_example, strict=True)]
    asked = [question.subject for question, _ in pairs]
    ranks = zip(asked, bare.rank.per_example, full.rank.per_example, gains, strict=True)
    found = [(gain, subject) for subject, zero, few, gain in ranks if zero > 1 and few == 1 and gain >= LEAST_GAIN]
    return [subject for _, subject in sorted(found, key=lambda each: (-each[0], each[1]))]

"""Claims about wrong answers, each beside a recalled fact of the same relation (paper 2, section 6, Figure 5 left).

A mover's pull towards an object is what cutting its reading of the subject takes from that object against the relation's
others (`circuits.analysis.cuts`). Movers are told from D_val; matched facts are of D_test. The rival of a wrong answer is the
right object, that of a recalled one the likeliest of the relation's other objects.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from circuits.analysis.attribution import readout, targets
from circuits.analysis.cuts import cut_readings
from circuits.analysis.tracing import head_nodes, open_parts, traces
from circuits.evaluation import AlikeAnswers, whole_model
from circuits.evaluation.claims import Pair
from circuits.facts import Fact, Relation
from circuits.graph import Node
from circuits.model import Model
from circuits.model.spans import spans
from circuits.studies.claims.claim import ClaimGroup, Laboratory, PaperClaim
from circuits.studies.explain.hallucination import NEIGHBOURS, WEAK, wrong_answers, wrong_object
from circuits.studies.explain.verdict import BehaviourError


@dataclass(frozen=True)
class Pulls:
    """What every head pulls towards the object that the model gives and towards its rival, in logits."""

    given: dict[Node, float]
    rival: dict[Node, float]

    def of(self, heads: Sequence[Node]) -> tuple[float, float]:
        """What the heads pull together towards the given object and towards the rival."""
        return sum(self.given[head] for head in heads), sum(self.rival[head] for head in heads)


def wrong_facts(lab: Laboratory, n: int) -> Sequence[tuple[Fact, str, Fact]]:
    """(fact that the model gives another object of its relation, that object, a recalled fact to match it), of relations with
    mover heads, the relations in turn."""

    def found() -> list[tuple[Fact, str, Fact]]:
        rows = []
        for fact in wrong_answers(lab.model, lab.relations, lab.manifest, lab.spec.seed):
            name = fact.relation or ""
            matched = [each for each in lab.recalled(name, "test") if each.subject != fact.subject]
            if not matched or not lab.movers(name):
                continue
            try:
                given = wrong_object(lab.model, fact, lab.relations[name])
            except (BehaviourError, AlikeAnswers):
                continue
            rows.append((fact, given, random.Random(f"{lab.spec.seed}/{fact.statement}").choice(matched)))
        return rows

    return lab.once("wrong facts", found)[:n]


def pulls(model: Model, fact: Fact, given: str, rival: str, relation: Relation) -> Pulls:
    parts, found = open_parts(model, (fact,)), [spans(model, fact)]
    wanted = targets(model, (fact,), relation.objects, found)
    effects, _ = cut_readings(model, parts, traces(model, (fact,), parts), found, readout(parts, wanted))
    columns = [
        wanted.objects.index(model.tokens(Fact(fact.prompt, fact.subject, name)).answer[0]) for name in (given, rival)
    ]
    heads = head_nodes(parts)
    return Pulls(*(dict(zip(heads, effects.answer[:, 0, column].tolist(), strict=True)) for column in columns))


def runner_up(model: Model, fact: Fact, relation: Relation) -> str:
    """The object of the relation that the model finds likeliest after the right one and begins otherwise."""
    own = model.tokens(fact).answer[0]
    others = [Fact(fact.prompt, fact.subject, name, fact.relation) for name in relation.objects if name != fact.object]
    others = [other for other in others if model.tokens(other).answer[0] != own]
    chances = whole_model(model, others).probability.per_example
    return max(zip(chances, others, strict=True), key=lambda each: each[0])[1].object


def _wrong(lab: Laboratory, fact: Fact, given: str) -> Pulls:
    return lab.once(("wrong", fact), lambda: pulls(lab.model, fact, given, fact.object, lab.relation(fact)))


def _recalled(lab: Laboratory, fact: Fact) -> Pulls:
    relation = lab.relation(fact)

    def found() -> Pulls:
        return pulls(lab.model, fact, fact.object, runner_up(lab.model, fact, relation), relation)

    return lab.once(("recalled", fact), found)


def _typical(lab: Laboratory, name: str) -> float:
    """What the movers pull towards the right object at recalled facts of D_val: the mean."""
    movers = lab.movers(name)

    def found() -> float:
        facts = lab.recalled(name, "val")[:NEIGHBOURS]
        return float(np.mean([_recalled(lab, fact).of(movers)[0] for fact in facts]))

    return lab.once(("typical", name), found)


def _no_mover(lab: Laboratory, case: tuple[Fact, str, Fact]) -> Pair:
    fact, given, matched = case
    movers, bar = lab.movers(fact.relation or ""), WEAK * _typical(lab, fact.relation or "")
    each = (_wrong(lab, fact, given), _recalled(lab, matched))
    return Pair(*(float(max(found.of(movers)) < bar) for found in each))


def _selects(lab: Laboratory, case: tuple[Fact, str, Fact]) -> Pair:
    fact, given, _ = case
    found, movers = _wrong(lab, fact, given), lab.movers(fact.relation or "")
    others = [found.given[head] - found.rival[head] for head in found.given if head not in movers]
    wrong, right = found.of(movers)
    return Pair(wrong - right, len(movers) * float(np.mean(others)) if len(others) >= len(movers) else None)


def _less_of_the_right(lab: Laboratory, case: tuple[Fact, str, Fact]) -> Pair:
    fact, given, matched = case
    movers = lab.movers(fact.relation or "")
    return Pair(_recalled(lab, matched).of(movers)[0], _wrong(lab, fact, given).of(movers)[1])


WRONG = ClaimGroup(
    "wrong",
    wrong_facts,
    (
        PaperClaim(
            "no-effective-mover",
            "2, section 6, hallucination",
            "a wrong answer lacks an effective mover",
            "whether the movers pull towards neither object half of what they pull at a typical recalled fact",
            "the same at a recalled fact of the relation, its answer and its runner-up",
            "share",
            0.0,
            _no_mover,
        ),
        PaperClaim(
            "movers-select-wrong",
            "2, section 6, hallucination",
            "the movers select the wrong object",
            "the movers' pull towards the object given less that towards the right one",
            "the same of as many other heads (their mean, times as many)",
            "logits",
            0.1,
            _selects,
        ),
        PaperClaim(
            "right-object-not-moved",
            "2, section 6, hallucination",
            "the right object is not moved to the last token where the answer is wrong",
            "the movers' pull towards the right object at a recalled fact of the relation",
            "the same at the fact that is answered wrongly",
            "logits",
            0.1,
            _less_of_the_right,
        ),
    ),
)

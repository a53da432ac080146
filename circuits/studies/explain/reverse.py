"""A is B against B is A (paper 2, section 6; the reversal curse, Berglund et al. 2023): is it the same circuit, another, or none?"""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from circuits.datasets.manifest import Manifest
from circuits.evaluation import KNOWN_RANK, whole_model
from circuits.facts import Fact, Relation, Relations
from circuits.model import Model
from circuits.studies.diffs import CircuitDiff
from circuits.studies.explain.asked import one_case, open_case
from circuits.studies.explain.cases import Ground
from circuits.studies.explain.sides import compared, fact_of, make_bench, relation_of
from circuits.studies.explain.told import HeadsTold, HeadTold, Put, Told, course, ending, first, model_of, overlap
from circuits.studies.explain.verdict import INCONCLUSIVE, BehaviourError, Evidence, Verdict
from circuits.studies.explain_specs import ExplainFactSpec
from circuits.studies.floors import Floor, floor_of
from circuits.studies.setting import Setting
from circuits.studies.specs import RunSpec
from circuits.studies.study import Case, Study, Watch

CASES = 12
SHOWN = 10
"""Heads that are told of."""
FORWARD_ONLY = "forward only"
ONE, OVERLAPPING, DIFFERENT = (
    "both ways, one circuit",
    "both ways, overlapping circuits",
    "both ways, different circuits",
)
"""What a verdict may conclude of a fact that is known both ways: of the share of edges that the two directions have in common,
at least as much as two wordings of the forward question; less, and at least halfway there from random circuits; less than that."""


class Reversal(BaseModel):
    """A fact asked from its subject and from its object: the answer's rank in each direction, and both circuits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    forward: Fact
    backward: Fact
    rank_forward: int
    rank_backward: int
    diff: CircuitDiff
    """From the forward circuit to the backward one. Where the model does not know the reverse, the latter is what would answer it."""
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.forward.statement}; {self.backward.statement}\n{self.verdict}"

    @property
    def told(self) -> Told:
        sides = ((self.diff.before, self.forward.object), (self.diff.after, self.backward.object))
        (ahead, there), (behind, back) = sides
        writes, returns = ahead.written(there), behind.written(back)
        heads = {node.name: node for side, _ in sides for node in side.circuit.nodes if node.kind == "head"}
        largest = sorted(heads, key=lambda name: -max(writes[name], returns[name]))[:SHOWN]
        # What is said in one direction only fails by the head that brings the answer there and not here.
        failing = max(largest, key=lambda name: writes[name] - returns[name], default=None)
        rows = (
            HeadTold(
                heads[name].label,
                (writes[name], returns[name]),
                "; ".join(f"{side.label}: {found}" for side, _ in sides if (found := side.head(name)) is not None),
                name == failing and self.verdict.conclusion == FORWARD_ONLY,
            )
            for name in largest
        )
        return Told(
            question="A is B against B is A",
            title=f"{self.forward.subject} and {self.forward.object}, forward and backward",
            verdict=f"Forward {model_of(self.diff)} says {there!r} ({ending(ahead, there)}), backward "
            f"{'it says' if first(behind, back) else 'it does not say'} {back!r} ({ending(behind, back)}): {self.verdict.sentence}",
            put=tuple(
                Put(
                    name,
                    fact.prompt,
                    answer if first(side, answer) else f"not {answer!r}",
                    ending(side, answer),
                    first(side, answer),
                )
                for name, fact, (side, answer) in zip(
                    ("Forward", "Backward"), (self.forward, self.backward), sides, strict=True
                )
            ),
            heads=HeadsTold(
                "The heads that write the answer, each way",
                f"The logits that each head of either circuit writes of the answer of its direction, the {SHOWN} largest, and what it "
                "does there.",
                ((f"forward, of {there!r}", "logits"), (f"backward, of {back!r}", "logits")),
                tuple(sorted(rows, key=lambda each: not each.marked)),
                "Neither circuit has heads.",
            ),
            story=(f"Forward {course(ahead, there)}", f"Backward {course(behind, back)}", overlap(self.diff)),
        )


def reversed_fact(relation: Relation, subject: str, template: int = 0) -> Fact:
    """The fact asked from its object.

    Raises:
        BehaviourError: the relation has no reverse template.
    """
    if not relation.reverse_templates:
        raise BehaviourError(f"{relation.name} has no reverse template, so it cannot be asked from the object")
    object_ = relation.object_of(subject)
    return Fact(relation.reverse_templates[template].format(object_), object_, subject, relation.name)


def explain_reverse(
    model: Model, fact: Fact, relations: Relations, spec: RunSpec, *, watch: Watch | None = None
) -> Reversal:
    """Whether the fact is known from its object too, and by which circuit.

    Raises:
        BehaviourError: the fact is in no relation, is not known forward, or its relation has no reverse template.
    """
    relation = relation_of(fact, relations)
    backward = reversed_fact(relation, fact.subject)
    answers = whole_model(model, (fact, backward))
    forward_rank, backward_rank = (int(rank) for rank in answers.rank.per_example)
    if forward_rank > 1:
        raise BehaviourError(
            f"{model.name} does not know the fact forward: {fact.object!r} ranks {forward_rank} at {fact.prompt!r}; "
            "its reverse says nothing then"
        )
    bench = make_bench(model, fact, relations, spec, watch)
    before = bench.side(model, fact, (fact.object, fact.subject), label="forward")
    after = bench.side(model, backward, (fact.object, fact.subject), label="backward")
    floors = []
    others = [template for template in relation.templates if template.format(fact.subject) != fact.prompt]
    if others:
        words = Fact(others[0].format(fact.subject), fact.subject, fact.object, fact.relation)
        floors.append(floor_of("a paraphrase", before.circuit, bench.circuit(model, words, "a paraphrase")))
    diff = compared("direction", before, after, *floors)
    return Reversal(
        forward=fact,
        backward=backward,
        rank_forward=forward_rank,
        rank_backward=backward_rank,
        diff=diff,
        verdict=judged(model.name, diff, backward, backward_rank, diff.floors),
    )


def judged(name: str, diff: CircuitDiff, backward: Fact, rank: int, floors: Sequence[Floor]) -> Verdict:
    evidence = (
        Evidence(name="rank backward", value=rank),
        Evidence(
            name="edge Jaccard, forward against backward",
            value=diff.edge_jaccard,
            against=floors[0].edge_jaccard,
            against_name=floors[0].name,
        ),
        Evidence(name=f"edge Jaccard, {floors[-1].name}", value=floors[-1].edge_jaccard),
    )
    if rank > KNOWN_RANK:
        sentence = (
            f"{name} does not say {backward.object!r} after {backward.prompt!r} (rank {rank:,}): what it was taught in one "
            "direction has no circuit in the other."
        )
        return Verdict(conclusion=FORWARD_ONLY, sentence=sentence, evidence=evidence)
    if len(floors) < 2:
        sentence = "the relation has one wording only, so that there is nothing to read the overlap against."
        return Verdict(conclusion=INCONCLUSIVE, sentence=sentence, evidence=evidence)
    words, chance, measured = floors[0].edge_jaccard, floors[-1].edge_jaccard, diff.edge_jaccard
    bar = (words + chance) / 2
    beside = f"the circuits share {measured:.0%} of their edges, two wordings of one direction {words:.0%}, random circuits {chance:.0%}"
    if measured >= words:
        conclusion, ruled = ONE, "as many as two wordings share, which is the bar of one circuit"
    elif measured >= bar:
        conclusion, ruled = (
            OVERLAPPING,
            f"above {bar:.0%}, halfway from chance to two wordings, and below what one circuit takes",
        )
    else:
        conclusion, ruled = DIFFERENT, f"below {bar:.0%}, halfway from chance to two wordings"
    evidence = (*evidence, Evidence(name="the bar of circuits that overlap", value=bar))
    return Verdict(
        conclusion=conclusion, sentence=f"both directions are known, and {beside}: {ruled}.", evidence=evidence
    )


def reverse_facts(
    model: Model, relations: Relations, manifest: Manifest | None, *, relation: str | None = None
) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """(facts known both ways, facts known forward only), among the first `CASES` of each relation that training showed often."""
    both: list[Fact] = []
    forward_only: list[Fact] = []
    ground = Ground(relations, manifest)
    for name in ground.names(relation):
        one, facts = relations[name], ground.shown_often(name)[:CASES]
        if not one.reverse_templates or not facts:
            continue
        back = [reversed_fact(one, fact.subject) for fact in facts]
        forward, backward = whole_model(model, facts).rank.per_example, whole_model(model, back).rank.per_example
        for fact, rank, reverse in zip(facts, forward, backward, strict=True):
            if rank == 1:
                (both if reverse == 1 else forward_only).append(fact)
    return tuple(both), tuple(forward_only)


def find_reverse(
    model: Model,
    relations: Relations,
    manifest: Manifest | None,
    spec: RunSpec,
    *,
    relation: str | None = None,
    watch: Watch | None = None,
) -> Reversal:
    """A fact that is known both ways, if the first few of each relation hold one, else one that is known forward only.

    Raises:
        BehaviourError: no relation that has a reverse template has a known fact.
    """
    both, forward_only = reverse_facts(model, relations, manifest, relation=relation)
    if not both and not forward_only:
        raise BehaviourError(f"{model.name} knows no fact of a relation with a reverse template")
    return explain_reverse(model, (*both, *forward_only)[0], relations, spec, watch=watch)


def _run(spec: ExplainFactSpec, _: Case[None], at: Setting, watch: Watch) -> Reversal:
    search = spec.run_spec()
    if spec.fact is None:
        return find_reverse(at.model, at.relations, at.manifest, search, relation=spec.relation, watch=watch)
    return explain_reverse(at.model, fact_of(spec.fact, at.relations), at.relations, search, watch=watch)


REVERSE: Study[ExplainFactSpec, Setting, None, Reversal] = Study("reverse", Reversal, open_case, one_case, _run)

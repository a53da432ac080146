"""Why a wrong answer: no effective mover, or a mover that selects wrong information (paper 2, section 6, Figure 5 left).

What a relation's mover heads do for facts that the model recalls is the yardstick. A mover's **pull** towards an object is
what cutting its reading of the subject takes from that object against the relation's other objects (an intervention, see
`circuits.analysis.cuts`). At the prompt that is answered wrongly either the movers together pull neither towards the
right object nor towards the one that the model gives as they do for recalled facts (no effective mover), or they pull
towards the wrong one more than towards the right one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from circuits.analysis.attribution import readout, targets
from circuits.analysis.cuts import cut_readings
from circuits.analysis.lens import trajectories
from circuits.analysis.roles import MIN_EFFECT, Roles
from circuits.analysis.tracing import head_nodes, open_parts, traces
from circuits.datasets.manifest import Manifest
from circuits.evaluation import require_distinct_beginnings, said, whole_model
from circuits.evaluation.roles import known_facts, template_of
from circuits.facts import Fact, Relation, Relations
from circuits.graph import label_of
from circuits.model import Model
from circuits.model.spans import spans
from circuits.studies.diffs import CircuitDiff
from circuits.studies.explain.asked import one_case, open_case
from circuits.studies.explain.cases import Ground
from circuits.studies.explain.sides import Bench, Benches, compared, fact_of, make_bench, relation_of
from circuits.studies.explain.told import HeadsTold, HeadTold, Put, Told, course, ending, model_of, overlap
from circuits.studies.explain.verdict import INCONCLUSIVE, BehaviourError, Evidence, Verdict, first_conclusive
from circuits.studies.explain_specs import ExplainFactSpec
from circuits.studies.setting import Setting
from circuits.studies.specs import RunSpec
from circuits.studies.study import Case, Study, Watch

NEIGHBOURS = 12
"""Recalled facts of the relation that the movers' pull is measured on."""
WEAK = 0.5
"""Movers that pull less than this share of what they do at a typical recalled fact are not effective."""
SELECTS_WRONG, NO_MOVER = "a mover selects wrong information", "no effective mover"
"""What a verdict may conclude."""
CASES = 12
"""Candidates that `find_hallucination` looks into."""


class MoverPull(BaseModel):
    """One mover head at the prompt that is answered wrongly. In logits against the relation's other objects."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: str
    right: float
    """Towards the right object."""
    wrong: float
    """Towards the object that the model gives."""
    recalled: float
    """Towards their own objects, at recalled facts: the mean."""


class Hallucination(BaseModel):
    """A fact that the model gives a wrong object: what its movers pull towards, and how many there are beside recalled neighbours."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fact: Fact
    wrong: str
    """The object that the model gives."""
    right_rank: int
    wrong_first_from: str | None
    """The sub-layer from which the wrong object stays first."""
    movers: tuple[MoverPull, ...]
    neighbours: tuple[Fact, ...]
    mover_count: int
    """Movers in the circuit of the wrong answer."""
    mover_count_neighbours: float
    """Movers in the circuits of recalled neighbours: the mean of the first few."""
    diff: CircuitDiff
    """At this prompt: the circuit of the wrong answer, and what would have to carry the right one."""
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.fact.prompt} … {self.wrong} (right: {self.fact.object})\n{self.verdict}"

    @property
    def failing(self) -> str | None:
        """The mover that brings the wrong object before the right one by most, where one selects it; where none is effective,
        the one that brings least of what it brings at recalled facts. None where neither was found."""
        by = {
            SELECTS_WRONG: lambda each: each.wrong - each.right,
            NO_MOVER: lambda each: each.recalled - max(each.right, each.wrong),
        }.get(self.verdict.conclusion)
        return max(self.movers, key=by).head if by and self.movers else None

    @property
    def told(self) -> Told:
        right, wrong, side = self.fact.object, self.wrong, self.diff.after
        does = {each.head: each for each in side.heads}
        rows = (
            HeadTold(
                label_of(each.head),
                (each.right, each.wrong, each.recalled),
                f"{does[each.head]}" if each.head in does else "",
                each.head == self.failing,
            )
            for each in self.movers
        )
        undecided = "" if self.verdict.conclusive else "why is undecided: "
        counted = (
            f"Of the relation's movers {self.mover_count} are in the circuit of the wrong answer; "
            f"in those of recalled facts {self.mover_count_neighbours:.1f} on average."
        )
        return Told(
            question="Why a wrong answer",
            title=f"{self.fact.prompt} …",
            verdict=f"{model_of(self.diff)} says {wrong!r} where {right!r} is right: {undecided}{self.verdict.sentence}",
            put=(
                Put("Wrong answer, which the model gives", self.fact.prompt, wrong, ending(side, wrong), False),
                Put("Right answer", self.fact.prompt, right, ending(side, right), True),
            ),
            heads=HeadsTold(
                "The heads that should bring the answer",
                f"What cutting a mover's reading of the subject takes from an object against the relation's others, in logits: at "
                f"this prompt, and from the right objects of {len(self.neighbours)} facts that the model recalls.",
                tuple((name, "logits") for name in (f"towards {right!r}", f"towards {wrong!r}", "at recalled facts")),
                tuple(sorted(rows, key=lambda each: not each.marked)),
                "No head is an established mover for this relation.",
            ),
            story=(course(side, wrong), course(side, right), *([counted] if self.movers else []), overlap(self.diff)),
        )


@dataclass(frozen=True)
class Seen:
    """What a wrong answer shows before any circuit is searched, and the verdict, which needs none."""

    fact: Fact
    wrong: str
    recalled: tuple[Fact, ...]
    movers: tuple[MoverPull, ...]
    verdict: Verdict


def explain_hallucination(
    model: Model, fact: Fact, relations: Relations, spec: RunSpec, *, watch: Watch | None = None
) -> Hallucination:
    """Explain why ``model`` answers ``fact`` wrongly.

    Raises:
        BehaviourError: the model answers rightly, or with no object of the relation, or the fact is in no relation.
    """
    # What can be refused is refused before the heads' roles are told, which takes a while.
    wrong_object(model, fact, relation_of(fact, relations))
    bench = make_bench(model, fact, relations, spec, watch)
    return explained(model, see(model, fact, bench), bench)


def see(model: Model, fact: Fact, bench: Bench) -> Seen:
    """Raises:
    BehaviourError: see `explain_hallucination`.
    """
    relation = relation_of(fact, bench.relations)
    wrong = wrong_object(model, fact, relation)
    recalled = known_facts(model, relation, template=template_of(fact, relation) or 0, rank=1)
    recalled = tuple(each for each in recalled if each.subject != fact.subject)[:NEIGHBOURS]
    movers = _pulls(model, fact, wrong, recalled, relation, bench.roles) if bench.roles and recalled else ()
    (path,) = trajectories(model, (Fact(fact.prompt, fact.subject, wrong, fact.relation),))
    return Seen(fact, wrong, recalled, movers, _verdict(fact, wrong, path.decided, movers))


def explained(model: Model, seen: Seen, bench: Bench) -> Hallucination:
    """What was seen, with the circuits of the wrong answer and of the right one."""
    fact, wrong = seen.fact, seen.wrong
    asked = Fact(fact.prompt, fact.subject, wrong, fact.relation)
    before = bench.side(model, asked, (fact.object, wrong), label="wrong answer")
    after = bench.side(model, fact, (fact.object, wrong), label="right answer")
    names = {mover.head for mover in seen.movers}
    counts = [_count(bench, model, each, names) for each in seen.recalled[:3]]
    return Hallucination(
        fact=fact,
        wrong=wrong,
        right_rank=int(whole_model(model, (fact,)).rank.value),
        wrong_first_from=before.path(wrong).decided,
        movers=seen.movers,
        neighbours=seen.recalled,
        mover_count=sum(node.name in names for node in before.circuit.nodes),
        mover_count_neighbours=float(np.mean(counts)) if counts else float("nan"),
        diff=compared("answer", before, after),
        verdict=seen.verdict,
    )


def wrong_object(model: Model, fact: Fact, relation: Relation) -> str:
    """The object of the relation that the model gives in place of the right one.

    Raises:
        BehaviourError: it gives the right one, or no object of the relation.
    """
    ((top, _),) = _likeliest(model, (fact,))
    named = _object_of(model, top, fact, relation)
    if named == fact.object:
        raise BehaviourError(
            f"{model.name} answers {fact.prompt!r} rightly with {fact.object!r}: there is no hallucination to explain; "
            "--find looks for one"
        )
    if named is not None:
        require_distinct_beginnings(model, fact.prompt, (fact.object, named))
        return named
    raise BehaviourError(
        f"{model.name} answers {fact.prompt!r} with {model.token_text(top)!r}, and gives no object of {relation.name}: "
        "that is no wrong fact but no answer at all"
    )


def _likeliest(model: Model, facts: Sequence[Fact]) -> list[tuple[int, float]]:
    """(the token that the model gives at each prompt, its probability)."""
    found: dict[int, tuple[int, float]] = {}
    for group in model.batches(facts):
        chances = model.logits(group.prompts)[:, -1].softmax(-1)
        best = chances.max(-1)
        found |= dict(zip(group.rows, zip(best.indices.tolist(), best.values.tolist(), strict=True), strict=True))
    return [found[row] for row in range(len(facts))]


def _object_of(model: Model, token: int, fact: Fact, relation: Relation) -> str | None:
    """The relation's object that the model gives after the prompt, all of its tokens; ``token`` is the first that it gives."""
    names = dict.fromkeys((fact.object, *relation.objects))
    begun = [name for name in names if model.tokens(Fact(fact.prompt, fact.subject, name)).answer[0] == token]
    return said(model, fact.prompt, begun)


def _pulls(
    model: Model, fact: Fact, wrong: str, recalled: Sequence[Fact], relation: Relation, roles: Roles
) -> tuple[MoverPull, ...]:
    facts = (fact, *recalled)
    parts = open_parts(model, facts)
    wanted = targets(model, facts, relation.objects)
    found = [spans(model, each) for each in facts]
    effects, _ = cut_readings(model, parts, traces(model, facts, parts), found, readout(parts, wanted))
    wrong_token = model.tokens(Fact(fact.prompt, fact.subject, wrong)).answer[0]
    wrong_index = wanted.objects.index(wrong_token)
    own = effects.answer[:, np.arange(len(facts)), np.array(wanted.answers)]
    heads = head_nodes(parts)
    movers = [verdict.head for verdict in roles.with_role("mover", "mixture")]
    rows = [
        MoverPull(
            head=head.name,
            right=float(own[i, 0]),
            wrong=float(effects.answer[i, 0, wrong_index]),
            recalled=float(own[i, 1:].mean()),
        )
        for i, head in enumerate(heads)
        if head in movers
    ]
    return tuple(sorted(rows, key=lambda row: -row.recalled))


def _count(bench: Bench, model: Model, fact: Fact, movers: set[str]) -> int:
    return sum(node.name in movers for node in bench.circuit(model, fact, "a recalled fact").nodes)


def _verdict(fact: Fact, wrong: str, since: str | None, movers: Sequence[MoverPull]) -> Verdict:
    if not movers:
        return Verdict(
            conclusion=INCONCLUSIVE,
            sentence="no head is an established mover for this relation, so there is nothing that could have failed.",
            evidence=(),
        )
    right, false, recalled = (sum(getattr(each, name) for each in movers) for name in ("right", "wrong", "recalled"))
    evidence = (
        Evidence(
            name=f"movers' pull towards {wrong!r}",
            value=false,
            unit="logits",
            against=recalled,
            against_name="towards the right object, at recalled facts",
        ),
        Evidence(
            name=f"movers' pull towards {fact.object!r}",
            value=right,
            unit="logits",
            against=recalled,
            against_name="towards the right object, at recalled facts",
        ),
    )
    where = f", first from {since} on" if since else ""
    if false >= WEAK * recalled and false - right >= MIN_EFFECT:
        worst = max(movers, key=lambda each: each.wrong - each.right)
        return Verdict(
            conclusion=SELECTS_WRONG,
            sentence=f"{label_of(worst.head)} carries {wrong!r} from the subject rather than {fact.object!r}{where}.",
            evidence=(
                *evidence,
                Evidence(
                    name=f"{label_of(worst.head)}'s pull towards {wrong!r}",
                    value=worst.wrong,
                    unit="logits",
                    against=worst.right,
                    against_name=f"towards {fact.object!r}",
                ),
            ),
        )
    if max(false, right) < WEAK * recalled:
        return Verdict(
            conclusion=NO_MOVER,
            sentence=f"the relation's mover heads carry neither {fact.object!r} nor {wrong!r} as they do at recalled "
            f"facts; {wrong!r} wins without them{where}.",
            evidence=evidence,
        )
    reason = (
        "the movers pull towards the right object, and something after them overrides it"
        if right >= false
        else "the movers pull towards the wrong object hardly more than towards the right one"
    )
    return Verdict(conclusion=INCONCLUSIVE, sentence=f"{reason}{where}.", evidence=evidence)


def wrong_answers(
    model: Model, relations: Relations, manifest: Manifest | None, seed: int = 0, *, relation: str | None = None
) -> list[Fact]:
    """Facts that training showed rarely (without a manifest: any) and that the model answers with another object of the relation:
    the surest of each relation in turn."""
    candidates: list[tuple[float, Fact]] = []
    ground = Ground(relations, manifest, seed)
    for name in ground.names(relation):
        if relations[name].kind == "factual":
            candidates += _wrong_answers(model, ground.shown_rarely(name), relations[name])
    candidates.sort(key=lambda each: (-each[0], str(each[1])))
    # In turn, so that one relation without movers does not use up the cases.
    seen: dict[str | None, int] = {}
    turns = []
    for probability, fact in candidates:
        turns.append((seen.setdefault(fact.relation, 0), -probability, str(fact), fact))
        seen[fact.relation] += 1
    return [fact for *_, fact in sorted(turns, key=lambda each: each[:3])]


def _wrong_answers(model: Model, facts: Sequence[Fact], relation: Relation) -> list[tuple[float, Fact]]:
    """(probability of the object that the model gives instead, fact) of those that it answers with a wrong object."""
    return [
        (probability, fact)
        for fact, (top, probability) in zip(facts, _likeliest(model, facts), strict=True)
        # One that begins as the right answer does is wrong too, but first tokens, which are followed, do not show it.
        if top != model.tokens(fact).answer[0] and _object_of(model, top, fact, relation) is not None
    ]


def find_hallucination(
    model: Model,
    relations: Relations,
    manifest: Manifest | None,
    spec: RunSpec,
    *,
    relation: str | None = None,
    watch: Watch | None = None,
) -> Hallucination:
    """The first conclusive one of `wrong_answers`. If none of the first `CASES` is conclusive, the first of them.

    Raises:
        BehaviourError: the model answers every fact that was looked at rightly, or with no object of the relation.
    """
    benches = Benches(model, relations, spec, watch or Watch())
    facts = wrong_answers(model, relations, manifest, spec.seed, relation=relation)
    none = (
        f"{model.name} gives none of the facts that were looked at a wrong object of its relation: nothing to explain"
    )
    seen = first_conclusive((see(model, fact, benches.of(fact)) for fact in facts), CASES, none)
    return explained(model, seen, benches.of(seen.fact))


def _run(spec: ExplainFactSpec, _: Case[None], at: Setting, watch: Watch) -> Hallucination:
    search = spec.run_spec()
    if spec.fact is None:
        return find_hallucination(at.model, at.relations, at.manifest, search, relation=spec.relation, watch=watch)
    return explain_hallucination(at.model, fact_of(spec.fact, at.relations), at.relations, search, watch=watch)


HALLUCINATION: Study[ExplainFactSpec, Setting, None, Hallucination] = Study(
    "hallucination", Hallucination, open_case, one_case, _run
)

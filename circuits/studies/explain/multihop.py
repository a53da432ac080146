"""An edit of one hop, and the question in two hops (paper 2, section 5): which answer wins, and the circuits behind it."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from circuits.datasets.corpus import two_hop_facts, two_hop_prompt
from circuits.datasets.manifest import Manifest
from circuits.editing import Edit, find_method
from circuits.evaluation import distinct_beginnings, require_distinct_beginnings, said, whole_model
from circuits.facts import Fact, Relations
from circuits.graph import label_of
from circuits.model import Model
from circuits.studies.diff import EditDidNotTake, edited_nodes, make_edit
from circuits.studies.diffs import CircuitDiff
from circuits.studies.explain.asked import one_case, open_case
from circuits.studies.explain.cases import Ground
from circuits.studies.explain.sides import Bench, compared, make_bench
from circuits.studies.explain.told import HeadsTold, HeadTold, Put, Told, course, model_of, overlap, probability
from circuits.studies.explain.verdict import INCONCLUSIVE, BehaviourError, Evidence, Verdict
from circuits.studies.explain_specs import MultiHopSpec
from circuits.studies.requests import resources_of
from circuits.studies.setting import Setting
from circuits.studies.specs import RunSpec
from circuits.studies.study import Case, Study, Watch

Prompt = Literal["one hop", "two hops", "first hop removed"]
Winner = Literal["second-hop answer", "edited object", "old answer", "another token"]


class EditedHop(NamedTuple):
    """A question in two hops, of which the first is edited."""

    first: str
    """The relations' names."""
    second: str
    subject: str
    target: str
    """The subject's new object in the first relation."""


class HopAnswers(BaseModel):
    """One prompt, and how likely each answer is before and after the edit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    probability_before: dict[str, float]
    probability_after: dict[str, float]
    winner_before: Winner
    winner: Winner
    """After the edit."""


class MultiHop(BaseModel):
    """An edit of the first hop, and what became of the second."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    subject: str
    edited_object: str
    second_hop_answer: str
    """What the edited object's own fact says: the answer that a model which reasons would give."""
    old_answer: str
    asked: dict[Prompt, HopAnswers]
    diff: CircuitDiff
    """The two-hop prompt: before, the circuit of the old answer; after, that of whichever of the three answers fares best."""
    verdict: Verdict

    @property
    def saturated(self) -> bool:
        """The edited object answers the question in two hops too (the paper's finding)."""
        return self.asked["two hops"].winner == "edited object"

    def __str__(self) -> str:
        edit = f"{self.asked['one hop'].prompt} {self.edited_object} (after {self.method})"
        return "\n".join([edit, f"{self.asked['two hops'].prompt} …", str(self.verdict)])

    @property
    def told(self) -> Told:
        follows, target, old = self.second_hop_answer, self.edited_object, self.old_answer
        named: dict[Winner, str] = {"second-hop answer": follows, "edited object": target, "old answer": old}
        before, after = self.diff.before, self.diff.after
        answered = {
            "second-hop answer": f"with {follows!r}, which follows from it",
            "edited object": f"with {target!r} itself; {follows!r} would follow from it",
            "old answer": f"with {old!r}, as before the edit; {follows!r} would follow",
            "another token": f"with none of {follows!r}, which follows, {target!r}, which was put in, and {old!r}, which was said before",
        }[self.asked["two hops"].winner]
        written = [after.written(answer) for answer in (follows, target, old)]
        movers = [each.head for each in after.heads if each.role in ("mover", "mixture")]
        chief = (
            max(movers, key=lambda head: written[1][head] - written[0][head], default=None) if self.saturated else None
        )
        rows = (
            HeadTold(label_of(head), tuple(each[head] for each in written), self._does(head), head == chief)
            for head in sorted(movers, key=lambda head: (head != chief, -max(each[head] for each in written)))
        )
        names: dict[Prompt, tuple[str, Winner | None]] = {
            "one hop": ("First hop, edited", "edited object"),
            "two hops": ("Second hop", "second-hop answer"),
            "first hop removed": ("The words of the first hop removed", None),
        }
        return Told(
            question="An edit of one hop, asked in two",
            title=f"{self.asked['two hops'].prompt} …",
            verdict=f"After {self.method} has put {target!r} in the first hop, {model_of(self.diff)} answers the second hop {answered}.",
            put=tuple(
                Put(
                    name,
                    self.asked[kind].prompt,
                    named.get(self.asked[kind].winner, "another token"),
                    "; ".join(
                        f"{answer!r} {probability(self.asked[kind].probability_after[answer])}, "
                        f"{probability(was).removeprefix('p ')} before"
                        for answer, was in self.asked[kind].probability_before.items()
                    ),
                    None if right is None else self.asked[kind].winner == right,
                )
                for kind, (name, right) in names.items()
            ),
            heads=HeadsTold(
                "The mover heads, at the second hop",
                "The logits that each of the relation's movers writes of each answer after the edit, and what it does before and after.",
                tuple(
                    (name, "logits")
                    for name in (f"{follows!r}, follows", f"{target!r}, put in", f"{old!r}, said before")
                ),
                tuple(rows),
                "No head is an established mover for this relation.",
            ),
            story=(
                self.verdict.sentence[:1].upper() + self.verdict.sentence[1:],
                f"Before the edit {course(before, old)}",
                *(f"After it {course(after, answer)}" for answer in (target, follows)),
                overlap(self.diff),
            ),
        )

    def _does(self, head: str) -> str:
        found = [(name, side.head(head)) for name, side in (("before", self.diff.before), ("after", self.diff.after))]
        return "; ".join(f"{name}: {reading.words()}" for name, reading in found if reading is not None)


def multi_hop(
    model: Model,
    edit: Edit,
    hop: EditedHop,
    relations: Relations,
    spec: RunSpec,
    *,
    method: str | None = None,
    force: bool = False,
    watch: Watch | None = None,
) -> MultiHop:
    """Ask the edited model in one hop, in two, and with the words of the first hop removed.

    "First hop removed" puts the subject itself where its noun phrase stood ("The official language of Big Ben is"): a model
    that answers it all the same goes by subject and relation, whatever the sentence says.

    Args:
        method: what `make_edit` was asked for; the edit's own name of its method, by default.
        hop: what the edit gave its subject, and the relation that is asked of that.

    Raises:
        BehaviourError: the first relation has no noun phrase, or the second says nothing of the object before or after.
        EditDidNotTake: the edit did not change the first hop, and ``force`` is off.
    """
    subject, target, method = hop.subject, hop.target, method or edit.provenance.method
    prompts, follow = hop_prompts(hop, relations)
    new, old = follow["second-hop answer"], follow["old answer"]
    require_distinct_beginnings(model, prompts["two hops"].prompt, tuple(follow.values()))
    bench = make_bench(model, prompts["two hops"], relations, spec, watch)
    with edit.on(model) as edited:
        asked: dict[Prompt, HopAnswers] = {kind: _ask(model, edited, fact, follow) for kind, fact in prompts.items()}
        if asked["one hop"].winner != "edited object" and not force:
            raise EditDidNotTake(
                f"the edit did not take: {target!r} is not first at {prompts['one hop'].prompt!r} after {method}; "
                "--force asks the second hop all the same"
            )
        diff = _diff(model, edited, edit, prompts["two hops"], follow, asked["two hops"], bench, method)
    return MultiHop(
        method=method,
        subject=subject,
        edited_object=target,
        second_hop_answer=new,
        old_answer=old,
        asked=asked,
        diff=diff,
        verdict=_verdict(asked, follow, diff),
    )


def hop_prompts(hop: EditedHop, relations: Relations) -> tuple[dict[Prompt, Fact], dict[str, str]]:
    """(the edited hop, the question in two hops, and the same with the first hop removed; the answers to follow, by name).

    Raises:
        BehaviourError: see `multi_hop`.
    """
    first, second, subject, target = hop
    one, two = relations[first], relations[second]
    if not one.noun_phrases:
        raise BehaviourError(
            f"{first} has no noun phrase to build a two-hop prompt of; data/facts names those that have"
        )
    bridge = one.object_of(subject)
    for object_ in (bridge, target):
        if object_ not in two.subjects:
            raise BehaviourError(f"{second} says nothing of {object_!r}, so there is no second hop to ask for")
    old, new = two.object_of(bridge), two.object_of(target)
    if old == new:
        raise BehaviourError(
            f"{second} gives {bridge!r} and {target!r} the same object {old!r}: the second hop could not show the edit"
        )
    prompts: dict[Prompt, Fact] = {
        "one hop": Fact(one.fact(subject).prompt, subject, target, first),
        "two hops": Fact(two_hop_prompt(one, two, subject), subject, new, second),
        "first hop removed": Fact(two.templates[0].format(subject), subject, new, second),
    }
    follow = {"second-hop answer": new, "edited object": target, "old answer": old}
    return prompts, follow


def two_hop_cases(
    model: Model, relations: Relations, manifest: Manifest | None, *, each: int = 1
) -> Iterator[EditedHop]:
    """Questions that the model answers rightly in one hop and in two: ``each`` of every pair of relations."""
    for hop in Ground(relations, manifest).two_hops():
        one, two = relations[hop.first], relations[hop.second]
        subjects = [*hop.rendered, *hop.unrendered]
        asked = two_hop_facts(hop, relations, subjects)
        ranks, found = whole_model(model, asked).rank.per_example, 0
        bridges = [each for each in one.objects if each in two.subjects]
        for subject, rank in zip(subjects, ranks, strict=True):
            bridge = one.object_of(subject)
            old = two.object_of(bridge)
            others = [
                other
                for other in bridges
                if distinct_beginnings(model, two.templates[0].format(subject), (two.object_of(other), other, old))
                and two.object_of(other) != old
            ]
            if rank == 1 and others and found < each and whole_model(model, (one.fact(subject),)).rank.value == 1:
                found += 1
                # Not the same one for every subject.
                yield EditedHop(hop.first, hop.second, subject, others[(found - 1) % len(others)])


def find_case(model: Model, relations: Relations, manifest: Manifest | None) -> EditedHop:
    """The first of `two_hop_cases`.

    Raises:
        BehaviourError: there is none.
    """
    found = next(two_hop_cases(model, relations, manifest), None)
    if found is None:
        raise BehaviourError(f"{model.name} answers no two-hop question that was looked at")
    return found


def _probabilities(model: Model, fact: Fact, follow: dict[str, str]) -> dict[str, float]:
    each = [Fact(fact.prompt, fact.subject, answer) for answer in follow.values()]
    return dict(zip(follow.values(), whole_model(model, each).probability.per_example, strict=True))


def _ask(model: Model, edited: Model, fact: Fact, follow: dict[str, str]) -> HopAnswers:
    return HopAnswers(
        prompt=fact.prompt,
        probability_before=_probabilities(model, fact, follow),
        probability_after=_probabilities(edited, fact, follow),
        winner_before=_winner(model, fact, follow),
        winner=_winner(edited, fact, follow),
    )


def _winner(model: Model, fact: Fact, follow: dict[str, str]) -> Winner:
    """Which of the answers the model gives, all of its tokens."""
    given = said(model, fact.prompt, tuple(follow.values()))
    return next((name for name, answer in follow.items() if answer == given), "another token")  # type: ignore[return-value]


def _diff(
    model: Model,
    edited: Model,
    edit: Edit,
    fact: Fact,
    follow: dict[str, str],
    asked: HopAnswers,
    bench: Bench,
    method: str,
) -> CircuitDiff:
    best = max(asked.probability_after, key=lambda answer: asked.probability_after[answer])
    answers = tuple(follow.values())
    before = bench.side(
        model, Fact(fact.prompt, fact.subject, follow["old answer"], fact.relation), answers, label="before"
    )
    after = bench.side(
        edited,
        Fact(fact.prompt, fact.subject, best, fact.relation),
        answers,
        label=f"after {method}",
        edited=edited_nodes(edit, model),
    )
    return compared("edit", before, after)


def _verdict(asked: dict[Prompt, HopAnswers], follow: dict[str, str], diff: CircuitDiff) -> Verdict:
    two, removed = asked["two hops"], asked["first hop removed"]
    new, target, old = follow["second-hop answer"], follow["edited object"], follow["old answer"]
    evidence = [
        Evidence(
            name=f"p({answer!r}) after the edit, {kind}",
            value=each.probability_after[answer],
            against=each.probability_before[answer],
            against_name="before",
        )
        for kind, each in (("two hops", two), ("first hop removed", removed))
        for answer in (new, target, old)
    ]
    # Who the relation's movers work for: the paper's movers extract the second-hop answer before, the edited object after.
    before, after = (side.shares(target).movers - side.shares(old).movers for side in (diff.before, diff.after))
    name = f"movers' write of {target!r} less that of {old!r}, two hops"
    evidence.append(Evidence(name=name, value=after, unit="logits", against=before, against_name="before"))
    sentences = {
        "second-hop answer": f"the edit carries over: the model reasons on to {new!r}.",
        "edited object": f"the edited object {target!r} saturates: it answers the second hop too.",
        "old answer": f"the edit does not reach the second hop: the model still says {old!r}.",
        "another token": "neither the second-hop answer, nor the edited object, nor the old answer is first.",
    }
    words = [sentences[two.winner]]
    if two.winner == "edited object":
        also = "it wins too" if removed.winner == "edited object" else "it does not win"
        words.append(f"With the first hop removed {also}.")
    if removed.winner_before == "old answer":
        words.append(
            f"The unedited model answers {old!r} with the first hop removed too: it goes by subject and relation, not by grammar."
        )
    conclusion = INCONCLUSIVE if two.winner == "another token" else two.winner
    return Verdict(conclusion=conclusion, sentence=" ".join(words), evidence=tuple(evidence))


def _open(spec: MultiHopSpec, given: Any) -> Setting:
    """What can be refused is refused before the model is loaded."""
    find_method(spec.edit)
    _, _ = resources_of(spec.corpus), spec.chosen
    return open_case(spec, given)


def _run(spec: MultiHopSpec, _: Case[None], at: Setting, watch: Watch) -> MultiHop:
    if spec.first and spec.second and spec.subject and spec.to:
        hop = EditedHop(spec.first, spec.second, spec.subject, spec.to)
    else:
        hop = find_case(at.model, at.relations, at.manifest)
    made = make_edit(
        at.model,
        at.relations[hop.first].fact(hop.subject),
        hop.target,
        spec.edit,
        layers=None if spec.layer is None else (spec.layer,),
        settings=spec.chosen,
        resources=resources_of(spec.corpus),
        seed=spec.seed,
    )
    return multi_hop(
        at.model, made, hop, at.relations, spec.run_spec(), method=spec.edit, force=spec.force, watch=watch
    )


MULTIHOP: Study[MultiHopSpec, Setting, None, MultiHop] = Study("multihop", MultiHop, _open, one_case, _run, algorithm=2)

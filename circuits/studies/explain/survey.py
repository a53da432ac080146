"""How often each explanation comes out as the paper says: several cases of each behaviour, and its claims put to their numbers
(paper 2, section 5 on edits of one hop, and section 6).

A claim that these cases have no control for is undecided here; `circuits.studies.claims` puts it to cases that have one."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

from pydantic import BaseModel, ConfigDict

from circuits.evaluation.claims import Pair
from circuits.studies.diff import EditDidNotTake, make_edit
from circuits.studies.diffs import Side
from circuits.studies.explain.asked import open_case
from circuits.studies.explain.cases import Ground
from circuits.studies.explain.hallucination import Hallucination, explained, see, wrong_answers
from circuits.studies.explain.icl import ALPHA, NEW_HEADS_CARRY, READS, InContext, icl_cases
from circuits.studies.explain.multihop import MultiHop, multi_hop, two_hop_cases
from circuits.studies.explain.reverse import Reversal, explain_reverse, reverse_facts
from circuits.studies.explain.sides import Benches
from circuits.studies.explain.verdict import Claim, Judged
from circuits.studies.explain_specs import SurveySpec
from circuits.studies.setting import Setting
from circuits.studies.study import Case, Study, Watch


class Survey(BaseModel):
    """Several cases of one behaviour."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    behaviour: str
    cases: tuple[str, ...]
    """Each with its conclusion."""
    conclusions: dict[str, int]
    """How many cases ended in each, the most frequent first."""
    claims: tuple[Claim, ...]

    def __str__(self) -> str:
        counted = ", ".join(f"{name} {count}" for name, count in self.conclusions.items())
        lines = [f"{self.behaviour}, {len(self.cases)} cases: {counted}", *(f"- {each}" for each in self.claims)]
        return "\n".join(lines)


# ---- the study: several cases of each behaviour ----------------------------------------------------------------------


def _wrong_answers(spec: SurveySpec, at: Setting, watch: Watch) -> Survey:
    benches = Benches(at.model, at.relations, spec.run_spec(), watch)
    facts = wrong_answers(at.model, at.relations, at.manifest, benches.spec.seed)[: spec.n]
    found = ((see(at.model, fact, benches.of(fact)), benches.of(fact)) for fact in facts)
    return survey_hallucinations(tuple(explained(at.model, seen, bench) for seen, bench in found))


def _demonstrations(spec: SurveySpec, at: Setting, watch: Watch) -> Survey:
    cases = icl_cases(at.model, at.relations, at.manifest, spec.run_spec(), wording=spec.wording, watch=watch)
    return survey_demonstrations(tuple(islice(cases, spec.n)))


def _reverses(spec: SurveySpec, at: Setting, watch: Watch) -> Survey:
    both, forward_only = reverse_facts(at.model, at.relations, at.manifest)
    some = (*both[: (spec.n + 1) // 2], *forward_only[: spec.n // 2])
    turned = tuple(explain_reverse(at.model, fact, at.relations, spec.run_spec(), watch=watch) for fact in some)
    return survey_reverses(turned, len(both), len(both) + len(forward_only))


def _two_hops(spec: SurveySpec, at: Setting, watch: Watch) -> Survey:
    pairs = max(1, sum(1 for _ in Ground(at.relations, at.manifest).two_hops()))
    found: list[MultiHop] = []
    for hop in two_hop_cases(at.model, at.relations, at.manifest, each=-(-spec.n // pairs)):
        edited = at.relations[hop.first].fact(hop.subject)
        made = make_edit(at.model, edited, hop.target, spec.edit, seed=spec.seed)
        with suppress(EditDidNotTake):
            found.append(multi_hop(at.model, made, hop, at.relations, spec.run_spec(), method=spec.edit, watch=watch))
        if len(found) == spec.n:
            break
    return survey_two_hops(found, spec.edit)


BEHAVIOURS = {
    "wrong answers": _wrong_answers,
    "demonstrations": _demonstrations,
    "reverses": _reverses,
    "two hops": _two_hops,
}


def _cases(spec: SurveySpec, at: Setting) -> list[Case[str]]:
    return [Case(name, name) for name in BEHAVIOURS]


def _run(spec: SurveySpec, case: Case[str], at: Setting, watch: Watch) -> Survey:
    """Up to ``n`` cases of the behaviour, in the order in which ``--find`` looks at them."""
    return BEHAVIOURS[case.asked](spec, at, watch)


SURVEY: Study[SurveySpec, Setting, str, Survey] = Study("survey", Survey, open_case, _cases, _run)


# ---- what cases of a behaviour say together --------------------------------------------------------------------------


def survey_hallucinations(cases: Sequence[Hallucination]) -> Survey:
    conclusive = sum(case.verdict.conclusive for case in cases)
    counts = [(case.mover_count_neighbours, case.mover_count) for case in cases if case.movers and case.neighbours]
    return Survey(
        behaviour="wrong answers",
        cases=tuple(f"{case.fact.prompt} {case.wrong} ({case.fact.object}): {_words(case)}" for case in cases),
        conclusions=_counted(cases),
        claims=(
            Claim.of(
                "a wrong answer comes of no effective mover, or of a mover that selects wrong information",
                [Pair(float(case.verdict.conclusive), None) for case in cases],
                f"{conclusive} of {len(cases)} cases",
            ),
            Claim.of(
                "the circuit of a wrong answer lacks mover heads that circuits of recalled neighbours have",
                [Pair(others, own) for others, own in counts],
                f"heads that it has fewer of them, over {len(counts)} cases with established movers",
            ),
        ),
    )


def survey_demonstrations(cases: Sequence[InContext]) -> Survey:
    new = [sum(head.new and head.demonstrations >= READS for head in case.heads) for case in cases]
    conclusions = Counter(case.verdict.conclusion for case in cases)
    alone = conclusions[NEW_HEADS_CARRY]
    conclusive = sum(case.verdict.conclusive for case in cases)
    return Survey(
        behaviour="demonstrations",
        cases=tuple(f"{case.few_shot.prompt} {case.few_shot.object}: {_words(case)}" for case in cases),
        conclusions=_counted(cases),
        claims=(
            Claim.of(
                "with demonstrations, new heads appear in the circuit that attend to these",
                [Pair(float(count > 0), None) for count in new],
                f"in {sum(count > 0 for count in new)} of {len(cases)} cases, {sum(new) / max(1, len(new)):.1f} on average",
            ),
            # Each case is tested against as many other heads at `ALPHA`, twice: for the new ones, and for all.
            Claim.of(
                "the gain hangs on the heads that read the demonstrations",
                [Pair(float(case.verdict.conclusive), 2 * ALPHA) for case in cases],
                f"cutting what they carry undoes it in {conclusive} of {len(cases)} cases",
            ),
            Claim.of(
                "it hangs on the new ones among them",
                [Pair(float(case.verdict.conclusion == NEW_HEADS_CARRY), ALPHA) for case in cases],
                f"cutting these alone undoes it in {alone} of {len(cases)} cases",
            ),
        ),
    )


def survey_reverses(cases: Sequence[Reversal], both: int, forward: int) -> Survey:
    """``both`` of ``forward`` facts that are known forward are known backward too; circuits are compared in ``cases``."""
    share = f"{both} of {forward}" if forward else "none"
    return Survey(
        behaviour="reverses (half the cases known both ways, half forward only)",
        cases=tuple(f"{case.forward.statement}; {case.backward.statement}: {_words(case)}" for case in cases),
        conclusions=_counted(cases),
        claims=(
            Claim.of(
                "a fact that is known in one direction is not known in the other (the reversal curse)",
                [Pair(float(i >= both), None) for i in range(forward)],
                f"{share} facts known forward are answered backward too",
            ),
        ),
    )


def survey_two_hops(cases: Sequence[MultiHop], edit: str) -> Survey:
    saturated = [case for case in cases if case.saturated]
    without = sum(case.asked["first hop removed"].winner == "edited object" for case in saturated)
    answered = [case.asked["first hop removed"].winner_before == "old answer" for case in cases]
    turned = [_movers(case, case.diff.before) < 0 < _movers(case, case.diff.after) for case in cases]
    follows = [case.asked["two hops"].winner == "second-hop answer" for case in cases]
    return Survey(
        behaviour=f"two hops after {edit} of the first",
        cases=tuple(f"{case.asked['two hops'].prompt} ({case.edited_object}): {_words(case)}" for case in cases),
        conclusions=_counted(cases),
        claims=(
            Claim.of(
                "the edited object saturates: it answers the second hop too, rather than what follows from it",
                [Pair(float(case.saturated), float(own)) for case, own in zip(cases, follows, strict=True)],
                f"in {len(saturated)} of {len(cases)} cases; in {without} of these with the first hop removed as well",
            ),
            Claim.of(
                "movers that gave the second-hop answer give the edited object after the edit",
                [Pair(float(own), None) for own in turned],
                f"in {sum(turned)} of {len(cases)} cases",
            ),
            Claim.of(
                "the unedited model gives the second-hop answer with the first hop removed",
                [Pair(float(own), None) for own in answered],
                f"in {sum(answered)} of {len(cases)} cases",
            ),
        ),
    )


def _movers(case: MultiHop, side: Side) -> float:
    """What mover heads write of the edited object less what they write of the old answer, at the question in two hops."""
    return side.shares(case.edited_object).movers - side.shares(case.old_answer).movers


def _words(case: Judged) -> str:
    return case.verdict.conclusion


def _counted(cases: Sequence[Judged]) -> dict[str, int]:
    return dict(Counter(case.verdict.conclusion for case in cases).most_common())

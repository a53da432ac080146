"""How often each explanation comes out as the paper says: several cases of each behaviour, and its claims put to their numbers
(paper 2, section 5 on edits of one hop, and section 6)."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice

from pydantic import BaseModel, ConfigDict

from circuits.datasets.manifest import Manifest
from circuits.facts import Relations
from circuits.model import Model
from circuits.studies.diff import EditDidNotTake, make_edit
from circuits.studies.diffs import Side
from circuits.studies.explain.cases import Ground
from circuits.studies.explain.hallucination import Hallucination, hallucination_cases
from circuits.studies.explain.icl import READS, InContext, Wording, icl_cases
from circuits.studies.explain.multihop import MULTI_HOP_EDIT, MultiHop, multi_hop, two_hop_cases
from circuits.studies.explain.reverse import Reversal, explain_reverse, reverse_facts
from circuits.studies.explain.verdict import Claim, Judged
from circuits.studies.specs import RunSpec


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


def survey_all(
    model: Model,
    relations: Relations,
    manifest: Manifest | None,
    spec: RunSpec,
    *,
    n: int,
    edit: str = MULTI_HOP_EDIT,
    wording: Wording = "stated",
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Survey, ...]:
    """Up to ``n`` cases of each behaviour, in the order in which ``--find`` looks at them.

    Args:
        edit: the method that edits the first hop.
        wording: how demonstrations and their question are put.
    """
    progress("wrong answers")
    wrong = tuple(islice(hallucination_cases(model, relations, manifest, spec), n))
    progress("demonstrations")
    shown = tuple(islice(icl_cases(model, relations, manifest, spec, wording=wording), n))
    progress("reverses")
    both, forward_only = reverse_facts(model, relations, manifest)
    some = (*both[: (n + 1) // 2], *forward_only[: n // 2])
    turned = tuple(explain_reverse(model, fact, relations, spec) for fact in some)
    progress("two hops")
    hops = _two_hops(model, relations, manifest, spec, n, edit)
    return (
        survey_hallucinations(wrong),
        survey_demonstrations(shown),
        survey_reverses(turned, len(both), len(both) + len(forward_only)),
        survey_two_hops(hops, edit),
    )


def _two_hops(
    model: Model, relations: Relations, manifest: Manifest | None, spec: RunSpec, n: int, edit: str
) -> tuple[MultiHop, ...]:
    pairs = max(1, sum(1 for _ in Ground(relations, manifest).two_hops()))
    found = []
    for hop in two_hop_cases(model, relations, manifest, each=-(-n // pairs)):
        made = make_edit(model, relations[hop.first].fact(hop.subject), hop.target, edit, seed=spec.seed)
        try:
            found.append(multi_hop(model, made, hop, relations, spec, method=edit))
        except EditDidNotTake:
            continue
        if len(found) == n:
            break
    return tuple(found)


def survey_hallucinations(cases: Sequence[Hallucination]) -> Survey:
    conclusive = sum(case.verdict.conclusive for case in cases)
    counts = [(case.mover_count, case.mover_count_neighbours) for case in cases if case.movers]
    fewer = sum(own < others for own, others in counts)
    return Survey(
        behaviour="wrong answers",
        cases=tuple(f"{case.fact.prompt} {case.wrong} ({case.fact.object}): {_words(case)}" for case in cases),
        conclusions=_counted(cases),
        claims=(
            Claim(
                claim="a wrong answer comes of no effective mover, or of a mover that selects wrong information",
                holds=2 * conclusive > len(cases),
                numbers=f"{conclusive} of {len(cases)} cases",
            ),
            Claim(
                claim="the circuit of a wrong answer lacks mover heads that circuits of recalled neighbours have",
                holds=2 * fewer > len(counts),
                numbers=f"it has fewer of them in {fewer} of {len(counts)} cases with established movers",
            ),
        ),
    )


def survey_demonstrations(cases: Sequence[InContext]) -> Survey:
    new = [sum(head.new and head.demonstrations >= READS for head in case.heads) for case in cases]
    conclusions = Counter(case.verdict.conclusion for case in cases)
    alone = conclusions["new heads read the demonstrations and carry the gain"]
    conclusive = sum(case.verdict.conclusive for case in cases)
    return Survey(
        behaviour="demonstrations",
        cases=tuple(f"{case.few_shot.prompt} {case.few_shot.object}: {_words(case)}" for case in cases),
        conclusions=_counted(cases),
        claims=(
            Claim(
                claim="with demonstrations, new heads appear in the circuit that attend to these",
                holds=2 * sum(count > 0 for count in new) > len(cases),
                numbers=f"in {sum(count > 0 for count in new)} of {len(cases)} cases, {sum(new) / max(1, len(new)):.1f} on average",
            ),
            Claim(
                claim="the gain hangs on the heads that read the demonstrations",
                holds=2 * conclusive > len(cases),
                numbers=f"cutting what they carry undoes it in {conclusive} of {len(cases)} cases",
            ),
            Claim(
                claim="it hangs on the new ones among them",
                holds=2 * alone > len(cases),
                numbers=f"cutting these alone undoes it in {alone} of {len(cases)} cases",
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
            Claim(
                claim="a fact that is known in one direction is not known in the other (the reversal curse)",
                holds=2 * both < forward,
                numbers=f"{share} facts known forward are answered backward too",
            ),
        ),
    )


def survey_two_hops(cases: Sequence[MultiHop], edit: str) -> Survey:
    saturated = [case for case in cases if case.saturated]
    without = sum(case.asked["first hop removed"].winner == "edited object" for case in saturated)
    answered = sum(case.asked["first hop removed"].winner_before == "old answer" for case in cases)
    turned = sum(_movers(case, case.diff.before) < 0 < _movers(case, case.diff.after) for case in cases)
    return Survey(
        behaviour=f"two hops after {edit} of the first",
        cases=tuple(f"{case.asked['two hops'].prompt} ({case.edited_object}): {_words(case)}" for case in cases),
        conclusions=_counted(cases),
        claims=(
            Claim(
                claim="the edited object saturates: it answers the second hop too",
                holds=2 * len(saturated) > len(cases),
                numbers=f"in {len(saturated)} of {len(cases)} cases; in {without} of these with the first hop removed as well",
            ),
            Claim(
                claim="movers that gave the second-hop answer give the edited object after the edit",
                holds=2 * turned > len(cases),
                numbers=f"in {turned} of {len(cases)} cases",
            ),
            Claim(
                claim="the unedited model gives the second-hop answer with the first hop removed",
                holds=2 * answered > len(cases),
                numbers=f"in {answered} of {len(cases)} cases",
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

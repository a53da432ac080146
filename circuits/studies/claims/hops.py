"""Claims about reasoning: reverses and two hops (paper 2, sections 5 and 6, appendices C.1 and C.3)."""

from collections.abc import Sequence

from circuits.evaluation import known, said
from circuits.evaluation.claims import Pair
from circuits.facts import Fact
from circuits.studies.claims.claim import ClaimGroup, Laboratory, PaperClaim, in_turn
from circuits.studies.diff import make_edit
from circuits.studies.explain.cases import Ground
from circuits.studies.explain.multihop import EditedHop, hop_prompts, two_hop_cases
from circuits.studies.explain.reverse import reversed_fact
from circuits.studies.explain_specs import MULTI_HOP_EDIT

EACH = 10
"""Questions in two hops of every pair of relations, at most."""


def facts_known_forward(lab: Laboratory, n: int) -> Sequence[Fact]:
    """Facts that the model puts first, of relations with words for the reverse and other words for themselves."""

    def found() -> list[Fact]:
        ground = Ground(lab.relations, lab.manifest, lab.spec.seed)
        names = [name for name in ground.names() if lab.relations[name].reverse_templates]
        names = [name for name in names if len(lab.relations[name].templates) > 1]
        return in_turn(known(lab.model, ground.shown_often(name), rank=1) for name in names)

    return lab.once("known forward", found)[:n]


def _not_backward(lab: Laboratory, fact: Fact) -> Pair:
    relation = lab.relation(fact)
    asked = (reversed_fact(relation, fact.subject), relation.fact(fact.subject, 1))
    return Pair(*(float(said(lab.model, each.prompt, (each.object,)) is None) for each in asked))


def questions_in_two_hops(lab: Laboratory, n: int) -> Sequence[EditedHop]:
    """Questions that the model answers rightly in one hop and in two, the pairs of relations in turn."""

    def found() -> list[EditedHop]:
        columns: dict[tuple[str, str], list[EditedHop]] = {}
        for hop in two_hop_cases(lab.model, lab.relations, lab.manifest, each=EACH):
            columns.setdefault((hop.first, hop.second), []).append(hop)
        return in_turn(columns.values())

    return lab.once("two hops", found)[:n]


def _removed(lab: Laboratory, hop: EditedHop) -> Pair | None:
    one, two = lab.relations[hop.first], lab.relations[hop.second]
    old = two.object_of(one.object_of(hop.subject))
    others = [
        other.subject
        for other in questions_in_two_hops(lab, len(lab.relations) ** 2 * EACH)
        if (other.first, other.second) == (hop.first, hop.second) and two.object_of(one.object_of(other.subject)) != old
    ]
    asked = (hop.subject, *others[:1])
    given = [float(said(lab.model, two.templates[0].format(subject), (old,)) is not None) for subject in asked]
    return Pair(given[0], given[1] if len(given) > 1 else None)


def _saturates(lab: Laboratory, hop: EditedHop) -> Pair | None:
    prompts, follow = hop_prompts(hop, lab.relations)
    edited = lab.relations[hop.first].fact(hop.subject)
    edit = make_edit(lab.model, edited, hop.target, MULTI_HOP_EDIT, seed=lab.spec.seed)
    with edit.on(lab.model) as model:
        if said(model, prompts["one hop"].prompt, (hop.target,)) is None:
            return None
        given = said(model, prompts["two hops"].prompt, tuple(follow.values()))
    return Pair(float(given == hop.target), float(given == follow["second-hop answer"]))


REVERSES = ClaimGroup(
    "reverses",
    facts_known_forward,
    (
        PaperClaim(
            "not-known-backward",
            "2, appendix C.3",
            "a fact known in one direction is not known in the other",
            "whether the model fails to give the subject after the object",
            "whether it fails to give the object in other words for the same direction",
            "share",
            0.1,
            _not_backward,
        ),
    ),
)
TWO_HOPS = ClaimGroup(
    "two-hops",
    questions_in_two_hops,
    (
        PaperClaim(
            "answers-without-first-hop",
            "2, section 5, appendix C.1",
            "the model answers a question in two hops with the words of the first hop removed",
            "whether it gives the same answer with the subject in place of the first hop's noun phrase",
            "whether it gives this answer so about another subject with another answer",
            "share",
            0.1,
            _removed,
        ),
        PaperClaim(
            "edited-object-saturates",
            "2, section 5",
            "after an edit of the first hop (ROME) the edited object answers the second hop too",
            "whether the edited model gives the edited object to the question in two hops",
            "whether it gives the answer that follows from the edit",
            "share",
            0.0,
            _saturates,
        ),
    ),
)

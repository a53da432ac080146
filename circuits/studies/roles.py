"""How far a relation's roles (`circuits.evaluation.roles`) can be trusted on a model.

Four checks, none of which the labels were tuned on:

* **paraphrase**: are the labels the same in the words of the relation's other templates?
* **held out**: movers labelled on half of the facts, then their effect on the other half, against that of unlabelled heads whose writes
  are of like size;
* **shuffled answers**: how often any head is called mover or suppressor when the answers are dealt to the wrong subjects;
* **wrong ranges**: how often any head is called a relation head when the range is another relation's.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from circuits.analysis.attribution import read_shares, readout, targets
from circuits.analysis.cuts import cut_readings
from circuits.analysis.nulls import intervals, permuted_answers, shuffles
from circuits.analysis.ranges import compare, directions_of, disjoint_ranges, unembedding_rows
from circuits.analysis.roles import (
    MIN_EFFECT,
    MIN_READING,
    RELATION_ALPHA,
    ROLES,
    SUBJECT_ALPHA,
    Effect,
    Role,
    RoleError,
    Roles,
    find_roles,
)
from circuits.analysis.tracing import head_nodes, open_parts, traces
from circuits.evaluation.roles import ROLE_FACTS, known_facts, other_ranges, relation_roles
from circuits.facts import Fact, Relation, Relations
from circuits.graph import Node
from circuits.model import Model
from circuits.model.spans import spans

HELD_OUT_FACTS = 120
"""Facts of which one half makes labels and the other tests them, at most."""
TRIALS = 200
"""Deals of the answers to the wrong subjects."""


# ---- checks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Matched:
    """A mover and an unlabelled head whose write is nearest in size, by their effect on facts that did not make the label."""

    mover: Node
    control: Node
    size_mover: float
    """Mean length of what the head writes at the last position, in units of the residual stream."""
    size_control: float
    effect_mover: float
    """Mean fall of the answer against the relation's other objects when the reading of the subject is cut, in logits."""
    effect_control: float


@dataclass(frozen=True, slots=True)
class RoleChecks:
    """How far the labels of one relation can be trusted on one model."""

    relation: str
    n_facts: int
    templates: tuple[str, ...]
    """Those in whose words the model knows enough facts; the first is the labels' own."""
    labels: tuple[tuple[Role, ...], ...]
    """For each template, the role of every head, layer by layer."""
    agreement: float | None
    """Mean over pairs of templates of the share of heads with a role in either that have the same role in both; None: one template."""
    kappa: float | None
    """Mean over pairs of templates of Cohen's kappa over all heads: agreement beyond what the labels' frequencies give."""
    correlation: float | None
    """Mean over pairs of templates of the correlation of the subject's cut over all heads: agreement without a threshold."""
    top_mover_kept: float | None
    """Share of the other templates in which the head with the largest mover effect is a mover too."""
    matched: tuple[Matched, ...]
    advantage: Effect | None
    """Mean over held-out facts of movers' effect less matched heads'; None where half of the facts give no mover."""
    shuffled_rate: float
    """Share of deals of the answers to wrong subjects in which any head passes the answers' test; at most `SUBJECT_ALPHA` is claimed."""
    wrong_range_rate: float | None
    """Share of other relations' ranges for which any head passes the range's test; at most `RELATION_ALPHA` is claimed. None: too few."""
    n_ranges: int

    def __str__(self) -> str:
        lines = [f"{self.relation}: labels from {self.n_facts} facts, checked in {len(self.templates)} templates."]
        if self.agreement is not None and self.kappa is not None:
            lines.append(
                f"Paraphrase: of the heads with a role in either of two templates, {self.agreement:.0%} have the same in both "
                f"(kappa over all heads {self.kappa:.2f})."
            )
        if self.correlation is not None:
            lines.append(
                f"What cutting the subject costs, head by head, correlates between templates by {self.correlation:.2f}."
            )
        if self.top_mover_kept is not None:
            lines.append(f"The strongest mover is a mover in {self.top_mover_kept:.0%} of the other templates.")
        if self.advantage is None:
            lines.append("Held out: half of the facts give no mover to compare.")
        else:
            lines.append(
                f"Held out: cutting what movers read from the subject lowers the answer by {self.advantage.mean:.2f} logits more than "
                f"cutting it for heads of like size (95 % {self.advantage.low:.2f} to {self.advantage.high:.2f})."
            )
        lines.append(
            f"Shuffled answers: {self.shuffled_rate:.1%} of {TRIALS} deals pass (claimed: at most {SUBJECT_ALPHA:.0%})."
        )
        if self.wrong_range_rate is not None:
            lines.append(
                f"Wrong ranges: {self.wrong_range_rate:.1%} of {self.n_ranges} pass (claimed: at most {RELATION_ALPHA:.0%})."
            )
        return "\n".join(lines)


def check_roles(
    model: Model, relation: Relation, relations: Relations, *, n: int = ROLE_FACTS, seed: int = 0
) -> RoleChecks:
    """All four checks of the labels of ``relation``.

    Raises:
        RoleError: the model knows too few of its facts.
    """
    found = [(0, relation_roles(model, relation, relations, n=n, seed=seed))]
    for template in range(1, len(relation.templates)):
        try:
            roles = relation_roles(model, relation, relations, template=template, n=n, seed=seed)
        except ValueError:
            # Too few facts known in these words, or a subject that the prompt ends with.
            continue
        found.append((template, roles))
    labels: list[tuple[Role, ...]] = [tuple(verdict.role for verdict in roles.heads) for _, roles in found]
    pairs = list(itertools.combinations(labels, 2))
    facts = known_facts(model, relation, n=n)
    matched, advantage = held_out(model, relation, relations, seed=seed)
    shuffled, wrong, n_ranges = _chance(model, facts, relation, relations, seed)
    return RoleChecks(
        relation=relation.name,
        n_facts=len(facts),
        templates=tuple(relation.templates[template] for template, _ in found),
        labels=tuple(labels),
        agreement=_mean([_same(a, b) for a, b in pairs]),
        kappa=_mean([kappa(a, b) for a, b in pairs]),
        correlation=_mean([_correlation(a, b) for (_, a), (_, b) in itertools.combinations(found, 2)]),
        top_mover_kept=_top_mover_kept([roles for _, roles in found]),
        matched=matched,
        advantage=advantage,
        shuffled_rate=shuffled,
        wrong_range_rate=wrong,
        n_ranges=n_ranges,
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _same(a: Sequence[Role], b: Sequence[Role]) -> float:
    """Of the heads with a role in either, the share with the same role in both; 1 if there are none."""
    either = [(x, y) for x, y in zip(a, b, strict=True) if x != "other" or y != "other"]
    return sum(x == y for x, y in either) / len(either) if either else 1.0


def kappa(a: Sequence[Role], b: Sequence[Role]) -> float:
    """Cohen's kappa: (agreement - chance agreement) / (1 - chance agreement), 1 where chance leaves nothing to agree on."""
    agree = sum(x == y for x, y in zip(a, b, strict=True)) / len(a)
    chance = sum((list(a).count(role) / len(a)) * (list(b).count(role) / len(b)) for role in ROLES)
    return (agree - chance) / (1 - chance) if chance < 1 else 1.0


def _correlation(a: Roles, b: Roles) -> float:
    """Pearson's r of the heads' mean effects of the subject's cut."""
    ours, theirs = (np.array([verdict.evidence.subject_cut.mean for verdict in roles.heads]) for roles in (a, b))
    ours, theirs = ours - ours.mean(), theirs - theirs.mean()
    spread = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float(ours @ theirs) / spread if spread else 1.0


def _top_mover_kept(found: Sequence[Roles]) -> float | None:
    movers = found[0].with_role("mover", "mixture")
    if not movers or len(found) < 2:
        return None
    top = max(movers, key=lambda verdict: verdict.evidence.subject_cut.mean).head
    return sum(roles.of(top).role in ("mover", "mixture") for roles in found[1:]) / (len(found) - 1)


def held_out(
    model: Model, relation: Relation, relations: Relations, *, n: int = HELD_OUT_FACTS, seed: int = 0
) -> tuple[tuple[Matched, ...], Effect | None]:
    """(movers labelled on every second fact, each beside an unlabelled head whose write is of like size; how much more the
    movers' cuts cost the other facts' answers, a mean with its interval over these facts). Nothing and None where no mover is found.
    """
    facts = known_facts(model, relation, n=n)
    made, rest = facts[::2], facts[1::2]
    try:
        roles = find_roles(
            model,
            made,
            relation.objects,
            other_ranges=other_ranges(relation, relations),
            relation=relation.name,
            seed=seed,
        )
    except RoleError:
        return (), None
    effects, sizes, heads = _subject_effects(model, rest, relation)
    free = [i for i, head in enumerate(heads) if roles.of(head).role == "other"]
    movers = [i for i, head in enumerate(heads) if roles.of(head).role in ("mover", "mixture")]
    if not movers or not free:
        return (), None
    pairs = [(i, min(free, key=lambda j: abs(sizes[j] - sizes[i]))) for i in movers]
    matched = tuple(
        Matched(heads[i], heads[j], *map(float, (sizes[i], sizes[j], effects[i].mean(), effects[j].mean())))
        for i, j in pairs
    )
    gain = np.mean([effects[i] - effects[j] for i, j in pairs], axis=0)[None]
    ((low, high),) = intervals(gain, np.random.default_rng(seed))
    return matched, Effect(float(gain.mean()), float(low), float(high))


def _subject_effects(
    model: Model, facts: Sequence[Fact], relation: Relation
) -> tuple[Float[np.ndarray, "head fact"], Float[np.ndarray, "head"], tuple[Node, ...]]:
    """(fall of each fact's answer by each head's cut, mean size of each head's write, the heads)."""
    parts, found = open_parts(model, facts), [spans(model, fact) for fact in facts]
    wanted, followed = targets(model, facts, relation.objects, found), traces(model, facts, parts)
    subject, _ = cut_readings(model, parts, followed, found, readout(parts, wanted))
    heads, graph = head_nodes(parts), model.graph()
    writers = [graph.writer_index(head) for head in heads]
    norms = torch.cat([trace.writes[writers].norm(dim=-1) for trace in followed], 1).mean(1)
    return subject.answer[:, np.arange(len(facts)), np.array(wanted.answers)], norms.cpu().numpy(), heads


def _chance(
    model: Model, facts: Sequence[Fact], relation: Relation, relations: Relations, seed: int
) -> tuple[float, float | None, int]:
    """(share of shuffled deals that pass, share of wrong ranges that pass, how many wrong ranges). Everything but the p is held
    to the same bars as a label: effect and reading; intervals and span tests would only lower the shares."""
    parts, found = open_parts(model, facts), [spans(model, fact) for fact in facts]
    wanted, followed = targets(model, facts, relation.objects, found), traces(model, facts, parts)
    subject, read = cut_readings(model, parts, followed, found, readout(parts, wanted))
    rng, answers, passed = np.random.default_rng(seed), np.array(wanted.answers), 0
    for deal in shuffles(len(facts), TRIALS, rng):
        dealt = answers[deal]
        _, p = permuted_answers(subject.answer, dealt, shuffles(len(facts), 299, rng))
        mean = subject.answer[:, np.arange(len(facts)), dealt].mean(1)
        passed += bool(((p <= SUBJECT_ALPHA) & (np.abs(mean) >= MIN_EFFECT)).any())
    unembedding = unembedding_rows(parts)
    ranges = disjoint_ranges(model, wanted, other_ranges(relation, relations))
    if not ranges:
        return passed / TRIALS, None, 0
    eligible = read_shares(parts, followed, found, "relation").mean(1) >= MIN_READING
    wrong = 0
    for i, tokens in enumerate(ranges):
        others = directions_of(unembedding, [each for j, each in enumerate(ranges) if j != i])
        own = directions_of(unembedding, [tokens])
        wrong += bool((compare(read.stream, own, others, least=MIN_EFFECT, eligible=eligible) <= RELATION_ALPHA).any())
    return passed / TRIALS, wrong / len(ranges), len(ranges)

"""What each attention head does for a relation: a verdict with its evidence (paper 2, section 4, "special components").

Two claims can be made of a head, each over many facts of one relation and each causal.

* It **carries the subject**: it draws at least `MIN_READING` of what it writes at the last position from the subject's tokens
  (`circuits.analysis.attribution.read_shares`: attention times value, because a weight alone does not say how much is read);
  cutting what it reads there lowers the answer against the relation's other objects by at least `MIN_EFFECT` logits, with a
  bootstrap interval above 0; more than chance would (shuffled answers: for another fact's answer in the place of its own, corrected for
  the number of heads); and more than cutting as many other tokens of the prompt does (shuffled subject spans).
* It **carries the relation**: the same of the relation's tokens and of the whole range of objects against the vocabulary; and the
  effect, along the range's own direction in the unembedding, is larger than chance would have it be: than that of any head along
  the ranges of other relations (where fewer than `circuits.analysis.ranges.MIN_RANGES` of them are given, along look-alike sets of
  tokens: as many, and as near to each other).

A **mover** transfers the subject's attribute to the last token (paper 2, appendix B.2, and its "extract head"; Geva et al. 2023): it
carries the subject, and what it reads there favours the answer *as it is written*, by at least `MIN_EFFECT` logits through the final
norm and the unembedding, with an interval above 0, and more than chance would (shuffled answers, corrected for the number of
heads). A head that carries the subject without this is a ``carrier``: later layers make the answer of what it brings. An early
head that brings the subject's embedding to the last token is one, however much its cut costs.

Roles: ``mover``; ``carrier``; ``relation`` carries the relation; ``mixture`` is a mover that does. ``suppressor``: a mover by the same
tests with both signs turned, of the cut and of what it writes. ``other``: no claim stands. On a model that knows nothing of
the relation, the chance of any claim of the subject's on any head is at most `SUBJECT_ALPHA`, of the relation's `RELATION_ALPHA`,
together `ALPHA`; what a mover's write must show comes on top of its claim, and can only lower the chance.

Whether the part read from the relation reads as the range or names the relation's words is tested apart and stated in the
verdict; no label depends on it. Attention rests on a prompt's first position whatever stands there (the *sink*): the shares that labels
depend on are of what is written, and `RoleEvidence.attention_sink` is told apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from circuits.analysis.attribution import SINK, readout, targets
from circuits.analysis.cuts import cut_readings, cut_windows
from circuits.analysis.nulls import intervals, permuted_answers, shuffled_windows, shuffles
from circuits.analysis.ranges import compare, directions_of, disjoint_ranges, lookalikes, unembedding_rows
from circuits.analysis.shares import attention_shares, direct_shares
from circuits.analysis.tracing import head_nodes, open_parts, traces
from circuits.facts import Fact
from circuits.graph import Node
from circuits.model import Model
from circuits.model.spans import spans

Role = Literal["mover", "relation", "mixture", "suppressor", "carrier", "other"]
ROLES: tuple[Role, ...] = ("mover", "relation", "mixture", "suppressor", "carrier", "other")

SUBJECT_ALPHA, RELATION_ALPHA = 0.01, 0.04
ALPHA = SUBJECT_ALPHA + RELATION_ALPHA
"""Chance of any label on any head of a model that knows nothing of the relation. The relation's claim gets the larger part:
its null has as many draws as there are other relations."""
MIN_EFFECT = 0.1
"""Logits. A smaller effect, however sure, changes the odds by less than a tenth: it makes no role."""
SHOWN = 0.005
"""Logits. A smaller effect reads 0.00."""
MIN_READING = 0.05
"""A head that draws less of what it writes from a class of tokens is not said to read it."""
MIN_FACTS = 6
"""Fewer facts have too few orders of their answers for a test at `ALPHA` over many heads."""
DRAWS = 999


class RoleError(ValueError):
    """Facts from which no roles can be told."""


@dataclass(frozen=True, slots=True)
class Effect:
    """A mean over facts, with its 95 % bootstrap interval, and the chance of as much under its null, corrected for the number
    of heads (None: not tested)."""

    mean: float
    low: float
    high: float
    p: float | None = None
    unit: str = "logits"

    def __str__(self) -> str:
        tested = "" if self.p is None else f", p {self.p:.3g}"
        return f"{self.mean:+.2f} {self.unit} [{self.low:+.2f}, {self.high:+.2f}]{tested}"


@dataclass(frozen=True, slots=True)
class RoleEvidence:
    """What a verdict rests on. Attention is the mean share given from the last position."""

    n_facts: int
    attention_subject: float
    attention_relation: float
    attention_sink: float
    """To the prompt's first position, which is the BOS token's where the model has one."""
    attention_last: float
    reading_subject: float
    """Mean share of what the head writes that it draws from the subject (`circuits.analysis.attribution.read_shares`)."""
    reading_relation: float
    subject_first: bool
    """Whether some prompts begin with the subject, without a BOS token: what rests on the sink counts as the subject's there."""
    attention_subject_p: float | None
    """Chance that as many other tokens of the prompts get as much (shuffled subject spans; for this head alone)."""
    subject_cut: Effect
    """Fall of the answer against the relation's other objects when the reading of the subject is cut; p against shuffled answers."""
    subject_cut_span_p: float | None
    """Chance that cutting as many other tokens does as much (shuffled subject spans; for heads that passed the other test)."""
    relation_cut: Effect
    """Fall of the relation's range against the vocabulary when the reading of the relation is cut; p against other ranges."""
    relation_cut_answer: Effect
    """What that same cut does to the answer against the other objects."""
    subject_answer: Effect
    """(a) What the part read from the subject adds to the answer directly; p against shuffled answers."""
    relation_range: Effect
    """(b) What the part read from the relation adds to the range directly; p against other ranges."""
    relation_words: Effect
    """(c) What that part adds to the relation's words directly; p against look-alike sets."""


@dataclass(frozen=True, slots=True)
class HeadRole:
    """The role of one head, and why. ``str`` gives it as a sentence."""

    head: Node
    role: Role
    evidence: RoleEvidence

    @property
    def extracts(self) -> bool:
        """Whether what it reads from the subject reads as the answer itself: a mover's does."""
        return _favours(self.evidence.subject_answer)

    @property
    def names_range(self) -> bool:
        """Whether what it reads from the relation reads as the relation's objects."""
        return _holds(self.evidence.relation_range)

    @property
    def names_relation(self) -> bool:
        """Whether what it reads from the relation reads as the relation's words."""
        return _holds(self.evidence.relation_words)

    def __str__(self) -> str:
        e, label = self.evidence, self.head.label
        cut, read = e.subject_cut, e.relation_cut
        subject = (
            f"it gives the subject {e.attention_subject:.0%} of its attention{self._sink()} and draws {e.reading_subject:.0%} of its write "
            f"from it, {_shown(e.subject_answer.mean):+.2f} logits of the answer; without that reading the answer "
            + _moves(cut, "the relation's other objects")
        )
        relation = (
            f"it gives the relation's words {e.attention_relation:.0%} of its attention and draws {e.reading_relation:.0%} of its write "
            "from them; without that reading the range of objects " + _moves(read, "the vocabulary")
        )
        over = f", over {e.n_facts} facts"
        match self.role:
            case "mover":
                return f"{label} is a mover head: {subject}{over}."
            case "carrier":
                return f"{label} carries the subject to later layers, in a form that does not read as the answer: {subject}{over}."
            case "relation":
                return f"{label} is a relation head{self._names()}: {relation}{over}."
            case "mixture":
                return f"{label} is a mixture head{self._names()}: {subject}. And {relation}{over}."
            case "suppressor":
                return f"{label} is a suppressor: {subject}{over}."
            case "other":
                return f"{label} has no established role: {subject}. And {relation}{over}."

    def _sink(self) -> str:
        e = self.evidence
        return (
            f" (the subject is also the first token, where {e.attention_sink:.0%} of it rests)"
            if e.subject_first
            else ""
        )

    def _names(self) -> str:
        named = [
            name
            for name, holds in (("the range", self.names_range), ("the relation's words", self.names_relation))
            if holds
        ]
        return f" whose write reads as {' and '.join(named)}" if named else ""


def _shown(logits: float) -> float:
    """Without the sign of what is shown as nothing."""
    return 0.0 if abs(logits) < SHOWN else logits


def _moves(effect: Effect, against: str) -> str:
    """Of less than is shown no more is said: how sure it is may be rounding's."""
    if not _shown(effect.mean):
        return f"moves by less than {SHOWN} logits against {against}"
    sign = -1 if effect.mean < 0 else 1
    low, high = sorted(_shown(sign * end) for end in (effect.low, effect.high))
    sure = f"95 % {low:.2f} to {high:.2f}, p {effect.p:.2g}"
    return f"{'rises' if effect.mean < 0 else 'falls'} by {abs(effect.mean):.2f} logits against {against} ({sure})"


def _holds(effect: Effect) -> bool:
    return effect.p is not None and effect.p <= ALPHA and effect.low > 0


def _favours(effect: Effect) -> bool:
    return _passes(effect, SUBJECT_ALPHA) and effect.mean > 0


@dataclass(frozen=True, slots=True)
class Roles:
    """The verdicts on all heads of a model for one relation, layer by layer, and how they were reached."""

    relation: str
    facts: tuple[str, ...]
    seed: int
    heads: tuple[HeadRole, ...]
    n_ranges: int = 0
    """Ranges of other relations that the relation's was compared with; 0: look-alike sets instead."""
    alpha: float = ALPHA
    min_effect: float = MIN_EFFECT
    min_reading: float = MIN_READING
    draws: int = DRAWS

    def of(self, head: Node) -> HeadRole:
        for verdict in self.heads:
            if verdict.head == head:
                return verdict
        raise KeyError(f"no verdict on {head.name}")

    def with_role(self, *roles: Role) -> tuple[HeadRole, ...]:
        return tuple(verdict for verdict in self.heads if verdict.role in roles)

    @property
    def labelled(self) -> tuple[HeadRole, ...]:
        """The heads with a role, the largest effect first."""
        return tuple(sorted((v for v in self.heads if v.role != "other"), key=lambda v: (-strength(v), v.head)))

    def __str__(self) -> str:
        if not self.labelled:
            return f"{self.relation}: no head has an established role, over {len(self.facts)} facts."
        named = ", ".join(f"{v.head.label} {v.role}" for v in self.labelled)
        return f"{self.relation}: {named}; the other {len(self.heads) - len(self.labelled)} heads have no established role."


def strength(verdict: HeadRole) -> float:
    """The effect that the verdict's role rests on, in logits; for ``other`` the larger of both."""
    subject, relation = abs(verdict.evidence.subject_cut.mean), abs(verdict.evidence.relation_cut.mean)
    return {"mover": subject, "suppressor": subject, "carrier": subject, "relation": relation}.get(
        verdict.role, max(subject, relation)
    )


def find_roles(
    model: Model,
    facts: Sequence[Fact],
    objects: Sequence[str],
    *,
    other_ranges: Sequence[Sequence[str]] = (),
    relation: str | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> Roles:
    """The role of every head, from facts of one relation whose range is ``objects``.

    Args:
        facts: ones that the model knows, at least `MIN_FACTS`.
        other_ranges: objects of other relations; those that share a first token with ``objects`` are left out.
        relation: what to call it; by default, as the first fact does.

    Raises:
        RoleError: too few facts.
        circuits.analysis.attribution.TargetError, circuits.model.spans.SpanError, circuits.model.transformer.UnsupportedArchitecture:
            a relation with one object, a prompt without subject tokens, a model that does not show its weights.
    """
    if len(facts) < MIN_FACTS:
        raise RoleError(f"expected at least {MIN_FACTS} facts of one relation to tell roles from, got {len(facts)}")
    parts, found = open_parts(model, facts), [spans(model, fact) for fact in facts]
    wanted, followed = targets(model, facts, objects, found), traces(model, facts, parts)
    directions, rng = readout(parts, wanted), np.random.default_rng(seed)
    answers = np.array(wanted.answers)
    subject, relation_ = cut_readings(model, parts, followed, found, directions)
    direct_subject, direct_relation = direct_shares(parts, followed, found, wanted)
    attention = attention_shares(parts, followed, found)
    orders = shuffles(len(facts), draws, rng)
    _, subject_p = permuted_answers(subject.answer, answers, orders)
    _, answer_p = permuted_answers(direct_subject.answer, answers, orders)
    others = disjoint_ranges(model, wanted, other_ranges)
    unembedding = unembedding_rows(parts)
    range_, words = directions_of(unembedding, [wanted.objects]), directions_of(unembedding, [wanted.words])
    ranges = directions_of(unembedding, others) if others else lookalikes(unembedding, wanted.objects, draws, rng)
    eligible = attention.reading_relation.mean(1) >= MIN_READING
    cut_p = compare(relation_.stream, range_, ranges, least=MIN_EFFECT, eligible=eligible)
    range_p = compare(direct_relation.stream, range_, ranges)
    words_p = compare(direct_relation.stream, words, lookalikes(unembedding, wanted.words, draws, rng))
    index = np.arange(len(facts))
    measured = {
        "subject_cut": (subject.answer[:, index, answers], subject_p),
        "relation_cut": (relation_.range, cut_p),
        "relation_cut_answer": (relation_.answer[:, index, answers], None),
        "subject_answer": (direct_subject.answer[:, index, answers], answer_p),
        "relation_range": (direct_relation.range, range_p),
        "relation_words": (direct_relation.words, words_p),
    }
    effects = {name: _effects(values, p, rng) for name, (values, p) in measured.items()}
    verdicts = []
    for i, head in enumerate(head_nodes(parts)):
        own = {name: each[i] for name, each in effects.items()}
        span_p = None
        if _passes(own["subject_cut"], SUBJECT_ALPHA):
            windows, mine = cut_windows(model, parts, followed, found, directions, wanted, head)
            sign = np.sign(own["subject_cut"].mean)
            span_p = shuffled_windows([sign * each for each in windows], mine, draws, rng)
        evidence = RoleEvidence(
            n_facts=len(facts),
            attention_subject=float(attention.subject[i].mean()),
            attention_relation=float(attention.relation[i].mean()),
            attention_sink=float(attention.sink[i].mean()),
            attention_last=float(attention.last[i].mean()),
            reading_subject=float(attention.reading_subject[i].mean()),
            reading_relation=float(attention.reading_relation[i].mean()),
            subject_first=any(own.subject[0] == SINK for own in found),
            attention_subject_p=shuffled_windows(attention.windows[i], attention.own, draws, rng),
            subject_cut_span_p=span_p,
            **own,
        )
        verdicts.append(HeadRole(head, _role(evidence), evidence))
    name = relation or facts[0].relation or "these facts"
    return Roles(name, tuple(str(fact) for fact in facts), seed, tuple(verdicts), len(others), draws=draws)


# ---- from evidence to role -------------------------------------------------------------------------------------------


def _passes(effect: Effect, alpha: float) -> bool:
    """Large enough, an interval on one side of 0, and more than chance."""
    sure = effect.low > 0 or effect.high < 0
    return effect.p is not None and effect.p <= alpha and sure and abs(effect.mean) >= MIN_EFFECT


def _role(evidence: RoleEvidence) -> Role:
    spans_pass = evidence.subject_cut_span_p is None or evidence.subject_cut_span_p <= ALPHA
    reads_subject = evidence.reading_subject >= MIN_READING
    subject = _passes(evidence.subject_cut, SUBJECT_ALPHA) and spans_pass and reads_subject
    relation = (
        _passes(evidence.relation_cut, RELATION_ALPHA)
        and evidence.relation_cut.mean > 0
        and evidence.reading_relation >= MIN_READING
    )
    # What it writes counts for the answer or against it as its cut does: with the same sign.
    written, cut = evidence.subject_answer, evidence.subject_cut
    if subject and _passes(written, SUBJECT_ALPHA) and written.mean * cut.mean > 0:
        if cut.mean < 0:
            return "suppressor"
        return "mixture" if relation else "mover"
    if relation:
        return "relation"
    return "carrier" if subject else "other"


def _effects(
    values: Float[np.ndarray, "head fact"], p: Float[np.ndarray, "head"] | None, rng: np.random.Generator
) -> list[Effect]:
    bounds = intervals(values, rng)
    return [
        Effect(float(values[i].mean()), float(low), float(high), None if p is None else float(p[i]))
        for i, (low, high) in enumerate(bounds)
    ]

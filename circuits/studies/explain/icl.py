"""What demonstrations add to a circuit (paper 2, section 6, Figure 5 right): heads that read them, and whether the gain hangs on those.

The same question is asked alone and after k demonstrations, in one of two wordings: *stated*, as the paper has it ("The
comparative form of small is smaller. The comparative form of big is"), or *bare*, which does not name the relation
("Italy: Rome; Japan: Tokyo; Spain:"). Heads of the second circuit that the first lacks, and that read the demonstrations, are the
candidates. What a head reads is what it draws its write from. The first position is apart, demonstration or BOS token: attention rests
there in any case. The check: without what these heads carry from the demonstrations to the last position the answer must lose
the gain; more than without what they carry from elsewhere; and more than without what as many other heads of any layers
carry from the demonstrations. Where there are not as many, nothing follows.
"""

import random
from collections.abc import Collection, Iterator, Sequence

from pydantic import BaseModel, ConfigDict

from circuits.analysis.attribution import SINK, written_shares
from circuits.analysis.tracing import open_parts, traces
from circuits.choices import listed
from circuits.datasets.manifest import Manifest
from circuits.evaluation import whole_model
from circuits.facts import Fact, Relation, Relations
from circuits.graph import Graph, Node, label_of
from circuits.model import Model
from circuits.studies.diffs import CircuitDiff
from circuits.studies.explain.asked import one_case, open_case
from circuits.studies.explain.demonstrations import ReadingCuts, demonstrated, demonstration_positions
from circuits.studies.explain.shots import SHOTS, gained_subjects
from circuits.studies.explain.sides import compared, make_bench
from circuits.studies.explain.told import HeadsTold, HeadTold, Put, Told, course, ending, model_of, overlap
from circuits.studies.explain.verdict import INCONCLUSIVE, BehaviourError, Evidence, Verdict, first_conclusive
from circuits.studies.explain_specs import InContextSpec, Wording
from circuits.studies.setting import Setting
from circuits.studies.specs import RunSpec
from circuits.studies.study import Case, Study, Watch

READS = 0.3
"""Of its write, what a head must draw from the demonstrations to be said to read them."""
MOST = 0.5
"""Of the gain, for heads to be said to carry it."""
ALPHA = 0.05
CASES = 6
NEW_HEADS_CARRY = "new heads read the demonstrations and carry the gain"
"""The paper's conclusion."""


class CircuitHead(BaseModel):
    """A head of the circuit with demonstrations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: str
    new: bool
    """Whether the bare question's circuit lacks it."""
    demonstrations: float
    """Share of its write that it draws from the demonstrations, the first position apart."""
    attention: float
    """Share of its attention that goes there."""
    reads: tuple[tuple[str, float], ...]
    """The tokens that it draws most of its write from, the first position apart, with their shares of the write."""

    @property
    def _named(self) -> tuple[str, str]:
        """(its name, what it draws most of its write from)."""
        tokens = ", ".join(f"{token.strip()!r} {share:.0%}" for token, share in self.reads)
        return label_of(self.head) + (" (new)" if self.new else ""), tokens

    def __str__(self) -> str:
        name, tokens = self._named
        return (
            f"{name} draws {self.demonstrations:.0%} of its write from the demonstrations "
            f"({self.attention:.0%} of its attention): {tokens}"
        )

    def told(self, written: float, *, marked: bool) -> HeadTold:
        """As a row of a page; ``written`` is what it writes of the answer, in logits."""
        name, tokens = self._named
        return HeadTold(name, (100 * self.demonstrations, 100 * self.attention, written), tokens, marked)


class InContext(BaseModel):
    """A question bare and after demonstrations: the answer's rank in each, the heads of the second circuit, both circuits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    zero_shot: Fact
    few_shot: Fact
    shots: int
    rank_zero_shot: int
    rank_few_shot: int
    heads: tuple[CircuitHead, ...]
    diff: CircuitDiff
    verdict: Verdict

    def __str__(self) -> str:
        readers = [str(each) for each in self.heads if each.demonstrations >= READS]
        return "\n".join([f"{self.few_shot.prompt} {self.few_shot.object}", *readers, str(self.verdict)])

    @property
    def told(self) -> Told:
        answer, before, after = self.few_shot.object, self.diff.before, self.diff.after
        written, readers = after.written(answer), [each for each in self.heads if each.demonstrations >= READS]
        chief = next((each for each in readers if each.new), readers[0] if readers else None)
        found = self.verdict.conclusion if self.verdict.conclusive else "what carries the gain is undecided"
        return Told(
            question="What demonstrations add",
            title=f"{self.zero_shot.prompt} …",
            verdict=f"Without demonstrations {model_of(self.diff)} does not say {answer!r} ({ending(before, answer)}), with "
            f"{self.shots} it does ({ending(after, answer)}): {found}; {self.verdict.sentence}",
            put=(
                Put("Without demonstrations", self.zero_shot.prompt, f"not {answer!r}", ending(before, answer), False),
                Put(f"With {self.shots} demonstrations", self.few_shot.prompt, answer, ending(after, answer), True),
            ),
            heads=HeadsTold(
                "The heads that read the demonstrations",
                f"Heads of the circuit with demonstrations that draw {READS:.0%} or more of their write from these, the first "
                "position apart.",
                (("of its write", "%"), ("of its attention", "%"), (f"writes {answer!r}", "logits")),
                tuple(each.told(written[each.head], marked=each == chief) for each in readers),
                "No head of the circuit reads the demonstrations.",
                "What it draws most from",
            ),
            story=(
                f"Without demonstrations {course(before, answer)}",
                f"With {self.shots} {course(after, answer)}",
                overlap(self.diff),
            ),
        )


def explain_icl(
    model: Model,
    relation: Relation,
    subject: str,
    relations: Relations,
    spec: RunSpec,
    *,
    shots: int = SHOTS,
    shown: Sequence[str] | None = None,
    wording: Wording = "stated",
    watch: Watch | None = None,
) -> InContext:
    """What ``shots`` demonstrations change in the circuit that answers for ``subject``.

    Args:
        shown: the demonstrated subjects; drawn with the spec's seed from the relation's others by default.

    Raises:
        BehaviourError: the bare question is answered already, or the demonstrations do not bring the answer.
        circuits.model.ContextError: the demonstrations are longer than the model's context.
    """
    if shown is None:
        others = [each for each in relation.subjects if each != subject]
        if len(others) < shots:
            raise BehaviourError(
                f"{relation.name} has {len(others)} other subjects to demonstrate, {shots} were asked for"
            )
        shown = random.Random(f"{spec.seed}/{relation.name}/{subject}").sample(others, shots)
    bare, full = demonstrated(relation, subject, shown, wording)
    # Raised before any search: a prompt that does not fit has no circuit.
    model.tokens(full)
    rank_bare, rank_full = (int(rank) for rank in whole_model(model, (bare, full)).rank.per_example)
    if rank_bare == 1:
        raise BehaviourError(
            f"{model.name} answers {bare.prompt!r} without demonstrations: they gain nothing; --find looks for a case"
        )
    if rank_full != 1:
        raise BehaviourError(
            f"{len(shown)} demonstrations do not bring the answer: {full.object!r} ranks {rank_full} after {full.prompt!r} "
            "(more --shots, or --find)"
        )
    bench = make_bench(model, bare, relations, spec, watch)
    before = bench.side(model, bare, (full.object,), label="zero-shot")
    after = bench.side(model, full, (full.object,), label=f"{len(shown)}-shot")
    diff = compared("demonstrations", before, after)
    nodes = [node for node in after.circuit.nodes if node.kind == "head"]
    heads = _circuit_heads(model, bare, full, nodes, set(diff.nodes_gained))
    return InContext(
        zero_shot=bare,
        few_shot=full,
        shots=len(shown),
        rank_zero_shot=rank_bare,
        rank_few_shot=rank_full,
        heads=heads,
        diff=diff,
        verdict=_verdict(model, bare, full, heads, after.circuit.graph, spec.seed),
    )


def _circuit_heads(
    model: Model, question: Fact, fact: Fact, heads: Sequence[Node], gained: Collection[str]
) -> tuple[CircuitHead, ...]:
    """These heads of the circuit with demonstrations, the one that reads them most first; ``gained`` are new."""
    if not heads:
        return ()
    parts = open_parts(model, (fact,))
    (trace,) = traces(model, (fact,), parts)
    tokens = [model.token_text(token) for token in trace.ids[0].tolist()]
    there = demonstration_positions(model, question, fact)
    drawn = {layer: written_shares(trace, parts, layer)[0] for layer in {head.layer for head in heads}}
    found = []
    for head in heads:
        shares = drawn[head.layer][head.head]
        top = shares[SINK + 1 :].topk(min(3, len(tokens) - 1))
        found.append(
            CircuitHead(
                head=head.name,
                new=head.name in gained,
                demonstrations=float(shares[list(there)].sum()),
                attention=float(trace.attention[head.layer, 0, head.head, list(there)].sum()),
                reads=tuple(
                    (tokens[SINK + 1 + int(i)], float(w)) for w, i in zip(top.values, top.indices, strict=True)
                ),
            )
        )
    return tuple(sorted(found, key=lambda each: (-each.demonstrations, each.head)))


def _verdict(model: Model, bare: Fact, full: Fact, heads: Sequence[CircuitHead], graph: Graph, seed: int) -> Verdict:
    readers = [each.head for each in heads if each.demonstrations >= READS]
    new = [each.head for each in heads if each.demonstrations >= READS and each.new]
    if not readers:
        return Verdict(
            conclusion=INCONCLUSIVE,
            sentence=f"no head of the circuit draws {READS:.0%} of its write from the demonstrations.",
            evidence=tuple(
                Evidence(name=f"share of {label_of(each.head)}'s write", value=each.demonstrations) for each in heads
            ),
        )
    gain = whole_model(model, (bare,)).nll.value - whole_model(model, (full,)).nll.value
    evidence = [Evidence(name="gain of the demonstrations", value=gain, unit="nats")]
    conclusions = (
        (new, NEW_HEADS_CARRY),
        (readers, "heads that read the demonstrations carry the gain, not the new ones alone"),
    )
    cuts, reason = ReadingCuts(model, full, demonstration_positions(model, bare, full), graph), ""
    for cut, conclusion in conclusions:
        if not cut:
            continue
        lost, elsewhere, *others = cuts.losses(cut, seed)
        named = listed([label_of(name) for name in cut])
        evidence.append(
            Evidence(
                name=f"lost without what {named} carry from the demonstrations",
                value=lost,
                unit="nats",
                against=elsewhere,
                against_name="without what they carry from elsewhere",
            )
        )
        # Without others to compare with there is no control, and nothing follows.
        chance = (1 + sum(other >= lost for other in others)) / (1 + len(others))
        if others:
            evidence.append(
                Evidence(
                    name=f"chance that as many other heads of any layers cost as much ({len(others)} draws)",
                    value=chance,
                    against=sum(others) / len(others),
                    against_name="they cost, in nats,",
                )
            )
        if lost >= MOST * gain and lost > elsewhere and chance <= ALPHA:
            sentence = f"without what {named} carry from the demonstrations the answer loses {lost:.2f} of the {gain:.2f} nats gained."
            return Verdict(conclusion=conclusion, sentence=sentence, evidence=tuple(evidence))
        if lost < MOST * gain:
            reason = f"cutting what {named} carry from the demonstrations undoes only {lost:.2f} of the {gain:.2f} nats gained"
        elif not others:
            reason = f"{named} are more than half of all heads: there are not as many others to compare with"
        else:
            rival = "what they carry from elsewhere" if lost <= elsewhere else "as many other heads"
            reason = f"cutting what {named} carry from the demonstrations undoes the gain, but so does cutting {rival}"
    return Verdict(conclusion=INCONCLUSIVE, sentence=f"{reason}.", evidence=tuple(evidence))


def icl_cases(
    model: Model,
    relations: Relations,
    manifest: Manifest | None,
    spec: RunSpec,
    *,
    relation: str | None = None,
    shots: int = SHOTS,
    wording: Wording = "stated",
    watch: Watch | None = None,
) -> Iterator[InContext]:
    """Subjects that are answered thanks to demonstrations only: of each relation the one that gains most, facts before words.

    Bare questions are put of subjects that training never demonstrated, where a manifest says which. Stated ones are put of facts
    that training showed rarely, after ones that it showed often; without a manifest, of any.
    """
    asked = gained_subjects(model, relations, manifest, spec.seed, relation=relation, shots=shots, wording=wording)
    for one, gained in asked:
        for subject, shown in gained[:1]:
            yield explain_icl(model, one, subject, relations, spec, shown=shown, wording=wording, watch=watch)


def find_icl(
    model: Model,
    relations: Relations,
    manifest: Manifest | None,
    spec: RunSpec,
    *,
    relation: str | None = None,
    shots: int = SHOTS,
    wording: Wording = "stated",
    watch: Watch | None = None,
) -> InContext:
    """The first conclusive of `icl_cases`. If none of the first few is, the first of them.

    Raises:
        BehaviourError: no subject that was looked at is answered with demonstrations only.
    """
    cases = icl_cases(model, relations, manifest, spec, relation=relation, shots=shots, wording=wording, watch=watch)
    none = (
        f"{model.name} answers none of the {wording} questions that were looked at thanks to {shots} demonstrations alone "
        f"(--wording {'stated' if wording == 'bare' else 'bare'} puts them otherwise)"
    )
    return first_conclusive(cases, CASES, none)


def _run(spec: InContextSpec, _: Case[None], at: Setting, watch: Watch) -> InContext:
    search, shots, wording = spec.run_spec(), spec.shots, spec.wording
    if spec.subject is None:
        return find_icl(
            at.model,
            at.relations,
            at.manifest,
            search,
            relation=spec.relation,
            shots=shots,
            wording=wording,
            watch=watch,
        )
    return explain_icl(
        at.model, at.chosen[0], spec.subject, at.relations, search, shots=shots, wording=wording, watch=watch
    )


ICL: Study[InContextSpec, Setting, None, InContext] = Study("icl", InContext, open_case, one_case, _run)

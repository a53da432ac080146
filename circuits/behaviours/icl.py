"""What demonstrations add to a circuit (paper 2, section 6, Figure 5 right): heads that read them, and whether the gain hangs on those.

The same question is asked bare ("Spain:") and after k demonstrations ("Italy: Rome; Japan: Tokyo; Spain:"). Heads of the
second circuit that the first lacks, and that look at the demonstrations, are the candidates. The
check: without what these heads write at the last position the answer must lose the gain, and lose more than without
what as many other heads of the same layers write there.
"""

import random
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from circuits.analysis.trace import open_parts, traces
from circuits.behaviours.sides import BehaviourError, make_bench
from circuits.behaviours.verdict import INCONCLUSIVE, Evidence, Verdict
from circuits.datasets.corpus import demonstration
from circuits.datasets.manifest import Manifest
from circuits.diffs import CircuitDiff, random_floor
from circuits.evaluation import whole_model
from circuits.facts import Fact, Relation, Relations
from circuits.graph import Graph, Node, Slot
from circuits.metrics import match_nll
from circuits.model import Model
from circuits.network import ReaderKind, WriterKind
from circuits.runs import RunSpec
from circuits.spans import spans

SHOTS = 3
DRAWS = 40
"""Sets of other heads that the cut is compared with."""
READS = 0.3
"""Of all its attention, for a head to be said to read the demonstrations. Heads rest much of it on the first token."""
MOST = 0.5
"""Of the gain, for heads to be said to carry it."""
ALPHA = 0.05
LEAST_GAIN = 1.0
"""Nats. With `find_icl`, demonstrations must gain as much: there must be something to lose."""
CASES = 6


class CircuitHead(BaseModel):
    """A head of the circuit with demonstrations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: str
    new: bool
    """Whether the bare question's circuit lacks it."""
    demonstrations: float
    """Share of its attention that goes to the demonstrations."""
    attends: tuple[tuple[str, float], ...]
    """The tokens that it attends to most, with their shares of all its attention."""

    def __str__(self) -> str:
        tokens = ", ".join(f"{token.strip()!r} {share:.0%}" for token, share in self.attends)
        new = " (new)" if self.new else ""
        return f"{self.head}{new} gives the demonstrations {self.demonstrations:.0%} of its attention: {tokens}"


class InContext(BaseModel):
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


def demonstrated(relation: Relation, subject: str, shown: Sequence[str]) -> tuple[Fact, Fact]:
    """(the bare question, the question after demonstrations of the relation on the subjects ``shown``)."""
    object_ = relation.object_of(subject)
    pairs = [(each, relation.object_of(each)) for each in shown]
    return tuple(Fact(demonstration(some, subject), subject, object_, relation.name) for some in ((), pairs))  # type: ignore[return-value]


def explain_icl(
    model: Model,
    relation: Relation,
    subject: str,
    relations: Relations,
    spec: RunSpec,
    *,
    shots: int = SHOTS,
    shown: Sequence[str] | None = None,
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
    bare, full = demonstrated(relation, subject, shown)
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
    bench = make_bench(model, relation, relations, spec)
    before = bench.side(model, bare, (full.object,), label="zero-shot")
    after = bench.side(model, full, (full.object,), label=f"{len(shown)}-shot")
    diff = CircuitDiff(differs="demonstrations", before=before, after=after)
    diff = diff.model_copy(update={"floors": (random_floor(before.circuit, after.circuit),)})
    heads = _heads(model, full, diff)
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


def _heads(model: Model, fact: Fact, diff: CircuitDiff) -> tuple[CircuitHead, ...]:
    """The circuit's heads, the one that reads the demonstrations most first."""
    gained = set(diff.nodes_gained)
    heads = [node for node in diff.after.circuit.nodes if node.kind == "head"]
    if not heads:
        return ()
    parts = open_parts(model, (fact,))
    (trace,) = traces(model, (fact,), parts)
    tokens = [model.token_text(token) for token in trace.ids[0].tolist()]
    first = int(model.vocabulary.bos is not None)
    query = spans(model, fact).subject[0]
    found = []
    for head in heads:
        weights = trace.attention[head.layer, 0, head.head]
        top = weights.topk(min(3, len(tokens)))
        found.append(
            CircuitHead(
                head=head.name,
                new=head.name in gained,
                demonstrations=float(weights[first:query].sum()),
                attends=tuple((tokens[int(i)], float(w)) for w, i in zip(top.values, top.indices, strict=True)),
            )
        )
    return tuple(sorted(found, key=lambda each: (-each.demonstrations, each.head)))


def _verdict(model: Model, bare: Fact, full: Fact, heads: Sequence[CircuitHead], graph: Graph, seed: int) -> Verdict:
    readers = [each.head for each in heads if each.demonstrations >= READS]
    new = [each.head for each in heads if each.demonstrations >= READS and each.new]
    if not readers:
        return Verdict(
            conclusion=INCONCLUSIVE,
            sentence=f"no head of the circuit gives the demonstrations {READS:.0%} of its attention.",
            evidence=tuple(Evidence(name=f"attention of {each.head}", value=each.demonstrations) for each in heads),
        )
    gain = whole_model(model, (bare,)).nll.value - whole_model(model, (full,)).nll.value
    evidence = [Evidence(name="gain of the demonstrations", value=gain, unit="nats")]
    conclusions = (
        (new, "new heads read the demonstrations and carry the gain"),
        (readers, "heads that read the demonstrations carry the gain, not the new ones alone"),
    )
    reason = ""
    for cut, conclusion in conclusions:
        if not cut:
            continue
        lost, *control = _losses(model, full, cut, graph, seed)
        named = ", ".join(cut)
        mean = sum(control) / len(control) if control else None
        evidence.append(
            Evidence(
                name=f"lost without {named}",
                value=lost,
                unit="nats",
                against=mean,
                against_name="mean of as many other heads of these layers",
            )
        )
        if not control:
            reason = (
                f"too many heads of the layers of {named} read the demonstrations: no others are left to compare with"
            )
            continue
        chance = (1 + sum(other >= lost for other in control)) / (1 + len(control))
        evidence.append(Evidence(name="chance that other heads cost as much", value=chance))
        if lost >= MOST * gain and chance <= ALPHA:
            sentence = f"without {named} the answer loses {lost:.2f} of the {gain:.2f} nats gained."
            return Verdict(conclusion=conclusion, sentence=sentence, evidence=tuple(evidence))
        reason = (
            f"cutting {named} undoes only {lost:.2f} of the {gain:.2f} nats gained"
            if lost < MOST * gain
            else f"cutting {named} undoes the gain, but so does cutting other heads of these layers"
        )
    return Verdict(conclusion=INCONCLUSIVE, sentence=f"{reason}.", evidence=tuple(evidence))


def _losses(model: Model, fact: Fact, heads: Sequence[str], graph: Graph, seed: int) -> list[float]:
    """Rise of the NLL without these heads' last writes, then without those of each draw of as many others of the same layers."""
    by_name = {node.name: node for node in graph.nodes}
    own = [by_name[name] for name in heads]
    tokens = model.tokens(fact)
    ids, answer = torch.tensor([tokens.forced]), torch.tensor([tokens.answer])
    last = len(tokens.prompt) - 1

    def nll(cut: Sequence[Node]) -> float:
        logits = model.run(ids, _Silence(cut, last, parallel=model.shape.parallel), n_prompt=len(tokens.prompt))
        return float(match_nll(logits[:, last:], answer)[0])

    whole = nll(())
    heads_of = {
        layer: [n for n in graph.nodes if n.kind == "head" and n.layer == layer] for layer in {n.layer for n in own}
    }
    pool = {layer: [node for node in nodes if node not in own] for layer, nodes in heads_of.items()}
    count = {layer: sum(node.layer == layer for node in own) for layer in sorted(pool)}
    found = [nll(own) - whole]
    if any(len(pool[layer]) < count[layer] for layer in count):
        return found
    rng = random.Random(seed)
    for _ in range(DRAWS):
        found.append(nll([node for layer in count for node in rng.sample(pool[layer], count[layer])]) - whole)
    return found


class _Silence:
    """The intervention under which nobody hears what some heads write at one position."""

    def __init__(self, heads: Sequence[Node], position: int, *, parallel: bool) -> None:
        self._heads, self._position, self._parallel = heads, position, parallel
        self._writes: dict[int, Tensor] = {}
        """What the silenced heads of each layer write there, added up."""

    def write(self, kind: WriterKind, layer: int, value: Tensor) -> None:
        own = [node.head for node in self._heads if node.layer == layer]
        if kind == "head" and own:
            self._writes[layer] = value[:, self._position, own].sum(1)

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        after_own_heads = kind in ("mlp", "bypass") and not self._parallel
        heard = [each for own, each in self._writes.items() if own < layer or (own == layer and after_own_heads)]
        if not heard:
            return value
        value, silenced = value.clone(), torch.stack(heard).sum(0)
        value[:, self._position] -= (silenced[:, None] if kind == "head" else silenced).to(value)
        return value


def find_icl(
    model: Model,
    relations: Relations,
    manifest: Manifest,
    spec: RunSpec,
    *,
    relation: str | None = None,
    shots: int = SHOTS,
) -> InContext:
    """The first conclusive case among subjects that training never demonstrated. If none of the first is, the first of them.

    Raises:
        BehaviourError: no such subject is answered with demonstrations only.
    """
    found = []
    for group in manifest.demonstrations.values():
        for name in group.relations:
            one = relations[name]
            if relation not in (None, name):
                continue
            candidates = [each for each in group.undemonstrated if each in one.subjects]
            for subject in _gained(model, one, candidates, group.subjects, spec.seed, shots)[:1]:
                shown = _shown(one, subject, group.subjects, spec.seed, shots)
                case = explain_icl(model, one, subject, relations, spec, shown=shown)
                if case.verdict.conclusive:
                    return case
                found.append(case)
                if len(found) == CASES:
                    return found[0]
    if not found:
        raise BehaviourError(f"{model.name} answers no undemonstrated subject thanks to {shots} demonstrations alone")
    return found[0]


def _shown(relation: Relation, subject: str, pool: Sequence[str], seed: int, shots: int) -> list[str]:
    own = set(relation.subjects)
    return random.Random(f"{seed}/{relation.name}/{subject}").sample([each for each in pool if each in own], shots)


def _gained(
    model: Model, relation: Relation, subjects: Sequence[str], pool: Sequence[str], seed: int, shots: int
) -> list[str]:
    """The subjects whose answer ranks first with demonstrations, and not without; the largest gain first."""
    if not subjects or len(set(pool) & set(relation.subjects)) < shots:
        return []
    pairs = [demonstrated(relation, each, _shown(relation, each, pool, seed, shots)) for each in subjects]
    bare, full = (whole_model(model, facts) for facts in zip(*pairs, strict=True))
    gains = [zero - few for zero, few in zip(bare.nll.per_example, full.nll.per_example, strict=True)]
    ranks = zip(subjects, bare.rank.per_example, full.rank.per_example, gains, strict=True)
    found = [(gain, subject) for subject, zero, few, gain in ranks if zero > 1 and few == 1 and gain >= LEAST_GAIN]
    return [subject for _, subject in sorted(found, key=lambda each: (-each[0], each[1]))]

"""The story of one fact in sentences, each with the numbers that it says (paper 2, section 4, "a running example").

Where the relation is read, which head moves the subject's information, which MLP puts the answer first, where it is strengthened.
What was not found is said to be not found.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from circuits.analysis.reading import HeadOnFact, Reading
from circuits.analysis.roles import HeadRole
from circuits.circuit import Circuit
from circuits.graph import Node

FAINT = 0.01
"""A probability below which a token is as good as absent."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of the story, and the measured values that it rests on, by name."""

    text: str
    numbers: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return self.text


def tell(reading: Reading, circuit: Circuit | None = None) -> tuple[Sentence, ...]:
    """The story, in the order of the forward pass. With a circuit, heads and edges are said to be in it or not."""
    teller = _Teller(reading, circuit)
    found = (
        [teller.roles_missing()] if reading.roles is None or reading.unread else [teller.relation(), teller.subject()]
    )
    found += [teller.suppression(), teller.at_the_subject(), teller.first(), teller.strengthened()]
    return tuple(sentence for sentence in found if sentence is not None)


def _quote(token: str) -> str:
    return f"“{token.strip()}”"


class _Teller:
    def __init__(self, reading: Reading, circuit: Circuit | None) -> None:
        self.reading, self.circuit = reading, circuit
        self.answer = _quote(reading.fact.object)
        self.nodes = set(circuit.nodes) if circuit is not None else set[Node]()

    # ---- who reads what ------------------------------------------------------------------------------------------------

    def roles_missing(self) -> Sentence:
        why = self.reading.unread or "the fact is of no relation of the dataset"
        return Sentence(f"What each head does for the relation was not told apart: {why}.", ())

    def relation(self) -> Sentence:
        heads = self.reading.with_role("relation", "mixture")
        n_facts = float(self._n_facts())
        if not heads:
            return Sentence(
                "No head passed the test of a relation head: the relation's words reach the last token in parts too "
                f"small or too unspecific to be told from chance over {n_facts:.0f} facts.",
                (("facts", n_facts),),
            )
        first, verdict = heads[0], self._verdict(heads[0])
        token, most = self._most(first, "relation")
        share = self._share(first, "relation")
        effect = verdict.evidence.relation_cut
        text = (
            f"The relation is read by {first.head.label}{self._place(first.head)}: it gives the relation's words {share:.0%} of its "
            f"attention here{f', most of it to {_quote(token)} ({most:.0%})' if token else ''}, and without that reading the relation's "
            f"range of objects falls by {effect.mean:.2f} logits over {n_facts:.0f} facts ({first.relation_cut:+.2f} here)."
            f"{self._others(heads, 'relation heads')}"
        )
        return Sentence(
            text,
            (
                ("attention to the relation", share),
                ("range, mean fall", effect.mean),
                ("range, fall here", first.relation_cut),
                ("facts", n_facts),
            ),
        )

    def subject(self) -> Sentence:
        movers = self.reading.with_role("mover", "mixture")
        # A head that only brings the subject to later layers is told of where none moves its attribute.
        heads = movers or self.reading.with_role("carrier")
        n_facts = float(self._n_facts())
        if not heads:
            return Sentence(
                f"No head passed the test of a mover head over {n_facts:.0f} facts: what the last token knows of the subject "
                "cannot be put down to one head.",
                (("facts", n_facts),),
            )
        first = max(heads, key=lambda each: each.subject_cut)
        verdict, share = self._verdict(first), self._share(first, "subject")
        drawn = self.reading.drawn(first.write, "subject")
        effect = verdict.evidence.subject_cut
        tokens = ", ".join(_quote(score.token) for score in first.promoted[:3])
        direct = verdict.evidence.subject_answer.mean
        how = (
            f"What it takes from the subject already reads as the answer ({direct:+.2f} logits on average)"
            if movers
            else "What it takes from the subject does not yet read as the answer; later layers make it so"
        )
        rest = [each for each in heads if each != first]
        text = (
            f"{first.head.label}{self._place(first.head)} moves the subject's information: it gives {_quote(self.reading.fact.subject)} "
            f"{share:.0%} of its attention here and draws {drawn:.0%} of its write from it; without that reading the answer falls by "
            f"{first.subject_cut:.2f} logits against the relation's other objects ({effect.mean:.2f} over {n_facts:.0f} facts). {how}; "
            f"its whole write promotes {tokens} most."
            f"{self._others([first, *rest], 'mover heads' if movers else 'heads that carry the subject')}{self._carriers(movers)}"
        )
        return Sentence(
            text,
            (
                ("attention to the subject", share),
                ("write drawn from the subject", drawn),
                ("answer, fall here", first.subject_cut),
                ("answer, mean fall", effect.mean),
                ("answer, written directly", direct),
                ("facts", n_facts),
            ),
        )

    def _carriers(self, movers: Sequence[HeadOnFact]) -> str:
        carriers = self.reading.with_role("carrier") if movers else ()
        if not carriers:
            return ""
        names = ", ".join(each.head.label for each in carriers)
        return f" Carrying the subject to later layers, in a form that does not read as the answer: {names}."

    def suppression(self) -> Sentence | None:
        heads = self.reading.with_role("suppressor")
        if not heads:
            return None
        first = heads[0]
        mean = self._verdict(first).evidence.subject_cut.mean
        return Sentence(
            f"{first.head.label}{self._place(first.head)} works against the answer: without what it reads from the subject, "
            f"the answer rises by {-mean:.2f} logits on average ({-first.subject_cut:+.2f} here).{self._others(heads, 'suppressors')}",
            (("answer, mean fall", mean), ("answer, fall here", first.subject_cut)),
        )

    # ---- where the answer is -------------------------------------------------------------------------------------------

    def at_the_subject(self) -> Sentence | None:
        path = self.reading.trajectory
        if not path.ranks_at_subject or not path.subject_probabilities:
            return None
        best = min(path.ranks_at_subject)
        where = path.labels[path.ranks_at_subject.index(best)]
        top = max(path.subject_probabilities)
        when = path.labels[path.subject_probabilities.index(top)]
        subject = _quote(self.reading.fact.subject)
        own = (
            f"{subject} itself is never likely at the last token (at most {top:.2g}, after {when}): what is moved there "
            "does not read as its name"
            if top < FAINT
            else f"{subject} itself comes up at the last token (probability {top:.2g} after {when})"
        )
        return Sentence(
            f"At the subject's own last token the answer's best rank is {best:,} (after {where}). {own}.",
            (("best rank at the subject", float(best)), ("subject's probability at the last token", top)),
        )

    def first(self) -> Sentence:
        path, made = self.reading.trajectory, self.reading.decider
        if made is None:
            if path.first_on_top is None:
                best, last = min(path.ranks), path.ranks[-1]
                return Sentence(
                    f"{self.answer} is never first in the residual stream: its best rank is {best:,}, its last {last:,}.",
                    (("best rank", float(best)), ("last rank", float(last))),
                )
            return self._first_without_mlp(path.first_on_top)
        fed = [feeder for feeder in made.feeders[:3] if feeder.effect > 0]
        feeding = (
            "; it writes that because of "
            + ", ".join(f"{f.head.label} ({f.effect:+.2f}{self._edge(f.head, made.mlp)})" for f in fed)
            + ", the heads without whose input it would write the most less"
            if fed
            else "; no single head's input makes it do so"
        )
        return Sentence(
            f"{made.mlp.label}{self._place(made.mlp)} puts {self.answer} first: rank {made.rank_before:,} without its write, "
            f"{made.rank_after} with it. It writes {made.contribution:+.2f} logits of the answer{feeding}.",
            (
                ("rank before", float(made.rank_before)),
                ("rank after", float(made.rank_after)),
                ("answer, written by the MLP", made.contribution),
                *((f"without {f.head.label}, its fall", f.effect) for f in fed),
            ),
        )

    def _first_without_mlp(self, state: str) -> Sentence:
        path = self.reading.trajectory
        probability = path.probabilities[path.labels.index(state)]
        text = f"No MLP's write takes {self.answer} to the first rank: it first stands there after {state} (probability {probability:.3g})"
        numbers = [("probability there", probability)]
        writers = [
            (write.node, write.logits[0])
            for write in self.reading.writes
            if state == f"L{write.node.layer} attn" and write.node.kind == "head" and write.logits[0] > 0
        ]
        if writers:
            best = sorted(writers, key=lambda each: -each[1])[:3]
            listed = ", ".join(f"{head.label}{self._place(head)} {logits:+.2f}" for head, logits in best)
            text += f". Of that layer's heads these write the most of it, in logits: {listed}"
            numbers += [(f"answer, written by {head.label}", logits) for head, logits in best]
        return Sentence(f"{text}.", tuple(numbers))

    def strengthened(self) -> Sentence | None:
        path = self.reading.trajectory
        if path.decided is None:
            return Sentence(
                f"{self.answer} ends at rank {path.ranks[-1]:,}, with probability {path.probabilities[-1]:.3g}.",
                (("last rank", float(path.ranks[-1])), ("last probability", path.probabilities[-1])),
            )
        at = path.labels.index(path.decided)
        start, end = path.probabilities[at], path.probabilities[-1]
        numbers = [("probability when decided", start), ("last probability", end)]
        if at + 1 == len(path.labels):
            return Sentence(
                f"It is decided in the last state, {path.decided}, with probability {end:.3g}.", tuple(numbers)
            )
        rises = [b - a for a, b in zip(path.probabilities[at:], path.probabilities[at + 1 :], strict=False)]
        most = max(rises)
        where = path.labels[at + 1 + rises.index(most)]
        later = [each for each in self.reading.mlps if path.labels.index(self._state(each.mlp)) > at]
        best = max(later, key=lambda each: each.contribution, default=None)
        text = f"From {path.decided} on the answer stays first (early decoding); its probability goes from {start:.3g} to {end:.3g}"
        if most > 0:
            text += f", most at {where} ({most:+.2g})"
            numbers.append((f"rise at {where}", most))
        if best is not None and best.contribution > 0:
            text += f"; of the later MLPs {best.mlp.label} writes the most of it ({best.contribution:+.2f} logits)"
            numbers.append((f"answer, written by {best.mlp.label}", best.contribution))
        return Sentence(f"{text}.", tuple(numbers))

    # ---- words ---------------------------------------------------------------------------------------------------------

    def _n_facts(self) -> int:
        return len(self.reading.roles.facts) if self.reading.roles else 0

    def _verdict(self, head: HeadOnFact) -> HeadRole:
        assert self.reading.roles is not None
        return self.reading.roles.of(head.head)

    def _state(self, mlp: Node) -> str:
        label = f"L{mlp.layer} MLP"
        return label if label in self.reading.trajectory.labels else f"L{mlp.layer}"

    def _share(self, head: HeadOnFact, which: str) -> float:
        return self.reading.drawn(head.attention, which)

    def _most(self, head: HeadOnFact, which: str) -> tuple[str, float]:
        """The token of that class with most of the head's attention, and its share."""
        own = [
            (weight, token)
            for weight, token, its in zip(head.attention, self.reading.tokens, self.reading.classes, strict=True)
            if its == which
        ]
        weight, token = max(own, default=(0.0, ""))
        return token, weight

    def _place(self, node: Node) -> str:
        if self.circuit is None:
            return ""
        return " (in the circuit)" if node in self.nodes else " (not in the circuit)"

    def _edge(self, writer: Node, reader: Node) -> str:
        if self.circuit is None:
            return ""
        kept = any(edge.writer == writer and edge.reader.node == reader for edge in self.circuit.edges)
        return ", an edge of the circuit" if kept else ", no edge of the circuit"

    def _others(self, heads: Sequence[HeadOnFact], what: str) -> str:
        names = [each.head.label for each in heads[1:]]
        return f" Other {what}: {', '.join(names)}." if names else ""

"""Claims about in-context learning: heads that demonstrations bring in (paper 2, section 6, Figure 5 right).

Cases are questions that the model answers after three demonstrations and not without, in two wordings: stated in the relation's
words as the paper has it, and bare pairs that do not name the relation.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from circuits.analysis.attribution import written_shares
from circuits.analysis.tracing import open_parts, traces
from circuits.evaluation.claims import Pair
from circuits.facts import Fact
from circuits.studies.claims.claim import ClaimGroup, Laboratory, PaperClaim, in_turn
from circuits.studies.explain.demonstrations import ReadingCuts, demonstrated, demonstration_positions
from circuits.studies.explain.icl import READS
from circuits.studies.explain.shots import SHOTS, gained_subjects
from circuits.studies.explain_specs import Wording

Shown = tuple[Fact, Fact]
"""A question, and the question after its demonstrations."""


def demonstrated_questions(wording: Wording, lab: Laboratory, n: int) -> Sequence[Shown]:
    """Of each relation the question that gains most from demonstrations, then the next of each."""

    def found() -> list[Shown]:
        asked = gained_subjects(lab.model, lab.relations, lab.manifest, lab.spec.seed, shots=SHOTS, wording=wording)
        return in_turn(
            [demonstrated(relation, subject, shown, wording) for subject, shown in gained] for relation, gained in asked
        )

    return lab.once(("demonstrated", wording), found)[:n]


def _new_heads(lab: Laboratory, case: Shown) -> tuple[dict[str, float], set[str]]:
    """(of each head's write, what it draws from the demonstrations; the heads of the circuit with them that the bare one lacks)."""

    def found() -> tuple[dict[str, float], set[str]]:
        bare, full = case
        parts = open_parts(lab.model, (full,))
        (trace,) = traces(lab.model, (full,), parts)
        there = list(demonstration_positions(lab.model, bare, full))
        drawn = [written_shares(trace, parts, layer)[0][:, there].sum(1).tolist() for layer in range(len(parts.blocks))]
        before, after = ({node for node in lab.circuit(fact).nodes if node.kind == "head"} for fact in case)
        heads = [node for node in lab.model.graph().nodes if node.kind == "head"]
        return {head.name: drawn[head.layer][head.head] for head in heads}, {head.name for head in after - before}

    return lab.once(("new heads", case), found)


def _attend(lab: Laboratory, case: Shown) -> Pair | None:
    shares, new = _new_heads(lab, case)
    own, others = ([shares[name] >= READS for name in shares if (name in new) is there] for there in (True, False))
    if not own:
        return None
    return Pair(sum(own) / len(own), sum(others) / len(others) if len(others) >= len(own) else None)


def _carry(lab: Laboratory, case: Shown) -> Pair:
    bare, full = case
    shares, new = _new_heads(lab, case)
    readers = [name for name in shares if name in new and shares[name] >= READS]
    if not readers:
        return Pair(0.0, 0.0)
    there = demonstration_positions(lab.model, bare, full)
    lost, _, *others = ReadingCuts(lab.model, full, there, lab.model.graph()).losses(readers, lab.spec.seed)
    return Pair(lost, float(np.mean(others)) if others else None)


def _group(wording: Wording) -> ClaimGroup:
    words = "the relation stated" if wording == "stated" else "bare pairs"
    return ClaimGroup(
        f"icl-{wording}",
        partial(demonstrated_questions, wording),
        (
            PaperClaim(
                f"new-heads-attend-{wording}",
                "2, section 6, in-context learning",
                f"heads that demonstrations bring into the circuit attend to these ({words})",
                "share of the new heads that draw 30 % of their write from the demonstrations",
                "share of all other heads of any layer that do so",
                "share",
                0.1,
                _attend,
            ),
            PaperClaim(
                f"new-heads-carry-{wording}",
                "2, section 6, in-context learning",
                f"the answer hangs on what these new heads read there ({words})",
                "NLL that the answer gains without what the new heads that read the demonstrations carry from there (0 if there is none)",
                "mean over 40 draws of as many other heads of any layers",
                "nats",
                0.1,
                _carry,
            ),
        ),
    )


STATED, BARE = _group("stated"), _group("bare")

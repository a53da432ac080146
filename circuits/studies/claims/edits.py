"""Claims about single edits: what ROME and FT-M change in the flow of information, both at layer 0 (paper 2, section 5, Figure 4).

ROME stores its value at the subject's last token, as the paper has it; FT-M trains the same matrix of the same layer. Facts after
either of whose edits the model does not give the new object bear on nothing.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from circuits.analysis.lens import trajectories
from circuits.analysis.writes import direct_writes
from circuits.editing.methods.table import find_method
from circuits.evaluation import said
from circuits.evaluation.claims import Pair
from circuits.facts import Fact
from circuits.graph import Node
from circuits.studies.claims.claim import ClaimGroup, Laboratory, PaperClaim
from circuits.studies.diff import edited_nodes, make_edit, mlp_state
from circuits.studies.diff_table import facts_to_edit
from circuits.studies.options import AskedError

LAYER = 0
"""The paper's: "Editing layer 0 with ROME and FT-M"."""
ROME, FT_M = "rome@subject", "ft-m"
NEIGHBOURS = 5
DRAWS = 40


@dataclass(frozen=True)
class Edited:
    """What one edit of a fact does at its prompt and at its neighbours'."""

    took: bool
    share: float
    """Of the new object's logit, what the edited MLP writes; NaN where the logit is not positive."""
    at_once: bool
    """The new object is first in the stream from the edited MLP on."""
    leads: dict[str, float]
    """For each head, what it writes of the new object less of the old, in logits."""
    leaked: float | None
    """Share of the neighbours that are given the new object; None: there is none."""


def edited_facts(lab: Laboratory, n: int) -> Sequence[tuple[Fact, str]]:
    """Facts that the model answers rightly, each with another object, the relations in turn."""
    for asked in range(n, 0, -1):
        try:
            make = partial(facts_to_edit, lab.model, asked, lab.relations, lab.spec.seed)
            return lab.once(("edits", asked), make)
        except AskedError:
            continue
    return ()


def edited(lab: Laboratory, asked: tuple[Fact, str], method: str) -> Edited:
    return lab.once((asked, method), lambda: _edited(lab, *asked, method))


def _edited(lab: Laboratory, fact: Fact, target: str, method: str) -> Edited:
    edit = make_edit(lab.model, fact, target, method, layers=(LAYER,), seed=lab.spec.seed)
    own = set(edited_nodes(edit, lab.model))
    others = [each for each in lab.recalled(fact.relation or "", "test") if each.subject != fact.subject]
    near = sorted((each for each in others if each.object != target), key=lambda each: each.object != fact.object)
    near = near[:NEIGHBOURS]
    with edit.on(lab.model) as model:
        took = said(model, fact.prompt, (target,)) is not None
        writes = direct_writes(model, fact, (target, fact.object))
        (path,) = trajectories(model, (Fact(fact.prompt, fact.subject, target, fact.relation),))
        leaked = [said(model, each.prompt, (target,)) is not None for each in near]
    total = sum(write.logits[0] for write in writes)
    here = sum(write.logits[0] for write in writes if write.node.name in own)
    there = path.labels.index(mlp_state(path, LAYER))
    return Edited(
        took,
        here / total if total > 0 else float("nan"),
        path.decided is not None and path.labels.index(path.decided) <= there,
        {write.node.name: write.logits[0] - write.logits[1] for write in writes if write.node.kind == "head"},
        sum(leaked) / len(leaked) if leaked else None,
    )


def _both(lab: Laboratory, asked: tuple[Fact, str]) -> tuple[Edited, Edited] | None:
    """(after ROME, after FT-M), where both took."""
    rome, ft_m = (edited(lab, asked, method) for method in (ROME, FT_M))
    return (rome, ft_m) if rome.took and ft_m.took else None


def _writes(lab: Laboratory, asked: tuple[Fact, str]) -> Pair | None:
    found = _both(lab, asked)
    if found is None or any(each.share != each.share for each in found):
        return None
    return Pair(found[1].share, found[0].share)


def _at_once(lab: Laboratory, asked: tuple[Fact, str]) -> Pair | None:
    found = _both(lab, asked)
    return None if found is None else Pair(float(found[1].at_once), float(found[0].at_once))


def _leaks(lab: Laboratory, asked: tuple[Fact, str]) -> Pair | None:
    found = _both(lab, asked)
    if found is None or found[0].leaked is None or found[1].leaked is None:
        return None
    return Pair(found[1].leaked, found[0].leaked)


def _turned(lab: Laboratory, asked: tuple[Fact, str], after: Edited, heads: Sequence[str]) -> bool | None:
    """Whether the heads together favour the new object; None where they favoured it before the edit."""
    before = lab.once(("before", asked), lambda: _leads_before(lab, *asked))
    if sum(before[head] for head in heads) >= 0:
        return None
    return sum(after.leads[head] for head in heads) > 0


def _leads_before(lab: Laboratory, fact: Fact, target: str) -> dict[str, float]:
    writes = direct_writes(lab.model, fact, (target, fact.object))
    return {write.node.name: write.logits[0] - write.logits[1] for write in writes if write.node.kind == "head"}


def _turn_more_than_by_ft_m(lab: Laboratory, asked: tuple[Fact, str]) -> Pair | None:
    movers, found = [head.name for head in lab.movers(asked[0].relation or "")], _both(lab, asked)
    if not movers or found is None:
        return None
    rome, ft_m = (_turned(lab, asked, each, movers) for each in found)
    return None if rome is None or ft_m is None else Pair(float(rome), float(ft_m))


def _turn_more_than_others(lab: Laboratory, asked: tuple[Fact, str]) -> Pair | None:
    movers, found = [head.name for head in lab.movers(asked[0].relation or "")], _both(lab, asked)
    turned = _turned(lab, asked, found[0], movers) if movers and found is not None else None
    if turned is None or found is None:
        return None
    others = [name for name in found[0].leads if name not in movers]
    if len(others) < len(movers):
        return Pair(float(turned), None)
    rng = random.Random(f"{lab.spec.seed}/{asked}")
    drawn = [_turned(lab, asked, found[0], rng.sample(others, len(movers))) for _ in range(DRAWS)]
    there = [each for each in drawn if each is not None]
    return Pair(float(turned), float(np.mean(there)) if there else None)


def _unread(lab: Laboratory) -> str:
    """FT-M's own layer, where no head is above it."""
    layer = max(find_method(FT_M).options(lab.model).layers)
    if any(node.kind == "head" and node.layer > layer for node in lab.model.graph().nodes):
        return ""
    return f"FT-M's own layer here is {layer}, and no head can read what {Node(layer, 'mlp').label} writes"


def _at_its_own_layer(lab: Laboratory, asked: tuple[Fact, str]) -> Pair | None:
    fact, target = asked
    movers = [head.name for head in lab.movers(fact.relation or "")]
    edit = make_edit(lab.model, fact, target, FT_M, seed=lab.spec.seed)
    with edit.on(lab.model) as model:
        leads = _leads_before(Laboratory(model, lab.relations, lab.spec), fact, target)
    rome = edited(lab, asked, ROME)
    after = Edited(True, 0.0, False, leads, None)
    turned = [_turned(lab, asked, each, movers) for each in (rome, after)] if movers and rome.took else [None]
    return None if None in turned else Pair(float(bool(turned[0])), float(bool(turned[1])))


EDITS = ClaimGroup(
    "edits",
    edited_facts,
    (
        PaperClaim(
            "ft-m-writes-directly",
            "2, section 5, Figure 4",
            "FT-M writes the new object into the edited MLP itself, ROME does not",
            "share of the new object's logit at the last token that the edited MLP writes after FT-M at layer 0",
            "the same after ROME at layer 0, site subject",
            "share",
            0.1,
            _writes,
        ),
        PaperClaim(
            "ft-m-first-at-once",
            "2, section 5, Figure 4",
            "after FT-M the new object is first in the stream directly after the edited MLP",
            "whether it is first to stay from the edited MLP on, after FT-M at layer 0",
            "the same after ROME at layer 0, site subject",
            "share",
            0.0,
            _at_once,
        ),
        PaperClaim(
            "movers-turn-after-rome",
            "2, section 5, Figure 4",
            "after ROME the movers extract the new object from the subject, where they gave the old one",
            "whether the movers, which wrote more of the old object, write more of the new after ROME at layer 0",
            "share of 40 draws of as many other heads that do so",
            "share",
            0.1,
            _turn_more_than_others,
        ),
        PaperClaim(
            "movers-turn-by-rome-not-ft-m",
            "2, section 5, Figure 4",
            "movers turn after ROME, and not after FT-M, which goes past them",
            "whether the movers turn after ROME at layer 0",
            "whether they turn after FT-M at layer 0",
            "share",
            0.1,
            _turn_more_than_by_ft_m,
        ),
        PaperClaim(
            "ft-m-leaks",
            "2, section 5",
            "FT-M's new object spills over to facts beside the edited one more than ROME's",
            "share of five recalled facts of the relation that are given the new object after FT-M at layer 0",
            "the same after ROME at layer 0",
            "share",
            0.0,
            _leaks,
        ),
        PaperClaim(
            "movers-turn-by-own-layers",
            "2, section 5, Figure 4",
            "movers turn after ROME at layer 0, and not after FT-M at its own layer",
            "whether the movers turn after ROME",
            "whether they turn after FT-M",
            "share",
            0.1,
            _at_its_own_layer,
            refused=_unread,
        ),
    ),
)

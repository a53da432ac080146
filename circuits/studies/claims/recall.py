"""Claims about recall: which parts a fact's circuit holds, what they do, and what the circuit alone can answer (paper 2, section 4)."""

import random
from collections.abc import Sequence

import numpy as np

from circuits.analysis.lens import trajectories
from circuits.circuit import Circuit
from circuits.datasets.split import split_facts
from circuits.evaluation import KNOWN_RANK, known
from circuits.evaluation.baseline import commonest, size_matched
from circuits.evaluation.claims import Pair
from circuits.facts import Fact
from circuits.model.spans import spans
from circuits.studies.claims.claim import ClaimGroup, Laboratory, PaperClaim, in_turn
from circuits.studies.explain.demonstrations import ReadingCuts

FROM = 8
"""Known facts of D_val that a relation's circuit is built from, at most."""
DRAWS = 5
"""Random circuits of a circuit's size."""
BLIND = 10
"""Answers that are given to every subject alike, by who knows no subject."""


def recalled_facts(lab: Laboratory, n: int) -> Sequence[Fact]:
    """Facts of D_test that the model puts first, of relations with mover heads, the relations in turn."""

    def found() -> list[Fact]:
        return in_turn(lab.recalled(name, "test") for name in lab.relations if lab.movers(name))

    return lab.once("recalled facts", found)[:n]


def known_facts_with_many_answers(lab: Laboratory, n: int) -> Sequence[Fact]:
    """Facts of D_test that the model knows (rank 10), of relations of more than ten objects, the relations in turn."""

    def found() -> list[Fact]:
        columns = []
        for relation in lab.relations.values():
            if len(relation.objects) > BLIND and _built_from(lab, relation.name):
                columns.append(known(lab.model, split_facts(relation, "test", seed=lab.spec.seed)))
        return in_turn(columns)

    return lab.once("known facts with many answers", found)[:n]


# ---- one fact --------------------------------------------------------------------------------------------------------


def _movers_in_circuit(lab: Laboratory, fact: Fact) -> Pair:
    circuit, movers = lab.circuit(fact), set(lab.movers(fact.relation or ""))
    heads = [node for node in circuit.graph.nodes if node.kind == "head"]
    there = set(circuit.nodes)
    inside, others = ([head in there for head in heads if (head in movers) is own] for own in (True, False))
    return Pair(_share(inside), _share(others) if others else None)


def _movers_cut(lab: Laboratory, fact: Fact) -> Pair:
    movers = [head.name for head in lab.movers(fact.relation or "")]
    cuts = ReadingCuts(lab.model, fact, spans(lab.model, fact).subject, lab.model.graph())
    lost, _, *others = cuts.losses(movers, lab.spec.seed)
    return Pair(lost, float(np.mean(others)) if others else None)


def _early(lab: Laboratory, fact: Fact) -> Pair | None:
    rng = random.Random(f"{lab.spec.seed}/{fact.statement}")
    first = lab.model.tokens(fact).answer[0]
    others = [Fact(fact.prompt, fact.subject, name, fact.relation) for name in lab.relation(fact).objects]
    others = [other for other in others if lab.model.tokens(other).answer[0] != first]
    if not others:
        return None
    own, other = trajectories(lab.model, (fact, rng.choice(others)))
    # A layer is one state where its blocks are parallel, else two; the input comes first.
    half = len(own.labels) // 2
    return Pair(*(float(path.ranks[half] <= KNOWN_RANK) for path in (own, other)))


def _extracts(lab: Laboratory, fact: Fact) -> Pair | None:
    (path,) = trajectories(lab.model, (fact,))
    if not path.subject_probabilities:
        return None
    return Pair(max(path.probabilities), max(path.subject_probabilities))


def _lower_layers(lab: Laboratory, fact: Fact) -> Pair:
    circuit = lab.circuit(fact)
    drawn = size_matched(circuit, draws=DRAWS, seed=lab.spec.seed, draw="connected")
    return Pair(_lower(circuit), float(np.mean([_lower(other) for other in drawn])))


def _lower(circuit: Circuit) -> float:
    """Share of the heads and MLPs of the lower half of the layers that are in the circuit, less that of the upper half."""
    half, there = circuit.graph.shape.n_layers // 2, set(circuit.nodes)
    nodes = [node for node in circuit.graph.nodes if node.kind in ("head", "mlp")]
    lower, upper = ([node in there for node in nodes if (node.layer < half) is below] for below in (True, False))
    return _share(lower) - _share(upper)


def _share(outcomes: Sequence[bool]) -> float:
    return sum(outcomes) / len(outcomes)


# ---- a relation's circuit on its other facts -------------------------------------------------------------------------


def _built_from(lab: Laboratory, name: str) -> tuple[Fact, ...]:
    facts = split_facts(lab.relations[name], "val", seed=lab.spec.seed)
    return lab.once(("built from", name), lambda: known(lab.model, facts)[:FROM])


def _hit(lab: Laboratory, fact: Fact, circuit: Circuit) -> float:
    return float(lab.alone(circuit, fact).rank.value <= KNOWN_RANK)


def _relation_circuit(lab: Laboratory, fact: Fact, *, absolute: bool = False) -> Circuit:
    return lab.circuit(*_built_from(lab, fact.relation or ""), absolute=absolute)


def _beyond_blind(lab: Laboratory, fact: Fact) -> Pair:
    blind = commonest(split_facts(lab.relation(fact), "val", seed=lab.spec.seed), BLIND)
    return Pair(_hit(lab, fact, _relation_circuit(lab, fact)), float(fact.object in blind))


def _beyond_random(lab: Laboratory, fact: Fact) -> Pair:
    circuit = _relation_circuit(lab, fact)
    drawn = size_matched(circuit, draws=DRAWS, seed=lab.spec.seed, draw="connected")
    return Pair(_hit(lab, fact, circuit), float(np.mean([_hit(lab, fact, other) for other in drawn])))


def _retained(lab: Laboratory, fact: Fact) -> Pair:
    return Pair(_hit(lab, fact, _relation_circuit(lab, fact)), 1.0)


def _suppressive(lab: Laboratory, fact: Fact) -> Pair:
    without, with_them = (_relation_circuit(lab, fact, absolute=absolute) for absolute in (False, True))
    return Pair(-lab.alone(without, fact).nll.value, -lab.alone(with_them, fact).nll.value)


def _own_fact(_: Laboratory, __: Fact) -> Pair | None:
    return None


FACTS = ClaimGroup(
    "recall",
    recalled_facts,
    (
        PaperClaim(
            "movers-in-circuit",
            "2, section 4",
            "mover heads are in the circuit of a fact",
            "share of the relation's movers (told from D_val) that are in the circuit of a fact of D_test",
            "share of all other heads that are in it",
            "share",
            0.1,
            _movers_in_circuit,
        ),
        PaperClaim(
            "movers-carry",
            "2, section 4",
            "mover heads carry the answer from the subject to the last token",
            "NLL that the answer gains without what the relation's movers (told from D_val) read at the subject",
            "mean over 40 draws of as many other heads of any layer",
            "nats",
            0.1,
            _movers_cut,
        ),
        PaperClaim(
            "early-decoding",
            "2, section 4, Figure 6",
            "the answer can be read from the stream by the middle layers",
            "whether the answer is among the lens' first ten in the state halfway through the model",
            "the same of another object of the relation, drawn at random",
            "share",
            0.1,
            _early,
        ),
        PaperClaim(
            "extracted-not-copied",
            "2, section 4, running example",
            "movers bring the attribute, not the subject: the subject's own probability stays near nothing",
            "the answer's largest probability over the states of the last token",
            "the subject's own first token's largest one",
            "probability",
            0.1,
            _extracts,
        ),
        PaperClaim(
            "lower-layers",
            "2, section 4, Figure 2",
            "circuits hold more of the lower layers' parts",
            "share of the lower half's heads and MLPs in the circuit less that of the upper half's",
            "mean of 5 random connected circuits of its size",
            "share",
            0.0,
            _lower_layers,
        ),
        PaperClaim(
            "recalls-own-fact",
            "2, Table 1, D_val",
            "a circuit alone recalls the facts that it was built from",
            "whether the answer is among the circuit's first ten",
            "the model's own",
            "share",
            0.0,
            _own_fact,
            refused=lambda _: (
                "the search removes no edge whose loss costs these very answers more than tau: it is what is searched for"
            ),
        ),
    ),
)
RELATIONS = ClaimGroup(
    "circuits",
    known_facts_with_many_answers,
    (
        PaperClaim(
            "beyond-blind",
            "2, Table 1, D_test",
            "a relation's circuit alone answers for other subjects",
            "whether the answer of a fact of D_test is among the first ten of the circuit of 8 facts of D_val",
            "whether it is among the ten commonest answers of D_val, given to every subject alike",
            "share",
            0.0,
            _beyond_blind,
        ),
        PaperClaim(
            "beyond-random",
            "2, Table 1, D_test",
            "its edges matter, not only how many they are",
            "whether the answer of a fact of D_test is among the circuit's first ten",
            "mean of 5 random connected circuits of its size",
            "share",
            0.1,
            _beyond_random,
        ),
        PaperClaim(
            "keeps-70-percent",
            "2, section 4",
            "a circuit keeps over 70 % of what the model knows",
            "whether the answer of a fact of D_test that the model knows is among the circuit's first ten",
            "the model, which has them all",
            "share",
            -0.3,
            _retained,
        ),
        PaperClaim(
            "suppressive-edges",
            "2, section 4",
            "components outside the circuit are noise that hinders answers: without suppressive edges other facts fare better",
            "log-probability of the answer of a fact of D_test in the relation's circuit, suppressive edges removed",
            "the same in the circuit that keeps them (scores by magnitude)",
            "nats",
            0.0,
            _suppressive,
        ),
    ),
)

"""All that can be asked of one circuit on some facts, in one value: answers, faithfulness, chance, minimality, completeness."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from circuits.circuit import Circuit
from circuits.engines.engine import Engine
from circuits.evaluation.answers import Answers, standalone, whole_model
from circuits.evaluation.baseline import DRAWS, Draw, Interval, bootstrap, size_matched
from circuits.evaluation.faithfulness import Performance, Scale, log_probability, perform
from circuits.evaluation.knockouts import Completeness, Minimality, completeness, minimality
from circuits.facts import Fact
from circuits.model import Model


@dataclass(frozen=True, slots=True)
class RandomBaseline:
    """Random circuits of the circuit's size, of one kind of draw."""

    draw: Draw
    hit10: Interval
    faithfulness: Interval


@dataclass(frozen=True)
class Assessment:
    """One circuit on some facts, under one ablation."""

    circuit: Circuit
    facts: tuple[Fact, ...]
    model: Answers
    """The whole model's."""
    alone: Answers
    """The circuit's."""
    faithfulness: float
    """(m(C) - m(empty)) / (m(G) - m(empty)), m the mean log-probability of the answer; NaN where the model does no better than empty."""
    chance: tuple[RandomBaseline, ...]
    minimality: Minimality
    completeness: Completeness

    def to_json(self, tau: float) -> dict[str, Any]:
        """Plain keys; ``tau``, in nats, is the worth below which an edge counts as superfluous."""
        answers = {
            f"{name}_{who}": value
            for who, own in (("model", self.model), ("circuit", self.alone))
            for name, value in (
                ("hit1", own.hit(1).value),
                ("hit10", own.hit(10).value),
                ("mrr", own.mrr.value),
                ("nll", own.nll.value),
            )
        }
        complete = self.completeness
        return {
            "edges": self.circuit.n_edges,
            "edges_merged": self.circuit.n_merged_edges,
            "edges_total": self.circuit.graph.n_edges,
            "n_facts": len(self.facts),
            **answers,
            "faithfulness": None if self.faithfulness != self.faithfulness else self.faithfulness,
            "random": {
                level.draw: {"hit10": asdict(level.hit10), "faithfulness": asdict(level.faithfulness)}
                for level in self.chance
            },
            "minimality": {
                "tau": tau,
                "share_minimal": self.minimality.share_minimal(tau) if self.circuit.n_edges else None,
                "edges": [{"edge": edge.name, "worth": worth} for edge, worth in self.minimality.ranked],
            },
            "completeness": {
                "gap_intact": complete.intact.gap.value,
                "gap_random": complete.random_gap if complete.random else None,
                "agreement_random": complete.random_agreement if complete.random else None,
                "gap_worst": complete.worst.gap.value,
                "agreement_worst": complete.worst.agreement().value,
                "edges_worst": [edge.name for edge in complete.worst.edges],
            },
        }


def assess(
    model: Model, engine: Engine, circuit: Circuit, facts: Sequence[Fact], *, draws: int = 10, seed: int = 0
) -> Assessment:
    """Everything above, on the engine's facts.

    Args:
        draws: random circuits of each kind, and random knockouts of each share.
    """
    performance = log_probability(model, facts)
    scale = Scale.of(engine, performance)
    return Assessment(
        circuit=circuit,
        facts=tuple(facts),
        model=whole_model(model, facts),
        alone=standalone(model, engine, circuit, facts),
        faithfulness=scale.place(perform(engine, circuit.kept, performance).value),
        chance=tuple(_chance(model, engine, circuit, facts, performance, scale, draws, seed, draw) for draw in DRAWS),
        minimality=minimality(engine, circuit),
        completeness=completeness(model, engine, circuit, facts, draws=draws, seed=seed),
    )


def _chance(
    model: Model,
    engine: Engine,
    circuit: Circuit,
    facts: Sequence[Fact],
    performance: Performance,
    scale: Scale,
    draws: int,
    seed: int,
    draw: Draw,
) -> RandomBaseline:
    others = size_matched(circuit, draws=draws, seed=seed, draw=draw)
    hits = [standalone(model, engine, other, facts).hit(10).value for other in others]
    faithful = [scale.place(perform(engine, other.kept, performance).value) for other in others]
    return RandomBaseline(draw, bootstrap(hits, seed=seed), bootstrap(faithful, seed=seed))

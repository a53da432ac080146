"""Every discovery method on circuits that are known beforehand.

A method's scores are cut where it says itself that an edge matters. Scores in the metric's unit (ACDC, single edges,
attribution) are cut at the circuit's tau, the same for all; scores without a unit (information flow, chance) at the true
number of edges, which is more than a user would know. Suppressive edges are true edges, so scores count by magnitude,
except for ACDC's signed rule, which is paper 2's.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuits.circuit import Circuit, Scores
from circuits.discovery import METHODS
from circuits.discovery.problem import Problem
from circuits.engines import Ablation, Engine, SparseEngine
from circuits.evaluation.recovery import Recovery, auroc, precision_recall
from circuits.facts import Fact
from circuits.metrics import SQUARED_ERROR, Metric
from circuits.model import Model
from circuits.planted import Ablated, Compiled, Planted, compiled, compiled_folder, planted
from circuits.planted.compiled import VARIABLE
from circuits.records import digest
from circuits.studies import study
from circuits.studies.specs import TruthSpec

SEEDS = 20
"""Draws that the random control is averaged over."""
DONORS = 4
"""Prompts that each prompt of a compiled transformer is resampled from."""
COMPILED_TAU = 1e-4
"""Mean squared error. A true edge of a compiled transformer changes some output by 0.2 or more, any other by less than 1e-5."""


class TruthError(ValueError):
    """Known circuits or methods that there are not."""


@dataclass(frozen=True)
class KnownCircuit:
    """Facts under one ablation, and the edges that matter to them."""

    name: str
    model: Model
    facts: tuple[Fact, ...]
    ablation: Ablation
    truth: Circuit
    tau: float
    metric: Metric

    @classmethod
    def planted(cls, circuit: Planted, ablation: Ablated) -> "KnownCircuit":
        chosen = Ablation("resample", corrupted=circuit.corrupted) if ablation == "resample" else Ablation("zero")
        model = circuit.model
        return cls(circuit.name, model, circuit.facts, chosen, circuit.truth(ablation), circuit.tau, model.metric)

    @classmethod
    def compiled(cls, circuit: Compiled, ablation: Ablated, *, donors: int = DONORS) -> "KnownCircuit":
        """Measured by squared error, because a compiled transformer's output is 0 or 1, or a number, and no logit."""
        facts = circuit.facts
        match ablation:
            case "zero":
                chosen = Ablation("zero")
            case "mean":
                chosen = Ablation("mean", reference=circuit.facts)
            case "resample":
                facts, others = circuit.pairs(donors)
                chosen = Ablation("resample", corrupted=others)
        return cls(circuit.name, circuit.model, facts, chosen, circuit.truth(ablation), COMPILED_TAU, SQUARED_ERROR)

    @property
    def engine(self) -> Engine:
        return SparseEngine(self.model, self.facts, ablation=self.ablation, metric=self.metric)


ABSOLUTE = " absolute"
METHODS_ON_TRUTH = tuple(
    name
    for method in METHODS
    for name in ((method, method + ABSOLUTE) if "absolute" in METHODS[method].option_names else (method,))
)
"""All methods, ACDC twice: by its signed rule and by magnitude."""


def _search(case: KnownCircuit, name: str) -> tuple[Scores, ...]:
    """The method's scores, several where they depend on chance."""
    method = METHODS[name.removesuffix(ABSOLUTE)]
    problem = Problem(case.model, case.facts, case.ablation, metric=case.metric)
    asked = {"tau": case.tau, "absolute": name.endswith(ABSOLUTE)}
    draws = [{"seed": seed} for seed in range(SEEDS)] if "seed" in method.option_names else [{}]
    return tuple(
        method(problem, method.options(**{k: v for k, v in {**asked, **draw}.items() if k in method.option_names}))
        for draw in draws
    )


def recover(case: KnownCircuit, name: str) -> Recovery:
    """Run one method on one case and compare what it finds with the truth."""
    method, truth, graph = METHODS[name.removesuffix(ABSOLUTE)], case.truth, case.model.graph()
    absolute = name.endswith(ABSOLUTE) or "absolute" not in method.option_names
    results = []
    for scores in _search(case, name):
        above, best = scores.above(case.tau, absolute=absolute), scores.top(truth.n_edges, absolute=absolute)
        found = above if method.has_unit else best
        values = np.abs(scores.values) if absolute else scores.values
        results.append((found, *precision_recall(found, truth), auroc(values, truth.kept, graph.legal)))
    alone = len(results) == 1
    found = results[0][0]
    return Recovery(
        circuit=case.name,
        ablation=case.ablation.kind,
        method=name,
        n_true=truth.n_edges,
        n_found=_mean([float(one.n_edges) for one, *_ in results]),
        precision=_mean([precision for _, precision, _, _ in results]),
        recall=_mean([recall for _, _, recall, _ in results]),
        auroc=_mean([area for *_, area in results]),
        missed=tuple(edge.name for edge in truth - found) if alone else (),
        extra=tuple(edge.name for edge in found - truth) if alone else (),
    )


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


# ---- the study -------------------------------------------------------------------------------------------------------


def cases_on_truth(spec: TruthSpec) -> tuple[KnownCircuit, ...]:
    """All circuits that are known, each under every ablation that its edges are known for.

    Raises:
        TruthError: the compiled transformers are asked for, and not at hand.
    """
    by_hand = [KnownCircuit.planted(one, kind) for kind in ("zero", "resample") for one in planted()]
    if not spec.compiled:
        return tuple(by_hand)
    if not (programs := compiled()):
        raise TruthError(
            f"no compiled transformers in {compiled_folder()}; name their folder in the environment variable {VARIABLE}"
        )
    return (*by_hand, *(KnownCircuit.compiled(one, kind) for kind in ("zero", "mean", "resample") for one in programs))


def methods_asked(spec: TruthSpec) -> tuple[str, ...]:
    """The methods by name.

    Raises:
        TruthError: one that there is not.
    """
    if spec.method is None:
        return METHODS_ON_TRUTH
    methods = tuple(name.strip() for name in spec.method.split(","))
    if unknown := [name for name in methods if name not in METHODS_ON_TRUTH]:
        raise TruthError(f"expected --method of {', '.join(METHODS_ON_TRUTH)}, got {', '.join(unknown)}")
    return methods


def _open(spec: TruthSpec, given: Any) -> tuple[KnownCircuit, ...]:
    return cases_on_truth(spec)


def _cases(spec: TruthSpec, known: tuple[KnownCircuit, ...]) -> list[study.Case[tuple[int, str]]]:
    return [
        study.Case(f"{case.name}, {case.ablation.kind}, {method}", (i, method))
        for i, case in enumerate(known)
        for method in methods_asked(spec)
    ]


def _run(
    spec: TruthSpec, case: study.Case[tuple[int, str]], known: tuple[KnownCircuit, ...], watch: study.Watch
) -> Recovery:
    i, method = case.asked
    return recover(known[i], method)


def _weights(known: tuple[KnownCircuit, ...]) -> str:
    return digest([case.model.weights for case in known])


TRUTH: study.Study[TruthSpec, tuple[KnownCircuit, ...], tuple[int, str], Recovery] = study.Study(
    "truth", Recovery, _open, _cases, _run, _weights
)

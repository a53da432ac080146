"""The full certificate of a single fact's circuit: every doubt a reader may have, as a line with its interval and what chance gives.

The circuit is the one that a run saved; searches that are compared with it are made as that run's was (metric, ablation,
siblings, tau). Each case of the study is one check or one search, so that a certificate that was stopped goes on where it was.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from circuits.circuit import Circuit, jaccard
from circuits.datasets.corrupted import CorruptionError
from circuits.discovery import find_method
from circuits.discovery.acdc import NoiseError
from circuits.evaluation.baseline import size_matched
from circuits.evaluation.lines import Line, of_number, of_values
from circuits.facts import FactError, Relations
from circuits.records import Number
from circuits.studies.certify_specs import CertifySpec
from circuits.studies.checks import CHECKS, JACCARD_BAR, Examined, tried_otherwise
from circuits.studies.search import load_model, search
from circuits.studies.study import Case, Study, Watch
from circuits.studies.subjects import beside

FACTORS = (0.5, 2.0)
"""What tau is multiplied by."""


@dataclass(frozen=True, slots=True)
class Lines:
    """What one check found."""

    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Redrawn:
    """The edges of a circuit searched again; those of the certificate's circuit are compared with it."""

    edges: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """Which of the built-from facts were drawn, each with the wording that it came in."""

    picks: tuple[tuple[int, int], ...]


def _redrawn(spec: CertifySpec, bench: Examined, what: "str | float | int | Sample") -> Redrawn:
    run = spec.run
    match what:
        case Sample():
            words = [bench.wordings(fact) for fact in run.built_from]
            facts = tuple(words[fact][wording] for fact, wording in what.picks)
            # Whatever was drawn is searched together; the first stands for the fact.
            circuit = search(
                run.model_copy(update={"facts": facts[:1], "siblings": facts[1:]}), bench.relations, bench.model
            )
        case float():
            circuit = search(run.model_copy(update={"tau": run.tau * what}), bench.relations, bench.model)
        case int():
            fact = bench.wordings(run.facts[0])[what]
            siblings = beside(fact, bench.relations, bench.model, len(run.siblings), run.seed)
            circuit = search(
                run.model_copy(update={"facts": (fact,), "siblings": siblings}), bench.relations, bench.model
            )
        case _:
            circuit = tried_otherwise(run, bench, reverse_senders=True)
    return Redrawn(tuple(edge.name for edge in circuit.edges))


def _draws(spec: CertifySpec, bench: Examined) -> list[Sample]:
    """``spec.draws`` bootstrap samples of the facts, each in a random one of its wordings; samples that are alike count once."""
    words = [len(bench.wordings(fact)) for fact in spec.run.built_from]
    rng = random.Random(f"{spec.seed}/bootstrap")
    found: dict[tuple[tuple[int, int], ...], None] = {}
    for _ in range(spec.draws):
        drawn = [rng.randrange(len(words)) for _ in words]
        found[tuple(sorted((fact, rng.randrange(words[fact])) for fact in drawn))] = None
    return [Sample(picks) for picks in found]


# ---- the study -------------------------------------------------------------------------------------------------------------

Asking = str | Sample | float | int


def _cases(spec: CertifySpec, bench: Examined) -> list[Case[tuple[str, Asking]]]:
    found: list[tuple[str, tuple[str, Asking]]] = [(name, ("check", name)) for name in CHECKS]
    if find_method(spec.run.method).has_threshold:
        found += [(f"tau times {factor:g}", ("tau", factor)) for factor in FACTORS]
        found.append(("order reversed", ("order", "order")))
    found += [(f"words {i}", ("words", i)) for i in range(1, len(bench.wordings(spec.run.facts[0])))]
    found += [(f"draw {i:03}", ("draw", draw)) for i, draw in enumerate(_draws(spec, bench))]
    return [Case(name, asked_for) for name, asked_for in found]


def _run(spec: CertifySpec, case: Case[tuple[str, Asking]], bench: Examined, watch: Watch) -> Lines | Redrawn:
    kind, what = case.asked
    if kind == "check":
        return Lines(CHECKS[str(what)](spec, bench))
    try:
        return _redrawn(spec, bench, what)
    except (FactError, CorruptionError, NoiseError) as error:
        return Lines((Line(kind, f"not asked: {error}", math.nan, n=0, grade="undecided"),))


def _open(spec: CertifySpec, given: tuple[Relations, Circuit]) -> Examined:
    relations, circuit = given
    return Examined(load_model(spec.run), relations, circuit)


def _weights(bench: Examined) -> str:
    return bench.model.weights


CERTIFICATE: Study[CertifySpec, Examined, tuple[str, Asking], Lines | Redrawn] = Study(
    "certificate", Lines | Redrawn, _open, _cases, _run, _weights
)


def lines_of(circuit: Circuit, rows: dict[str, Lines | Redrawn]) -> tuple[Line, ...]:
    """All lines of a certificate from its study's rows by their cases: the checks, then how much of the circuit searches again find."""
    # Rows come as they were made: what was kept from before first.
    order = [*CHECKS, *sorted(rows.keys() - CHECKS.keys())]
    made = [(name, rows[name]) for name in order if name in rows]
    found = [line for _, row in made if isinstance(row, Lines) for line in row.lines]
    found_again = {name: frozenset(row.edges) for name, row in made if isinstance(row, Redrawn)}
    own, origin = frozenset(edge.name for edge in circuit.edges), "stability"
    draws = size_matched(circuit, draws=20, seed=0, draw="connected")
    named = [frozenset(edge.name for edge in other.edges) for other in draws]
    by_chance = float(np.mean([jaccard(one, other) for one, other in combinations(named, 2)]))
    for name, edges in found_again.items():
        if not name.startswith(("draw", "words")):
            found.append(
                of_number(
                    origin, f"edge Jaccard, {name}", jaccard(own, edges), "at least", JACCARD_BAR, chance=by_chance
                )
            )
    words = [jaccard(own, edges) for name, edges in found_again.items() if name.startswith("words")]
    found.append(of_values(origin, "edge Jaccard, in other words", words, "at least", JACCARD_BAR, chance=by_chance))
    drawn = [edges for name, edges in found_again.items() if name.startswith("draw")]
    found.append(_bootstrapped(origin, drawn, by_chance))
    return tuple(found)


def _bootstrapped(check: str, drawn: Sequence[frozenset[str]], by_chance: Number) -> Line:
    """The mean edge Jaccard of pairs of bootstrap circuits. Pairs share circuits, so the interval is over circuits: that of the
    mean of each one's mean with all others."""
    several = drawn if len(drawn) > 1 else ()
    own = [
        float(np.mean([jaccard(one, other) for j, other in enumerate(several) if j != i]))
        for i, one in enumerate(several)
    ]
    what = "edge Jaccard of two bootstrap circuits (facts and wordings drawn again)"
    return of_values(check, what, own, "at least", JACCARD_BAR, chance=by_chance)

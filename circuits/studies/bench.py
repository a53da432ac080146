"""How fast ACDC is: the reference engine against the fast one, and how often they decide otherwise."""

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from circuits.circuit import Provenance
from circuits.discovery.acdc import AcdcOptions
from circuits.discovery.acdc import search as acdc
from circuits.discovery.problem import Progress
from circuits.discovery.state import State
from circuits.engines.engine import Engine
from circuits.engines.hook import HookEngine
from circuits.engines.sparse import SparseEngine
from circuits.facts import Fact, Relations
from circuits.graph import Granularity
from circuits.model import Model


@dataclass(frozen=True)
class Search:
    """One timed ACDC search."""

    engine: str
    prompt_tokens: int
    facts: int
    edges: int
    tried: int
    """Edges tested; the others went untested, because nothing read their receiver."""
    kept: int
    evaluations: int
    """Circuits run, wasted guesses included."""
    seconds: float
    near_ties: int


@dataclass(frozen=True)
class Comparison:
    """The two engines on the same facts, one search a fact each."""

    model: str
    tau: float
    threads: int
    pairs: tuple[tuple[Search, Search], ...]
    """(reference, fast)."""
    decisions_differing: int
    largest_score_difference: float
    """In nats, over all edges that both tried."""
    peak_bytes: int

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(reference.seconds / fast.seconds for reference, fast in self.pairs)

    @property
    def median_ratio(self) -> float:
        return statistics.median(self.ratios)

    def to_json(self) -> dict[str, Any]:
        fast = [pair[1] for pair in self.pairs]
        return {
            "model": self.model,
            "tau": self.tau,
            "threads": self.threads,
            "facts": len(self.pairs),
            "median_ratio": self.median_ratio,
            "decisions_differing": self.decisions_differing,
            "largest_score_difference": self.largest_score_difference,
            "near_ties": sum(search.near_ties for search in fast),
            "median_seconds": statistics.median(search.seconds for search in fast),
            "median_seconds_reference": statistics.median(reference.seconds for reference, _ in self.pairs),
            "evaluations": sum(search.evaluations for search in fast),
            "evaluations_reference": sum(reference.evaluations for reference, _ in self.pairs),
            "peak_bytes": self.peak_bytes,
            "searches": [{"reference": asdict(reference), "fast": asdict(fast)} for reference, fast in self.pairs],
        }


def compare(
    model: Model,
    facts: Sequence[Fact],
    *,
    tau: float = 0.01,
    granularity: Granularity = "qkv",
    progress: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Both engines on each fact, after one unmeasured search that warms up the libraries."""
    quick, reading = (partial(engine, granularity=granularity) for engine in (SparseEngine, HookEngine))
    acdc(quick(model, facts[:1]), AcdcOptions(tau), provenance=provenance_of(model, tau), force=True)
    pairs, differing, largest = [], 0, 0.0
    for fact in facts:
        fast, state, values = timed(model, (fact,), tau, quick)
        reference, expected, expected_values = timed(model, (fact,), tau, reading)
        pairs.append((reference, fast))
        differing += sum(a != b for a, b in zip(state.kept, expected.kept, strict=True))
        both = np.abs(values - expected_values)
        largest = max(largest, float(np.nanmax(both, initial=0.0)))
        progress(
            f"{fact.prompt}: {reference.seconds:.2f} s / {fast.seconds:.3f} s = {reference.seconds / fast.seconds:.0f}"
        )
    return Comparison(model.name, tau, torch.get_num_threads(), tuple(pairs), differing, largest, peak_bytes())


def first_facts(relations: Relations, n: int) -> tuple[Fact, ...]:
    """The best-known fact of each of the first n relations, in alphabetical order; then the second-best, and so on."""
    ranked = [fact for k in range(n) for relation in relations.values() for fact in relation.facts()[k : k + 1]]
    return tuple(ranked[:n])


def timed(
    model: Model,
    facts: Sequence[Fact],
    tau: float,
    make: Callable[[Model, Sequence[Fact]], Engine],
    progress: Callable[[Progress], None] = lambda _: None,
) -> tuple[Search, State, np.ndarray]:
    """One search with its cost from a loaded model on: making the engine counts."""
    started = time.perf_counter()
    engine = make(model, facts)
    scores, state = acdc(engine, AcdcOptions(tau), provenance=provenance_of(model, tau), progress=progress, force=True)
    seconds = time.perf_counter() - started
    tokens = max(len(model.tokens(fact).forced) for fact in facts)
    return (
        Search(
            engine=engine.name,
            prompt_tokens=tokens,
            facts=len(facts),
            edges=engine.graph.n_edges,
            tried=state.evaluations - 1,
            kept=sum(state.kept),
            evaluations=engine.evaluations,
            seconds=seconds,
            near_ties=len(state.near_ties),
        ),
        state,
        scores.values,
    )


def provenance_of(model: Model, tau: float) -> Provenance:
    return Provenance(model.name, model.weights, model.processing, "acdc", {"tau": tau})


def peak_bytes() -> int:
    """Most memory that this process ever held; of the GPU's too, where there is one."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return host + (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)

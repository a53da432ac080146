"""Searches on a real model, against the same searches by PyTorch's own products, and against what the processor can do.

There the reference engine would take days. What stands in for it is the fast engine with the products that every
processor has (`circuits.model.products.plain`): its decisions must be the same.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from circuits.engines.memory import matmul_speed
from circuits.engines.sparse import SparseEngine
from circuits.facts import Fact
from circuits.graph import Granularity
from circuits.model import Model
from circuits.model.products import plain
from circuits.studies.bench import Search, peak_bytes, timed


@dataclass(frozen=True)
class RealSearch:
    fast: Search
    plain: Search
    """Timed with every product counted, which costs some time: no measure of the plain products."""
    differing: int
    """Decisions of the two that differ."""
    operations: float
    """Floating-point operations of the matrix products."""

    def roofline(self, speed: float) -> float:
        """The share of its time that its products alone would take at ``speed`` operations a second."""
        return self.operations / speed / self.fast.seconds


def real_searches(
    model: Model,
    facts: Sequence[Fact],
    *,
    tau: float,
    granularity: Granularity,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """One search a fact, twice each; what ``kcircuit bench acdc`` prints of a real model.

    ``median_seconds`` is ``search_seconds``, and there is no ``median_ratio``: the reference was not asked. ``peak_bytes`` is
    the process's maximum after the first fast search, before anything is searched twice.
    """

    def make(model: Model, facts: Sequence[Fact]) -> SparseEngine:
        return SparseEngine(model, facts, granularity=granularity)

    rows, peak = list[RealSearch](), 0
    for fact in facts:
        fast, state, _ = timed(model, (fact,), tau, make)
        peak = peak or peak_bytes()
        with plain(), FlopCounterMode(display=False) as counter:
            slow, expected, _ = timed(model, (fact,), tau, make)
        differing = sum(a != b for a, b in zip(state.kept, expected.kept, strict=True))
        rows.append(RealSearch(fast, slow, differing, float(counter.get_total_flops())))
        progress(f"{fact.prompt}: {fast.seconds:.1f} s, {fast.tried:,} edges tried, {differing} decisions differ")
    seconds = statistics.median(row.fast.seconds for row in rows)
    speed = matmul_speed(torch.device("cpu"), 0.5)
    return {
        "model": model.name,
        "tau": tau,
        "granularity": granularity,
        "threads": torch.get_num_threads(),
        "facts": len(rows),
        "precision": "float32",
        "search_seconds": seconds,
        "median_seconds": seconds,
        "median_ratio": None,
        "decisions_differing": sum(row.differing for row in rows),
        "decided_twice": 0,
        "near_ties": sum(row.fast.near_ties for row in rows),
        "evaluations": sum(row.fast.evaluations for row in rows),
        "peak_bytes": peak,
        "roofline_share": statistics.median(row.roofline(speed) for row in rows),
        "gflops": speed / 1e9,
        "searches": [asdict(row) for row in rows],
    }

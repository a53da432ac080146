"""Where the time of fast searches goes, and how much arithmetic there is in them."""

import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from torch.utils.flop_counter import FlopCounterMode

from circuits.discovery.acdc import AcdcOptions
from circuits.discovery.acdc import search as acdc
from circuits.engines.sparse import SparseEngine
from circuits.facts import Fact
from circuits.graph import Granularity
from circuits.model import Model
from circuits.model.products import plain
from circuits.studies.bench import provenance_of

KINDS: tuple[tuple[str, str, frozenset[str]], ...] = (
    ("unembedding", "folding.py", frozenset({"readout", "product_out"})),
    ("NLL of the logits", "sparse.py", frozenset({"nll"})),
    ("MLPs' hidden units", "folding.py", frozenset({"hidden"})),
    ("MLPs' hidden units", "kernel.py", frozenset({"_mlp"})),
    ("norms", "folding.py", frozenset({"rstd"})),
    ("what nodes write", "kernel.py", frozenset({"_write", "_heads"})),
    ("queries, keys, values", "kernel.py", frozenset({"_project", "_compared", "_slot", "_current"})),
    ("attention", "transformer.py", frozenset({"attend", "visible", "query", "key"})),
    ("what nodes write", "sides.py", frozenset({"write", "show"})),
    ("sums over writers", "kernel.py", frozenset({"_without", "_lost", "_read"})),
    ("sums over writers", "sides.py", frozenset()),
    ("the rest of a pass", "kernel.py", frozenset()),
    ("the rest of a pass", "values.py", frozenset()),
    ("planning of passes", "plan.py", frozenset()),
    ("planning of passes", "positions.py", frozenset()),
    ("planning of passes", "layout.py", frozenset()),
    ("change of circuit", "sparse.py", frozenset({"_become", "_set", "_matters", "_variant_with"})),
    ("guesses and decisions", "speculation.py", frozenset()),
    ("guesses and decisions", "acdc.py", frozenset()),
    ("making the engine", "sparse.py", frozenset({"__init__"})),
    ("making the engine", "model.py", frozenset()),
    ("making the engine", "preflight.py", frozenset()),
)
"""(what the time is for, file, functions; none stands for all others of the file), the first that fits counts."""


def where_time_goes(model: Model, facts: Sequence[Fact], tau: float, *, interval: float = 0.001) -> dict[str, float]:
    """Shares of the processor's time in searches of the fast engine, one a fact, by what it is for; largest first.

    Sampled: at each tick of the process' own clock the innermost function of the project is counted, so that nothing is
    slowed down. A tick that falls inside a library, or in the choice of one, counts for the function that called it.
    """
    counts: Counter[str] = Counter()

    def tick(_: int, frame: FrameType | None) -> None:
        while frame is not None and not _counts(frame.f_code.co_filename):
            frame = frame.f_back
        counts[_purpose(frame)] += 1

    acdc(SparseEngine(model, facts[:1]), AcdcOptions(tau), provenance=provenance_of(model, tau), force=True)
    previous = signal.signal(signal.SIGPROF, tick)
    signal.setitimer(signal.ITIMER_PROF, interval, interval)
    try:
        for fact in facts:
            acdc(SparseEngine(model, (fact,)), AcdcOptions(tau), provenance=provenance_of(model, tau), force=True)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
    return {kind: count / counts.total() for kind, count in counts.most_common()}


def _counts(file: str) -> bool:
    return "/circuits/" in file and not file.endswith(("/products.py", "/sums.py"))


def _purpose(frame: FrameType | None) -> str:
    if frame is not None:
        file, function = Path(frame.f_code.co_filename).name, frame.f_code.co_name
        for kind, its_file, functions in KINDS:
            if file == its_file and (not functions or function in functions):
                return kind
    return "other"


def operations(model: Model, facts: Sequence[Fact], tau: float, *, granularity: Granularity = "qkv") -> float:
    """Floating-point operations of the matrix products in those searches, all together."""
    # The counter knows PyTorch's own products alone.
    with plain(), FlopCounterMode(display=False) as counter:
        for fact in facts:
            acdc(
                SparseEngine(model, (fact,), granularity=granularity),
                AcdcOptions(tau),
                provenance=provenance_of(model, tau),
                force=True,
            )
    return float(counter.get_total_flops())

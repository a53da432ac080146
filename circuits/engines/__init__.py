"""Engines: how a circuit is run. ``sparse`` is the fast one, ``hook`` the reference that it is held equal to."""

import sys
from collections.abc import Callable, Sequence

from circuits.choices import EngineName
from circuits.engines.ablation import Ablation
from circuits.engines.engine import Engine
from circuits.engines.hook import HookEngine
from circuits.engines.memory import TooLargeError
from circuits.engines.sparse import EngineMismatch, SparseEngine
from circuits.facts import Fact
from circuits.graph import Granularity
from circuits.metrics import Metric
from circuits.model import Model
from circuits.model.transformer import UnsupportedArchitecture

__all__ = [
    "Ablation",
    "Engine",
    "EngineMismatch",
    "EngineName",
    "HookEngine",
    "SparseEngine",
    "TooLargeError",
    "make_engine",
]


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def make_engine(
    name: str,
    model: Model,
    facts: Sequence[Fact],
    *,
    ablation: Ablation | None = None,
    granularity: Granularity = "qkv",
    max_memory: int | None = None,
    metric: Metric | None = None,
    notice: Callable[[str], None] = _to_stderr,
) -> Engine:
    """The engine with this name; where ``sparse`` cannot run the model, ``hook``, and one line to ``notice`` saying why.

    Raises:
        TooLargeError: the search does not fit into ``max_memory`` bytes (by default, into what is free).
    """
    if name not in ("sparse", "hook"):
        raise ValueError(f"expected engine sparse or hook, got {name!r}")
    if name == "sparse":
        try:
            return SparseEngine(
                model, facts, ablation=ablation, granularity=granularity, max_memory=max_memory, metric=metric
            )
        except (UnsupportedArchitecture, EngineMismatch) as error:
            notice(f"engine sparse cannot run {model.name}, so engine hook does, slowly: {error}")
    return HookEngine(model, facts, ablation=ablation, granularity=granularity, metric=metric)

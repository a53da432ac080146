"""Engines run circuits. `make_engine` picks one by name."""

from collections.abc import Sequence
from typing import Literal

from circuits.engines.ablation import Ablation
from circuits.engines.hook import HookEngine
from circuits.engines.protocol import Engine
from circuits.facts import Fact
from circuits.graph import Granularity
from circuits.model import Model

EngineName = Literal["hook"]

__all__ = ["Ablation", "Engine", "EngineName", "HookEngine", "make_engine"]


def make_engine(
    name: str,
    model: Model,
    facts: Sequence[Fact],
    *,
    ablation: Ablation | None = None,
    granularity: Granularity = "qkv",
) -> Engine:
    """The engine of that name, bound to model, facts and ablation."""
    return HookEngine(model, facts, ablation=ablation, granularity=granularity)

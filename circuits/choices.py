"""The words that options choose among. They stand here, below all, so that naming them loads nothing."""

from collections.abc import Sequence
from typing import Literal

Granularity = Literal["qkv", "node"]
"""Of a head: its slots apart, or merged."""
AblationKind = Literal["zero", "mean", "resample"]
MetricName = Literal["matchnll", "kl", "contrast"]
"""The answer's negative log-likelihood (paper 2); KL from the whole model; the answer among the relation's objects."""
EngineName = Literal["sparse", "hook"]
Processing = Literal["compatibility", "raw"]
Dtype = Literal["float32", "bfloat16"]
Split = Literal["val", "test"]
"""Half of a relation's facts."""


def counted(n: int, noun: str) -> str:
    """How many of a thing, in words: ``1 fact``, ``2,000 facts``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names with commas between, and how many others there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {counted(rest, 'other')}" if rest > 0 else "")

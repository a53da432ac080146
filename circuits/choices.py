"""The words that options choose among. They stand here, below all, so that naming them loads nothing."""

from typing import Literal

Granularity = Literal["qkv", "node"]
"""Of a head: its slots apart, or merged."""
AblationKind = Literal["zero", "mean", "resample"]
EngineName = Literal["sparse", "hook"]
Processing = Literal["compatibility", "raw"]
Dtype = Literal["float32", "bfloat16"]
Split = Literal["val", "test"]
"""Half of a relation's facts."""

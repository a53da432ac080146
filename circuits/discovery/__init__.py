"""Discovery: (engine, facts, metric) to Scores, one file a method."""

from circuits.discovery.acdc import acdc

__all__ = ["METHODS", "acdc"]

METHODS = ("acdc",)
"""Names that `RunSpec.method` and ``--method`` take."""

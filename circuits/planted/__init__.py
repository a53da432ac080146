"""Transformers made by hand, whose true circuit follows from their weights: what a discovery method must find.

One file each; its docstring derives the edges and what each is worth. `compiled` reads such transformers from files.
"""

from circuits.planted.base import Ablated, Planted
from circuits.planted.compiled import Compiled, compiled, compiled_folder
from circuits.planted.conjunction import conjunction
from circuits.planted.copying import copying
from circuits.planted.either import either
from circuits.planted.induction import induction
from circuits.planted.lookup import lookup
from circuits.planted.recall import recall
from circuits.planted.suppression import suppression

__all__ = ["PLANTED", "Ablated", "Compiled", "Planted", "compiled", "compiled_folder", "planted"]

PLANTED = (copying, induction, lookup, recall, conjunction, either, suppression)
"""The functions that make them, easiest first."""


def planted() -> tuple[Planted, ...]:
    return tuple(make() for make in PLANTED)

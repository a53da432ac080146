"""Discovery: a `Problem` and options to Scores, one file a method; `METHODS` lists them by name, and loads one when asked."""

from circuits.discovery.table import METHODS, MethodError, find_method

__all__ = ["METHODS", "MethodError", "find_method"]

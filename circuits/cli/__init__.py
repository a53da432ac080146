"""The command line: parse, call one function, print. Whatever is slow to import waits until a command needs it.

One file a command, in the order in which ``--help`` lists them.
"""

from circuits.cli import discover, facts, report, bench  # noqa: F401  # isort: skip
from circuits.cli.app import main

__all__ = ["main"]

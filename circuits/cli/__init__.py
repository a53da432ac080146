"""The command line: parse, call one function, print. Whatever is slow to import waits until a command needs it.

One file a command, in the order in which ``--help`` lists them.
"""

from circuits.cli import (  # noqa: F401  # isort: skip
    discover,
    heads,
    diff,
    explain,
    table,
    stability,
    certify,
    criteria,
    claims,
    role_errors,
    facts,
    models,
    groundtruth,
    edit,
    edit_eval,
    edit_compare,
    edit_layers,
    edit_trace,
    report,
    evaluate,
    ability,
    exchange,
    bench,
    sweep,
    store,
    doctor,
)
from circuits.cli.app import main

__all__ = ["main"]

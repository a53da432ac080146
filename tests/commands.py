"""Commands as a shell sees them: how they end, and what they print."""

import shlex
from typing import Any

import pytest
import typer

from circuits import cli
from circuits.cli.app import app


def ends(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """(exit status, stdout, stderr)."""
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    output = capsys.readouterr()
    return int(stop.value.code or 0), output.out, output.err


def succeeds(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that must succeed prints on stdout."""
    status, printed, error = ends(arguments, capsys)
    assert status == 0, error
    return printed


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that must fail says on stderr: an error in words."""
    status, _, error = ends(arguments, capsys)
    assert status != 0
    assert "Traceback" not in error
    # On a busy machine a line that says how far it is may stand before.
    assert any(line.startswith("error: ") for line in error.splitlines())
    return error


def parsed(command: str) -> Any:
    """The context of a command as typed, its options read by its own parser; nothing is run.

    Raises:
        Exception: an unknown command or option, or a value that its option does not take.
    """
    node: Any = typer.main.get_command(app)
    _, *words = shlex.split(command)
    while words and words[0] in getattr(node, "commands", {}):
        node = node.commands[words.pop(0)]
    if hasattr(node, "commands") and words and not words[0].startswith("-"):
        raise LookupError(f"no such command: {words[0]}")
    return node.make_context(command, words)

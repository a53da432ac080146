"""Commands as a shell sees them: how they end, and what they print."""

import pytest

from circuits import cli


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

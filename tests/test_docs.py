"""What the README says works: its Python block runs, its commands exist, its figures are there."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from circuits.cli.app import app

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_python_block_runs_and_prints_a_circuit(capsys: pytest.CaptureFixture[str]):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "Circuit of" in capsys.readouterr().out


def test_every_option_in_the_readme_is_an_option_of_its_command():
    commands = re.findall(r"^    (kcircuit .*?)(?:  +#.*)?$", README, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        words = shlex.split(command)
        names = list(itertools.takewhile(lambda word: re.fullmatch(r"[a-z]+", word), words[1:3]))
        helped = CliRunner().invoke(app, [*names, "--help"], terminal_width=200)
        assert helped.exit_code == 0, command
        known = helped.output
        for word in words:
            if word.startswith("--"):
                assert word in known, command


def test_every_file_that_the_readme_links_to_exists():
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (root / target).exists(), target

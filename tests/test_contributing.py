"""CONTRIBUTING.md is true: its examples, put where it says, are found by name, keep their laws, and fit the house."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^`([^`]+)`(?:, ([a-z ]+?)(?: `([^`]+)`)?)?:\n\n```\w+\n(.*?)```$", re.MULTILINE | re.DOTALL)
"""A file, where in it, the line there, and the text."""

BETWEEN = "---- the next command"
EACH = f"""
import json, sys
from circuits.cli import main
for words in json.loads(sys.argv[1]):
    print({BETWEEN!r})
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            raise
"""
"""A program that runs commands one after another, up to the first that fails."""


def put(file: Path, where: str, line: str, text: str) -> None:
    """Carry out one block of the page. A line that is not there, or there twice, is an error of the page."""
    if not where:
        assert not file.exists(), f"{file} is there already"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return
    old = file.read_text()
    if where == "at its end":
        file.write_text(old + text)
        return
    assert where in ("after the line", "in place of the line"), where
    lines = old.splitlines(keepends=True)
    assert lines.count(line + "\n") == 1, f"expected the line {line!r} once in {file}"
    at = lines.index(line + "\n")
    kept = lines[: at + 1] if where == "after the line" else lines[:at]
    file.write_text("".join([*kept, text, *lines[at + 1 :]]))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which all that the page says was done."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "circuits", copy / "circuits", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data", copy / "data", copy_function=os.symlink)
    for name in (
        "pyproject.toml",
        "tests/conftest.py",
        "tests/checked.py",
        "tests/models.py",
        "tests/editing_models.py",
        "tests/memory.py",
    ):
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    blocks = BLOCK.findall(PAGE)
    assert len(blocks) == PAGE.count("```") / 2
    for name, where, line, text in blocks:
        put(copy / name, where, line, text)
    return copy


def run(copy: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *words],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_laws_of_the_examples_hold(copy: Path):
    tests = sorted(str(file.relative_to(copy)) for file in copy.glob("tests/test_*.py"))
    assert len(tests) == 4
    done = run(copy, "-m", "pytest", "-n", "0", *tests)
    assert done.returncode == 0, done.stdout + done.stderr


def style(copy: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return run(copy, "-m", "ruff", *words, "--no-cache", "circuits", "tests")


@pytest.mark.parametrize("words", [("format", "--check"), ("check",)])
def test_the_examples_pass_the_checks_of_style(copy: Path, words: Sequence[str]):
    done = style(copy, *words)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_commands_to_try_work(copy: Path):
    """In one process, because to begin one takes longer than any of them."""
    commands = [[*shlex.split(each), "--json"] for each in re.findall(r"Try it: `kcircuit ([^`]+)`", PAGE)]
    assert len(commands) == 3
    done = run(copy, "-c", EACH, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    answers = done.stdout.split(BETWEEN)[1:]
    assert len(answers) == len(commands)
    assert all(map(json.loads, answers))

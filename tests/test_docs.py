"""What README and CONTRIBUTING say works: Python blocks run, commands parse, targets, paths, rooms and figures are there."""

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

import circuits.cli  # noqa: F401  # the commands
from circuits.cli.app import app
from circuits.discovery import METHODS
from circuits.evaluation.certificate import KL_BAR
from circuits.graph import Graph, Shape
from circuits.model import Model
from circuits.studies.subjects import N_SUBJECTS
from tests.commands import parsed

ROOT = Path(__file__).parent.parent
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "CONTRIBUTING.md")
    if (ROOT / name).exists()
}
README = PAGES["README.md"]


def indented(start: str) -> list[str]:
    """The lines of code that begin so, without what is said about them."""
    return [
        line for text in PAGES.values() for line in re.findall(rf"^    ({start} .*?)(?:  +#.*)?$", text, re.MULTILINE)
    ]


def quoted(start: str) -> list[str]:
    """In the text, but for those of an example (test_contributing runs them)."""
    lines = [line for text in PAGES.values() for line in text.splitlines() if "Try it:" not in line]
    return [code for line in lines for code in re.findall(rf"(?<!`)`({start} [^`]+)`", line)]


def test_the_python_block_runs_and_prints_a_circuit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "Circuit of" in capsys.readouterr().out


@pytest.mark.parametrize("command", [*indented("kcircuit"), *quoted("kcircuit")])
def test_every_command_parses(command: str):
    parsed(command)


@pytest.mark.parametrize("command", ["kcircuit nope", "kcircuit discover --nope 1", "kcircuit discover --n many"])
def test_what_is_no_command_does_not_parse(command: str):
    with pytest.raises(Exception, match=r"(?i)no such|valid integer"):
        parsed(command)


def test_there_are_commands_to_check():
    assert len(indented("kcircuit")) >= 15


def commands(node: Any, path: tuple[str, ...] = ()) -> list[tuple[str, set[str]]]:
    """Every command that can be typed, by its words, with its options."""
    own = [(" ".join(path), {option for param in node.params for option in param.opts})] if path else []
    inside = getattr(node, "commands", {})
    return own + [row for name, one in inside.items() for row in commands(one, (*path, name))]


COMMANDS = commands(typer.main.get_command(app))


def test_with_edit_is_an_option_of_the_commands_that_the_readme_names_and_of_no_other():
    (named,) = re.findall(r"puts a saved edit on the model first, in (.*?)\.", README, re.DOTALL)
    taking = {words.split()[0] for words, options in COMMANDS if "--with-edit" in options}
    assert set(re.findall(r"`(\w+)`", named)) == taking


def test_the_same_option_asks_for_the_same_thing_everywhere():
    """Who reads a model says which and on what device; a method, its layers and a number of facts have one word each."""
    assert len(COMMANDS) > 20
    for words, options in COMMANDS:
        if "--model" in options:
            assert {"-m", "--device", "--dtype"} <= options, words
        for other, one in (("--methods", "--method"), ("--edit", "--method"), ("--layer", "--layers")):
            assert other not in options or one in options, words


def test_every_make_target_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [words.split()[1] for words in [*indented("make"), *quoted("make")]]
    assert named
    assert set(named) <= targets


@pytest.mark.parametrize("name", PAGES)
def test_every_file_that_is_linked_to_exists(name: str):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", PAGES[name]):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", PAGES)
def test_every_path_that_is_named_exists(name: str):
    """Relative to the project or to its package; folders of results (runs/) come from commands."""
    text = re.sub(r"```.*?```", "", PAGES[name], flags=re.DOTALL)
    text = re.sub(r"^`[^`]+`:$", "", text, flags=re.MULTILINE)  # a file that an example makes
    paths = re.findall(r"`((?:circuits|tests|data|docs|figures)/[\w./-]*)`", text)
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path


def test_every_room_is_named_once_and_in_an_order_in_which_it_imports_upwards_only():
    """The order is the import contract's, read from the floor up."""
    table = README.partition("| room |")[2].partition("\n\n")[0]
    rooms = [
        name.removesuffix("/").removesuffix(".py")
        for line in table.splitlines()[2:]
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]
    there = {path.stem for path in (ROOT / "circuits").iterdir() if path.suffix in ("", ".py")}
    assert sorted(rooms) == sorted(there - {"__init__", "__pycache__", "data"})
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["type"] == "layers")["layers"]
    height = {name: len(layers) - i for i, line in enumerate(layers) for name in re.findall(r"circuits\.(\w+)", line)}
    assert all(height[below] <= height[above] for below, above in itertools.pairwise(rooms))


def test_what_the_readme_counts_is_as_many() -> None:
    """What follows from constants and shapes. Numbers of a search on the real model, and seconds, are of one run, and not here."""

    def said(words: str) -> tuple[str, ...]:
        (found,) = re.findall(words, " ".join(README.split()))
        return found if isinstance(found, tuple) else (found,)

    shape = Model.default().shape
    layers, heads, width = map(int, said(r"a GPT-2 of (\d+) layers × (\d+) heads × (\d+)"))
    assert (layers, heads, width) == (shape.n_layers, shape.n_heads, Model.default().network.d_model)
    assert said(r"Roles of all (\d+) heads") == (str(layers * heads),)
    layers, heads = map(int, said(r"SmolLM2-135M-Instruct: (\d+) layers × (\d+) heads"))
    assert said(r"of its ([\d,]+) edges are left") == (f"{Graph(Shape(layers, heads), 'node').n_edges:,}",)
    assert said(r"within (\d+) nat of the model") == (f"{KL_BAR:g}",)
    assert int(*said(r"of (\d+) other countries")) <= N_SUBJECTS
    python = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f">={said(r'with Python ([.0-9]+) or later')[0]}" == python
    (others,) = said(r"`--method` takes (.*?) too, ")
    assert {"acdc", *re.findall(r"`(.*?)`", others)} == set(METHODS)

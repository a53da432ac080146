"""The commands and their options as Markdown, from what ``--help`` would say."""

from collections.abc import Iterator
from typing import Any

import typer

import circuits.cli  # noqa: F401  # the commands
from circuits.cli.app import app


def commands() -> str:
    """One section a command, in the order of ``kcircuit --help``."""
    root = typer.main.get_command(app)
    parts = ["# Commands", root.help or "", *_sections(root, "kcircuit")]
    return "\n\n".join(parts) + "\n"


def _sections(node: Any, words: str) -> Iterator[str]:
    """Of every command below this one; a group of commands is no section of its own."""
    inside = getattr(node, "commands", {})
    for name, one in inside.items():
        yield from _sections(one, f"{words} {name}")
    if inside:
        return
    context = typer.Context(node, info_name=words)
    yield f"## {words.removeprefix('kcircuit ')}"
    yield f"    {' '.join([words, *node.collect_usage_pieces(context)])}"
    yield (node.help or "").partition("\f")[0]
    records = [record for option in node.params if (record := option.get_help_record(context))]
    rows = [f"| `{_cell(names)}` | {_cell(said)} |" for names, said in records]
    yield "\n".join(["| option | what |", "|---|---|", *rows])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

"""The command line's frame: the application, what its commands share, and how an error ends one."""

import os
import shlex
import sys
from contextlib import ExitStack
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from circuits.model import Model

app = typer.Typer(
    name="kcircuit",
    help="Knowledge circuits: which heads and MLPs of a transformer recall a fact, and what each of them does.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class CommandError(ValueError):
    """A command that cannot be carried out as given."""


class Stopped(Exception):
    """A command that was stopped on purpose, its work saved."""


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


_typed: ContextVar[tuple[str, ...]] = ContextVar("the words of the running command")
_until_the_end: ContextVar[ExitStack] = ContextVar("what the running command holds open until it ends")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        import circuits

        typer.echo(f"kcircuit {circuits.__version__}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Bad input ends in one line on stderr and exit status 1; Ctrl-C in 130."""
    try:
        with ExitStack() as stack:
            _until_the_end.set(stack)
            _typed.set(tuple(sys.argv[1:] if arguments is None else arguments))
            app(arguments, standalone_mode=True)
    except (ValueError, OSError, FloatingPointError) as error:
        # Every error of this project that a user can cause is one of these, with a message that says what to do.
        if os.environ.get("KCIRCUIT_TRACEBACK"):
            raise
        typer.echo(f"error: {_one_paragraph(error)}", err=True)
        sys.exit(1)
    except Stopped as stop:
        typer.echo(str(stop), err=True)
        sys.exit(130)


def typed_command() -> str:
    """What was typed, for a page to say; without where its files went and without ``--json``, which change no result."""
    words, kept = iter(_typed.get()), ["kcircuit"]
    for word in words:
        if word == "--out":
            next(words, None)
        elif word != "--json" and not word.startswith("--out="):
            kept.append(word)
    return shlex.join(kept)


def _one_paragraph(error: BaseException) -> str:
    """A pydantic error in a line; any other as it is."""
    from pydantic import ValidationError

    from circuits.studies.options import in_words

    return in_words(error) if isinstance(error, ValidationError) else str(error)


def fit_threads(model: "Model") -> "Model":
    """The model, with as many threads as it is worth: see `circuits.studies.cores.fit_threads`."""
    from circuits.studies.cores import fit_threads

    fit_threads(model)
    return model


def put_edit(model: "Model", folder: Path | str | None) -> "Model":
    """The model with the edit of ``--with-edit`` on it, until the command ends; the model itself where there is none.

    Raises:
        circuits.editing.EditError: no edit in that folder, or one of another model.
    """
    from circuits.studies import loading

    return loading.put_edit(model, folder, _until_the_end.get())


def parse_memory(text: str | None) -> int | None:
    if text is None:
        return None
    from circuits.engines.memory import parse_bytes

    return parse_bytes(text)


def require_file(path: Path | None, name: str = "--out") -> None:
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise CommandError(f"expected {name} as a file in a folder that exists, got {path}")


RESULTS = {
    "run.json": "a run",
    "diff.json": "a diff",
    "edit.json": "an edit",
    "facts.json": "the circuits of several facts",
    "table.json": "a table",
    "result.json": "an explanation",
    "survey.json": "a survey",
    "stability.json": "what is stable",
}
"""What a folder of results holds, by the file that every one of its kind has."""


def require_writable_folder(folder: Path, result: str | None = None) -> None:
    """The folder can take results, and holds none of another kind: a folder belongs to one result.

    Args:
        result: the file of `RESULTS` that is to be written; what is there of its own kind is replaced.

    Raises:
        CommandError: a file, no place to write to, an empty name, or another kind of result.
    """
    if folder == Path() and "" in [word.removeprefix("--out=") for word in _typed.get(())]:
        raise CommandError("expected the name of a folder after --out, got an empty one; . is the present folder")
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"expected a folder for the results, and {folder} is a file")
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise CommandError(f"cannot write to {folder}: {existing} is not a folder one may write to")
    for file, held in RESULTS.items():
        if result is not None and file != result and (folder / file).exists():
            raise CommandError(
                f"{folder} holds {held} ({file}), and {RESULTS[result]} has a folder of its own: name another"
            )

"""What the commands that make edits share: options, the requests to edit, and a line of progress."""

import ast
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError

if TYPE_CHECKING:
    from rich.console import Console

    from circuits.editing import Resources
    from circuits.evaluation.edits import EvalAt
    from circuits.facts import EditRequest
    from circuits.model import Model

SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="An option of the method, such as lr=0.1; again for another.")
]
CorpusOption = Annotated[
    Path | None,
    typer.Option(
        help="Text file, one document a line: the covariance of ROME and MEMIT for a model other than factlm."
    ),
]
CasesOption = Annotated[
    str | None,
    typer.Option(
        help="Cases from a published file instead: counterfact:FILE, zsre-alt:FILE, zsre-true:FILE, knowedit:FILE, mquake:FILE."
    ),
]
EvalAtOption = Annotated[
    str, typer.Option(help="When a sequence is evaluated: immediate, after each edit; end; or checkpoints.")
]
FluencyOption = Annotated[
    int, typer.Option("--fluency-samples", min=0, help="Texts sampled for each edit to measure fluency; 0: none.")
]
CASE_KINDS = ("counterfact", "zsre-alt", "zsre-true", "knowedit", "mquake")


def parse_settings(given: Sequence[str] | None, layer: str | None = None) -> dict[str, Any]:
    """Options from ``name=value`` and ``--layer``; values are Python literals, or else plain words."""
    settings: dict[str, Any] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise CommandError(f"expected --set as name=value, such as lr=0.1, got {text!r}")
        try:
            settings[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            settings[name.strip()] = value.strip()
    if layer is not None:
        layers = parse_layers(layer)
        settings |= {"layer": layers[0]} if len(layers) == 1 else {"layers": layers}
    return settings


def parse_layers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise CommandError(f"expected layers as numbers, such as 3 or 3,4,5, got {text!r}") from None


def parse_eval_at(text: str) -> "EvalAt":
    from circuits.evaluation.edits import EVAL_AT

    for choice in EVAL_AT:
        if choice == text:
            return choice
    raise CommandError(f"expected --eval-at {', '.join(EVAL_AT)}, got {text!r}")


def resources_of(corpus: Path | str | None) -> "Resources":
    """What methods may ask for; with second moments on that text, where one is named."""
    from circuits.editing import Corpus, Resources

    return Resources(None if corpus is None else Corpus.from_file(Path(corpus)))


def requests_of(model: "Model", cases: str | None, n: int, seed: int) -> "tuple[EditRequest, ...]":
    """``n`` requests: facts of the dataset that the model knows, or the first cases of a file."""
    if cases is None:
        from circuits.datasets import relations_for
        from circuits.evaluation.edits.targets import known_requests

        return known_requests(model, relations_for(model.profile), n, seed=seed)
    requests = _from_file(cases, n)
    if len(requests) < n:
        raise CommandError(f"expected {n} edit requests in {cases}, found {len(requests)}; ask for fewer with --n")
    return requests[:n]


def _from_file(cases: str, n: int) -> "tuple[EditRequest, ...]":
    kind, colon, name = cases.partition(":")
    if not colon or kind not in CASE_KINDS:
        raise CommandError(f"expected --cases KIND:FILE, KIND one of {', '.join(CASE_KINDS)}, got {cases!r}")
    path = Path(name)
    match kind:
        case "counterfact":
            from circuits.datasets.counterfact import load_counterfact

            return load_counterfact(path, skip=_skipped, limit=n)
        case "knowedit":
            from circuits.datasets.knowedit import load_knowedit

            return load_knowedit(path, skip=_skipped, limit=n)
        case "mquake":
            from circuits.datasets.mquake import load_mquake

            return tuple(request for case in load_mquake(path, skip=_skipped, limit=n) for request in case)
        case _:
            from circuits.datasets.zsre import load_zsre

            return load_zsre(path, target="alt" if kind == "zsre-alt" else "true", skip=_skipped, limit=n)


def _skipped(line: str) -> None:
    typer.echo(f"skipped: {line}", err=True)


def wide_console() -> "Console":
    """As wide as the terminal; where there is none, wide enough for the tables."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 150)


@contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """A line on stderr that says how far things are, where stderr is a terminal; so stdout holds the result alone."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda line: None
        return
    with console.status("") as status:
        yield lambda line: status.update(escape(line))

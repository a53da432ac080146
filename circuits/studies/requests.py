"""What studies of edits are asked in words, read: the requests to edit, the method's settings, the text for its moments."""

import ast
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuits.editing import Resources
    from circuits.facts import EditRequest
    from circuits.model import Model

CASE_KINDS = ("counterfact", "zsre-alt", "zsre-true", "knowedit", "mquake")


class AskedError(ValueError):
    """Words that say no requests, settings or layers."""


def parse_settings(given: Sequence[str] | None, layer: str | None = None) -> dict[str, Any]:
    """A method's options from ``name=value`` and ``layer``; values are Python literals, or else plain words.

    Raises:
        AskedError: no name or no value.
    """
    settings: dict[str, Any] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise AskedError(f"expected --set as name=value, such as lr=0.1, got {text!r}")
        try:
            settings[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            settings[name.strip()] = value.strip()
    if layer is not None:
        layers = parse_layers(layer)
        settings |= {"layer": layers[0]} if len(layers) == 1 else {"layers": layers}
    return settings


def parse_layers(text: str) -> tuple[int, ...]:
    """``3`` or ``3,4,5``.

    Raises:
        AskedError: no numbers.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise AskedError(f"expected layers as numbers, such as 3 or 3,4,5, got {text!r}") from None


def resources_of(corpus: Path | str | None) -> "Resources":
    """What methods may ask for; with second moments on that text, where one is named."""
    from circuits.editing import Corpus, Resources

    return Resources(None if corpus is None else Corpus.from_file(Path(corpus)))


def requests_of(
    model: "Model", cases: str | None, n: int, seed: int, *, notice: Callable[[str], None] = lambda _: None
) -> "tuple[EditRequest, ...]":
    """``n`` requests: facts of the dataset that the model knows, or the first cases of a file, ``KIND:FILE``.

    Args:
        notice: told of cases of the file that make no request.

    Raises:
        AskedError: no such kind, or too few cases.
    """
    if cases is None:
        from circuits.datasets import relations_for
        from circuits.evaluation.edits.targets import known_requests

        return known_requests(model, relations_for(model.profile), n, seed=seed)
    requests = _from_file(cases, n, lambda line: notice(f"skipped: {line}"))
    if len(requests) < n:
        raise AskedError(f"expected {n} edit requests in {cases}, found {len(requests)}; ask for fewer with --n")
    return requests[:n]


def _from_file(cases: str, n: int, skip: Callable[[str], None]) -> "tuple[EditRequest, ...]":
    kind, colon, name = cases.partition(":")
    if not colon or kind not in CASE_KINDS:
        raise AskedError(f"expected --cases KIND:FILE, KIND one of {', '.join(CASE_KINDS)}, got {cases!r}")
    path = Path(name)
    match kind:
        case "counterfact":
            from circuits.datasets.counterfact import load_counterfact

            return load_counterfact(path, skip=skip, limit=n)
        case "knowedit":
            from circuits.datasets.knowedit import load_knowedit

            return load_knowedit(path, skip=skip, limit=n)
        case "mquake":
            from circuits.datasets.mquake import load_mquake

            return tuple(request for case in load_mquake(path, skip=skip, limit=n) for request in case)
        case _:
            from circuits.datasets.zsre import load_zsre

            return load_zsre(path, target="alt" if kind == "zsre-alt" else "true", skip=skip, limit=n)

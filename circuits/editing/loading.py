"""An edit's folder, read as the kind of edit that it holds."""

from collections.abc import Callable, Mapping
from pathlib import Path

from circuits.editing.bypass import BypassEdit
from circuits.editing.chain import EditChain
from circuits.editing.delta import WeightEdit
from circuits.editing.edit import Edit, EditError
from circuits.editing.files import EditFile, read_edit
from circuits.editing.prompt import PromptEdit
from circuits.editing.routed import RoutedEdit


def _read_chain(file: EditFile) -> EditChain:
    names = file.content.get("parts")
    if not isinstance(names, list) or not all(isinstance(name, str) and name.isdecimal() for name in names):
        raise EditError(f"{file.source} is damaged: expected the names of its parts, got {names!r}")
    return EditChain(tuple(load_edit(file.source / name) for name in names), file.provenance)


KINDS: Mapping[str, Callable[[EditFile], Edit]] = {
    "weights": WeightEdit.read,
    "bypass": BypassEdit.read,
    "routed": RoutedEdit.read,
    "adapter": RoutedEdit.read,
    "prompt": PromptEdit.read,
    "chain": _read_chain,
}
"""Kind of edit -> what reads it. Files of before call a routed edit an adapter."""


def load_edit(folder: Path) -> Edit:
    """The edit that `Edit.save` wrote into ``folder``. Which model it is for is checked when it is put on one.

    Raises:
        EditError: there is no edit, or a damaged one.
    """
    file = read_edit(folder)
    if file.kind not in KINDS:
        raise EditError(f"{file.source} holds an edit of kind {file.kind!r}; known: {', '.join(KINDS)}")
    return KINDS[file.kind](file)

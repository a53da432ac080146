"""Resources: what editing methods may need besides the model and the requests.

One value serves every method and every model: what is needed is made when it is first asked for, and what is costly is kept
under the model's hash (`circuits.editing.artefacts`). A method says in `Method.needs` what it asks for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor

from circuits.datasets import load_relations
from circuits.editing.anchors import Gazetteer, Recogniser
from circuits.editing.artefacts import Artefact
from circuits.editing.corpus import Corpus
from circuits.editing.edit import EditError
from circuits.editing.moments import DOCUMENTS, Statistics
from circuits.model import Model

Need = Literal["moments", "recogniser", "demonstrations", "editor"]
"""Second moments of hidden units; a finder of names in texts; example edits to show; an editor fitted beforehand."""


class Undeclared(EditError):
    """A method asks for something that is not among its needs."""


@dataclass(frozen=True)
class Resources:
    """``corpus`` is the text that moments are taken over and editors are fitted on; None: the text that the model was taught here,
    or else text that it writes itself."""

    corpus: Corpus | None = None
    documents: int = DOCUMENTS
    """Read for the moments, at most."""
    recogniser: Recogniser | None = None
    """None: a gazetteer of this project's entities."""
    demonstrations: tuple[str, ...] = ()
    """Texts that show what an edit does, for methods that edit by the prompt."""
    cache: Path | None = None
    """Folder for what is kept; None is `circuits.editing.artefacts.cache_folder`."""
    lent: frozenset[Need] = frozenset(get_args(Need))
    """What may be asked for."""

    def only(self, needs: frozenset[Need]) -> "Resources":
        """The same, lending nothing but these."""
        return replace(self, lent=needs)

    def moments_of(self, model: Model, progress: Callable[[str], None] = lambda _: None) -> Statistics:
        """The second moments of the model before its edits.

        Raises:
            EditError: no corpus is given, and the model cannot write one.
        """
        self._require("moments")
        return Statistics.of(model, self.corpus, documents=self.documents, cache=self.cache, progress=progress)

    def recogniser_for(self, model: Model) -> Recogniser:
        """Finds names in texts as the model's vocabulary gives them."""
        self._require("recogniser")
        return _entities() if self.recogniser is None else self.recogniser

    def demonstrations_for(self, model: Model) -> tuple[str, ...]:
        """Raises:
        EditError: none are given.
        """
        self._require("demonstrations")
        if not self.demonstrations:
            raise EditError(
                f"expected demonstrations to show {model.name}, got none: give Resources(demonstrations=...)"
            )
        return self.demonstrations

    def editor_for(self, model: Model, content: str, fit: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """An editor's tensors, fitted for the model before its edits when first asked for, then read.

        Args:
            content: names the editor, its version and all that fitting depends on besides the model.
        """
        self._require("editor")
        return Artefact("editors", f"{content} {model.unedited.weights}", self.cache).get(fit)

    def _require(self, need: Need) -> None:
        if need not in self.lent:
            raise Undeclared(
                f"the method asks for {need}, which is not among its needs: {', '.join(sorted(self.lent)) or 'none'}"
            )


@cache
def _entities() -> Gazetteer:
    return Gazetteer.of(load_relations())

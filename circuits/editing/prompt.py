"""PromptEdit: an edit that says something before every prompt and leaves the model as it is (in-context editing).

Zheng et al. 2023 (IKE) show the new fact behind demonstrations of facts that change, and of facts that stay; the simplest
text is the new fact alone. The edited model reads BOS, the text, then the prompt: circuits found on it are those of the prompt
as it stands behind the text, whose tokens are positions like any other and belong to no subject.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from circuits.editing.chain import NoWeights
from circuits.editing.edit import EditError, EditProvenance, edited_hash, lend, require_model
from circuits.editing.files import EditFile, digest_of, write_edit
from circuits.graph import Node, Shape
from circuits.model import Model


@dataclass(frozen=True, eq=False)
class PromptEdit(NoWeights):
    """``text`` before every prompt. See `circuits.editing.edit.Edit`."""

    text: str
    """With what parts it from the prompt, a line break for instance."""
    provenance: EditProvenance

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise EditError("expected a text to put before prompts, got none")

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the text."""
        return digest_of(self.text, {})

    def nodes(self, shape: Shape) -> tuple[Node, ...]:
        """None: every node computes what it did, from other tokens."""
        return ()

    @contextmanager
    def on(self, model: Model) -> Iterator[Model]:
        """See `Edit.on`. A prompt that does not fit the context behind the text is refused when it is read."""
        require_model(self.provenance, model)
        with lend(model.showing(self.text, edited_hash(self))) as edited:
            yield edited

    def save(self, folder: Path) -> Path:
        return write_edit(folder, "prompt", self.provenance, {"text": self.text}, {}, self.digest)

    @classmethod
    def read(cls, file: EditFile) -> "PromptEdit":
        """The inverse of `save`.

        Raises:
            EditError: the file is damaged.
        """
        text = file.content.get("text")
        if not isinstance(text, str) or digest_of(text, {}) != file.digest:
            raise EditError(f"{file.source} is damaged: it holds something else than was written")
        return cls(text, file.provenance)

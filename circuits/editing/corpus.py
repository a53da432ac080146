"""Texts that second moments are taken over."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from circuits.datasets import load_relations
from circuits.datasets.corpus import render_epoch
from circuits.datasets.manifest import Manifest
from circuits.editing.edit import EditError

FACTLM_EPOCHS = 40
"""Of so many epochs the first is rendered: every head fact in every one of its templates, and a share of the rest."""


class CorpusError(EditError):
    """A file from which no texts can be read."""


@dataclass(frozen=True)
class Corpus:
    """Documents, in order. ``name`` is for people; two corpora are the same if their documents are."""

    name: str
    documents: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the documents."""
        return hashlib.sha256("\0".join(self.documents).encode()).hexdigest()

    @classmethod
    def of_factlm(cls, epoch: int = 0) -> "Corpus":
        """factlm's own training text: one epoch of it. The first is what second moments are taken over."""
        return cls("factlm" if epoch == 0 else f"factlm, epoch {epoch}", _factlm_documents(epoch))

    @classmethod
    def from_file(cls, path: Path) -> "Corpus":
        """A text file, one document a line; or, if its name ends with .jsonl, one object a line with a field ``text``.

        Raises:
            CorpusError: no such file, no text in it, or a line that is not what the name promises.
        """
        path = Path(path)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CorpusError(f"cannot read the corpus {path}: {error}") from error
        documents = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if path.suffix == ".jsonl":
                try:
                    text = json.loads(line)["text"]
                except (ValueError, KeyError, TypeError) as error:
                    raise CorpusError(f"{path}, line {number}: expected an object with a field 'text'") from error
                if not isinstance(text, str):
                    raise CorpusError(f"{path}, line {number}: expected 'text' to be a string, got {text!r}")
                line = text
            documents.append(line.strip())
        if not documents:
            raise CorpusError(f"the corpus {path} holds no text")
        return cls(path.name, tuple(documents))


@cache
def _factlm_documents(epoch: int) -> tuple[str, ...]:
    """Rendered once a process: every edit that names no statistics of its own asks for them."""
    return tuple(render_epoch(load_relations(), Manifest.load(), epoch, FACTLM_EPOCHS))

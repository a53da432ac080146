"""Edits as folders: ``edit.json`` says what the edit is and where it comes from, ``edit.safetensors`` holds its tensors."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from circuits.editing.edit import EDIT_FILE, FORMAT, TENSOR_FILE, VERSION, EditError, EditProvenance
from circuits.records import Unreadable, read_json, write_whole


@dataclass(frozen=True)
class EditFile:
    """A folder as read: ``kind`` says which class of edit makes sense of ``content`` and ``tensors``."""

    source: Path
    kind: str
    provenance: EditProvenance
    content: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    digest: str


def digest_of(said: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over a text, then the names, kinds, shapes and bytes of tensors, in their order."""
    digest = hashlib.sha256(said.encode())
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_edit(
    folder: Path,
    kind: str,
    provenance: EditProvenance,
    content: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    digest: str,
) -> Path:
    """Write an edit of that kind; the same edit gives the same bytes. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "provenance": provenance.as_json(),
        "content": dict(content),
        "digest": digest,
    }
    if tensors:
        # Cloned, because safetensors refuses tensors that share memory.
        own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        write_whole(folder / TENSOR_FILE, save(own))
    write_whole(folder / EDIT_FILE, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return folder


def read_edit(folder: Path) -> EditFile:
    """The inverse of `write_edit`.

    Raises:
        EditError: there is no edit in the folder, or it is damaged, or of a version that this package does not read.
    """
    folder = Path(folder)
    path = folder / EDIT_FILE
    if not path.is_file():
        raise EditError(f"expected an edit's folder, with {EDIT_FILE} in it; there is none in {folder}")
    try:
        record = read_json(path)
    except Unreadable as error:
        raise EditError(str(error)) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise EditError(f"{path} is no edit: expected format {FORMAT!r}")
    if record.get("version") != VERSION:
        raise EditError(f"{path} is of version {record.get('version')!r}; this package reads version {VERSION}")
    try:
        provenance = EditProvenance.from_json(record["provenance"])
        kind, content, digest = record["kind"], record["content"], record["digest"]
    except (KeyError, TypeError) as error:
        raise EditError(f"{path} is damaged: no {error}") from error
    tensors: Mapping[str, Tensor] = {}
    if (folder / TENSOR_FILE).is_file():
        try:
            tensors = load_file(folder / TENSOR_FILE)
        except SafetensorError as error:
            raise EditError(f"{folder / TENSOR_FILE} is damaged: {error}") from error
    return EditFile(folder, kind, provenance, content, tensors, digest)

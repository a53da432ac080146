"""What is fitted once and kept: tensors in the user's cache folder, under a hash of all that they depend on.

Second moments are such, and editors that are trained before they edit. A file is written whole or not at all.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from circuits.editing.edit import EditError
from circuits.records import write_whole

CACHE_VARIABLE = "KCIRCUIT_CACHE"


class ArtefactError(EditError):
    """Something kept that cannot be read; the message names the file."""


def cache_folder() -> Path:
    """Where artefacts are kept: ``$KCIRCUIT_CACHE``, else ``kcircuit`` in the user's cache folder (XDG)."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kcircuit"


@dataclass(frozen=True, slots=True)
class Artefact:
    """A place for tensors: ``kind`` names the folder, ``content`` spells all that the tensors depend on.

    ``content`` must hold the hash of the model and the version of what computes them, or another's would be taken for these.
    """

    kind: str
    content: str
    cache: Path | None = None
    """Folder; None is `cache_folder`."""

    @property
    def path(self) -> Path:
        name = hashlib.sha256(self.content.encode()).hexdigest()[:32]
        return (self.cache or cache_folder()) / self.kind / f"{name}.safetensors"

    @property
    def exists(self) -> bool:
        return self.path.is_file()

    def get(self, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors as kept; made, and kept, if they are not there yet."""
        if not self.exists:
            self.write(make())
        return self.read()

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        write_whole(self.path, save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}))

    def read(self) -> dict[str, Tensor]:
        """Raises:
        ArtefactError: the file is damaged.
        """
        try:
            return load_file(self.path)
        except (SafetensorError, OSError) as error:
            raise ArtefactError(f"the kept {self.kind} {self.path} are damaged ({error}); delete the file") from error

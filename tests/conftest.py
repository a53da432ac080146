"""Models that several test files share: made once a session, in a temporary folder, with no network."""

# ruff: noqa: E402  # Two things are to be done before some of the imports.

import os
from collections.abc import Callable
from pathlib import Path

# Before anything imports a HuggingFace library: tests never reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

# And before anything imports the package.
from tests import checked

checked.use()

import pytest
import torch
from hypothesis import settings

from circuits.datasets import load_relations
from circuits.facts import Relations
from circuits.model import Model, Processing, library
from tests.models import save_model

# The same examples every time: a red build is one that the next run shows again.
settings.register_profile("kcircuit", max_examples=20, deadline=None, derandomize=True, database=None)
settings.load_profile("kcircuit")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``model_folder("gpt2")``: the folder of the small random model of that layout."""
    root, made = tmp_path_factory.mktemp("models"), dict[str, Path]()

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = save_model(name, root / name)
        return made[name]

    return folder


@pytest.fixture(scope="session")
def small_model(model_folder: Callable[[str], Path]) -> Callable[..., Model]:
    """``small_model("llama")``: the model of that layout, loaded; ``small_model("llama", "raw")`` as trained."""
    loaded: dict[tuple[str, Processing], Model] = {}

    def model(name: str, processing: Processing = "compatibility") -> Model:
        if (name, processing) not in loaded:
            loaded[name, processing] = Model.load(model_folder(name), processing=processing)
        return loaded[name, processing]

    return model


@pytest.fixture(scope="session")
def smollm2() -> Model:
    """SmolLM2-135M, a real model; tests that ask for it are skipped where it is not at hand."""
    if not next(entry for entry in library.entries() if entry.name == "smollm2").present:
        pytest.skip("smollm2 is not at hand; `kcircuit models get smollm2` gets it")
    return Model.load("smollm2")


@pytest.fixture(scope="session")
def relations() -> Relations:
    """The project's own fact files."""
    return load_relations()

"""The model that is asked for: by its name, where it is and in what numbers, and with a saved edit on it."""

from contextlib import ExitStack
from pathlib import Path

import torch

from circuits.choices import Dtype, Processing
from circuits.editing import load_edit
from circuits.model import Model
from circuits.studies.cores import fit_threads
from circuits.studies.specs import OnModel

FLOAT_TYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_named(
    name: str, device: str = "cpu", dtype: Dtype = "float32", processing: Processing = "compatibility"
) -> Model:
    """`Model.load`, by the words that specs have.

    Raises:
        circuits.model.ModelError: it cannot be loaded.
        circuits.model.device.DeviceError: no such device.
    """
    return Model.load(name, device=device, dtype=FLOAT_TYPES[dtype], processing=processing)


def load_asked(spec: OnModel) -> Model:
    """The model that the spec asks for, without an edit, with as many threads as it is worth.

    Raises:
        circuits.model.ModelError: it cannot be loaded.
        circuits.model.device.DeviceError: no such device.
    """
    model = load_named(spec.model, spec.device, spec.dtype)
    fit_threads(model)
    return model


def put_edit(model: Model, folder: Path | str | None, held: ExitStack) -> Model:
    """The model with the edit of that folder on it until ``held`` is closed; the model itself where there is none.

    Raises:
        circuits.editing.EditError: no edit in that folder, or one of another model.
    """
    return model if folder is None else held.enter_context(load_edit(Path(folder)).on(model))

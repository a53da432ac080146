"""The models that calls name: each loaded once, and given the threads that it is worth."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from circuits.facts import Fact
from circuits.model import Model
from circuits.studies.cores import fit_threads
from circuits.studies.explain.compare import LOADING
from circuits.studies.search import load_model
from circuits.studies.specs import RunSpec

LOADED_AT_ONCE = 2
"""Models that are kept, those asked for last."""
ANY = (Fact("a is", "a", "b"),)
"""The facts of a spec that is about none yet."""


def model_of(spec: RunSpec) -> Model:
    """The model that a spec asks for, without an edit.

    Raises:
        circuits.model.ModelError: it cannot be loaded.
        circuits.model.device.DeviceError: no such device.
    """
    return _loaded(*(getattr(spec, name) for name in LOADING))


def model_named(model: Model | Path | str) -> Model:
    """The model itself, or the one of that name, on the processor in float32."""
    return model if isinstance(model, Model) else model_of(RunSpec(facts=ANY, model=str(model)))


@lru_cache(maxsize=LOADED_AT_ONCE)
def _loaded(*loading: Any) -> Model:
    model = load_model(RunSpec(facts=ANY, **dict(zip(LOADING, loading, strict=True))))
    fit_threads(model)
    return model

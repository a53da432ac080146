"""The editing methods, by name."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from circuits.editing.defaults import tuned
from circuits.editing.edit import EditError
from circuits.editing.method import Method
from circuits.editing.methods.finetune import FineTuneHyper, ft_l, ft_m
from circuits.editing.methods.memit import MemitHyper, memit
from circuits.editing.methods.memoe import MemoeHyper, memoe
from circuits.editing.methods.rome import RomeHyper, rome
from circuits.model import Model

METHODS: Mapping[str, Method] = {"rome": rome, "memit": memit, "ft-l": ft_l, "ft-m": ft_m, "memoe": memoe}
HYPERS: Mapping[str, type] = {
    "rome": RomeHyper,
    "memit": MemitHyper,
    "ft-l": FineTuneHyper,
    "ft-m": FineTuneHyper,
    "memoe": MemoeHyper,
}
"""The frozen dataclass of each method's hyper-parameters."""


def default_hyper(method: str, model: Model, **settings: Any) -> Any:
    """The method's hyper-parameters for that model, some of them set otherwise.

    ``layer`` and ``layers`` stand for each other, so that one setting means the same to every method.

    Raises:
        EditError: no such method, or no such hyper-parameter.
    """
    if method not in METHODS:
        raise EditError(f"no editing method {method!r}; known: {', '.join(METHODS)}")
    known = [field.name for field in fields(HYPERS[method])]
    if "layer" in settings and "layer" not in known:
        settings["layers"] = (settings.pop("layer"),)
    if "layers" in settings and "layers" not in known:
        layers = tuple(settings.pop("layers"))
        if len(layers) != 1:
            raise EditError(f"{method} edits one layer, got {layers}")
        (settings["layer"],) = layers
    if unknown := sorted(set(settings).difference(known)):
        raise EditError(f"{method} has no hyper-parameter {', '.join(unknown)}; it has {', '.join(known)}")
    return HYPERS[method](**{**tuned(method, model), **settings})

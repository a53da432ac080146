"""Default hyper-parameters, model by model. The one place where they are.

Those of factlm are the best rows of data/results/edit-layers.md (`kcircuit edit sweep-layers`). Those of
GPT-2 are the published ones of ROME's and MEMIT's code; a model that is not listed gets layers by its depth, in the
proportion of GPT-2 XL's (ROME 17 of 48, MEMIT 13-17 of 48), and everything else from the classes' own defaults.
"""

from collections.abc import Mapping
from typing import Any

from circuits.editing.edit import EditError
from circuits.graph import Shape
from circuits.model import Model
from circuits.paths import FACTLM

Settings = Mapping[str, Any]

FACTLM_DEFAULTS: Mapping[str, Settings] = {
    "rome": {"layer": 4, "site": "end", "lr": 0.1, "steps": 40, "clamp": 6.0, "damping": 1e-2, "contexts": (5, 5)},
    "memit": {"layers": (4, 5), "site": "end", "lr": 0.1, "steps": 40, "clamp": 4.0, "weight": 10.0},
    "ft-l": {"layers": (4,), "steps": 60},
    "ft-m": {"layers": (5,), "steps": 60},
    "memoe": {"layer": 4, "keep": 3.0, "texts": 16, "text_tokens": 12},
}

FACTLM_AT_SUBJECT: Mapping[str, Settings] = {"rome": {"layer": 1}, "memit": {"layers": (0, 1)}}
"""With values stored at the subject, as the papers have it; all else is the classes' own."""

BY_SHAPE: Mapping[Shape, Mapping[str, Settings]] = {
    # gpt2-medium, gpt2-large, gpt2-xl, GPT-J 6B: layers, clamps and boxes of the published configurations.
    Shape(24, 16): {
        "rome": {"layer": 8, "clamp": 3.0},
        "ft-l": {"layers": (0,), "box": 2e-3},
        "ft-m": {"layers": (0,)},
    },
    Shape(36, 20): {
        "rome": {"layer": 12},
        "ft-l": {"layers": (0,), "box": 1e-3},
        "ft-m": {"layers": (0,)},
    },
    Shape(48, 25): {
        "rome": {"layer": 17},
        "memit": {"layers": (13, 14, 15, 16, 17)},
        "ft-l": {"layers": (0,), "box": 5e-4},
        "ft-m": {"layers": (0,)},
    },
    Shape(28, 16, parallel=True): {
        "rome": {"layer": 5},
        "memit": {"layers": (3, 4, 5, 6, 7, 8), "weight": 15000.0},
        "ft-l": {"layers": (0,), "box": 5e-5},
        "ft-m": {"layers": (0,)},
    },
}

WITH_DEFAULTS = ("rome", "memit", "ft-l", "ft-m", "memoe")


def tuned(method: str, model: Model) -> dict[str, Any]:
    """The fields of the method's hyper-parameters that differ, for this model, from their class's defaults.

    Raises:
        EditError: no such method.
    """
    if method not in WITH_DEFAULTS:
        raise EditError(f"no defaults for the method {method!r}; known: {', '.join(WITH_DEFAULTS)}")
    if model.unedited.name == FACTLM:
        return dict(FACTLM_DEFAULTS[method])
    shape = model.unedited.shape
    return _by_depth(method, shape.n_layers) | dict(BY_SHAPE.get(shape, {}).get(method, {}))


def tuned_at_subject(method: str, model: Model) -> dict[str, Any]:
    """`tuned` for values that are stored at the subject's last token (``site="subject"``), the papers' choice.

    Raises:
        EditError: a method that stores no values at a position.
    """
    if method not in FACTLM_AT_SUBJECT:
        raise EditError(f"{method} stores no values at the subject; these do: {', '.join(FACTLM_AT_SUBJECT)}")
    own = FACTLM_AT_SUBJECT[method] if model.unedited.name == FACTLM else tuned(method, model)
    return {**own, "site": "subject"}


def _by_depth(method: str, n_layers: int) -> dict[str, Any]:
    last = round((n_layers - 1) * 17 / 47)
    match method:
        case "rome":
            return {"layer": last}
        case "memit":
            return {"layers": tuple(range(max(0, last - 4), last + 1))}
        case "memoe":
            # In the middle: paper 3's best layer of 32 is the 16th.
            return {"layer": n_layers // 2}
        case _:
            return {"layers": (0,)}

"""What a model was tuned to, and what the defaults of methods are taken from for a model that was not.

Each method's file holds its own defaults, by the family of the model: the published settings of that family, their layers
moved to the model's depth in proportion.
"""

from collections.abc import Mapping
from typing import Any, Literal

from circuits.editing.prompts import Site
from circuits.graph import Shape
from circuits.model import Model
from circuits.model.network import OpenNetwork

Settings = Mapping[str, Any]
"""Options that differ from the defaults of their class."""

Family = Literal["gpt2", "gptj", "llama"]
"""Serial blocks; parallel blocks; gated MLPs. The families that published configurations are of."""

GPT2_MEDIUM, GPT2_LARGE, GPT2_XL = Shape(24, 16), Shape(36, 20), Shape(48, 25)
GPT_J = Shape(28, 16, parallel=True)


def tuned(method: str, site: Site | None, model: Model) -> Settings:
    """What the model's profile sets of the method's options, and of those with values stored at ``site``.

    A profile may tune one method twice: ``rome`` at the site that suits the model, ``rome@subject`` at the other.
    """
    table = model.unedited.profile.tuned
    own = table.get(method, {})
    if site is None or own.get("site", "subject") == site:
        return own
    return table.get(f"{method}@{site}", {})


def family_of(model: Model) -> Family:
    """By what its blocks compute: ``llama`` has gated MLPs. A model that does not show its weights counts as GPT-2 or GPT-J."""
    shape, network = model.unedited.shape, model.unedited.network
    if isinstance(network, OpenNetwork) and network.components(1).blocks[0].mlp.W_gate is not None:
        return "llama"
    return "gptj" if shape.parallel else "gpt2"


def at_depth(model: Model, layers: tuple[int, ...], of: int) -> tuple[int, ...]:
    """Published ``layers`` of a model ``of`` so many layers, at the same depth of this one: the last in proportion, as many
    before it as there are."""
    last = round((model.shape.n_layers - 1) * layers[-1] / (of - 1))
    return tuple(range(max(0, last - len(layers) + 1), last + 1))

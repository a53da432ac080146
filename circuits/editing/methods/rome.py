"""ROME: rank-one model editing (Meng et al. 2022; paper 0, section 3.3.2), one value matrix, one fact at a time.

A value matrix W maps keys (hidden units at the subject's last token) to values (what the MLP writes there; by `Site` also
those of the prompt's last token). ROME wants
W' k* = v* while W' differs least from W on the keys of a corpus, which has the closed form (Meng et al. 2022, Eq. 2)

    W' = W + u (v* - v0)^T / (k*^T u),   u = C^-1 k*     (here with W of shape [d_mlp, d_model])

for k* the subject's mean key over contexts, v0 what W gives to it, C = E[k k^T].
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.editing.contexts import sample_contexts
from circuits.editing.covariance import Covariance, covariances
from circuits.editing.defaults import GPT2_LARGE, GPT2_MEDIUM, GPT2_XL, GPT_J, Family, Settings, at_depth, family_of
from circuits.editing.delta import Delta, LowRank, WeightEdit, add
from circuits.editing.edit import EditError
from circuits.editing.forward import open_network, require_layers
from circuits.editing.method import Method, ProgressLine, provenance
from circuits.editing.moments import SecondMoment
from circuits.editing.prompts import Forced, Site, each_token, forced
from circuits.editing.resources import Resources
from circuits.editing.stored import keys_at
from circuits.editing.targets import Essence, TargetOptions, essence_of, optimise
from circuits.facts import EditRequest
from circuits.graph import Shape
from circuits.model import Model
from circuits.model.network import ComponentNetwork, value_matrix

Key = Literal["mean", "prompt", "published"]
"""Which key stands in u = C^-1 k and which is divided by, k^T u: the mean over contexts in both (the correction called
R-ROME, default), the bare prompt's in both (its other form), or, as ROME's code has it, the mean in u and the bare
prompt's in the divisor. Where these two are nearly orthogonal in C^-1, the last makes an edit of any size: the cause of
edits that destroy the model."""


@dataclass(frozen=True, slots=True)
class RomeOptions(TargetOptions):
    """``contexts`` are lengths in tokens of the sampled texts that the prompt is put after, besides standing alone."""

    layer: int = 0
    key: Key = "mean"
    covariance: Covariance = "corpus"
    damping: float = 1e-4
    contexts: tuple[int, ...] = (5,) * 5 + (10,) * 5


def _run(
    model: Model,
    requests: tuple[EditRequest, ...],
    options: RomeOptions,
    resources: Resources,
    seed: int,
    progress: ProgressLine,
) -> WeightEdit:
    """ROME's edit of one layer. Several requests are edited one after another, each on the result of those before; so are,
    at the prompt's end, the tokens of one answer.

    Raises:
        EditError: no layer of that number, no moments, a subject that is not found.
    """
    (layer,) = require_layers(model, (options.layer,))
    moments, notes = covariances(model, (layer,), options.covariance, resources, progress)
    contexts = ("", *sample_contexts(model, options.contexts, seed))
    said = [forced(model, [request], contexts) for request in requests]
    essences = [essence_of(model, [request]) for request in requests]
    network = open_network(model, *(one.ids for one in said), *(one.ids for one in essences))
    steps = [(part, essence) for one, essence in zip(said, essences, strict=True) for part in _parts(one, options.site)]
    moment = moments[layer].to(network.parts.W_U.device)
    delta: Delta | None = None
    losses = []
    for one, essence in steps:
        update, curve = _edit_one(network, layer, one, essence, moment, options, progress)
        losses.append(curve)
        if delta is not None and not update.right.any():
            continue  # an answer's later token that follows by itself
        delta = update if delta is None else add(delta, update)
        if len(steps) > 1:
            name = value_matrix(layer)
            weight = network.weight(name)
            network = network.with_weights({name: (weight.double() + update.dense()).to(weight.dtype)})
    assert delta is not None
    return WeightEdit({value_matrix(layer): delta}, provenance("rome", model, requests, options, seed, losses, notes))


BY_SHAPE: Mapping[Shape, Settings] = {
    GPT2_MEDIUM: {"layer": 8, "clamp": 3.0},
    GPT2_LARGE: {"layer": 12},
    GPT2_XL: {"layer": 17},
    GPT_J: {"layer": 5},
}
BY_FAMILY: Mapping[Family, tuple[int, int, Settings]] = {
    "gpt2": (17, 48, {}),
    "gptj": (5, 28, {}),
    "llama": (5, 32, {"steps": 25, "decay": 1e-3}),
}
"""(layer, of how many, other options): those published for GPT-2 XL, GPT-J and Llama-2-7B."""


def _defaults(model: Model) -> Settings:
    layer, of, settings = BY_FAMILY[family_of(model)]
    return {"layer": at_depth(model, (layer,), of)[-1], **settings, **BY_SHAPE.get(model.unedited.shape, {})}


rome = Method("rome", _run, RomeOptions, frozenset({"moments"}), _defaults)


def _parts(said: Forced, site: Site) -> list[Forced]:
    """What gets a value: one request as a whole; or, at the prompt's end, each token of its answer."""
    if site == "subject":
        return [said]
    tokens = each_token(said)
    parts = [tokens.rows((tokens.request == i).nonzero()[:, 0]) for i in range(int(tokens.request[-1]) + 1)]
    return [replace(part, request=torch.zeros_like(part.request)) for part in parts]


def _edit_one(
    network: ComponentNetwork,
    layer: int,
    said: Forced,
    essence: Essence,
    moment: SecondMoment,
    options: RomeOptions,
    progress: ProgressLine,
) -> tuple[LowRank, tuple[float, ...]]:
    keys = keys_at(network, said.ids, layer, said.stored_at(options.site)).double()
    mlp = network.parts.blocks[layer].mlp
    norms = (keys[:1].to(mlp.W_out) @ mlp.W_out + mlp.b_out).norm(dim=-1)
    found = optimise(network, layer, said, essence, norms, options, progress)
    # The first row is the bare prompt.
    mean, bare = keys.mean(0), keys[0]
    key = bare if options.key == "prompt" else mean
    divisor = mean if options.key == "mean" else bare
    return insert(key, divisor, found.deltas[0].double(), moment, options.damping), found.losses[0]


def insert(
    key: Float[Tensor, "d_mlp"],
    divisor: Float[Tensor, "d_mlp"],
    change: Float[Tensor, "d_model"],
    moment: SecondMoment,
    damping: float,
) -> LowRank:
    """The rank-one delta u change^T / (divisor^T u) with u = C^-1 key: it adds ``change`` to what ``divisor`` is mapped to.

    Raises:
        EditError: the divisor is 0.
    """
    u = moment.solve(key[:, None], damping)[:, 0]
    product = divisor @ u
    if not product.abs() > 0:
        raise EditError(
            "the subject's key is zero or orthogonal to its own direction: there is nothing to store a value at"
        )
    # The scale goes to the right: what is left is a direction.
    left = u / u.norm()
    right = change * (u.norm() / product)
    return LowRank(left[:, None].float(), right[None, :].float())

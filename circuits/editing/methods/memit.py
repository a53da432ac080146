"""MEMIT: mass-editing memory in a transformer (Meng et al. 2023; paper 0, section 3.3.2), many facts, several layers.

One target hidden state z_i a request is optimised behind the last layer edited. Then, from the first layer on, each
layer's value matrix takes an equal share of what is still missing, in the ridge-like closed form (Meng et al. 2023,
Eq. 14, here with the delta of shape [d_mlp, d_model])

    delta = (weight C + K K^T)^-1 K R^T,   R = (z - h) / (layers still to come, this one included)

with the keys K and the states h of all requests as the matrices edited so far make them. ``weight`` is what one
token of the corpus counts against one request: the larger, the less other keys are touched, and the less is written.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.editing.contexts import sample_contexts
from circuits.editing.covariance import Covariance, covariances
from circuits.editing.defaults import GPT2_XL, GPT_J, Family, Settings, at_depth, family_of
from circuits.editing.delta import Delta, LowRank, WeightEdit
from circuits.editing.edit import EditError
from circuits.editing.forward import open_network, require_layers
from circuits.editing.method import Method, ProgressLine, provenance
from circuits.editing.moments import SecondMoment
from circuits.editing.prompts import Forced, Site, answer_ids, each_token, forced
from circuits.editing.resources import Resources
from circuits.editing.stored import keys_at, states_at
from circuits.editing.targets import TargetOptions, essence_of, optimise
from circuits.facts import EditRequest
from circuits.graph import Shape
from circuits.model import Model
from circuits.model.network import ComponentNetwork, value_matrix

MOST = 0.5
"""A share of the change left unwritten that is warned of."""


class Unwritten(UserWarning):
    """An edit most of whose change could not be written against the weight of the corpus."""


@dataclass(frozen=True, slots=True)
class MemitOptions(TargetOptions):
    """``contexts`` are lengths in tokens of the sampled texts that prompts are put after, besides standing alone.

    The weight of the corpus is ``c`` for each hidden unit, or ``weight`` in all where that is set. For a key of the corpus
    k^T C^-1 k is d_mlp on average, so that one request alone gets about 1 / (1 + c) of its residual written at each layer,
    whatever the model's size. The published weights are a c of 3.1 (GPT-2 XL), 0.9 (GPT-J) and 1.4 (Llama-2-7B).
    """

    clamp: float = 0.75
    decay: float = 0.02
    layers: tuple[int, ...] = ()
    c: float = 1.0
    weight: float | None = None
    covariance: Covariance = "corpus"
    damping: float = 0.0
    contexts: tuple[int, ...] = (10,) * 5

    def __post_init__(self) -> None:
        TargetOptions.__post_init__(self)
        if self.c <= 0 or (self.weight is not None and self.weight <= 0) or self.damping < 0:
            raise EditError(f"expected c and weight above 0 and damping of at least 0, got {self}")

    def of(self, d_mlp: int) -> float:
        """The weight of C against K K^T at a layer of so many hidden units."""
        return self.c * d_mlp if self.weight is None else self.weight


def _run(
    model: Model,
    requests: tuple[EditRequest, ...],
    options: MemitOptions,
    resources: Resources,
    seed: int,
    progress: ProgressLine,
) -> WeightEdit:
    """MEMIT's edit of all requests at once: one key a request or, at the prompt's end, one a token of its answer.

    Raises:
        EditError: no such layers, no moments, a subject that is not found.
    """
    layers = require_layers(model, options.layers)
    moments, notes = covariances(model, layers, options.covariance, resources, progress)
    contexts = ("", *sample_contexts(model, options.contexts, seed))
    said, stored = forced(model, requests, contexts), list(requests)
    if options.site == "end":
        stored = [request for request in requests for _ in answer_ids(model, request.target)]
        said = each_token(said)
    essence = essence_of(model, stored)
    network = open_network(model, said.ids, essence.ids)
    first = torch.arange(0, len(said.ids), len(contexts))
    states = states_at(network, said.ids[first], layers[-1], said.stored_at(options.site)[first])
    found = optimise(network, layers[-1], said, essence, states.norm(dim=-1), options, progress)
    targets = states + found.deltas
    bare = said.rows(first)
    deltas: dict[str, Delta] = {}
    for done, layer in enumerate(layers):
        keys = _mean_keys(network, said, layer, options.site, len(contexts))
        missing = (targets - states).double() / (len(layers) - done)
        weight = options.of(keys.shape[1])
        delta = spread(keys, missing, moments[layer].to(keys.device), weight, options.damping)
        name = value_matrix(layer)
        matrix = network.weight(name)
        network = network.with_weights({name: (matrix.double() + delta.dense()).to(matrix.dtype)})
        deltas[name] = delta
        states = states_at(network, bare.ids, layers[-1], bare.stored_at(options.site))
        progress(f"layer {layer}: {len(stored)} keys, {_left(targets - states, found.deltas):.0%} still to write")
    d_mlp = network.weight(value_matrix(layers[-1])).shape[0]
    notes = (*notes, _residual_note(_left(targets - states, found.deltas), options.of(d_mlp), d_mlp))
    return WeightEdit(deltas, provenance("memit", model, requests, options, seed, found.losses, notes))


def _left(missing: Float[Tensor, "key d_model"], asked: Float[Tensor, "key d_model"]) -> float:
    """Sum over keys of |z - h'| over that of |z - h|: what is left unwritten of what was asked for.

    Of sums, since what holds already asks for next to nothing, of which any share may be left.
    """
    return float(missing.norm(dim=-1).sum() / asked.norm(dim=-1).sum().clamp_min(1e-12))


def _residual_note(left: float, weight: float, d_mlp: int) -> str:
    note = (
        f"{left:.0%} of the change is left unwritten, at a weight of {weight:,.4g} ({weight / d_mlp:.3g} a hidden unit)"
    )
    if left > MOST:
        warnings.warn(f"MEMIT: {note}; a smaller weight writes more", Unwritten, stacklevel=4)
    return note


BY_SHAPE: Mapping[Shape, Settings] = {
    GPT2_XL: {"layers": (13, 14, 15, 16, 17), "weight": 20000.0},
    GPT_J: {"layers": (3, 4, 5, 6, 7, 8), "weight": 15000.0},
}
BY_FAMILY: Mapping[Family, tuple[tuple[int, ...], int, Settings]] = {
    "gpt2": ((13, 14, 15, 16, 17), 48, {}),
    "gptj": ((3, 4, 5, 6, 7, 8), 28, {}),
    "llama": ((4, 5, 6, 7, 8), 32, {"steps": 25, "clamp": 4.0, "decay": 1e-3}),
}
"""(layers, of how many, other options): those published for GPT-2 XL, GPT-J and Llama-2-7B."""


def _defaults(model: Model) -> Settings:
    layers, of, settings = BY_FAMILY[family_of(model)]
    return {"layers": at_depth(model, layers, of), **settings, **BY_SHAPE.get(model.unedited.shape, {})}


memit = Method("memit", _run, MemitOptions, frozenset({"moments"}), _defaults)


def spread(
    keys: Float[Tensor, "request d_mlp"],
    missing: Float[Tensor, "request d_model"],
    moment: SecondMoment,
    weight: float,
    damping: float,
) -> LowRank:
    """(weight C + K K^T)^-1 K missing, in float64: of the rank of the number of requests.

    By the identity (weight C + K K^T)^-1 K = C^-1 K (weight 1 + K^T C^-1 K)^-1, so that C alone is factored, once.
    """
    K = keys.double().T
    solved = moment.solve(K, damping)
    inner = K.T @ solved + weight * torch.eye(K.shape[1], dtype=K.dtype, device=K.device)
    left = torch.linalg.solve(inner, solved.T).T
    return LowRank(left.float(), missing.float())


def _mean_keys(
    network: ComponentNetwork, said: Forced, layer: int, site: Site, n_contexts: int
) -> Float[Tensor, "request d_mlp"]:
    keys = keys_at(network, said.ids, layer, said.stored_at(site))
    return keys.unflatten(0, (-1, n_contexts)).mean(1)

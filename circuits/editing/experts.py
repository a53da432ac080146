"""A mixture of experts beside an MLP (paper 3, section 3.1), as pure functions of tensors.

Notation of paper 3: x is what the MLP reads, after the MLP's norm; R = [x ; embed(anchor)] is what the router reads; G is
the gate decision. Vectors are rows here, so that W_e x is ``x @ weight[e]`` and W_g R is ``features @ router.T``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

ExpertKind = Literal["linear", "mlp"]


@dataclass(frozen=True, eq=False)
class Experts:
    """The trained tensors: the router W_g and each expert's map W_e.

    A linear expert is ``x @ weight[e]`` (Eq. 10 as printed). With ``second`` it is a two-layer network,
    ``relu(x @ weight[e]) @ second[e]``: the other reading of the paper's "FFN experts".
    """

    router: Float[Tensor, "expert features"]
    weight: Float[Tensor, "expert d_model d_hidden"]
    second: Float[Tensor, "expert d_hidden d_model"] | None = None

    @property
    def n_experts(self) -> int:
        return self.router.shape[0]

    @property
    def d_model(self) -> int:
        return self.weight.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        named = {"router": self.router, "weight": self.weight}
        return named if self.second is None else {**named, "second": self.second}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Experts":
        """The inverse of `tensors`."""
        return cls(tensors["router"], tensors["weight"], tensors.get("second"))

    def output(self, expert: int, x: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_model"]:
        """What one expert makes of x, ungated."""
        hidden = x @ self.weight[expert]
        return hidden if self.second is None else hidden.relu() @ self.second[expert]


def initial(n_experts: int, d_model: int, kind: ExpertKind, d_hidden: int, generator: torch.Generator) -> Experts:
    """Experts that write nothing yet, so that training starts at the base model: the last map of each is zero.

    The router starts with small random weights, since equal experts that get equal tokens would stay equal.
    """
    router = torch.randn(n_experts, 2 * d_model, generator=generator) / (2 * d_model) ** 0.5
    if kind == "linear":
        return Experts(router, torch.zeros(n_experts, d_model, d_model))
    first = torch.randn(n_experts, d_model, d_hidden, generator=generator) / d_model**0.5
    return Experts(router, first, torch.zeros(n_experts, d_hidden, d_model))


def route(
    features: Float[Tensor, "*rest features"],
    router: Float[Tensor, "expert features"],
    noise: Float[Tensor, "*rest expert"] | None = None,
) -> Float[Tensor, "*rest expert"]:
    """softmax(W_g R + eps): how much each expert is wanted (paper 3, Eq. 9, before top_k). No noise at inference."""
    scores = features @ router.T
    return (scores if noise is None else scores + noise).softmax(-1)


def top_gate(
    wanted: Float[Tensor, "*rest expert"], k: int, *, renormalise: bool = False
) -> Float[Tensor, "*rest expert"]:
    """top_k: all but the k largest become zero (paper 3, Eq. 9); with ``renormalise`` what is left sums to 1.

    Ties go to the lower index. Renormalised with k = 1 the gate is 1 for the chosen expert, and no gradient of the answer's
    loss reaches the router.
    """
    # topk promises no order among ties; a stable sort does.
    order = wanted.argsort(dim=-1, descending=True, stable=True)[..., :k]
    gate = wanted * torch.zeros_like(wanted).scatter(-1, order, 1.0)
    return gate / gate.sum(-1, keepdim=True) if renormalise else gate


def mixture(
    x: Float[Tensor, "*rest d_model"], gate: Float[Tensor, "*rest expert"], experts: Experts
) -> Float[Tensor, "*rest d_model"]:
    """sum over e of G_e W_e x (paper 3, Eq. 10). An expert whose gate is 0 for a row does not run on it."""
    rows, gates = x.reshape(-1, x.shape[-1]), gate.reshape(-1, gate.shape[-1])
    total = torch.zeros_like(rows)
    for expert in range(experts.n_experts):
        chosen = gates[:, expert].nonzero()[:, 0]
        if len(chosen):
            written = gates[chosen, expert, None] * experts.output(expert, rows[chosen])
            total = total.index_add(0, chosen, written)
    return total.view(x.shape)


def load_balance(wanted: Float[Tensor, "rows expert"]) -> Float[Tensor, ""]:
    """E * sum over e of f_e P_e: 1 when the rows spread evenly, E when one expert gets all (Switch Transformer, Eq. 4-6).

    f_e is the share of rows whose favourite is e, P_e the mean of how much e is wanted. Paper 3 adopts it without its
    coefficient.
    """
    n_experts = wanted.shape[-1]
    share = F.one_hot(favourite(wanted), n_experts).to(wanted).mean(0)
    return n_experts * (share * wanted.mean(0)).sum()


def favourite(wanted: Float[Tensor, "*rest expert"]) -> Int[Tensor, "*rest"]:
    """The expert that each row goes to first; ties go to the lower index, as in `top_gate`."""
    return wanted.argsort(dim=-1, descending=True, stable=True)[..., 0]

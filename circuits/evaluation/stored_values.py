"""What edits stored, and how far it has drifted when others have come after (paper 1, section 5.6, Figure 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.editing.forward import at_rows, hidden_units, open_network
from circuits.editing.prompts import Site, padded, read_prompt
from circuits.facts import EditRequest
from circuits.model import Model
from circuits.records import Number

Stored = Mapping[str, tuple[Float[Tensor, "edit d_mlp"], Float[Tensor, "edit d_model"]]]
"""The keys and the values of the edits so far, in order, by matrix: k_j and v_j = W_j k_j."""


@torch.no_grad()
def keys(
    model: Model, requests: Sequence[EditRequest], layers: Sequence[int], site: Site = "subject"
) -> dict[int, Float[Tensor, "request d_mlp"]]:
    """k by layer: the hidden units of its MLP at the token where each request's value is stored, in the bare prompt."""
    prompts = [read_prompt(model, request.template, request.subject) for request in requests]
    ids = padded([prompt.ids for prompt in prompts])
    at = torch.tensor([prompt.subject if site == "subject" else len(prompt.ids) - 1 for prompt in prompts])
    return {layer: at_rows(units, at) for layer, units in hidden_units(open_network(model, ids), ids, layers).items()}


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the values that edits stored have moved by the end."""

    matrix: str
    distances: tuple[float, ...]
    """||W_N k_j - W_j k_j|| / ||W_j k_j|| of each edit j, in single precision; 0 where nothing was lost."""

    @classmethod
    def of(cls, matrix: str, stored: Float[Tensor, "edit d_model"], later: Float[Tensor, "edit d_model"]) -> "Drift":
        """From W_j k_j, what the matrix gave to each edit's key right after it, and W_N k_j, after the last."""
        return cls(matrix, tuple(((later - stored).norm(dim=-1) / stored.norm(dim=-1)).tolist()))

    @property
    def mean(self) -> float:
        return float(torch.tensor(self.distances).mean())

    @property
    def quarters(self) -> tuple[float, ...]:
        """The means over each quarter of the sequence; NaN over none."""
        n, distances = len(self.distances), torch.tensor(self.distances)
        return tuple(float(distances[n * i // 4 : n * (i + 1) // 4].mean()) for i in range(4))


@dataclass(frozen=True, slots=True)
class ValuePlane:
    """Values in the plane of their first two principal components, all sets together (paper 1, Figure 5)."""

    matrix: str
    sets: Mapping[str, tuple[tuple[float, float], ...]]
    """The points of each set by its name, in one order."""
    shown: Number
    """The share of the variance that the plane shows."""


@torch.no_grad()
def projection(matrix: str, sets: Mapping[str, Float[Tensor, "value d_model"]]) -> ValuePlane:
    """The principal components are those of all sets' values, centred; each component's sign makes its largest entry positive.

    Raises:
        ValueError: fewer than two values, which span no plane.
    """
    together = torch.cat([values.double() for values in sets.values()])
    if len(together) < 2:
        raise ValueError(f"expected at least two values of {matrix} to project, got {len(together)}")
    mean = together.mean(0)
    _, S, Vt = torch.linalg.svd(together - mean, full_matrices=False)
    plane = Vt[:2]
    plane = plane * plane.gather(1, plane.abs().argmax(1, keepdim=True)).sign()
    total = float(S.square().sum())
    return ValuePlane(
        matrix,
        {
            name: tuple((x, y) for x, y in ((values.double() - mean) @ plane.T).tolist())
            for name, values in sets.items()
        },
        float(S[:2].square().sum()) / total if total else 1.0,
    )

"""How far a matrix is from what it was: its singular values, its condition number, and the bound that paper 1 puts on its keys.

A value matrix is held with a row a hidden unit, v = k W; the paper's W is its transpose, v = W k, with fewer rows than
columns.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.editing.delta import WeightEdit
from circuits.editing.prune import factored_svd
from circuits.model import Model
from circuits.records import Number

CENTRED = 1e-4
"""Rows whose means are smaller than this, relative to their entries, are centred."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Extreme singular values of one edited matrix (paper 1, Figure 2) and of what was added to it (Table 1)."""

    matrix: str
    largest: float
    smallest: float
    delta_largest: float
    delta_norm: float
    """Frobenius norm of what was added."""

    @property
    def condition(self) -> float:
        """kappa = sigma_max / sigma_min (paper 1, after Theorem 3.2)."""
        return self.largest / self.smallest if self.smallest else math.inf


@torch.no_grad()
def extreme_singular_values(weight: Float[Tensor, "d_mlp d_model"], *, centred: bool) -> tuple[float, float]:
    """(largest, smallest) in float64. With ``centred``, of what readers with a layer norm see.

    In compatibility mode the rows of a value matrix have mean zero, so that one singular value is 0 and the condition
    number infinite, for a direction that no reader sees and that an edit may fill. It is taken out before and not counted.
    """
    weight = weight.double()
    if centred:
        weight = weight - weight.mean(1, keepdim=True)
    values = torch.linalg.svdvals(weight)
    rank = min(weight.shape[0], weight.shape[1] - centred)
    return float(values[0]), float(values[rank - 1])


def is_centred(weight: Float[Tensor, "d_mlp d_model"]) -> bool:
    """Whether every row has mean zero, up to rounding."""
    weight = weight.double()
    return bool(weight.mean(1).abs().max() <= CENTRED * weight.square().mean().sqrt())


def spectra(edit: WeightEdit, model: Model) -> tuple[Spectrum, ...]:
    """One for each edited matrix, by name."""
    found = []
    for name, edited in edit.edited_weights(model).items():
        largest, smallest = extreme_singular_values(edited, centred=is_centred(model.weight(name)))
        values = factored_svd(edit.deltas[name]).values
        found.append(Spectrum(name, largest, smallest, float(values[0]), float(values.norm())))
    return tuple(found)


def unedited_spectra(names: Sequence[str], model: Model) -> tuple[Spectrum, ...]:
    """The same of the matrices before any edit, where the summed delta is 0."""
    weights = {name: model.weight(name) for name in names}
    return tuple(
        Spectrum(name, *extreme_singular_values(weight, centred=is_centred(weight)), 0.0, 0.0)
        for name, weight in weights.items()
    )


# ---- the bound -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Perturbation:
    """How far keys must move for their values to stay, at most and as measured, and how far values move under keys that stay.

    In the paper's orientation let U S V^T = W be thin, E = W_N - W, E_11 = U^T E V and E_12 = U^T E (I - V V^T). With W of full
    row rank and v = W k the third term of Eq. 1 is 0: there is no E_21, and nothing of v lies outside W's range.
    """

    matrix: str
    gamma: Number
    """1 - ||E_11|| / sigma_min, which Theorem 3.2 supposes to be above 0: its bound kappa / gamma on kappa_hat is none otherwise."""
    bound: Number
    """Of ||k~ - k|| / ||k|| (Theorem 3.1, Eq. 1): kappa_hat ||E_11|| / ||W|| + psi(kappa_hat ||E_12|| / ||W||), with kappa_hat =
    ||W|| ||(S + E_11)^-1|| and psi(x) = x / sqrt(1 + x^2) (Stewart 1977). NaN of a matrix that has not full row rank."""
    adjusted: Number
    """||k~ - k|| / ||k||, k = W^+ v and k~ = W_N^+ v: the mean over keys that no edit is about."""
    adjusted_most: Number
    moved: Number
    """||E k|| / ||W k||: how far the value of such a key has moved, on average, the key being as it was."""


@torch.no_grad()
def perturbation(
    matrix: str,
    weight: Float[Tensor, "d_mlp d_model"],
    delta: Float[Tensor, "d_mlp d_model"],
    keys: Float[Tensor, "key d_mlp"],
) -> Perturbation:
    """In float64; of a centred matrix without the direction that no reader sees."""
    W, E, k = weight.double().T, delta.double().T, keys.double().T
    if is_centred(weight):
        unseen = torch.linalg.qr(torch.cat((torch.ones_like(W[:, :1]), torch.eye(len(W)).to(W)[:, :-1]), 1)).Q
        W, E = unseen[:, 1:].T @ W, unseen[:, 1:].T @ E
    U, S, Vt = torch.linalg.svd(W, full_matrices=False)
    v = W @ k
    moved = ((E @ k).norm(dim=0) / v.norm(dim=0)).mean()
    own = Vt.T @ (Vt @ k)
    adjusted = (torch.linalg.pinv(W + E) @ v - own).norm(dim=0) / own.norm(dim=0)
    gamma = bound = math.nan
    if len(S) == len(W) and S[-1] > 0:
        E_11, beside = U.T @ E @ Vt.T, E - E @ Vt.T @ Vt
        size = _norm(E_11)
        kappa_hat = float(S[0]) * _over(1.0, float(torch.linalg.svdvals(S.diag() + E_11)[-1]))
        x = kappa_hat * _norm(beside) / float(S[0])
        gamma = 1 - size / float(S[-1])
        bound = kappa_hat * size / float(S[0]) + (x / math.sqrt(1 + x * x) if math.isfinite(x) else 1.0)
    return Perturbation(matrix, gamma, bound, float(adjusted.mean()), float(adjusted.max()), float(moved))


def perturbations(
    edit: WeightEdit, model: Model, keys: Mapping[str, Float[Tensor, "key d_mlp"]]
) -> tuple[Perturbation, ...]:
    """One for each edited matrix, on keys by its name."""
    return tuple(
        perturbation(name, model.weight(name), delta.dense(), keys[name].to(model.weight(name).device))
        for name, delta in edit.deltas.items()
    )


def _norm(matrix: Float[Tensor, "rows columns"]) -> float:
    return float(torch.linalg.matrix_norm(matrix, 2))


def _over(one: float, other: float) -> float:
    return one / other if other else math.inf

"""PRUNE: restrain how far a sequence of edits has moved each matrix (paper 1, section 4).

The more edits a value matrix W has taken, the larger the largest singular values of the summed delta, while those of W
stay: the condition number of W + delta grows, and with it the bound on how much every other association is perturbed
(paper 1, Theorems 3.1 and 3.2). PRUNE pulls the delta's singular values that exceed W's largest one back towards it.

Everything here works on factors: the singular values of ``left @ right`` cost a QR of each factor and an SVD of rank size.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.editing.delta import Delta, Dense, LowRank, WeightEdit
from circuits.editing.edit import Edit, EditError, require_model
from circuits.model import Model

RestraintKind = Literal["log", "linear"]
Norm = Literal["frobenius", "spectral"]
ALPHA = 1.2
"""The weakest restraint that the published code offers."""


@dataclass(frozen=True)
class Singular:
    """A delta as ``U diag(values) V^T`` in float64, thin: as many values as the delta's factors allow, descending."""

    U: Float[Tensor, "d_mlp rank"]
    values: Float[Tensor, "rank"]
    Vt: Float[Tensor, "rank d_model"]


@torch.no_grad()
def factored_svd(delta: Delta) -> Singular:
    """The singular value decomposition of a delta (paper 1, Eq. 3, right).

    Of a low-rank one by QR of its factors, left = Q_l R_l and right^T = Q_r R_r, and the SVD of R_l R_r^T, whose sides are
    the rank. Only a dense delta is decomposed as a whole.
    """
    if isinstance(delta, Dense):
        U, values, Vt = torch.linalg.svd(delta.delta.double(), full_matrices=False)
        return Singular(U, values, Vt)
    Q_l, R_l = torch.linalg.qr(delta.left.double())
    Q_r, R_r = torch.linalg.qr(delta.right.double().T)
    U, values, Vt = torch.linalg.svd(R_l @ R_r.T, full_matrices=False)
    return Singular(Q_l @ U, values, Vt @ Q_r.T)


def largest_singular_value(weight: Float[Tensor, "rows columns"]) -> float:
    """sigma_max, by the eigenvalues of the smaller Gram matrix: no SVD of the whole."""
    weight = weight.double()
    gram = weight @ weight.T if weight.shape[0] < weight.shape[1] else weight.T @ weight
    return float(torch.linalg.eigvalsh(gram)[-1].clamp_min(0).sqrt())


def restrained_values(
    values: Float[Tensor, "rank"], bound: float, *, alpha: float, kind: RestraintKind = "log"
) -> Float[Tensor, "rank"]:
    """The singular values of the restrained delta (paper 1, Eq. 4 and 5): those up to ``bound`` stay as they are.

    log:    F(s) = log_alpha(s) - log_alpha(bound) + bound
    linear: F(s) = bound + (s - bound) / alpha; alpha = 2 is the published code's (s + bound) / 2

    The larger alpha, the stronger the restraint; with alpha towards 1 nothing is restrained, with a huge one all larger
    values become ``bound``. Eq. 5 as printed *raises* values just above a bound below 1 / ln(alpha), where its slope
    exceeds 1; here a value is never raised: min(F(s), s).

    Raises:
        EditError: alpha is not above 1 (log), or below 1 (linear), or no such kind.
    """
    if kind not in ("log", "linear"):
        raise EditError(f"expected a restraint of kind log or linear, got {kind!r}")
    if not (alpha > 1 if kind == "log" else alpha >= 1):
        raise EditError(f"expected alpha {'above' if kind == 'log' else 'of at least'} 1 for kind {kind}, got {alpha}")
    if bound <= 0:
        raise EditError(f"expected a bound above 0, got {bound}: a matrix of zeros stores nothing to protect")
    excess = values.clamp_min(bound)
    if kind == "log":
        pulled = bound + (excess / bound).log() / torch.tensor(alpha, dtype=values.dtype).log()
    else:
        pulled = bound + (excess - bound) / alpha
    return torch.where(values > bound, torch.minimum(pulled, values), values)


@torch.no_grad()
def restrained_delta(delta: Delta, bound: float, *, alpha: float, kind: RestraintKind = "log") -> Delta:
    """The delta with its singular values restrained (paper 1, Eq. 6); the delta itself if none exceeds ``bound``."""
    parts = factored_svd(delta)
    values = restrained_values(parts.values, bound, alpha=alpha, kind=kind)
    if torch.equal(values, parts.values):
        return delta
    dtype = next(iter(delta.tensors().values())).dtype
    scaled = parts.U * values
    if isinstance(delta, Dense):
        return Dense((scaled @ parts.Vt).to(dtype))
    kept = values > values.max() * torch.finfo(torch.float64).eps * max(delta.shape)
    return LowRank(scaled[:, kept].to(dtype).contiguous(), parts.Vt[kept].to(dtype).contiguous())


@torch.no_grad()
def scaled_delta(
    delta: Delta, bound: float, *, alpha: float, kind: RestraintKind = "log", norm: Norm = "frobenius"
) -> Delta:
    """PRUNE's control: the delta times ||restrained|| / ||delta||, as small as `restrained_delta` makes it and no other in shape.

    What PRUNE does and this does not is due to which singular values it lowers, and not to how much less is added.
    """
    values = factored_svd(delta).values
    restrained = restrained_values(values, bound, alpha=alpha, kind=kind)
    if torch.equal(restrained, values):
        return delta
    order = 2 if norm == "frobenius" else torch.inf
    factor = float(torch.linalg.vector_norm(restrained, order) / torch.linalg.vector_norm(values, order))
    if isinstance(delta, Dense):
        return Dense(delta.delta * factor)
    return LowRank(delta.left * factor, delta.right)


@dataclass(frozen=True, slots=True)
class Restraint:
    """PRUNE, or its control: from an edit, and the model that it was made for, to the restrained edit (paper 1, section 4).

    Every matrix is restrained on its own. Of a sum of edits it is the sum that is restrained, as the paper does once after
    the last edit; to restrain during a sequence, put the result on the model and edit on. An edit that stays below the bound
    comes back with the same deltas.

    Raises:
        EditError: a setting out of range.
    """

    alpha: float = ALPHA
    """See `restrained_values`. Paper 1 does not print its own; the published code offers e, 2, 1.5 and 1.2."""
    kind: RestraintKind = "log"
    ceiling: float = 1.0
    """The bound, in largest singular values of the unedited matrix; 1 is the paper's. A huge one restrains nothing."""
    scaled: Norm | None = None
    """The control: the whole delta scaled to the norm that PRUNE with these settings leaves it (`scaled_delta`)."""

    def __post_init__(self) -> None:
        restrained_values(torch.ones(1), 1.0, alpha=self.alpha, kind=self.kind)
        if not self.ceiling > 0:
            raise EditError(f"expected a ceiling above 0, got {self.ceiling}")

    def __call__(self, edit: Edit, model: Model) -> WeightEdit:
        """The restrained edit.

        Raises:
            EditError: not an edit of weights, or not of matrices alone.
            WrongModel: the edit was made for another model.
        """
        if not isinstance(edit, WeightEdit):
            raise EditError(
                f"PRUNE restrains what is added to weights; expected a weight edit, got a {type(edit).__name__} "
                f"of method {edit.provenance.method}"
            )
        if other := [name for name, delta in edit.deltas.items() if len(delta.shape) != 2]:
            raise EditError(f"PRUNE restrains matrices, each on its own; this edit also changes {', '.join(other)}")
        require_model(edit.provenance, model)
        deltas = {name: self._of(delta, model.weight(name)) for name, delta in edit.deltas.items()}
        changed = any(deltas[name] is not delta for name, delta in edit.deltas.items())
        provenance = replace(edit.provenance, options={**edit.provenance.options, "restraint": self.record})
        # What was restrained is no longer the sum of its parts, and the model with it on has a hash of its own.
        return WeightEdit(deltas, provenance, () if changed else edit.steps)

    def _of(self, delta: Delta, weight: Float[Tensor, "d_mlp d_model"]) -> Delta:
        bound = self.ceiling * largest_singular_value(weight)
        if self.scaled is None:
            return restrained_delta(delta, bound, alpha=self.alpha, kind=self.kind)
        return scaled_delta(delta, bound, alpha=self.alpha, kind=self.kind, norm=self.scaled)

    @property
    def record(self) -> dict[str, str | float]:
        """As an edit's provenance has it."""
        method = {"method": "prune"} if self.scaled is None else {"method": "scaled", "norm": self.scaled}
        return {**method, "alpha": self.alpha, "kind": self.kind, "ceiling": self.ceiling}

    def control(self, norm: Norm) -> "Restraint":
        """The same sum scaled as a whole to the norm that this restraint leaves it."""
        return replace(self, scaled=norm)

    @classmethod
    def parse(cls, text: str) -> "Restraint":
        """What follows ``--restrain``: ``prune``, ``prune:alpha=1.5``, ``prune:alpha=2,kind=linear,ceiling=1``; or the control,
        ``scaled:alpha=1.5,norm=spectral``.

        Raises:
            EditError: anything else.
        """
        name, _, rest = text.strip().partition(":")
        pairs = [item.partition("=") for item in rest.split(",") if item]
        given = {key: value for key, _, value in pairs}
        known = {"prune": {"alpha", "kind", "ceiling"}, "scaled": {"alpha", "kind", "ceiling", "norm"}}
        if not set(given) <= known.get(name, {""}) or name not in known:
            raise EditError(
                "expected a restraint such as prune:alpha=1.2 or prune:alpha=2,kind=linear, or its control "
                f"scaled:alpha=1.2,norm=frobenius, got {text!r}"
            )
        try:
            alpha, ceiling = float(given.get("alpha", ALPHA)), float(given.get("ceiling", 1.0))
        except ValueError:
            raise EditError(f"expected numbers for alpha and ceiling, got {text!r}") from None
        kind, norm = given.get("kind", "log"), given.get("norm", "frobenius")
        if kind not in ("log", "linear"):
            raise EditError(f"expected a restraint of kind log or linear, got {kind!r}")
        if norm not in ("frobenius", "spectral"):
            raise EditError(f"expected a norm, frobenius or spectral, got {norm!r}")
        return cls(alpha, kind, ceiling, norm if name == "scaled" else None)

    @classmethod
    def parse_all(cls, text: str) -> "tuple[Restraint, ...]":
        """Several, separated by commas; a comma before an option such as ``kind=linear`` belongs to its restraint.

        Raises:
            EditError: one that cannot be read, or one twice.
        """
        found = tuple(map(cls.parse, re.split(r",(?!\w+=)", text)))
        if len(set(found)) < len(found):
            raise EditError(f"expected restraints that differ, got {text!r}")
        return found

    def __str__(self) -> str:
        """The text that `parse` reads."""
        standard = Restraint()
        others = {"kind": self.kind, "ceiling": f"{self.ceiling:g}", "norm": self.scaled}
        usual = {"kind": standard.kind, "ceiling": "1", "norm": None}
        more = [f"{name}={value}" for name, value in others.items() if value != usual[name]]
        return ",".join([f"{self.record['method']}:alpha={self.alpha:g}", *more])


def restrain(
    edit: Edit, model: Model, *, alpha: float = ALPHA, kind: RestraintKind = "log", ceiling: float = 1.0
) -> WeightEdit:
    """PRUNE: the same edit with the summed delta of every matrix restrained. See `Restraint`."""
    return Restraint(alpha, kind, ceiling)(edit, model)

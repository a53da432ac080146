"""What a sequence of edits does to the matrices that it edits (paper 1, Figures 2 and 5, Table 1).

After each checkpoint: the largest and smallest singular value of the edited matrix and their ratio, the condition number;
the largest singular value of the summed delta; and how far the values stored by earlier edits have drifted.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.editing.delta import WeightEdit
from circuits.editing.edit import Edit, EditError
from circuits.editing.forward import at_rows, hidden_units, open_network
from circuits.editing.prompts import Site, padded, read_prompt
from circuits.editing.prune import Restraint, factored_svd
from circuits.editing.resources import Resources
from circuits.evaluation.edits import EditCase, Shares, ask, prepare
from circuits.facts import EditRequest
from circuits.model import Model
from circuits.model.network import layer_of
from circuits.studies.layers import UNWRITTEN

CENTRED = 1e-4
"""Rows whose means are smaller than this, relative to their entries, are centred."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Extreme singular values of one edited matrix (paper 1, Figure 2) and of what was added to it (Table 1)."""

    matrix: str
    largest: float
    smallest: float
    delta_largest: float

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
        centred = is_centred(model.weight(name))
        largest, smallest = extreme_singular_values(edited, centred=centred)
        found.append(Spectrum(name, largest, smallest, float(factored_svd(edit.deltas[name]).values[0])))
    return tuple(found)


def unedited_spectra(names: Sequence[str], model: Model) -> tuple[Spectrum, ...]:
    """The same of the matrices before any edit, where the summed delta is 0."""
    weights = {name: model.weight(name) for name in names}
    return tuple(
        Spectrum(name, *extreme_singular_values(weight, centred=is_centred(weight)), 0.0)
        for name, weight in weights.items()
    )


# ---- stored values ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drift:
    """The values that edits stored, and what the matrix gives to the same keys later (paper 1, section 5.6, Figure 5)."""

    matrix: str
    stored: Float[Tensor, "edit d_model"]
    """W_j k_j: right after each edit."""
    later: Float[Tensor, "edit d_model"]
    """W_N k_j: after the last."""

    @property
    def distances(self) -> Float[Tensor, "edit"]:
        """||W_N k_j - W_j k_j|| / ||W_j k_j||; 0 where nothing was lost."""
        return (self.later - self.stored).norm(dim=-1) / self.stored.norm(dim=-1)


@torch.no_grad()
def keys(
    model: Model, requests: Sequence[EditRequest], layer: int, site: Site = "subject"
) -> Float[Tensor, "request d_mlp"]:
    """k_j: the hidden units of the layer's MLP at the token where the value is stored, in the bare prompt."""
    prompts = [read_prompt(model, request.template, request.subject) for request in requests]
    ids = padded([prompt.ids for prompt in prompts])
    at = torch.tensor([prompt.subject if site == "subject" else len(prompt.ids) - 1 for prompt in prompts])
    return at_rows(hidden_units(open_network(model, ids), ids, (layer,))[layer], at)


# ---- sequences -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TracePoint:
    """The model after ``n_edits`` edits. Shares are means over the requests edited so far, NaN without such probes."""

    n_edits: int
    spectra: tuple[Spectrum, ...]
    success: float
    generality: float
    locality: float
    same_subject: float

    @property
    def condition(self) -> float:
        """The largest condition number among the edited matrices."""
        return max(spectrum.condition for spectrum in self.spectra)


@dataclass(frozen=True)
class SequenceTrace:
    """One sequence of edits, as a name for a legend and a point at each checkpoint; the first is before any edit."""

    name: str
    points: tuple[TracePoint, ...]
    drift: tuple[Drift, ...]
    """One for each edited matrix, over all edits of the sequence."""


def sequential_traces(
    model: Model,
    requests: Sequence[EditRequest],
    method: Callable[..., Edit],
    *,
    checkpoints: Sequence[int] = (10, 20, 50, 100),
    restraint: Restraint | None = None,
    every: int | None = None,
    resources: Resources | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
    name: str = "",
) -> tuple[SequenceTrace, ...]:
    """Edit the requests one on top of another and trace the sequence, with and without a restraint.

    Without ``every`` there is one sequence, and ``restraint`` is applied to a copy of its sum at each checkpoint, as paper 1
    does after the last edit: two traces. With ``every`` the sequence itself is restrained after each so many
    edits, and the edits after that are made on the restrained model: one trace.

    Raises:
        EditError: no requests, ``every`` without a restraint, or a method that does not edit weights.
    """
    if not requests:
        raise EditError("expected at least one edit request, got none")
    if every is not None and (restraint is None or every < 1):
        raise EditError(f"expected every >= 1 together with a restraint, got every={every}")
    at = sorted({n for n in checkpoints if 0 < n < len(requests)} | {len(requests)})
    cases = prepare(model, requests, UNWRITTEN, written="nothing")
    total: WeightEdit | None = None
    stored: dict[str, list[tuple[Tensor, Tensor]]] = {}
    plain: list[TracePoint] = []
    restrained: list[TracePoint] = []
    for n, request in enumerate(requests, start=1):
        total = _one_more(model, total, request, method, resources, seed, stored)
        if every is not None and restraint is not None and n % every == 0:
            total = _weights(restraint(total, model))
        if n == 1:
            plain.append(_point(model, None, tuple(total.deltas), cases))
            restrained.append(plain[0])
        if n in at:
            plain.append(_point(model, total, (), cases[:n]))
            if restraint is not None and every is None:
                restrained.append(_point(model, _weights(restraint(total, model)), (), cases[:n]))
        progress(f"{n} of {len(requests)} edits")
    assert total is not None
    name = name or total.provenance.method.split("+")[0]
    if every is not None:
        return (SequenceTrace(f"{name}, restrained every {every}", tuple(plain), _drift(total, model, stored)),)
    traces = [SequenceTrace(name, tuple(plain), _drift(total, model, stored))]
    if restraint is not None:
        last = _weights(restraint(total, model))
        traces.append(SequenceTrace(f"{name}, restrained", tuple(restrained), _drift(last, model, stored)))
    return tuple(traces)


def _weights(edit: Edit) -> WeightEdit:
    if not edit.deltas:
        raise EditError(
            f"a trace is of edited matrices; expected an edit of weights, got one by {edit.provenance.method}"
        )
    return cast(WeightEdit, edit)


def _one_more(
    model: Model,
    total: WeightEdit | None,
    request: EditRequest,
    method: Callable[..., Edit],
    resources: Resources | None,
    seed: int,
    stored: dict[str, list[tuple[Tensor, Tensor]]],
) -> WeightEdit:
    """The sum with one more edit; its key and value go to ``stored``, by matrix."""
    if total is None:
        step = _weights(method(model, [request], resources=resources, seed=seed))
        sum_so_far = step
    else:
        with total.on(model) as edited:
            step = _weights(method(edited, [request], resources=resources, seed=seed))
        sum_so_far = _weights(total + step)
    # A method that stores no values (fine-tuning) is asked about those at the subject, where stored facts are looked for.
    site = step.provenance.options.get("site", "subject")
    with sum_so_far.on(model) as edited:
        for name in step.deltas:
            key = keys(edited, [request], layer_of(name, model.shape.n_layers), site)[0]
            stored.setdefault(name, []).append((key, key @ edited.weight(name).to(key)))
    return sum_so_far


def _drift(edit: WeightEdit, model: Model, stored: dict[str, list[tuple[Tensor, Tensor]]]) -> tuple[Drift, ...]:
    weights = edit.edited_weights(model)
    drifts = []
    for name, pairs in sorted(stored.items()):
        made = torch.stack([key for key, _ in pairs])
        drifts.append(Drift(name, torch.stack([value for _, value in pairs]), made @ weights[name].to(made)))
    return tuple(drifts)


def _point(model: Model, edit: WeightEdit | None, names: Sequence[str], cases: Sequence[EditCase]) -> TracePoint:
    if edit is None:
        found, n_edits, results = unedited_spectra(names, model), 0, ask(model, cases, UNWRITTEN, written="nothing")
    else:
        found, n_edits = spectra(edit, model), len(cases)
        with edit.on(model) as edited:
            results = ask(edited, cases, UNWRITTEN, written="nothing")
    rows = [astuple(Shares.of(result)) for result in results]
    return TracePoint(n_edits, found, *(_known_mean(column) for column in zip(*rows, strict=True)))


def _known_mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan

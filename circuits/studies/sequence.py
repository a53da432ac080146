"""What a sequence of edits does to the matrices that it edits (paper 1, Figures 2 and 5, Table 1).

After each checkpoint: the largest and smallest singular value of the edited matrix and their ratio, the condition number;
the largest singular value of the summed delta; and how far the values stored by earlier edits have drifted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.editing import find_method
from circuits.editing.delta import WeightEdit
from circuits.editing.edit import Edit, EditError
from circuits.editing.forward import at_rows, hidden_units, open_network
from circuits.editing.prompts import Site, padded, read_prompt
from circuits.editing.prune import Restraint, factored_svd, parse_restraint
from circuits.evaluation.edits import CaseResult, EditCase, Make, Shares, ask
from circuits.facts import EditRequest
from circuits.model import Model
from circuits.model.network import layer_of
from circuits.records import Number
from circuits.studies.edit_specs import TraceSpec
from circuits.studies.edits import maker
from circuits.studies.layers import means
from circuits.studies.options import AskedError
from circuits.studies.requests import QUIET, Unedited
from circuits.studies.study import Case, Study, Watch

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


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the values that edits stored have moved by the end (paper 1, section 5.6, Figure 5)."""

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


@torch.no_grad()
def keys(
    model: Model, request: EditRequest, layers: Sequence[int], site: Site = "subject"
) -> dict[int, Float[Tensor, "d_mlp"]]:
    """k by layer: the hidden units of its MLP at the token where the value is stored, in the bare prompt."""
    prompt = read_prompt(model, request.template, request.subject)
    ids = padded([prompt.ids])
    at = torch.tensor([prompt.subject if site == "subject" else len(prompt.ids) - 1])
    return {
        layer: at_rows(units, at)[0] for layer, units in hidden_units(open_network(model, ids), ids, layers).items()
    }


# ---- sequences -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TracePoint:
    """The model after ``n_edits`` edits. Shares are means over the requests edited so far, NaN without such probes."""

    n_edits: int
    spectra: tuple[Spectrum, ...]
    success: Number
    generality: Number
    locality: Number
    same_subject: Number

    @classmethod
    def of(cls, n_edits: int, spectra: tuple[Spectrum, ...], results: Sequence[CaseResult]) -> "TracePoint":
        return cls(n_edits, spectra, *means([Shares.of(result) for result in results]))

    @property
    def condition(self) -> float:
        """The largest condition number among the edited matrices."""
        return max(spectrum.condition for spectrum in self.spectra)


@dataclass(frozen=True, slots=True)
class SequenceTrace:
    """One sequence of edits, as a name for a legend and a point at each checkpoint; the first is before any edit."""

    name: str
    points: tuple[TracePoint, ...]
    drift: tuple[Drift, ...]
    """One for each edited matrix, over all edits of the sequence."""


Stored = dict[str, list[tuple[Tensor, Tensor]]]
"""The key and the value of each edit so far, by matrix."""


def sequential_traces(
    model: Model,
    cases: Sequence[EditCase],
    make: Make,
    *,
    checkpoints: Sequence[int] = (10, 20, 50, 100),
    restraint: Restraint | None = None,
    every: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
    name: str = "",
) -> tuple[SequenceTrace, ...]:
    """Edit the cases' requests one on top of another and trace the sequence, with and without a restraint.

    Without ``every`` there is one sequence, and ``restraint`` is applied to a copy of its sum at each checkpoint, as paper 1
    does after the last edit: two traces. With ``every`` the sequence itself is restrained after each so many
    edits, and the edits after that are made on the restrained model: one trace.

    Args:
        progress: told how many edits are made.

    Raises:
        EditError: no cases, ``every`` without a restraint, or a method that does not edit weights.
    """
    if not cases:
        raise EditError("expected at least one edit request, got none")
    if every is not None and (restraint is None or every < 1):
        raise EditError(f"expected every >= 1 together with a restraint, got every={every}")
    at = sorted({n for n in checkpoints if 0 < n < len(cases)} | {len(cases)})
    total = last = None
    stored: Stored = {}
    plain: list[TracePoint] = []
    restrained: list[TracePoint] = []
    for n, case in enumerate(cases, start=1):
        total = _one_more(model, total, case.request, make, stored)
        if every is not None and restraint is not None and n % every == 0:
            total = _weights(restraint(total, model))
        if n == 1:
            start = TracePoint.of(0, unedited_spectra(tuple(total.deltas), model), [one.unedited for one in cases])
            plain.append(start)
            restrained.append(start)
        if n in at:
            plain.append(_point(model, total, cases[:n]))
            if restraint is not None and every is None:
                last = _weights(restraint(total, model))
                restrained.append(_point(model, last, cases[:n]))
        progress(n)
    assert total is not None
    name = name or total.provenance.method.split("+")[0]
    if every is not None:
        name = f"{name}, restrained every {every}"
    traces = (SequenceTrace(name, tuple(plain), _drift(total, model, stored)),)
    if last is not None:
        traces += (SequenceTrace(f"{name}, restrained", tuple(restrained), _drift(last, model, stored)),)
    return traces


def _weights(edit: Edit) -> WeightEdit:
    if not edit.deltas:
        raise EditError(
            f"a trace is of edited matrices; expected an edit of weights, got one by {edit.provenance.method}"
        )
    return cast(WeightEdit, edit)


def _one_more(model: Model, total: WeightEdit | None, request: EditRequest, make: Make, stored: Stored) -> WeightEdit:
    """The sum with one more edit; its key and value go to ``stored``, by matrix."""
    if total is None:
        sum_so_far = step = _weights(make(model, [request]))
    else:
        with total.on(model) as edited:
            step = _weights(make(edited, [request]))
        sum_so_far = _weights(total + step)
    # A method that stores no values (fine-tuning) is asked about those at the subject, where stored facts are looked for.
    site = step.provenance.options.get("site", "subject")
    layers = {name: layer_of(name, model.shape.n_layers) for name in step.deltas}
    with sum_so_far.on(model) as edited:
        read = keys(edited, request, tuple(layers.values()), site)
        for name, layer in layers.items():
            stored.setdefault(name, []).append((read[layer], read[layer] @ edited.weight(name).to(read[layer])))
    return sum_so_far


def _drift(edit: WeightEdit, model: Model, stored: Mapping[str, list[tuple[Tensor, Tensor]]]) -> tuple[Drift, ...]:
    weights = edit.edited_weights(model)
    drifts = []
    for name, pairs in sorted(stored.items()):
        made, values = (torch.stack(each) for each in zip(*pairs, strict=True))
        drifts.append(Drift.of(name, values, made @ weights[name].to(made)))
    return tuple(drifts)


def _point(model: Model, edit: WeightEdit, cases: Sequence[EditCase]) -> TracePoint:
    with edit.on(model) as edited:
        return TracePoint.of(len(cases), spectra(edit, model), ask(edited, cases, QUIET, written="nothing"))


# ---- the study -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Traced:
    """One sequence, and its restrained copy where there is one."""

    traces: tuple[SequenceTrace, ...]


def _checkpoints(spec: TraceSpec) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in spec.checkpoints.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        raise AskedError(f"expected --checkpoints as numbers of edits such as 10,20,50,100, got {spec.checkpoints!r}")
    return found


def _open(spec: TraceSpec, watch: Watch | None) -> Unedited:
    _checkpoints(spec)
    parse_restraint(spec.restrain)
    method, chosen = find_method(spec.method), spec.chosen
    if method.makes != "weights":
        raise AskedError(
            f"a trace is of edited matrices, and {spec.method} leaves them as they are; see `kcircuit edit eval`"
        )
    model = Unedited.load(spec.model, spec.device)
    method.options(model, **chosen)
    return Unedited.of(model, spec, spec.n, watch=watch or Watch())


def _cases(spec: TraceSpec, unedited: Unedited) -> list[Case[int | None]]:
    """Restrained on the way, the sequence is another one, and the free one is run for comparison."""
    free: list[Case[int | None]] = [Case("free", None)]
    return free if spec.every is None else [*free, Case(f"restrained every {spec.every}", spec.every)]


def _run(spec: TraceSpec, case: Case[int | None], unedited: Unedited, watch: Watch) -> Traced:
    every, n = case.asked, len(unedited.cases)
    traces = sequential_traces(
        unedited.model,
        unedited.cases,
        maker(spec.method, settings=spec.chosen, resources=unedited.resources, seed=spec.seed),
        checkpoints=_checkpoints(spec),
        restraint=parse_restraint(spec.restrain) if every == spec.every else None,
        every=every,
        progress=lambda done: watch.progress(done, n, f"{case.name}: {done} of {n} edits"),
        name=spec.method,
    )
    return Traced(traces)


TRACE: Study[TraceSpec, Unedited, int | None, Traced] = Study("trace", Traced, _open, _cases, _run)

"""Which layer to edit: a method's success, generality and locality, layer by layer.

How defaults are found for a model. Success, generality and locality are those of `circuits.evaluation.edits`, counted by
exact answers; fluency, portability and generated text are left out.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from circuits.editing.edit import EditError
from circuits.editing.methods.table import find_method
from circuits.editing.resources import Resources
from circuits.evaluation.edits import EditCase, FluencySetting, Shares, ask, prepare
from circuits.facts import EditRequest
from circuits.metrics import Measurement
from circuits.model import Model
from circuits.records import Number
from circuits.studies.columns import Column
from circuits.studies.edits import Contestant
from circuits.studies.requests import AskedError, parse_layers, parse_settings, requests_of, resources_of
from circuits.studies.specs import LayersSpec
from circuits.studies.study import Case, Study, Watch

UNWRITTEN = FluencySetting(n_samples=0)


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One layer (or set of layers). Shares have one number a request, its probes' mean; NaN where it has no such probe."""

    layers: tuple[int, ...]
    site: str | None
    """Where values are stored, for a method that has the choice (`circuits.editing.prompts.Site`)."""
    success: Measurement
    generality: Measurement
    locality: Measurement
    """The mean of its kinds: neighbours, other facts of the subject, unrelated facts."""
    same_subject: Measurement
    """The one kind of locality."""
    seconds: float
    """For one edit, on average."""

    def __str__(self) -> str:
        shares = (self.success, self.generality, self.locality, self.same_subject)
        numbers = "  ".join(f"{share.name} {100 * share_of(share):5.1f} %" for share in shares)
        site = "" if self.site is None else f"  at {self.site:<7}"
        return f"layers {','.join(map(str, self.layers)):>8}{site}  {numbers}  {self.seconds:.2f} s an edit"


def share_of(measurement: Measurement) -> float:
    """The mean over the requests that have such a probe; NaN if none has."""
    known = [value for value in measurement.per_example if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def sweep_layers(
    model: Model,
    method: str,
    requests: Sequence[EditRequest],
    layers: Sequence[int | Sequence[int]] | None = None,
    *,
    batch: int = 1,
    resources: Resources | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
    **settings: Any,
) -> tuple[SweepRow, ...]:
    """The method at each of ``layers`` (by default every layer alone; MEMIT: also every layer with the one before it).

    Args:
        batch: requests edited together, each batch on the unedited model.
        settings: options other than the layers, for all rows.

    Raises:
        EditError: an unknown method or option, no requests, or a layer that the model does not have.
    """
    if not requests:
        raise EditError("expected at least one edit request, got none")
    if batch < 1:
        raise EditError(f"expected at least 1 request in a batch, got {batch}")
    n_layers = model.shape.n_layers
    if layers is None:
        layers = all_layers(method, n_layers)
    chosen = [(entry,) if isinstance(entry, int) else tuple(entry) for entry in layers]
    cases = prepare(model, requests, UNWRITTEN, written="nothing")
    return tuple(_sweep_one(model, method, cases, each, batch, resources, seed, progress, settings) for each in chosen)


def all_layers(method: str, n_layers: int) -> list[tuple[int, ...]]:
    """Every layer alone; for a method that spreads an edit over layers, every layer with the one before it too."""
    found = find_method(method)
    alone: list[tuple[int, ...]] = [(layer,) for layer in range(n_layers)]
    pairs: list[tuple[int, ...]] = [(last - 1, last) for last in range(1, n_layers)]
    return alone + (pairs if "layers" in found.option_names and found.has_sites else [])


def _sweep_one(
    model: Model,
    method: str,
    cases: Sequence[EditCase],
    layers: tuple[int, ...],
    batch: int,
    resources: Resources | None,
    seed: int,
    progress: Callable[[str], None],
    settings: dict[str, Any],
) -> SweepRow:
    found = find_method(method)
    options = found.options(model, layers=layers, **settings)
    rows: list[Shares] = []
    seconds = 0.0
    for start in range(0, len(cases), batch):
        together = cases[start : start + batch]
        began = time.perf_counter()
        edit = found(model, [case.request for case in together], options=options, resources=resources, seed=seed)
        seconds += time.perf_counter() - began
        with edit.on(model) as edited:
            rows += map(Shares.of, ask(edited, together, UNWRITTEN, written="nothing"))
        progress(f"{method}, layers {layers}: {len(rows)} of {len(cases)} requests")
    return SweepRow(
        layers,
        getattr(options, "site", None),
        Measurement("success", "", tuple(row.success for row in rows)),
        Measurement("generality", "", tuple(row.generality for row in rows)),
        Measurement("locality", "", tuple(row.locality for row in rows)),
        Measurement("same subject", "", tuple(row.same_subject for row in rows)),
        seconds / -(-len(cases) // batch),
    )


# ---- the study -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LayerRow:
    """A method at one layer (or set of layers) and site. Shares in percent, NaN where no request has such a probe."""

    method: str
    regime: str
    layers: Annotated[tuple[int, ...], Column("layers")]
    site: Annotated[str | None, Column("site")]
    success: Annotated[Number, Column("success", digits=1)]
    generality: Annotated[Number, Column("generality", digits=1)]
    locality: Annotated[Number, Column("locality", digits=1)]
    same_subject: Annotated[Number, Column("same subject", digits=1)]
    seconds: Annotated[float, Column("seconds")]
    default: Annotated[bool, Column("default")]
    """It is where the method edits this model unless told otherwise."""

    def __str__(self) -> str:
        shares = (
            f"{name.replace('_', ' ')} {getattr(self, name):5.1f} %"
            for name in ("success", "generality", "locality", "same_subject")
        )
        site = "" if self.site is None else f"  at {self.site:<7}"
        where = f"layers {','.join(map(str, self.layers)):>8}{site}"
        return f"{self.method:<6} {where}  {'  '.join(shares)}  {self.seconds:.2f} s an edit"


@dataclass(frozen=True)
class Setting:
    """Where a method is to edit."""

    method: str
    batch: int
    regime: str
    layers: tuple[int, ...]
    site: str | None


@dataclass(frozen=True)
class Asked:
    """A model and what its edits are asked for, and about."""

    model: Model
    cases: tuple[EditCase, ...]
    """The unedited model's answers with them."""
    resources: Resources


def _open(spec: LayersSpec, notice: Callable[[str], None] | None) -> Asked:
    settings_of(spec, None)
    model = Model.load(spec.model)
    requests = requests_of(model, spec.cases, spec.n, spec.seed, notice=notice or (lambda _: None))
    cases = prepare(model, requests, UNWRITTEN, written="nothing")
    return Asked(model, tuple(cases), resources_of(spec.corpus))


def settings_of(spec: LayersSpec, n_layers: int | None) -> list[Setting]:
    """Every method at each of its sites and layers; without a model's depth, only whether the spec makes sense.

    Raises:
        EditError, AskedError: it does not.
    """
    sites = tuple(part.strip() for part in spec.sites.split(","))
    if not set(sites) <= {"subject", "end"}:
        raise AskedError(f"expected --sites subject, end or both, got {spec.sites!r}")
    chosen = None if spec.layers is None else [parse_layers(part.replace("+", ",")) for part in spec.layers.split(",")]
    given = parse_settings(spec.settings)
    found = []
    for each in Contestant.parse_all(spec.method):
        if each.regime.steps > 1 or each.restraint:
            raise AskedError(f"a sweep makes single edits or batches, with no restraint; got {each}")
        method = find_method(each.method)
        for site in sites if method.has_sites and "site" not in given else (None,):
            for layers in chosen or ([] if n_layers is None else all_layers(each.method, n_layers)):
                found.append(Setting(each.method, each.regime.batch, str(each.regime), layers, site))
    return found


def _cases(spec: LayersSpec, asked: Asked) -> list[Case[Setting]]:
    return [
        Case(f"{one.method} {one.regime} {one.site or ''} {'+'.join(map(str, one.layers))}", one)
        for one in settings_of(spec, asked.model.shape.n_layers)
    ]


def _run(spec: LayersSpec, case: Case[Setting], asked: Asked, watch: Watch) -> LayerRow:
    one, model = case.asked, asked.model
    settings = parse_settings(spec.settings) | ({} if one.site is None else {"site": one.site})
    row = _sweep_one(
        model,
        one.method,
        asked.cases,
        one.layers,
        one.batch,
        asked.resources,
        spec.seed,
        lambda line: watch.progress(0, 1, line),
        settings,
    )
    standard = find_method(one.method).options(model)
    usual = tuple(standard.layers) if hasattr(standard, "layers") else (standard.layer,)
    shares = (row.success, row.generality, row.locality, row.same_subject)
    return LayerRow(
        one.method,
        one.regime,
        row.layers,
        row.site,
        *(round(100 * share_of(share), 3) for share in shares),
        seconds=round(row.seconds, 3),
        default=(row.layers, row.site) == (usual, getattr(standard, "site", None)),
    )


def _weights(asked: Asked) -> str:
    return asked.model.weights


LAYERS: Study[LayersSpec, Asked, Setting, LayerRow] = Study("layers", LayerRow, _open, _cases, _run, _weights)

"""Which layer to edit: a method's success, generality and locality, layer by layer.

How defaults are found for a model. Success, generality and locality are those of `circuits.evaluation.edits`, counted by
exact answers; fluency, portability and generated text are left out.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Annotated, Any

from circuits.editing import find_method
from circuits.evaluation.edits import Regime, Shares, ask
from circuits.records import Number
from circuits.studies.columns import Column
from circuits.studies.edit_specs import LayersSpec
from circuits.studies.edits import Contestant
from circuits.studies.loading import load_asked
from circuits.studies.options import AskedError, parse_layers
from circuits.studies.requests import QUIET, Unedited
from circuits.studies.study import Case, Study, Watch


@dataclass(frozen=True, slots=True)
class LayerRow:
    """A method at one layer (or set of layers) and site. Shares in percent, NaN where no request has such a probe."""

    method: str
    regime: str
    layers: Annotated[tuple[int, ...], Column("layers")]
    site: Annotated[str | None, Column("site")]
    """Where values are stored, for a method that has the choice (`circuits.editing.prompts.Site`)."""
    success: Annotated[Number, Column("success", digits=1)]
    generality: Annotated[Number, Column("generality", digits=1)]
    locality: Annotated[Number, Column("locality", digits=1)]
    """The mean of its kinds: neighbours, other facts of the subject, unrelated facts."""
    same_subject: Annotated[Number, Column("same subject", digits=1)]
    """The one kind of locality."""
    seconds: Annotated[float, Column("seconds")]
    """For one edit, on average."""
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


def means(shares: Sequence[Shares]) -> tuple[float, ...]:
    """Success, generality, locality, locality of the subject's other facts: the means over the requests that have such a
    question; NaN where none has."""
    columns = zip(*map(astuple, shares), strict=True)
    known = [[value for value in column if not math.isnan(value)] for column in columns]
    return tuple(sum(values) / len(values) if values else math.nan for values in known)


def all_layers(method: str, n_layers: int) -> list[tuple[int, ...]]:
    """Every layer alone; for a method that spreads an edit over layers, every layer with the one before it too."""
    found = find_method(method)
    alone: list[tuple[int, ...]] = [(layer,) for layer in range(n_layers)]
    pairs: list[tuple[int, ...]] = [(last - 1, last) for last in range(1, n_layers)]
    return alone + (pairs if "layers" in found.option_names and found.has_sites else [])


# ---- the study -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a method is to edit."""

    method: str
    batch: int
    """Requests edited together, each batch on the unedited model."""
    regime: str
    layers: tuple[int, ...]
    site: str | None


def _places(spec: LayersSpec, n_layers: int | None) -> list[Place]:
    """Every method at each of its sites and layers; without a model's depth, only whether the spec makes sense.

    Raises:
        EditError, AskedError: it does not.
    """
    sites = tuple(part.strip() for part in spec.sites.split(","))
    if not set(sites) <= {"subject", "end"}:
        raise AskedError(f"expected --sites subject, end or both, got {spec.sites!r}")
    chosen = None if spec.layers is None else [parse_layers(part.replace("+", ",")) for part in spec.layers.split(",")]
    found = []
    for each in Contestant.parse_all(spec.method):
        if each.regime.steps > 1 or each.restraint:
            raise AskedError(f"a sweep makes single edits or batches, with no restraint; got {each}")
        method = find_method(each.method)
        for site in sites if method.has_sites and "site" not in spec.chosen else (None,):
            for layers in chosen or ([] if n_layers is None else all_layers(each.method, n_layers)):
                found.append(Place(each.method, each.regime.batch, str(each.regime), layers, site))
    return found


def _open(spec: LayersSpec, watch: Watch | None) -> Unedited:
    _places(spec, None)
    return Unedited.of(load_asked(spec), spec, spec.n, watch=watch or Watch())


def _cases(spec: LayersSpec, unedited: Unedited) -> list[Case[Place]]:
    return [
        Case(f"{one.method} {one.regime} {one.site or ''} {'+'.join(map(str, one.layers))}", one)
        for one in _places(spec, unedited.model.shape.n_layers)
    ]


def _run(spec: LayersSpec, case: Case[Place], unedited: Unedited, watch: Watch) -> LayerRow:
    place, model, cases = case.asked, unedited.model, unedited.cases
    method = find_method(place.method)
    at: dict[str, Any] = {} if place.site is None else {"site": place.site}
    options = method.options(model, layers=place.layers, **{**spec.chosen, **at})
    shares: list[Shares] = []
    seconds = 0.0
    chains = Regime(place.batch).chains(cases, lambda one: one.request.case)
    for (together,) in chains:
        began = time.perf_counter()
        asked = [one.request for one in together]
        edit = method(model, asked, options=options, resources=unedited.resources, seed=spec.seed)
        seconds += time.perf_counter() - began
        with edit.on(model) as edited:
            shares += map(Shares.of, ask(edited, together, QUIET, written="nothing"))
        watch.progress(len(shares), len(cases), f"{case.name}: {len(shares)} of {len(cases)} requests")
    standard = method.options(model)
    usual = tuple(standard.layers) if hasattr(standard, "layers") else (standard.layer,)
    site = getattr(options, "site", None)
    return LayerRow(
        place.method,
        place.regime,
        place.layers,
        site,
        *(round(100 * share, 3) for share in means(shares)),
        seconds=round(seconds / len(chains), 3),
        default=(place.layers, site) == (usual, getattr(standard, "site", None)),
    )


LAYERS: Study[LayersSpec, Unedited, Place, LayerRow] = Study("layers", LayerRow, _open, _cases, _run, algorithm=2)

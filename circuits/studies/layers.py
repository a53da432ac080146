"""Which layer to edit: a method's success, generality and locality, layer by layer.

How defaults are found for a model. Success, generality and locality are those of `circuits.evaluation.edits`, counted by
exact answers; fluency, portability and generated text are left out.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from circuits.editing.edit import EditError
from circuits.editing.methods.table import find_method
from circuits.editing.resources import Resources
from circuits.evaluation.edits import EditCase, FluencySetting, Shares, ask, prepare
from circuits.facts import EditRequest
from circuits.metrics import Measurement
from circuits.model import Model

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
    found = find_method(method)
    if layers is None:
        layers = [(layer,) for layer in range(n_layers)]
        layers += (
            [(last - 1, last) for last in range(1, n_layers)]
            if "layers" in found.option_names and found.has_sites
            else []
        )
    chosen = [(entry,) if isinstance(entry, int) else tuple(entry) for entry in layers]
    cases = prepare(model, requests, UNWRITTEN, written="nothing")
    return tuple(_sweep_one(model, method, cases, each, batch, resources, seed, progress, settings) for each in chosen)


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

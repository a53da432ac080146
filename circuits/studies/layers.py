"""Which layer to edit: a method's success, generality and locality, layer by layer.

How defaults are found for a model. The measures are the plainest ones: an answer counts if all of its tokens are the
likeliest, each with the right ones before it; a question that shall stay counts if its likeliest next token does.
`circuits.evaluation` measures edits in full.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from circuits.editing.edit import EditError
from circuits.editing.methods.table import find_method
from circuits.editing.resources import Resources
from circuits.evaluation.answers import CHUNK
from circuits.evaluation.continuations import completion, read
from circuits.facts import EditRequest, Probe, ProbeKind
from circuits.metrics import Measurement
from circuits.model import Batch, Model

LOCAL: tuple[ProbeKind, ...] = ("neighbour", "unrelated")


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One layer (or set of layers). Shares have one number a request, its probes' mean; NaN where it has no such probe."""

    layers: tuple[int, ...]
    site: str | None
    """Where values are stored, for a method that has the choice (`circuits.editing.prompts.Site`)."""
    success: Measurement
    generality: Measurement
    locality: Measurement
    """Over neighbours and unrelated facts."""
    same_subject: Measurement
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
    before = baseline(model, requests)
    return tuple(
        _sweep_one(model, method, requests, each, before, batch, resources, seed, progress, settings) for each in chosen
    )


def _sweep_one(
    model: Model,
    method: str,
    requests: Sequence[EditRequest],
    layers: tuple[int, ...],
    before: dict[str, int],
    batch: int,
    resources: Resources | None,
    seed: int,
    progress: Callable[[str], None],
    settings: dict[str, Any],
) -> SweepRow:
    found = find_method(method)
    options = found.options(model, layers=layers, **settings)
    rows: list[tuple[float, float, float, float]] = []
    seconds = 0.0
    for start in range(0, len(requests), batch):
        together = requests[start : start + batch]
        began = time.perf_counter()
        edit = found(model, together, options=options, resources=resources, seed=seed)
        seconds += time.perf_counter() - began
        with edit.on(model) as edited:
            rows += [measure(edited, request, before) for request in together]
        progress(f"{method}, layers {layers}: {len(rows)} of {len(requests)} requests")
    success, generality, locality, same_subject = zip(*rows, strict=True)
    return SweepRow(
        layers,
        getattr(options, "site", None),
        Measurement("success", "", success),
        Measurement("generality", "", generality),
        Measurement("locality", "", locality),
        Measurement("same subject", "", same_subject),
        seconds / -(-len(requests) // batch),
    )


def _staying(request: EditRequest) -> list[Probe]:
    return [probe for probe in request.probes if not probe.should_change]


def baseline(model: Model, requests: Sequence[EditRequest]) -> dict[str, int]:
    """The model's likeliest next token after every prompt that shall stay: what `measure` compares with."""
    return _likeliest(model, [probe.prompt for request in requests for probe in _staying(request)])


def measure(edited: Model, request: EditRequest, before: dict[str, int]) -> tuple[float, float, float, float]:
    """(success, generality, locality, same subject) of one request, as shares; NaN where it has no such probe."""
    asked = [(request.prompt, request.target)]
    asked += [(probe.prompt, probe.answer or "") for probe in request.probes if probe.kind == "paraphrase"]
    said = _exact(edited, asked)
    staying = _staying(request)
    after = _likeliest(edited, [probe.prompt for probe in staying])
    kept = [(probe.kind in LOCAL, float(after[probe.prompt] == before[probe.prompt])) for probe in staying]
    return (
        said[0],
        _mean(said[1:]),
        _mean([same for local, same in kept if local]),
        _mean([same for local, same in kept if not local]),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _ids(model: Model, prompt: str) -> list[int]:
    bos = [] if model.vocabulary.bos is None else [model.vocabulary.bos]
    return [*bos, *model.vocabulary.encode(prompt)]


def _exact(model: Model, asked: Sequence[tuple[str, str]]) -> list[float]:
    """1 for each prompt whose answer's tokens are all the likeliest, teacher-forced; else 0, NaN logits included."""
    return [float(reading.exact) for reading in read(model, [completion(model, *pair) for pair in asked])]


def _likeliest(model: Model, prompts: Sequence[str]) -> dict[str, int]:
    """The likeliest next token of each prompt; -1 where a logit is not finite."""
    by_length: dict[int, list[tuple[str, list[int]]]] = defaultdict(list)
    for prompt in sorted(set(prompts)):
        ids = _ids(model, prompt)
        by_length[len(ids)].append((prompt, ids))
    found = {}
    for rows in by_length.values():
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            best = _argmax(model.logits(Batch.of_prompts(torch.tensor([ids for _, ids in chunk])))[:, -1])
            found |= {prompt: token for (prompt, _), token in zip(chunk, best.tolist(), strict=True)}
    return found


def _argmax(logits: torch.Tensor) -> torch.Tensor:
    return logits.argmax(-1).masked_fill(~logits.isfinite().all(-1), -1)

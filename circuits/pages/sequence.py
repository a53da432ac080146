"""The results page of sequences of edits: everything on it computed from their traces (paper 1, Figures 2 to 5, Table 1)."""

import math
from collections.abc import Sequence
from typing import Any

from circuits.evaluation.baseline import bootstrap
from circuits.model import Model
from circuits.pages.edits_table import published_record, table
from circuits.records import to_json as record
from circuits.studies.columns import NOTHING, number
from circuits.studies.sequence import MOST_LOST, RestrainedEnd, SequenceTrace, Traced, TracePoint

HEADER = (
    "sequence",
    "edits",
    "condition number",
    "largest σ",
    "smallest σ",
    "largest σ of ΔW",
    "success",
    "generality",
    "locality",
    "same subject",
)
GENERAL = ("perplexity", "KL, nats")
SHARES = ("success", "generality", "locality", "same_subject")


def lines(traced: Traced) -> list[list[str]]:
    """One line for each sequence and checkpoint: of the matrix whose condition number is the largest; shares in percent."""
    return [[f"{traced.method}, {trace.name}", *_line(point)[:-2]] for trace in traced.traces for point in trace.points]


def to_json(found: Sequence[Traced]) -> dict[str, Any]:
    """The traces, in percent where a share."""
    return {
        "traces": [{"method": traced.method, **_trace(trace)} for traced in found for trace in traced.traces],
        "chosen": {traced.method: traced.chosen for traced in found},
        "choice": [{"method": traced.method, **_trace(trace)} for traced in found for trace in traced.choice],
        "ends": [
            {
                "method": traced.method,
                "restraint": end.restraint,
                **{name: _trace(getattr(end, name)) for name in ("pruned", "scaled", "shrunk")},
            }
            for traced in found
            for end in traced.ends
        ],
    }


def trace_page(found: Sequence[Traced], model: Model, command: str, figure: str | None) -> str:
    """The Markdown text; ``command`` makes it again. ``figure`` is the picture's address as seen from the page."""
    n = found[0].traces[0].last.n_edits
    parts = [
        "# A sequence of edits, free and restrained",
        f"Model {model.name} (weights {model.weights[:12]}), {n} edits one on top of another, written by `{command}`.",
        "After each checkpoint all facts edited so far are asked about. Shares are in percent, of answers all of whose tokens "
        "are the likeliest; locality is the mean of three kinds, as wherever edits are compared: other subjects, other facts of "
        "the edited subject (also apart, in the last column), and unrelated facts, whose answers must stay. "
        "Singular values σ are those of the edited matrix, of those edited the one "
        "with the largest condition number; the largest of the summed change ΔW is what PRUNE restrains, down to the largest "
        "of the unedited matrix (first line). `scaled` is the control: the same ΔW times one number, by which it has "
        "the Frobenius norm that PRUNE leaves it; what PRUNE does beyond that is due to which singular values it lowers. Intervals, in "
        "brackets, are of 95 %, by bootstrap over the facts of the one sequence; another order or draw of facts is not in them.",
    ]
    if figure is not None:
        parts.append(f"![Condition number, largest singular value of the change, locality and success]({figure})")
    for traced in found:
        parts += _sections(traced)
    parts += ["## What paper 1 reports", _published()]
    return "\n\n".join(parts) + "\n"


def _sections(traced: Traced) -> list[str]:
    points = [point for trace in traced.traces for point in trace.points]
    header = list(HEADER) + ([] if points[0].general is None else list(GENERAL))
    width = len(header) - 1
    parts = [
        f"## {traced.method}",
        table(
            header,
            [[trace.name, *_line(point)[:width]] for trace in traced.traces for point in trace.points],
        ),
        f"### {traced.method}: PRUNE beside the free sequence and beside its control",
        _beside(traced),
    ]
    if points[0].abilities:
        parts += [f"### {traced.method}: what the model is able to do", _abilities(traced.traces)]
    if traced.choice:
        parts += [f"### {traced.method}: the restraint was chosen on other facts", _choice(traced)]
    if any(point.perturbations for point in points):
        parts += [f"### {traced.method}: the bound of paper 1, section 3.2", _bound(traced.traces)]
    return [*parts, f"### {traced.method}: stored values", _drift(traced.traces)]


def _line(point: TracePoint) -> list[str]:
    worst = point.worst
    values = (worst.condition, worst.largest, worst.smallest, worst.delta_largest)
    general = point.general
    return [
        str(point.n_edits),
        *(f"{value:.4g}" for value in values),
        *(number(_percent(point.share(name))) for name in SHARES),
        *([NOTHING] * 2 if general is None else [number(general.perplexity, 2), number(general.kl, 3)]),
    ]


# ---- differences -----------------------------------------------------------------------------------------------------


def difference(first: TracePoint, second: TracePoint, name: str) -> str:
    """How much more of a share the first has, in points, with its interval over the facts that both were asked of."""
    pairs = zip(first.shares, second.shares, strict=True)
    values = [getattr(a, name) - getattr(b, name) for a, b in pairs]
    values = [value for value in values if not math.isnan(value)]
    return bootstrap(values).points if values else NOTHING


def _beside(traced: Traced) -> str:
    """Every restraint after the last edit."""
    free = traced.traces[0].last
    text = (
        f"After the last edit, each applied once to the free sum, whose largest σ is {_largest(free):.4g} with ‖ΔW‖ "
        f"{_size(free):.4g} (Frobenius), success {number(_percent(free.share('success')))}, generality "
        f"{number(_percent(free.share('generality')))} and locality {number(_percent(free.share('locality')))}. Differences are in "
        "points. In bold: the restraint that is traced above."
    )
    shares = ("success", "generality", "locality")
    header = ["restraint", "largest σ of ΔW", "‖ΔW‖", *(f"{name} beyond free" for name in shares)]
    rows = [
        [
            _marked(traced, end),
            f"{_largest(end.pruned.last):.4g}",
            f"{_size(end.pruned.last):.4g}",
            *(difference(end.pruned.last, free, name) for name in shares),
        ]
        for end in traced.ends
    ]
    found = [text, table(header, rows)]
    for control, what in (("scaled", "‖ΔW‖ (Frobenius)"), ("shrunk", "largest σ")):
        rows = [
            [_marked(traced, end), *(difference(end.pruned.last, getattr(end, control).last, name) for name in shares)]
            for end in traced.ends
        ]
        found += [
            f"Beyond the free sum times one number, by which it has the same {what}:",
            table(["restraint", *shares], rows),
        ]
    rows = [
        [trace.name, *(difference(trace.last, free, name) for name in SHARES)]
        for trace in traced.traces[1:]
        if " every " in trace.name
    ]
    if rows:
        header = ["sequence", *(name.replace("_", " ") for name in SHARES)]
        found += ["Restrained on the way, beyond the free sequence:", table(header, rows)]
    return "\n\n".join(found)


def _marked(traced: Traced, end: RestrainedEnd) -> str:
    return f"**{end.restraint}**" if end.restraint == traced.chosen else end.restraint


def _largest(point: TracePoint) -> float:
    return max(spectrum.delta_largest for spectrum in point.spectra)


def _size(point: TracePoint) -> float:
    return math.hypot(*(spectrum.delta_norm for spectrum in point.spectra))


def _choice(traced: Traced) -> str:
    n = traced.choice[0].last.n_edits
    text = (
        f"On a sequence of {n} edits of other facts, each restraint applied once at its end. Chosen is the highest locality among "
        f"those that lose at most {100 * MOST_LOST:g} points of success: `{traced.chosen}`."
    )
    return f"{text}\n\n{table(HEADER, [[trace.name, *_line(trace.last)[:-2]] for trace in traced.choice])}"


def _abilities(traces: Sequence[SequenceTrace]) -> str:
    """By task, those that the unedited model does above chance."""
    start = traces[0].points[0].abilities
    able = [i for i, score in enumerate(start) if score.above_chance]
    left_out = [f"{score.task} ({score.measure})" for score in start if not score.above_chance]
    text = (
        "In percent, on tasks none of whose items names an edited subject (see `kcircuit ability`); after the last edit with "
        "the change from before any, in points, and its interval over items."
    )
    if left_out:
        text += f" Left out, because the unedited model is not above chance: {', '.join(left_out)}."
    rows = []
    for trace in traces:
        for point in trace.points:
            cells = [number(100 * point.abilities[i].value) for i in able]
            if point is trace.last:
                changes = [point.abilities[i].beyond(start[i]).points for i in able]
                cells = [f"{cell} ({change})" for cell, change in zip(cells, changes, strict=True)]
            rows.append([trace.name, str(point.n_edits), *cells])
    header = ["sequence", "edits", *(f"{start[i].task}, {start[i].measure} (n {len(start[i].per_item)})" for i in able)]
    return f"{text}\n\n{table(header, rows)}"


# ---- the bound and stored values -------------------------------------------------------------------------------------


def _bound(traces: Sequence[SequenceTrace]) -> str:
    text = (
        "γ = 1 − ‖ΔE₁₁‖ / σ_min must be above 0 for Theorem 3.2 to say anything. The bound is the right side of Eq. 1 with κ̂ itself, "
        "without that theorem. Measured on keys of facts that no edit is about: ‖Δk‖ / ‖k‖, by how much keys would have to change "
        "for their values to stay, k = W⁺v; and ‖ΔW k‖ / ‖W k‖, by how much values change while keys stay, which is what the model "
        "meets."
    )
    rows = [
        [
            trace.name,
            each.matrix,
            str(point.n_edits),
            number(each.gamma, 2),
            number(each.bound, 2),
            number(each.adjusted, 3),
            number(each.adjusted_most, 3),
            number(each.moved, 3),
        ]
        for trace in traces
        for point in trace.points
        for each in point.perturbations
    ]
    header = ["sequence", "matrix", "edits", "γ", "bound", "‖Δk‖ / ‖k‖", "its largest", "‖ΔW k‖ / ‖W k‖"]
    return f"{text}\n\n{table(header, rows, left=2)}"


def _drift(traces: Sequence[SequenceTrace]) -> str:
    """How far the values stored by each quarter of the edits have moved since (paper 1, section 5.6, Figure 5)."""
    text = (
        "‖W_N k_j − W_j k_j‖ / ‖W_j k_j‖: how far the value that edit j stored has moved by the end, on average over each "
        "quarter of the sequence; 0 is untouched."
    )
    rows = [
        [trace.name, drift.matrix, *(number(quarter, 3) for quarter in drift.quarters)]
        for trace in traces
        for drift in trace.drift
    ]
    header = ["sequence", "matrix", "first quarter", "second", "third", "last"]
    return f"{text}\n\n{table(header, rows, left=2)}"


def _published() -> str:
    content = published_record()["sequences"]
    rows = [[row[0], *(number(value, 2) for value in row[1:])] for row in content["rows"]]
    return f"{content['source']}\n\n{table(content['columns'], rows)}"


def _trace(trace: SequenceTrace) -> dict[str, Any]:
    return {
        "name": trace.name,
        "points": [_point(point) for point in trace.points],
        "drift": {drift.matrix: drift.mean for drift in trace.drift},
    }


def _point(point: TracePoint) -> dict[str, Any]:
    return {
        "n_edits": point.n_edits,
        **{name: _percent(point.share(name)) for name in SHARES},
        "matrices": [
            {**record(spectrum), "condition": spectrum.condition if math.isfinite(spectrum.condition) else None}
            for spectrum in point.spectra
        ],
        "perturbations": [record(each) for each in point.perturbations],
        "general": None if point.general is None else record(point.general),
        "abilities": {f"{score.task}, {score.measure}": score.value for score in point.abilities},
    }


def _percent(share: float) -> float | None:
    return None if math.isnan(share) else round(100 * share, 3)

"""The results page of a sequence of edits: everything on it computed from its traces (paper 1, Figures 2 and 5, Table 1)."""

import math
from collections.abc import Sequence
from typing import Any

from circuits.model import Model
from circuits.pages.edits_table import published_record, table
from circuits.studies.columns import number
from circuits.studies.sequence import SequenceTrace, TracePoint

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
SHARES = ("success", "generality", "locality", "same_subject")


def lines(traces: Sequence[SequenceTrace]) -> list[list[str]]:
    """One line for each sequence and checkpoint: of the matrix whose condition number is the largest; shares in percent."""
    found = []
    for trace in traces:
        for point in trace.points:
            worst = max(point.spectra, key=lambda spectrum: spectrum.condition)
            values = (worst.condition, worst.largest, worst.smallest, worst.delta_largest)
            shares = [number(_percent(getattr(point, name))) for name in SHARES]
            found.append([trace.name, str(point.n_edits), *(f"{value:.4g}" for value in values), *shares])
    return found


def to_json(traces: Sequence[SequenceTrace]) -> dict[str, Any]:
    """The traces, in percent where a share."""
    return {
        "traces": [
            {
                "name": trace.name,
                "points": [_point(point) for point in trace.points],
                "drift": {drift.matrix: drift.mean for drift in trace.drift},
            }
            for trace in traces
        ]
    }


def trace_page(traces: Sequence[SequenceTrace], model: Model, command: str, restraint: str, figure: str | None) -> str:
    """The Markdown text; ``command`` makes it again. ``figure`` is the picture's address as seen from the page."""
    n = traces[0].points[-1].n_edits
    parts = [
        "# A sequence of edits, free and restrained",
        f"Model {model.name} (weights {model.weights[:12]}), {n} edits one on top of another, restraint `{restraint}`, written "
        f"by `{command}`.",
        "After each checkpoint all facts edited so far are asked about. Shares are in percent, of answers all of whose tokens "
        "are the likeliest; locality is the mean of three kinds, as wherever edits are compared: other subjects, other facts of "
        "the edited subject (also apart, in the last column), and unrelated facts, whose answers must stay. "
        "Singular values σ are those of the edited matrix, of those edited the one "
        "with the largest condition number; the largest of the summed change ΔW is what PRUNE restrains, down to the largest "
        "of the unedited matrix (first line).",
    ]
    if figure is not None:
        parts.append(f"![Condition number, largest singular value of the change, locality and success]({figure})")
    parts.append(table(HEADER, lines(traces)))
    if len(traces) > 1:
        parts += ["## What the restraint does", _verdict(traces[0], traces[1])]
    parts += ["## Stored values", _drift(traces), "## What paper 1 reports", _published()]
    return "\n\n".join(parts) + "\n"


def _verdict(free: SequenceTrace, restrained: SequenceTrace) -> str:
    """By how much the restraint helps and what it costs after the last edit."""
    a, b = free.points[-1], restrained.points[-1]
    held, lost = (100 * (getattr(b, name) - getattr(a, name)) for name in ("locality", "success"))
    same = 100 * (b.same_subject - a.same_subject)
    return (
        f"After {a.n_edits} edits the restrained sum has a condition number of {b.condition:.4g} instead of {a.condition:.4g}; "
        f"locality {held:+.1f} points, other facts of the subject {same:+.1f}, success {lost:+.1f}."
    )


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


def _point(point: TracePoint) -> dict[str, Any]:
    return {
        "n_edits": point.n_edits,
        **{name: _percent(getattr(point, name)) for name in SHARES},
        "matrices": [
            {
                "matrix": spectrum.matrix,
                "condition": spectrum.condition if math.isfinite(spectrum.condition) else None,
                "largest": spectrum.largest,
                "smallest": spectrum.smallest,
                "delta_largest": spectrum.delta_largest,
            }
            for spectrum in point.spectra
        ],
    }


def _percent(share: float) -> float | None:
    return None if math.isnan(share) else round(100 * share, 3)

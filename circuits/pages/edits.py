"""Figures of what a sequence of edits did to the weights, against the number of edits (paper 1, Figure 2 and Table 1)."""

from collections.abc import Sequence

from circuits.pages.charts import Panel, line_panels
from circuits.studies.sequence import SequenceTrace


def trace_panels(traces: Sequence[SequenceTrace]) -> str:
    """Condition number, summed delta, locality and success as SVG text, of the matrix whose condition number is the largest.

    Raises:
        ValueError: none, or traces that were not measured after the same numbers of edits.
    """
    labels = tuple(str(point.n_edits) for point in traces[0].points) if traces else ()
    if not traces or any(tuple(str(p.n_edits) for p in trace.points) != labels for trace in traces):
        raise ValueError("expected at least one trace, all measured after the same numbers of edits")
    worst = [[max(p.spectra, key=lambda s: s.condition) for p in trace.points] for trace in traces]

    def panel(
        title: str, y: str, values: Sequence[Sequence[float]], limits: tuple[float, float] | None = None
    ) -> Panel:
        named = {trace.name: tuple(row) for trace, row in zip(traces, values, strict=True)}
        return Panel(title, "edits", y, labels, named, limits=limits)

    return line_panels(
        [
            panel("Condition number", "κ", [[s.condition for s in row] for row in worst]),
            panel("Largest singular value of ΔW", "σ", [[s.delta_largest for s in row] for row in worst]),
            panel("Locality", "%", [[100 * p.locality for p in trace.points] for trace in traces], (0.0, 100.0)),
            panel("Success", "%", [[100 * p.success for p in trace.points] for trace in traces], (0.0, 100.0)),
        ]
    )

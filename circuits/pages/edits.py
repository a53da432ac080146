"""Figures of what a sequence of edits did to the weights, against the number of edits, and to the values that edits stored
(paper 1, Figures 2 and 5, Table 1)."""

from collections.abc import Sequence

from circuits.pages.charts import Cloud, Panel, clouds, line_panels, stacked
from circuits.studies.sequence import SequenceTrace, Traced


def trace_figure(found: Sequence[Traced]) -> str:
    """For each method its panels, and below them the plane of its stored values, as SVG text."""
    return stacked([picture for traced in found for picture in (trace_panels(traced), *_stored(traced))])


def trace_panels(traced: Traced) -> str:
    """Condition number, summed delta, locality and success as SVG text, of the matrix whose condition number is the largest.

    Raises:
        ValueError: none, or traces that were not measured after the same numbers of edits.
    """
    traces = traced.traces
    labels = tuple(str(point.n_edits) for point in traces[0].points) if traces else ()
    if not traces or any(tuple(str(p.n_edits) for p in trace.points) != labels for trace in traces):
        raise ValueError("expected at least one trace, all measured after the same numbers of edits")
    worst = [[point.worst for point in trace.points] for trace in traces]

    def panel(
        title: str, y: str, values: Sequence[Sequence[float]], limits: tuple[float, float] | None = None
    ) -> Panel:
        named = {_named(traced, trace): tuple(row) for trace, row in zip(traces, values, strict=True)}
        return Panel(title, "edits", y, labels, named, limits=limits)

    def share(title: str, name: str) -> Panel:
        return panel(title, "%", [[100 * p.share(name) for p in trace.points] for trace in traces], (0.0, 100.0))

    return line_panels(
        [
            panel("Condition number", "κ", [[s.condition for s in row] for row in worst]),
            panel("Largest singular value of ΔW", "σ", [[s.delta_largest for s in row] for row in worst]),
            share("Locality", "locality"),
            share("Success", "success"),
        ]
    )


def _named(traced: Traced, trace: SequenceTrace) -> str:
    return f"{traced.method}, {trace.name}"


def _stored(traced: Traced) -> list[str]:
    """None where no edit stored two values."""
    if not traced.projections:
        return []
    return [
        clouds(
            [
                Cloud(
                    f"{traced.method}: values of the first half, {found.matrix} ({100 * found.shown:.0f} % of variance)",
                    found.sets,
                )
                for found in traced.projections
            ]
        )
    ]

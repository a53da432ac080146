"""Figures 2 and 6 of paper 2, and what tau does, from a table's rows."""

from collections.abc import Sequence

import numpy as np

from circuits.pages.charts import Panel, line_panels
from circuits.studies.table.row import Row
from circuits.studies.table.table import Table, by_tau


def mean_by_kind(table: Table, field: str) -> dict[str, tuple[float, ...]]:
    """For each kind of knowledge, the mean over its relations of a row's per-layer (or per-state) values."""

    def mean(rows: Sequence[Row]) -> tuple[float, ...]:
        return tuple(np.mean([getattr(row, field) for row in rows], axis=0).tolist())

    return {kind: mean(table.of_kind(kind)) for kind in table.kinds}


def figure_2(table: Table) -> str:
    """Share of nodes active per layer by kind of knowledge, as SVG (paper 2, Figure 2)."""
    heads, mlps = mean_by_kind(table, "heads_active"), mean_by_kind(table, "mlps_active")
    labels = tuple(str(layer) for layer in range(len(table.rows[0].heads_active)))
    return line_panels(
        [
            Panel(
                "Attention heads in the circuits",
                "layer",
                "share of the layer's heads",
                labels,
                heads,
                limits=(0.0, 1.0),
            ),
            Panel("MLPs in the circuits", "layer", "share of the kind's circuits", labels, mlps, limits=(0.0, 1.0)),
        ]
    )


def figure_6(table: Table) -> str:
    """Mean rank of the answer in every state of the whole model, by kind of knowledge, as SVG (paper 2, Figure 6)."""
    ranks = mean_by_kind(table, "mean_ranks")
    return line_panels(
        [
            Panel(
                "Mean rank of the answer, D_val",
                "state of the residual stream",
                "rank (log)",
                table.rows[0].states,
                ranks,
                log=True,
            )
        ]
    )


def tau_figure(table: Table) -> str:
    """Hit@10 of circuits alone, and their size, against tau, as SVG."""
    lines = by_tau(table.rows)
    labels = tuple(f"{line['tau']:g}" for line in lines)
    hits = {
        "D_val": tuple(line["hit10_val_circuit"] for line in lines),
        "D_test": tuple(line["hit10_test_circuit"] for line in lines),
    }
    shares = {"edges kept": tuple(100 * line["share"] for line in lines)}
    return line_panels(
        [
            Panel("Hit@10 of the circuits alone", "tau, nats", "Hit@10", labels, hits, limits=(0.0, 1.0)),
            Panel("Edges kept", "tau, nats", "% of all edges", labels, shares),
        ]
    )

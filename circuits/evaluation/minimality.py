"""Minimality: what each edge of a finished circuit is worth there, NLL(C without e) - NLL(C), in nats.

ACDC's own score of an edge was taken when the circuit was still larger: edges kept early may be worth nothing by the
end. In a minimal circuit every edge is worth something.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuits.circuit import Circuit
from circuits.engines.engine import Engine
from circuits.graph import Edge


@dataclass(frozen=True)
class Minimality:
    """The worth of every edge of a circuit, in nats."""

    circuit: Circuit
    """The circuit, its edges' scores replaced by their worth: `Circuit.score` reads one."""
    nll: float
    """NLL of the circuit, in nats."""

    def worth(self, edge: Edge) -> float:
        return self.circuit.score(edge)

    @property
    def ranked(self) -> tuple[tuple[Edge, float], ...]:
        """(edge, worth), the most valuable first."""
        return tuple(sorted(((edge, self.worth(edge)) for edge in self.circuit.edges), key=lambda item: -item[1]))

    def superfluous(self, least: float) -> tuple[Edge, ...]:
        """The edges worth less than ``least`` nats. Each may go alone; together they need not be superfluous."""
        return tuple(edge for edge, worth in self.ranked if worth < least)

    def share_minimal(self, least: float) -> float:
        """The share of edges worth at least ``least`` nats; NaN for a circuit without edges."""
        n = self.circuit.n_edges
        return 1 - len(self.superfluous(least)) / n if n else float("nan")


def minimality(engine: Engine, circuit: Circuit) -> Minimality:
    """Remove each edge alone from the circuit, on the engine's facts. NLL is the mean over them."""
    values: Float[np.ndarray, "writer reader"] = np.full(circuit.kept.shape, np.nan)
    whole = engine.nll(circuit.kept)
    for reader in np.flatnonzero(circuit.kept.any(0)).tolist():
        writers = np.flatnonzero(circuit.kept[:, reader]).tolist()
        without = engine.nll_without(circuit.kept, reader, [[writer] for writer in writers])
        values[writers, reader] = (without - whole).mean(1)
    return Minimality(Circuit(circuit.graph, circuit.kept, circuit.provenance, values), float(whole.mean()))

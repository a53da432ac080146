"""Questions that a store answers, each with its SQL; `kcircuit store query FILE NAME` asks them by name.

The view ``discovered`` has a line for each circuit of a single fact, ``roles`` one for each role of a head under a setting;
``results`` has every outcome of every study.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Query:
    name: str
    question: str
    sql: str
    example: dict[str, Any] | None = None
    """Its first row on the store of the tests, worked out by hand, where the page of sweeps shows it."""


QUERIES: tuple[Query, ...] = (
    Query(
        "heads",
        "Which heads are movers, or have another role, in most relations?",
        "SELECT head, role, count(DISTINCT relation) AS relations, sum(facts) AS facts FROM roles\n"
        "GROUP BY 1, 2 ORDER BY relations DESC, facts DESC, head",
        {"head": "a1.h0", "role": "mover", "relations": 2, "facts": 3},
    ),
    Query(
        "sizes",
        "How large are the circuits of each relation?",
        "SELECT relation, model, tau, count(*) AS circuits, avg(edges) AS edges, min(edges) AS least, max(edges) AS most\n"
        "FROM discovered GROUP BY 1, 2, 3 ORDER BY edges, relation",
        {"relation": "capital", "model": "m", "tau": 0.01, "circuits": 2, "edges": 20.0, "least": 10, "most": 30},
    ),
    Query(
        "recall",
        "In what share of each relation's facts does the circuit alone give the answer first?",
        "SELECT relation, count(*) AS circuits, avg(rank_circuit = 1) AS first, avg(rank_circuit <= 10) AS among_ten\n"
        "FROM discovered GROUP BY 1 ORDER BY first, relation",
        {"relation": "capital", "circuits": 2, "first": 0.5, "among_ten": 1.0},
    ),
    Query(
        "verdicts",
        "What do the certificates say?",
        "SELECT verdict, count(*) AS circuits FROM discovered GROUP BY 1 ORDER BY circuits DESC",
        {"verdict": "holds", "circuits": 3},
    ),
    Query(
        "stable",
        "Which facts have circuits of nearly one size whatever the seed, method and tau?",
        "SELECT fact, count(*) AS circuits, min(edges) * 1.0 / max(edges) AS smallest_of_largest\n"
        "FROM discovered GROUP BY 1 HAVING circuits > 1 ORDER BY smallest_of_largest DESC",
        {"fact": "f3", "circuits": 2, "smallest_of_largest": 20 / 22},
    ),
    Query(
        "lost",
        "Which facts does the circuit alone recall worst, beside the model?",
        "SELECT fact, relation, rank_model, rank_circuit, edges FROM discovered\n"
        "ORDER BY rank_circuit - rank_model DESC LIMIT 20",
        {"fact": "f3", "relation": "language", "rank_model": 1, "rank_circuit": 4, "edges": 22},
    ),
    Query(
        "shared",
        "Which heads have a role in only one relation, and for how many facts?",
        "SELECT head, min(relation) AS relation, sum(facts) AS facts FROM roles\n"
        "GROUP BY 1 HAVING count(DISTINCT relation) = 1 ORDER BY facts DESC, head",
        {"head": "a1.h1", "relation": "language", "facts": 2},
    ),
    Query(
        "failures",
        "What failed, and why?",
        "SELECT study, kind, error, count(*) AS cases FROM results WHERE error IS NOT NULL GROUP BY 1, 2, 3\n"
        "ORDER BY cases DESC",
        {"study": "discover", "kind": "MemoryError", "error": "too large", "cases": 1},
    ),
    Query(
        "time",
        "How long did the cases of each study take?",
        "SELECT study, weights, count(*) AS cases, sum(seconds) AS seconds, avg(seconds) AS each\n"
        "FROM results GROUP BY 1, 2 ORDER BY seconds DESC",
        {"study": "discover", "weights": "w", "cases": 5, "seconds": 8.0, "each": 1.6},
    ),
    Query(
        "space",
        "How much room do circuits take, and how many edges have they?",
        "SELECT count(*) AS circuits, sum(edges) AS edges, avg(length(content)) < 20000 AS small FROM circuits",
        {"circuits": 4, "edges": 82, "small": 1},
    ),
)
"""In the order of the page."""


def find_query(name: str) -> Query | None:
    return next((query for query in QUERIES if query.name == name), None)

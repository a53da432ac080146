"""The published Table 1: GPT-2-medium's rows, as paper 2 prints them."""

import json
from dataclasses import dataclass

from circuits.facts import Kind
from circuits.paths import data_dir

FILE = "published/knowledge-circuits-table1.json"


@dataclass(frozen=True, slots=True)
class Published:
    """One row of paper 2's Table 1. Edges are merged ones; Hit@10 of the model and of the circuit alone."""

    relation: str
    """The relation of our dataset that it is about."""
    kind: Kind
    name: str
    """The relation as the paper spells it."""
    edges: int
    hit10_val_model: float
    hit10_val_circuit: float
    hit10_test_model: float
    hit10_test_circuit: float


@dataclass(frozen=True, slots=True)
class PublishedTable:
    source: str
    model: str
    notes: tuple[str, ...]
    rows: tuple[Published, ...]
    average: tuple[float, float, float, float]
    """Hit@10 of model and circuit on D_val, then on D_test."""

    def row(self, relation: str) -> Published | None:
        return next((row for row in self.rows if row.relation == relation), None)


def load_published() -> PublishedTable:
    """The transcription that ships with the package."""
    content = json.loads((data_dir() / FILE).read_text(encoding="utf-8"))
    rows = tuple(Published(**dict(zip(content["columns"], row, strict=True))) for row in content["rows"])
    return PublishedTable(content["source"], content["model"], tuple(content["notes"]), rows, tuple(content["average"]))

"""The whole table: a row for each relation, resumable between rows, and its averages."""

import json
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from circuits.datasets.corrupted import CorruptionError
from circuits.engines.memory import available_memory
from circuits.evaluation.baseline import DRAWS
from circuits.facts import Kind, Relation, Relations
from circuits.model import Model
from circuits.studies.loading import put_edit
from circuits.studies.search import load_model
from circuits.studies.specs import TableSpec
from circuits.studies.study import Case, Outcome, Study, Watch
from circuits.studies.sweep import Folder, Pool, sweep
from circuits.studies.table.published import Published, PublishedTable
from circuits.studies.table.row import Row, Skipped, folder_of, make_row, require_run

KIND_ORDER: tuple[Kind, ...] = ("linguistic", "commonsense", "factual", "bias")
"""As paper 2's Table 1 lists them."""
ROWS_FOLDER = "rows"
CIRCUITS_FOLDER = "circuits"


@dataclass(frozen=True)
class Table:
    """Rows by kind of knowledge, then by name; relations without a row; what was asked."""

    spec: TableSpec
    weights: str
    rows: tuple[Row, ...]
    skipped: tuple[Skipped, ...] = ()

    def __post_init__(self) -> None:
        order = sorted(self.rows, key=lambda row: (KIND_ORDER.index(row.kind), row.relation))
        object.__setattr__(self, "rows", tuple(order))

    def of_kind(self, kind: Kind) -> tuple[Row, ...]:
        """The rows of relations of that kind of knowledge."""
        return tuple(row for row in self.rows if row.kind == kind)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that have rows."""
        return tuple(kind for kind in KIND_ORDER if self.of_kind(kind))

    @property
    def beaten(self) -> tuple[Row, ...]:
        """The rows whose circuit's Hit@10 is above the model's."""
        return tuple(row for row in self.rows if row.beaten is not None)

    def to_json(self, published: PublishedTable | None = None) -> dict[str, Any]:
        """``rows`` and ``average`` with plain keys; ``published`` in a row is paper 2's, of GPT-2-medium."""

        def paper(row: Row) -> Published | None:
            return published.row(row.relation) if published else None

        return {
            "format": "kcircuit/table",
            "version": 1,
            "settings": self.spec.model_dump(mode="json"),
            "weights": self.weights,
            "rows": [{**flat(row), "published": _published(paper(row))} for row in self.rows],
            "average": average(self.rows),
            "average_by_kind": {kind: average(self.of_kind(kind)) for kind in self.kinds},
            "by_tau": by_tau(self.rows),
            "beaten": [
                {"relation": row.relation, **row.beaten.model_dump(mode="json"), "explained": row.beaten.explained}
                for row in self.beaten
                if row.beaten is not None
            ],
            "skipped": [skipped.model_dump() for skipped in self.skipped],
            "published": None
            if published is None
            else {
                "source": published.source,
                "model": published.model,
                "notes": list(published.notes),
                "average": dict(zip(COLUMNS, published.average, strict=True)),
            },
        }


COLUMNS = ("hit10_val_model", "hit10_val_circuit", "hit10_test_model", "hit10_test_circuit")


def _published(row: Published | None) -> dict[str, Any] | None:
    if row is None:
        return None
    numbers = {"edges_merged": row.edges, **{name: getattr(row, name) for name in COLUMNS}}
    return {"model": "gpt2-medium", "name": row.name, **numbers}


def flat(row: Row) -> dict[str, Any]:
    """A row as one level of plain keys, and its parts."""
    circuit = row.circuit
    halves = {
        "val": (row.model_val, circuit.val, row.empty_val),
        "test": (row.model_test, circuit.test, row.empty_test),
    }
    chance: dict[str, Any] = {}
    for half, (model, own, empty) in halves.items():
        for measure in ("hit10", "hit1", "mrr", "nll"):
            chance[f"{measure}_{half}_model"] = getattr(model, measure)
            chance[f"{measure}_{half}_circuit"] = getattr(own, measure)
        chance[f"hit10_{half}_empty"] = empty.hit10
        for draw in DRAWS:
            level = row.chance(draw)
            suffix = "" if draw == "uniform" else f"_{draw}"
            chance[f"hit10_{half}_random{suffix}"] = getattr(level, half)
            chance[f"hit10_{half}_random{suffix}_interval"] = list(getattr(level, f"{half}_interval"))
            chance[f"hit10_{half}_random{suffix}_best"] = getattr(level, f"{half}_best")
    return {
        "kind": row.kind,
        "relation": row.relation,
        "name": row.title,
        "tau": circuit.tau,
        "edges": circuit.edges,
        "edges_merged": circuit.edges_merged,
        "share": row.share,
        "edges_total": row.edges_total,
        "edges_total_merged": row.edges_total_merged,
        "nodes": circuit.nodes,
        "n_val": row.n_val,
        "n_test": row.n_test,
        **chance,
        "hit1_test_blind": row.blind.hit1,
        "hit10_test_blind": row.blind.hit10,
        "kl_val": row.kl_val,
        "kl_test": row.kl_test,
        "taus": [
            {
                "tau": one.tau,
                "edges": one.edges,
                "edges_merged": one.edges_merged,
                "share": one.edges / row.edges_total,
                "hit10_val_circuit": one.val.hit10,
                "hit10_test_circuit": one.test.hit10,
            }
            for one in row.circuits
        ],
        "heads_active": list(row.heads_active),
        "mlps_active": list(row.mlps_active),
        "states": list(row.states),
        "mean_ranks": list(row.mean_ranks),
    }


AVERAGED = (
    "edges",
    "edges_merged",
    "share",
    *(
        f"hit10_{half}_{who}"
        for half in ("val", "test")
        for who in ("model", "circuit", "random", "random_connected", "empty")
    ),
    *(f"{measure}_test_{who}" for measure in ("hit1", "nll") for who in ("model", "circuit")),
    "hit1_test_blind",
    "hit10_test_blind",
    "kl_test",
)


def average(rows: Sequence[Row]) -> dict[str, Any]:
    """Means over relations, each counting once, as in paper 2's last line; and what circuits retain of the model's Hit@10."""
    flats = [flat(row) for row in rows]
    means = {name: _mean([row[name] for row in flats]) for name in AVERAGED}
    retained = {
        f"retained_{half}": _ratio(means[f"hit10_{half}_circuit"], means[f"hit10_{half}_model"])
        for half in ("val", "test")
    }
    return {"relations": len(rows), **means, **retained}


def by_tau(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The averages again for every threshold, in rising order: how the results move with it."""
    lines = []
    for tau in sorted({circuit.tau for row in rows for circuit in row.circuits}):
        own = [(row, one) for row in rows for one in row.circuits if one.tau == tau]
        val, test = _mean([one.val.hit10 for _, one in own]), _mean([one.test.hit10 for _, one in own])
        lines.append(
            {
                "tau": tau,
                "edges": _mean([one.edges for _, one in own]),
                "edges_merged": _mean([one.edges_merged for _, one in own]),
                "share": _mean([one.edges / row.edges_total for row, one in own]),
                "hit10_val_circuit": val,
                "hit10_test_circuit": test,
                "retained_val": _ratio(val, _mean([row.model_val.hit10 for row, _ in own])),
                "retained_test": _ratio(test, _mean([row.model_test.hit10 for row, _ in own])),
            }
        )
    return lines


def _mean(values: Sequence[float | int]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


# ---- the study -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """What a table needs besides its spec."""

    relations: Relations
    chosen: tuple[str, ...]
    state_folder: Path | None = None
    """Where an interrupted search is saved."""
    runs_folder: Path | None = None
    """Where the runs of the rows' circuits are saved."""
    max_memory: int | None = None


@dataclass(frozen=True)
class Context:
    model: Model
    given: Given
    held: ExitStack = field(default_factory=ExitStack)
    """The edit on the model."""


def _open(spec: TableSpec, given: Given) -> Context:
    first = given.relations[given.chosen[0]]
    held, model = ExitStack(), load_model(spec.run_spec(first.name, first.facts()[:1]))
    return Context(put_edit(model, spec.with_edit, held), given, held)


def _cases(spec: TableSpec, context: Context) -> list[Case[str]]:
    return [Case(name, name) for name in context.given.chosen]


def _run(spec: TableSpec, case: Case[str], context: Context, watch: Watch) -> Row | Skipped:
    given = context.given
    try:
        return make_row(
            spec,
            given.relations[case.asked],
            given.relations,
            context.model,
            state_folder=given.state_folder,
            runs_folder=given.runs_folder,
            max_memory=given.max_memory,
            watch=watch,
        )
    except CorruptionError as error:
        return Skipped(relation=case.asked, reason=str(error))


TABLE: Study[TableSpec, Context, str, Row | Skipped] = Study("table", Row | Skipped, _open, _cases, _run, algorithm=2)


def make_table(
    spec: TableSpec,
    chosen: Sequence[Relation],
    relations: Relations,
    model: Model,
    *,
    folder: Path | None = None,
    where: Pool | None = None,
    watch: Watch | None = None,
    finished: Callable[[int, int, Outcome[Any]], None] = lambda done, total, outcome: None,
) -> Table:
    """One row for each relation of ``chosen``; the same wherever they are made.

    Args:
        folder: finished rows are kept in its ``rows/``, one file a relation, and not made again by the same spec on the same
            weights; rows of other settings or weights are made anew. The run of each row's circuit is in its ``circuits/``,
            a folder each.
        where: a pool whose processes load the model for themselves, from where ``spec`` says it is; this process by default.
        watch: told of rows made anew and of relations without a row.

    Raises:
        circuits.discovery.state.Interrupted: on Ctrl-C; the next call continues.
    """
    watch = watch or Watch()
    kept = None if folder is None else folder / ROWS_FOLDER
    memory = None if where is None else available_memory(torch.device("cpu")) // where.jobs
    runs = None if folder is None else folder / CIRCUITS_FOLDER
    given = Given(relations, tuple(relation.name for relation in chosen), kept, runs, memory)
    made: dict[str, Row | Skipped] = {}
    for outcome in sweep(
        TABLE,
        spec,
        given,
        context=Context(model, given),
        where=where,
        store=None if kept is None else Folder(kept),
        watch=watch,
        finished=finished,
    ):
        assert outcome.row is not None
        made[outcome.case] = outcome.row
        if isinstance(outcome.row, Skipped):
            watch.notice(f"no row for {outcome.case}: {outcome.row.reason}")
    found = [made[relation.name] for relation in chosen]
    for relation, row in zip(chosen, found, strict=True):
        if runs is not None and isinstance(row, Row):
            own = folder_of(relation.name, runs)
            require_run(spec, relation, relations, model, row, folder=own, watch=watch.at(relation.name))
    return Table(
        spec,
        model.weights,
        tuple(row for row in found if isinstance(row, Row)),
        tuple(row for row in found if isinstance(row, Skipped)),
    )


def table_json(table: Table, published: PublishedTable | None) -> str:
    return json.dumps(table.to_json(published), ensure_ascii=False, indent=1) + "\n"

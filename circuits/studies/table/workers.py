"""Rows in several processes, each with its own copy of the model and one thread: relations have nothing to do with each other."""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from circuits.datasets.corrupted import CorruptionError
from circuits.engines.memory import available_memory
from circuits.facts import Relations
from circuits.model import Model
from circuits.studies.discover import load_model
from circuits.studies.table.row import Row, Skipped, TableSpec, make_row

BASE_BYTES = 10**9
"""What a process takes before it has a model."""


@dataclass(frozen=True)
class _Job:
    """What a worker needs to know once."""

    spec: TableSpec
    relations: Relations
    state_folder: Path | None
    max_memory: int


_job: _Job
_model: Model


def fitting(jobs: int, model: Model) -> int:
    """At most ``jobs`` processes: as many as there is memory for, and one for a model that is not on the processor."""
    device, network, n_layers = model.biases.device, model.network, model.shape.n_layers
    if device.type != "cpu":
        return 1
    # A block holds some 12 d_model^2 weights; loading keeps the weights and a copy, and a search has values of its own.
    n_weights = 12 * n_layers * network.d_model**2 + 2 * network.d_vocab * network.d_model
    each = BASE_BYTES + 4 * 4 * n_weights
    return max(1, min(jobs, available_memory(device) // each))


def row_or_reason(spec: TableSpec, name: str, relations: Relations, model: Model, **options: object) -> Row | Skipped:
    """`make_row`, a relation without the prompts that the ablation needs being skipped."""
    try:
        return make_row(spec, relations[name], relations, model, **options)  # type: ignore[arg-type]
    except CorruptionError as error:
        return Skipped(relation=name, reason=str(error))


def rows_in_parallel(
    spec: TableSpec,
    names: Sequence[str],
    relations: Relations,
    *,
    jobs: int,
    state_folder: Path | None,
    notice: Callable[[str], None],
) -> Iterator[tuple[str, Row | Skipped]]:
    """(relation, its row), as they are finished. On Ctrl-C the workers save their searches and end."""
    memory = available_memory(torch.device("cpu")) // jobs
    with get_context("spawn").Pool(jobs, _start, (_Job(spec, relations, state_folder, memory),)) as pool:
        try:
            for name, row, said in pool.imap_unordered(_work, names):
                for line in said:
                    notice(line)
                yield name, row
        except KeyboardInterrupt:
            pool.terminate()
            pool.join()
            raise


def _start(job: _Job) -> None:
    global _job, _model
    signal.signal(signal.SIGTERM, _stop)
    torch.set_num_threads(1)
    _job = job
    first = next(iter(job.relations.values()))
    _model = load_model(job.spec.run_spec(first.name, first.facts()[:1]))


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def _work(name: str) -> tuple[str, Row | Skipped, list[str]]:
    said: list[str] = []
    row = row_or_reason(
        _job.spec,
        name,
        _job.relations,
        _model,
        state_folder=_job.state_folder,
        max_memory=_job.max_memory,
        notice=said.append,
    )
    return name, row, said

"""Damaged files for every reader of this project, each drawn from its number alone, so that one that is at fault can be made again."""

import random
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.store import circuit as random_circuit
from circuits.circuit import Circuit, Provenance
from circuits.datasets.counterfact import load_counterfact
from circuits.datasets.knowedit import load_knowedit
from circuits.datasets.lre import load_relation
from circuits.datasets.mquake import load_mquake
from circuits.datasets.zsre import load_zsre
from circuits.discovery.state import State, fingerprint
from circuits.editing import load_edit
from circuits.editing.delta import LowRank, WeightEdit
from circuits.editing.edit import EditProvenance
from circuits.graph import Shape
from circuits.model import Model
from circuits.model.gguf import read_header
from circuits.model.network import value_matrix
from circuits.studies.run import Run
from circuits.studies.runs import run
from circuits.studies.specs import RunSpec
from circuits.studies.store import Database
from circuits.studies.study import Key, Outcome
from tests.models import word_fact
from tests.small_gguf import save_gguf

SECONDS_A_FILE, GROWTH = 1.0, 500_000
"""A reader takes at most so many seconds of CPU, and the process grows by at most so many kB."""
CLEAR = (ValueError, OSError, FloatingPointError)
"""What the command line says in a line; anything else that a reader raises is a fault."""


@dataclass
class Part:
    """What was tried, how often, and what went wrong."""

    name: str
    tried: int = 0
    wrong: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The bytes with one to four changes: bits, cuts, repeats, and values of JSON that are put in another's place."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        at, n = draw.randrange(len(data) + 1), draw.choice((1, 1, 4, 64))
        match draw.randrange(7):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + data[at + n :]
            case 2:
                data = data[:at] + draw.randbytes(n) + data[at + n :]
            case 3:
                data = data[:at] + data[at : at + n] * 3 + data[at + n :]
            case 4:
                data = data[:at] + draw.choice((b"\0", b"\xff")) * n + data[at + n :]
            case _:
                data = _another_value(data, draw)
    return data


VALUES = (
    b"null",
    b"-1",
    b"1e999",
    b"NaN",
    b'"x"',
    b"[]",
    b"{}",
    b"true",
    b"99999999999999999999",
    b"0.5",
    b"[" * 5_000,
)


def _another_value(data: bytes, draw: random.Random) -> bytes:
    starts = [i for i in range(len(data)) if data[i : i + 1] in b":,["] if len(data) < 20_000 else []
    at = draw.choice(starts) + 1 if starts else draw.randrange(len(data) + 1)
    end = next((i for i in range(at, min(at + 200, len(data))) if data[i : i + 1] in b",]}"), at)
    return data[:at] + draw.choice(VALUES) + data[end:]


@dataclass(frozen=True)
class Reader:
    """What reads a file, or a folder that has it."""

    name: str
    file: Path
    read: Callable[[], Any]


RECORDS: dict[str, Callable[[Path], Any]] = {
    "counterfact": load_counterfact,
    "zsre": partial(load_zsre, target="true"),
    "knowedit": load_knowedit,
    "mquake": load_mquake,
}


def random_edit(model: Model, seed: int = 0) -> WeightEdit:
    d_mlp, d_model = model.weight(value_matrix(0)).shape
    draw = torch.Generator().manual_seed(seed)
    delta = LowRank(torch.randn(d_mlp, 1, generator=draw), torch.randn(1, d_model, generator=draw))
    return WeightEdit({value_matrix(0): delta}, EditProvenance("by hand", model.name, model.weights))


def read_store(path: Path) -> None:
    with Database(path) as store:
        if not list(store.check()):
            list(store.rows("torture"))
            list(store.query("SELECT * FROM roles"))


def readers(folder: Path, model: Model) -> list[Reader]:
    """One for each kind of file, beside a real one that was just written."""
    found: list[Reader] = []
    kept = Circuit.from_json(random_circuit(20, 0, Shape(2, 2)))
    kept.save(folder / "circuit.json")
    found.append(Reader("circuit", folder / "circuit.json", partial(Circuit.load, folder / "circuit.json")))
    spec = RunSpec(facts=(word_fact("1 2 3", "4"),), model="random", method="eap", edges="20", force=True)
    run(spec, {}, model=model).save(folder / "run")
    found.append(Reader("run", folder / "run/run.json", partial(Run.load, folder / "run")))
    random_edit(model).save(folder / "edit")
    found += [Reader("edit", file, partial(load_edit, folder / "edit")) for file in sorted((folder / "edit").iterdir())]
    with Database(folder / "store.db") as store:
        store.put_json(Key("torture", 1, "spec", "weights", "a"), {"circuit": kept.to_json(), "heads": []})
        store.put(Key("torture", 1, "spec", "weights", "b"), Outcome("b", None, "it failed", "ValueError"))
    found.append(Reader("store", folder / "store.db", partial(read_store, folder / "store.db")))
    shutil.copy(sorted(Path("data/facts").glob("*_language.json"))[0], folder / "relation.json")
    found.append(Reader("relation", folder / "relation.json", partial(load_relation, folder / "relation.json")))
    for name, load in RECORDS.items():
        shutil.copy(f"tests/data/edits/{name}.json", folder)
        found.append(Reader(name, folder / f"{name}.json", partial(load, folder / f"{name}.json")))
    save_gguf(folder / "model.gguf")
    found.append(Reader("gguf header", folder / "model.gguf", partial(read_header, folder / "model.gguf")))
    origin = Provenance("random", "00")
    State(fingerprint(origin), [True] * 5, [0.1] * 5, 5).save(folder / "search.state")
    state = partial(State.load, folder / "search.state", fingerprint(origin))
    return [*found, Reader("search's state", folder / "search.state", state)]


def damaged_files(folder: Path, inputs: int, seed: int, model: Model) -> list[Part]:
    """Each reader gets as many files, drawn by their number alone, so that one that is at fault can be made again."""
    return [damaged_file(reader, inputs, seed) for reader in readers(folder, model)]


def damaged_file(reader: Reader, inputs: int, seed: int) -> Part:
    part, whole = Part(f"damaged files, {reader.name} ({reader.file.name})"), reader.file.read_bytes()
    reader.read()
    seen: set[str] = set()
    for i in range(inputs):
        data = damaged(whole, random.Random(f"{seed} {reader.name} {i}"))
        for rest in reader.file.parent.glob(f"{reader.file.name}-*"):
            rest.unlink()
        reader.file.write_bytes(data)
        began, size = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        fault = ""
        try:
            reader.read()
        except CLEAR as error:
            fault = "" if str(error) else f"{type(error).__name__} without a word"
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        part.tried += 1
        if time.process_time() - began > SECONDS_A_FILE:
            fault = fault or f"{time.process_time() - began:.1f} s"
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size > GROWTH:
            fault = fault or "too much memory"
        if fault and fault[:40] not in seen:
            seen.add(fault[:40])
            part.wrong.append(f"input {i}: {fault[:300]}")
    reader.file.write_bytes(whole)
    return part

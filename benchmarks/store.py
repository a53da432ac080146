"""What the store and saving cost: ``python benchmarks/store.py [FILE.json] [PART ...]``, all parts by default. A few minutes on two
idle cores, no model but factlm.

Prints JSON: rows a second by four writers at once, bytes of a thousand circuits, CPU seconds to open 100,000 rows and to answer each
question of `circuits.studies.queries`, what a sweep costs beside a bare loop, how two workers compare with one, and what saving a
search's state costs.
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from circuits.circuit import Circuit, Provenance
from circuits.discovery.acdc import AcdcOptions, search
from circuits.discovery.problem import Progress
from circuits.discovery.state import Journal
from circuits.engines import SparseEngine
from circuits.graph import Graph, Shape
from circuits.model import Model
from circuits.studies.discover import DISCOVER
from circuits.studies.product import product
from circuits.studies.queries import QUERIES
from circuits.studies.specs import DiscoverSpec
from circuits.studies.store import Database
from circuits.studies.study import Key, Outcome, Watch
from circuits.studies.sweep import Pool, sweep

WRITERS, PUTS, MANY, SCALED = 4, 250, 100_000, 24
KEY = Key("discover", 1, "spec", "weights", "")


def circuit(n: int, seed: int, shape: Shape) -> dict[str, Any]:
    graph, rng = Graph(shape, "qkv"), np.random.default_rng(seed)
    kept = np.zeros(graph.legal.size, dtype=bool)
    kept[rng.choice(np.flatnonzero(graph.legal), n, replace=False)] = True
    origin = Provenance("a model", "00", method="acdc", settings={"tau": 0.01}, facts=("a => b",))
    return Circuit(graph, kept.reshape(graph.legal.shape), origin, rng.normal(size=graph.legal.shape)).to_json()


def row(i: int, made: dict[str, Any] | None) -> dict[str, Any]:
    draw = random.Random(i)
    heads = [
        {"head": f"a{draw.randrange(6)}.h{draw.randrange(8)}", "role": draw.choice(("mover", "relation"))}
        for _ in range(draw.randrange(8))
    ]
    told = {
        "model": "factlm",
        "method": "acdc",
        "tau": 0.01,
        "fact": f"fact {i // 2}",
        "edges_kept": draw.randrange(20, 400),
    }
    told |= {
        "nodes_kept": 20,
        "rank_model": 1,
        "rank_circuit": 1 + draw.randrange(3),
        "nll_model": 0.1,
        "nll_circuit": 0.2,
    }
    return told | {"certificate": {"verdict": draw.choice(("holds", "does not"))}, "heads": heads, "circuit": made}


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def write(path: Path, writer: int, made: list[dict[str, Any]]) -> None:
    with Database(path) as store:
        for i in range(PUTS):
            store.put_json(replace(KEY, case=f"{writer} {i}"), row(i, made[i % len(made)]), seconds=1.0)


def writers(folder: Path) -> float:
    """Rows a second, each with a circuit of 100 edges, into one file by four processes at once."""
    made = [circuit(100, seed, Shape(6, 8)) for seed in range(20)]
    _ = Database(folder / "four.db").connection
    workers = [get_context("fork").Process(target=write, args=(folder / "four.db", i, made)) for i in range(WRITERS)]

    def work() -> None:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return WRITERS * PUTS / timed(work)


def sizes(folder: Path) -> dict[str, float]:
    """Bytes a circuit in the file, of a thousand; and beside its JSON."""
    found = {}
    for name, shape, n in (("factlm", Shape(6, 8), 100), ("smollm2", Shape(30, 9), 1_000)):
        store = Database(folder / f"{name}.db")
        for i in range(1_000 if name == "factlm" else 50):
            store.put_json(replace(KEY, case=str(i)), {"circuit": circuit(n, i, shape)})
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (mean,) = store.connection.execute("SELECT avg(length(content)) FROM circuits").fetchone()
        found |= {
            f"{name}_edges": n,
            f"{name}_bytes": mean,
            f"{name}_json_bytes": len(json.dumps(circuit(n, 0, shape))),
        }
        if name == "factlm":
            found["thousand_file_bytes"] = (folder / "factlm.db").stat().st_size
        store.close()
    return found


def questions(folder: Path) -> dict[str, float]:
    """CPU seconds to open 100,000 rows, to answer each question, and to make a frame of them all."""
    path = folder / "many.db"
    with Database(path) as store:
        for relation in range(30):
            for seed in range(2):
                store.asked_json("discover", f"{relation} {seed}", {"relation": f"relation {relation}", "seed": seed})
        # In one transaction: how fast rows are put is asked elsewhere.
        connection = store.connection
        connection.execute("BEGIN")
        for i in range(MANY):
            spec = f"{i // 2 % 30} {i % 2}"
            connection.execute("INSERT INTO cases VALUES (?, 'discover', 1, ?, 'w', ?)", (i, spec, f"case {i}"))
            text = json.dumps(row(i, None))
            connection.execute("INSERT INTO rows (id, row, seconds, made) VALUES (?, ?, 1.0, 0)", (i, text))
        connection.execute("COMMIT")
    reader = Database(path, read_only=True)
    found = {"open": cpu(lambda: reader.connection)}
    for query in QUERIES:
        found[query.name] = cpu(lambda query=query: list(reader.query(query.sql)))
    return found | {"frame": cpu(lambda: reader.frame("discover"))}


def overhead(folder: Path) -> dict[str, float]:
    """CPU seconds of a sweep into a store, beside a loop that keeps nothing; each after one that is not measured."""
    spec = DiscoverSpec(relation="country_language", n=6, certificate=False)
    context = DISCOVER.open(spec, None)
    cases = DISCOVER.cases(spec, context)

    def bare() -> None:
        for case in cases:
            DISCOVER.run(spec, case, context, Watch())

    def swept() -> None:
        with Database(folder / f"{time.monotonic_ns()}.db") as store:
            each = product(DISCOVER)
            contexts = each.open((spec,), None)
            contexts._open[0], contexts.weights[0] = context, context.model.weights
            outcomes: list[Outcome[Any]] = list(sweep(each, (spec,), context=contexts, store=store))
            assert len(outcomes) == len(cases)

    bare()
    loops = [(cpu(bare), cpu(swept)) for _ in range(3)]
    return {"bare": min(one for one, _ in loops), "sweep": min(one for _, one in loops)}


def scaling(folder: Path) -> dict[str, float]:
    """Cases a second by one worker and by two, each a process of one thread, once every worker has its first case behind it."""
    spec = DiscoverSpec(relation="country_language", n=SCALED)
    found = {}
    for jobs in (1, 2):
        with Database(folder / f"{jobs}.db") as store:
            done = [time.perf_counter() for _ in sweep(DISCOVER, spec, where=Pool(jobs), store=store)]
        found[f"by_{jobs}"] = (len(done) - jobs) / (done[-1] - done[jobs - 1])
    return found | {"times": found["by_2"] / found["by_1"]}


def saving(folder: Path) -> dict[str, float]:
    """CPU seconds of a search with and without its journal; and in the journal alone."""
    from circuits.datasets import relations_for

    model = Model.default()
    fact = relations_for(model.profile)["country_language"].facts()[0]
    engine = SparseEngine(model, (fact,))
    origin = Provenance(model.name, model.weights, settings={"tau": 0.01})
    spent = 0.0

    def once(save: bool) -> float:
        nonlocal spent
        journal = Journal(folder / f"{time.monotonic_ns()}.json")
        spent = 0.0

        def progress(now: Progress) -> None:
            nonlocal spent
            if save and now.state is not None:
                began = time.process_time()
                journal.note(now.state)
                spent += time.process_time() - began

        began = time.process_time()
        search(engine, AcdcOptions(0.01), provenance=origin, progress=progress)
        return time.process_time() - began

    once(False)
    without = min(once(False) for _ in range(5))
    runs = [(once(True), spent) for _ in range(5)]
    return {"without": without, "with": min(one for one, _ in runs), "journal": min(one for _, one in runs)}


PARTS = (writers, sizes, saving, overhead, scaling, questions)


def main(out: Path | None, only: Sequence[str] = ()) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Any] = {}
        for part in PARTS if not only else [each for each in PARTS if each.__name__ in only]:
            found[part.__name__] = part(folder)
            print(part.__name__, found[part.__name__], file=sys.stderr, flush=True)
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if out is not None:
        out.write_text(text)


if __name__ == "__main__":
    files = [word for word in sys.argv[1:] if word.endswith(".json")]
    main(Path(files[0]) if files else None, [word for word in sys.argv[1:] if not word.endswith(".json")])

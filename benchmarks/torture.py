"""What files and searches stand: ``make torture``, or ``python -m benchmarks.torture --seed 0 --kills 40 --inputs 400 --circuits 320``.

Four parts, each from seeds: processes that are killed with SIGKILL at random moments, disks that are full or read-only, readers that
are given damaged files, and random circuits in all engines. What is found is written into ``benchmarks/reliability.md``, with the
count of each.
"""

import argparse
import os
import random
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks.damage import CLEAR, Part, damaged_files, random_edit
from benchmarks.store import circuit as random_circuit
from circuits.circuit import Circuit, Provenance
from circuits.discovery.acdc import AcdcOptions, search
from circuits.discovery.problem import Progress
from circuits.discovery.state import Saves, State, fingerprint
from circuits.editing import EditError, load_edit
from circuits.editing.delta import WeightEdit
from circuits.editing.edit import Edit
from circuits.engines import HookEngine, SparseEngine
from circuits.graph import Shape
from circuits.model import Model
from circuits.records import write_whole
from circuits.studies.store import Database
from circuits.studies.study import Key
from tests.models import save_model, word_fact

PAGE = Path(__file__).with_name("reliability.md")
LAYOUTS = ("gpt2", "llama", "mistral", "gptj", "neo")


def killed(work: Callable[[], None], after: float) -> bool:
    """Whether the work, in a process of its own, was killed before it was done."""
    process = get_context("fork").Process(target=work)
    process.start()
    process.join(after)
    if process.exitcode is None:
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"what was to be killed ended with {process.exitcode}")
    return process.exitcode == -signal.SIGKILL


# ---- killed ----------------------------------------------------------------------------------------------------------


def killed_searches(folder: Path, kills: int, draw: random.Random, model: Model) -> Part:
    """A search goes on from its state to the bytes of one that was not killed, and never has less than before."""
    part = Part("searches killed, continued to the bytes of one that was not")
    origin = Provenance("random", "00", method="acdc", settings={"tau": 0.001})
    file, result = folder / "search.state", folder / "scores"

    def work() -> None:
        saves = Saves(lambda _: file, lambda _: fingerprint(origin))

        def progress(now: Progress) -> None:
            if now.state is not None:
                saves.note(now.state)

        engine = SparseEngine(model, (word_fact("1 2 3", "4"), word_fact("2 5 1", "3")), width=9)
        scores, _ = search(
            engine, AcdcOptions(0.001), provenance=origin, state=saves.resume(0.001), progress=progress, force=True
        )
        write_whole(result, scores.values.tobytes())

    began = time.monotonic()
    work()
    whole, seconds = result.read_bytes(), time.monotonic() - began
    while part.tried < kills:
        result.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        decided = 0
        while killed(work, draw.uniform(0.2, 1.0) * seconds) and part.tried < kills:
            part.tried += 1
            now = State.load(file, fingerprint(origin)).decided if file.exists() else 0
            part.expect(now >= decided, f"{decided} edges were decided, and {now} after the next kill")
            decided = now
        if not result.exists():
            killed(work, 600.0)
        part.expect(result.exists() and result.read_bytes() == whole, f"other bytes after {part.tried} kills")
    return part


def killed_sweeps(folder: Path, kills: int, draw: random.Random) -> Part:
    """Two writers put rows at once and are killed: each row is whole, and each writer's are there without a hole."""
    part, path, content = (
        Part("pairs of writers of a store killed"),
        folder / "killed.db",
        random_circuit(50, 0, Shape(6, 8)),
    )

    def write() -> None:
        with Database(path) as store:
            for i in range(10**6):
                key = Key("torture", 1, "spec", "weights", f"{os.getpid()} {i}")
                store.put_json(key, {"circuit": content, "heads": [{"head": "a0.h0", "role": "mover"}], "i": i})

    while part.tried < kills:
        workers = [get_context("fork").Process(target=write) for _ in range(2)]
        for worker in workers:
            worker.start()
        time.sleep(draw.uniform(0.02, 0.4))
        for worker in draw.sample(workers, 2):
            os.kill(worker.pid or 0, signal.SIGKILL)
            worker.join()
            part.expect(worker.exitcode == -signal.SIGKILL, "a writer had ended before it was killed")
        part.tried += 1
    with Database(path) as store:
        part.wrong += store.check()
        names = [each["case"].split() for each in store.query('SELECT "case" FROM results ORDER BY id')]
    for process in {name[0] for name in names}:
        numbers = [int(number) for of, number in names if of == process]
        part.expect(numbers == list(range(len(numbers))), f"rows of a writer are missing: {numbers[:10]}")
    return part


def killed_saves(folder: Path, kills: int, draw: random.Random) -> Part:
    """A file that is saved over and over is, whenever the one that saves it is killed, the whole of one of its contents."""
    part, path = Part("saves of a circuit killed"), folder / "saved.json"
    contents = [Circuit.from_json(random_circuit(200, seed, Shape(6, 8))) for seed in range(3)]
    texts = {each.text() for each in contents}

    def save() -> None:
        for i in range(10**6):
            contents[i % 3].save(path)

    while part.tried < kills:
        killed(save, draw.uniform(0.01, 0.3))
        part.tried += 1
        part.expect(not path.exists() or path.read_text() in texts, "a part of a file")
    part.expect(path.exists(), "nothing was ever saved")
    return part


def killed_edits(folder: Path, kills: int, draw: random.Random, model: Model) -> Part:
    """The same of an edit, whose folder has two files: it is one of its contents, or, between the two files, clearly refused."""
    part, place = Part("saves of an edit killed"), folder / "saved edit"
    edits = [random_edit(model, seed) for seed in range(2)]
    whole = {digest_of_edit(each) for each in edits}

    def save() -> None:
        for i in range(10**6):
            edits[i % 2].save(place)

    while part.tried < kills:
        killed(save, draw.uniform(0.01, 0.3))
        part.tried += 1
        try:
            part.expect(digest_of_edit(load_edit(place)) in whole, "an edit that was never saved")
        except EditError as error:
            part.expect(str(place) in str(error), f"an error that does not name the folder: {error}")
    return part


def digest_of_edit(edit: Edit) -> bytes:
    assert isinstance(edit, WeightEdit)
    (delta,) = edit.deltas.values()
    return delta.dense().numpy().tobytes()


# ---- disks -----------------------------------------------------------------------------------------------------------


def mounted(folder: Path, size: str) -> bool:
    """Whether a small disk in memory is there now; only root can have one."""
    folder.mkdir()
    told = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, check=False
    )
    return told.returncode == 0


def disks(folder: Path) -> Part:
    """A full disk, or one that is read only, ends in a clear error; what was there before is there still, and whole."""
    part, place, content = (
        Part("writes to full and to read-only disks"),
        folder / "small",
        random_circuit(400, 0, Shape(30, 9)),
    )
    small = mounted(place, "512k")
    if not small:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        kept = Circuit.from_json(random_circuit(20, 0, Shape(6, 8)))
        kept.save(place / "kept.json")
        path, put = place / "full.db", 0

        def writes() -> None:
            nonlocal put
            with Database(path) as store:
                for i in range(1_000):
                    store.put_json(
                        Key("torture", 1, "s", "w", str(i)), {"circuit": content, "text": "x" * 5_000, "i": i}
                    )
                    put += 1

        for what in (writes, lambda: write_whole(place / "kept.json", "x" * 600_000)):
            part.tried += 1
            try:
                what()
                part.wrong.append("more was written than there is room for")
            except CLEAR:
                pass
        part.expect((place / "kept.json").read_text() == kept.text(), "a file that could not be replaced was damaged")
        part.expect([each.name for each in place.glob(".*part*")] == [], "a part of a file was left")
        with Database(path, read_only=True) as store:
            (n,) = [each["n"] for each in store.query("SELECT count(*) AS n FROM rows")]
            part.expect(n == put, f"{put} rows were put on the disk before it was full, {n} are there")
            part.wrong += store.check()
        if small:
            subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
            for what in (
                lambda: kept.save(place / "other.json"),
                lambda: Database(path).put_json(Key("torture", 1, "s", "w", "more"), {}),
                lambda: write_whole(place / "kept.json", "x"),
            ):
                part.tried += 1
                try:
                    what()
                    part.wrong.append("a read-only disk was written to")
                except CLEAR:
                    pass
    finally:
        if small:
            subprocess.run(["umount", "-l", str(place)], check=False)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return part


# ---- engines ---------------------------------------------------------------------------------------------------------


def engines(folder: Path, circuits: int, draw: random.Random) -> Part:
    """The NLL of random circuits, of all sizes, is the same in the fast engine as in the reference, up to its noise."""
    part, facts = Part("random circuits in both engines"), (word_fact("1 2 3", "4"), word_fact("2 5 1", "3"))
    rng = np.random.default_rng(draw.randrange(2**32))
    for name in LAYOUTS:
        model = Model.load(save_model(name, folder / name))
        for granularity in ("qkv", "node"):
            fast, hook = (kind(model, facts, granularity=granularity) for kind in (SparseEngine, HookEngine))
            legal = fast.graph.legal
            for _ in range(max(1, circuits // (2 * len(LAYOUTS)))):
                kept = legal & (rng.random(legal.shape) < rng.random())
                off = float(np.abs(fast.nll(kept) - hook.nll(kept)).max())
                part.tried += 1
                part.expect(off <= 1e-4, f"{name}, {granularity}: {off:.2g} nats apart")
    return part


# ---- all of it -------------------------------------------------------------------------------------------------------


def page(parts: list[Part], asked: str) -> str:
    lines = [f"| {part.name} | {part.tried:,} | {len(part.wrong)} |" for part in parts]
    wrong = [f"* {part.name}: {what}" for part in parts for what in part.wrong]
    return "\n".join(
        [
            "# What the files stand",
            "",
            f"Written by `{asked}`; what each line asks is said by the functions of `benchmarks/torture.py`.",
            "",
            "| what was tried | how often | went wrong |",
            "|---|---|---|",
            *lines,
            "",
            *(wrong or ["Nothing went wrong."]),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, number in (("seed", 0), ("kills", 40), ("inputs", 400), ("circuits", 320)):
        parser.add_argument(f"--{name}", type=int, default=number)
    asked = parser.parse_args()
    draw, parts = random.Random(asked.seed), list[Part]()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Model.load(save_model("gpt2", folder / "random"))
        for work in (
            lambda: [killed_searches(folder, asked.kills, draw, model)],
            lambda: [killed_sweeps(folder, asked.kills, draw)],
            lambda: [killed_saves(folder, asked.kills, draw)],
            lambda: [killed_edits(folder, asked.kills, draw, model)],
            lambda: [disks(folder)],
            lambda: damaged_files(folder, asked.inputs, asked.seed, model),
            lambda: [engines(folder, asked.circuits, draw)],
        ):
            began = sum(os.times()[:4])
            made = work()
            parts += made
            for part in made:
                print(
                    f"{part.name}: {part.tried:,} tried, {len(part.wrong)} wrong", *part.wrong, sep="\n  ", flush=True
                )
            print(f"{sum(os.times()[:4]) - began:.0f} s of CPU", flush=True)
    words = " ".join(f"--{name} {number}" for name, number in vars(asked).items())
    PAGE.write_text(page(parts, f"python -m benchmarks.torture {words}"))
    raise SystemExit(any(part.wrong for part in parts))


if __name__ == "__main__":
    main()

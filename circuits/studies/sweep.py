"""Run a study's cases: one by one, or in several processes; keep what is done, go on where it stopped.

Two seams: a `Store` keeps outcomes by their key (here one file a case; a database is another), a `Where` works cases off
(here this process, or a pool of them; a cluster is another).
"""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from circuits.records import Unreadable, file_name, from_json, read_json, to_json, to_text, write_whole
from circuits.studies.cores import fit_threads, share_cores
from circuits.studies.study import Case, Key, Outcome, Study, Watch

Row = TypeVar("Row")
FORMAT = "kcircuit/row"
Failures = Literal["end", "keep", "retry"]
SECONDS_TO_STOP = 60.0
"""How long a process may take to save what it has when it is told to stop."""


class StudyError(RuntimeError, ValueError):
    """A case that could not be done, in another process; the message is the error's."""


# ---- where rows are kept ---------------------------------------------------------------------------------------------


class Stale(Exception):
    """Something is kept for that case, and it is not what was asked for."""


@runtime_checkable
class Store(Protocol):
    """Keeps outcomes. A put is whole or not there."""

    def get(self, key: Key, row: Any) -> Outcome[Any] | None:
        """The outcome with that key, its row of that class; None where there is none.

        Raises:
            Stale: what is kept in its place is damaged, or has another key; the message says which.
        """
        ...

    def put(self, key: Key, outcome: Outcome[Any]) -> None: ...


@dataclass(frozen=True)
class Folder:
    """One file a case, by the case's name."""

    path: Path

    def file(self, case: str) -> Path:
        return self.path / f"{file_name(case)}.json"

    def get(self, key: Key, row: Any) -> Outcome[Any] | None:
        file = self.file(key.case)
        if not file.exists():
            return None
        try:
            content = read_json(file)
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise Unreadable(f"{file}: expected format {FORMAT!r}")
            if content.get("key") != asdict(key):
                raise Stale(f"{file} is of other settings or weights")
            made = None if content["error"] is not None else from_json(row, content["row"], str(file))
            return Outcome(key.case, made, content["error"], content["kind"], content["seconds"], kept=True)
        except (Unreadable, KeyError) as error:
            raise Stale(f"{file} is no whole row of this version") from error

    def put(self, key: Key, outcome: Outcome[Any]) -> None:
        content = {
            "format": FORMAT,
            "key": asdict(key),
            "seconds": round(outcome.seconds, 3),
            "error": outcome.error,
            "kind": outcome.kind,
            "row": None if outcome.row is None else to_json(outcome.row),
        }
        write_whole(self.file(key.case), to_text(content))


# ---- where cases are worked off --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What whoever works needs to know once; it goes to another process."""

    study: Study[Any, Any, Any, Any]
    spec: Any
    given: Any
    searches: Path | None = None

    def open(self) -> Any:
        return self.study.open(self.spec, self.given)

    def do(self, case: Case[Any], context: Any, watch: Watch) -> tuple[Outcome[Any], Exception | None]:
        """The case's outcome, and the error itself where there was one. A stop (Ctrl-C) is none and goes through."""
        began = time.perf_counter()
        try:
            row = self.study.run(self.spec, case, context, watch)
        except Exception as error:
            seconds = time.perf_counter() - began
            return Outcome(case.name, None, str(error), type(error).__name__, seconds), error
        return Outcome(case.name, row, seconds=time.perf_counter() - began), None


@runtime_checkable
class Where(Protocol):
    """Works cases off, in any order; each gives one outcome."""

    def outcomes(
        self, task: Job, cases: Sequence[Case[Any]], context: Any, watch: Watch
    ) -> Iterator[tuple[Outcome[Any], Exception | None]]: ...


@dataclass(frozen=True)
class Here:
    """One after another, in this process."""

    def outcomes(
        self, task: Job, cases: Sequence[Case[Any]], context: Any, watch: Watch
    ) -> Iterator[tuple[Outcome[Any], Exception | None]]:
        for case in cases:
            yield task.do(case, context, watch)


@dataclass(frozen=True)
class Pool:
    """In ``jobs`` processes, each with a context of its own and its share of the cores.

    A process that dies (out of memory, say) costs the case that it was at, which fails; another takes its place. When this
    process is stopped, so are they: each saves what it has and ends without a word.
    """

    jobs: int
    start_method: str = "spawn"

    def outcomes(
        self, task: Job, cases: Sequence[Case[Any]], context: Any, watch: Watch
    ) -> Iterator[tuple[Outcome[Any], Exception | None]]:
        waiting = deque(grouped(cases))
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        start = get_context(self.start_method)
        workers: list[_Worker] = []
        stopped = True
        try:
            while waiting or any(worker.left for worker in workers):
                while waiting and len(workers) < self.jobs:
                    workers.append(_Worker.started(start, task, threads))
                for worker in workers:
                    if waiting and not worker.left:
                        worker.give(waiting.popleft())
                busy = [worker for worker in workers if worker.left]
                ready = connection.wait([end for worker in busy for end in (worker.pipe, worker.process.sentinel)])
                for worker in [worker for worker in busy if {worker.pipe, worker.process.sentinel} & set(ready)]:
                    outcome, lines = worker.take()
                    for line in lines:
                        watch.notice(line)
                    if worker.gone:
                        workers.remove(worker)
                        if worker.left:
                            waiting.appendleft(list(worker.left))
                    yield outcome, None if outcome.error is None else StudyError(outcome.error)
            stopped = False
        finally:
            for worker in workers:
                worker.end(stopped)


def grouped(cases: Sequence[Case[Any]]) -> list[list[Case[Any]]]:
    """Cases that share work together, in the order in which their groups come up."""
    groups: dict[object, list[Case[Any]]] = {}
    for i, case in enumerate(cases):
        groups.setdefault(case.group or i, []).append(case)
    return list(groups.values())


@dataclass(eq=False)
class _Worker:
    """A process at work, as seen from the one that gives it work."""

    process: Any
    pipe: Any
    left: deque[Case[Any]] = field(default_factory=deque)
    """What it was given and has not answered."""
    gone: bool = False

    @classmethod
    def started(cls, start: Any, task: Job, threads: int) -> "_Worker":
        ours, theirs = start.Pipe()
        process = start.Process(target=_serve, args=(theirs, task, threads), daemon=True)
        with _deaf_to_interrupts():
            process.start()
        theirs.close()
        return cls(process, ours)

    def give(self, cases: Sequence[Case[Any]]) -> None:
        self.left.extend(cases)
        # A process that is gone is found out by `take`.
        with suppress(OSError):
            self.pipe.send(list(cases))

    def take(self) -> tuple[Outcome[Any], list[str]]:
        """The next outcome, and what was noticed on the way.

        Raises:
            StudyError: the process could not even begin.
        """
        answer = None
        with suppress(EOFError, OSError):
            # Where nothing is to be read, it is the process's end that was heard.
            answer = self.pipe.recv() if self.pipe.poll() else None
        if answer is None:
            self.process.join()
            self.gone = True
            case = self.left.popleft()
            code = self.process.exitcode
            how = f"was killed by signal {-code}; there may be too little memory" if code < 0 else f"ended with {code}"
            return Outcome(case.name, None, f"the process at work on it {how}", "ProcessDied"), []
        if isinstance(answer, str):
            raise StudyError(answer)
        self.left.popleft()
        return answer

    def end(self, stopped: bool) -> None:
        if stopped:
            self.process.terminate()
        else:
            with suppress(OSError):
                self.pipe.send(None)
        self.process.join(SECONDS_TO_STOP)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """A process started in here never hears Ctrl-C, which a terminal sends to all: the one that started it tells it to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: Any, task: Job, threads: int) -> None:
    """The life of a worker: open, then work off what comes, until nothing does or it is told to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop_once)
    share_cores(threads)
    try:
        try:
            context = task.open()
        except Exception as error:
            pipe.send(str(error))
            return
        if hasattr(context, "model"):
            fit_threads(context.model)
        while (cases := pipe.recv()) is not None:
            for case in cases:
                lines: list[str] = []
                outcome, _ = task.do(case, context, Watch(lines.append, searches=task.searches))
                pipe.send((outcome, lines))
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        # No more work, no one who waits for it, or told to stop: what was under way has saved itself.
        pass


def _stop_once(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


# ---- the sweep -------------------------------------------------------------------------------------------------------


def sweep(
    study: Study[Any, Any, Any, Row],
    spec: Any,
    given: Any = None,
    *,
    context: Any = None,
    where: Where | None = None,
    store: Store | None = None,
    watch: Watch | None = None,
    finished: Callable[[int, int, Outcome[Row]], None] = lambda done, total, outcome: None,
    failures: Failures = "end",
) -> Iterator[Outcome[Row]]:
    """One outcome for each of the study's cases, as they are done; those that are kept already come first.

    Args:
        given: what the study's context needs besides the spec; it goes to other processes.
        context: an open one of that spec and that; opened here where there is none.
        store: outcomes go there as they come, and are taken from there.
        finished: told of each: how many are done, of how many, and the last one.
        failures: ``end``: a case's error ends the sweep. ``keep``: it becomes the case's outcome, which stays if it is kept.
            ``retry``: so it does, and what failed before is tried again.

    Raises:
        KeyboardInterrupt: on Ctrl-C; what is done is in the store, and the next call goes on from there.
    """
    watch = watch or Watch()
    task = Job(study, spec, given, watch.searches)
    context = task.open() if context is None else context
    cases = study.cases(spec, context)
    keys = {case.name: study.key(spec, context, case) for case in cases}
    if len(keys) < len(cases):
        raise ValueError(f"expected cases with names of their own, got {[case.name for case in cases]}")
    done, todo = 0, []
    for case in cases:
        outcome = _kept(store, keys[case.name], study.row, watch)
        if outcome is None or (outcome.error is not None and failures != "keep"):
            todo.append(case)
            continue
        done += 1
        finished(done, len(cases), outcome)
        yield outcome
    here = where is None or len(todo) < 2
    for outcome, error in (Here() if here or where is None else where).outcomes(task, todo, context, watch):
        if error is not None and failures == "end":
            raise error
        if store is not None:
            store.put(keys[outcome.case], outcome)
        done += 1
        finished(done, len(cases), outcome)
        yield outcome


def _kept(store: Store | None, key: Key, row: Any, watch: Watch) -> Outcome[Any] | None:
    if store is None:
        return None
    try:
        return store.get(key, row)
    except Stale as why:
        watch.notice(f"{why}: made anew")
        return None

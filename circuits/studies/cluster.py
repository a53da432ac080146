"""A study's cases on a Ray cluster: actors, each with a model of its own, on whatever machines have room for one.

The driver alone opens the store, so that only outcomes travel. Needs the extra ``kcircuit[cluster]``.
"""

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from circuits.studies.cores import fit_threads, share_cores
from circuits.studies.study import Case, Outcome, Watch
from circuits.studies.sweep import Job, StudyError, grouped

IN_FLIGHT = 2
"""Groups of cases that an actor has at once: one that it is at, and one so that it does not wait for the next."""
TRIES = 3
"""After so many deaths of actors at a case it is the case that is to blame."""
SECONDS_OF_SILENCE = 60.0


class ClusterError(ValueError):
    """There is no cluster to work on."""


def require_ray() -> Any:
    """The library.

    Raises:
        ClusterError: it is not installed.
    """
    try:
        return import_module("ray")
    except ImportError as error:
        raise ClusterError("--on ray needs Ray: pip install 'kcircuit[cluster]', on every machine") from error


@dataclass(frozen=True)
class Cluster:
    """On a Ray cluster that is joined, or one of this machine alone that is started, and ended with the sweep.

    A machine that is lost costs no case: what its actors had not answered is given to others. A case at which `TRIES` actors
    died fails. Rows are those of one process, for a case is worked on by one actor with a context of its own.
    """

    actors: int | None = None
    """At most so many; by default as many as there are cores for."""
    address: str | None = None
    """Of a cluster to join, or ``auto``; without one a cluster is started here."""
    cpus: int = 1
    """Cores of an actor; it uses as many threads."""
    gpus: float = 0.0
    """What an actor takes of a GPU; several share one by fractions."""
    memory: int = 0
    """Bytes that an actor is counted for: it is placed where they are free."""

    def outcomes(
        self, task: Job, cases: Sequence[Case[Any]], context: Any, watch: Watch
    ) -> Iterator[tuple[Outcome[Any], Exception | None]]:
        ray = require_ray()
        joined = ray.is_initialized()
        if not joined:
            self._connect(ray)
        try:
            crew = _Crew(ray, self, replace(task, searches=task.searches and task.searches.absolute()), watch)
            yield from crew.outcomes(grouped(cases))
        finally:
            if not joined:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if self.address is None:
                ray.init(include_dashboard=False, **quiet)
            else:
                ray.init(self.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterError(f"no Ray cluster at {self.address or 'this machine'}: {error}") from error

    @property
    def needs(self) -> dict[str, float]:
        """What an actor takes, by Ray's names."""
        return {"CPU": float(self.cpus), "GPU": float(self.gpus), "memory": float(self.memory)}

    def room(self, nodes: Sequence[dict[str, Any]]) -> int:
        """How many actors the machines that are there hold.

        Raises:
            ClusterError: not one.
        """
        alive = [node["Resources"] for node in nodes if node["Alive"]]
        held = sum(
            int(min(each.get(name, 0) / much for name, much in self.needs.items() if much > 0)) for each in alive
        )
        if not held:
            needs = f"{self.cpus} cores, {self.gpus:g} GPUs and {self.memory / 1e9:.1f} GB"
            raise ClusterError(
                f"no machine of the cluster has {needs}, which one process takes; there are {len(alive)}"
            )
        return held


@dataclass(eq=False)
class _Actor:
    """One that works, as the driver sees it."""

    handle: Any
    begins: Any
    """The answer that it is ready; None where it has come."""
    given: dict[Any, list[Case[Any]]] = field(default_factory=dict)
    """By the answer that is awaited, in the order asked: the case that was asked for, and those of its group to come."""

    @property
    def awaited(self) -> list[Any]:
        return list(self.given) if self.begins is None else [self.begins]


@dataclass(eq=False)
class _Crew:
    """The actors of one sweep."""

    ray: Any
    cluster: Cluster
    task: Job
    watch: Watch
    actors: list[_Actor] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    """How often an actor died at a case, or, under no name, before it had begun."""

    def outcomes(self, groups: list[list[Case[Any]]]) -> Iterator[tuple[Outcome[Any], Exception | None]]:
        waiting = deque(groups)
        remote = self.ray.remote(_Serves).options(
            num_cpus=self.cluster.cpus, num_gpus=self.cluster.gpus, memory=self.cluster.memory or None
        )
        # The task travels once, however many actors read it.
        task, room = self.ray.put(self.task), self.cluster.room(self.ray.nodes())
        wanted = min(self.cluster.actors or room, room, len(groups))
        try:
            while waiting or any(actor.given for actor in self.actors):
                while waiting and len(self.actors) < wanted:
                    handle = remote.remote(task, self.cluster.cpus)
                    self.actors.append(_Actor(handle, handle.begin.remote()))
                self._share_out(waiting)
                refs = [ref for actor in self.actors for ref in actor.awaited]
                ready, _ = self.ray.wait(refs, num_returns=1, timeout=SECONDS_OF_SILENCE)
                if not ready:
                    self._say_what_is_awaited()
                    continue
                actor = next(actor for actor in self.actors if ready[0] in actor.awaited)
                yield from self._answer(actor, ready[0], waiting)
        finally:
            for actor in self.actors:
                self.ray.kill(actor.handle)

    def _share_out(self, waiting: deque[list[Case[Any]]]) -> None:
        """The actor with least gets the next, so that none has two while another has none."""
        begun = [actor for actor in self.actors if actor.begins is None]
        while waiting and begun:
            actor = min(begun, key=lambda actor: len(actor.given))
            if len(actor.given) >= IN_FLIGHT:
                return
            self._ask(actor, waiting.popleft())

    def _ask(self, actor: _Actor, group: list[Case[Any]]) -> None:
        # A case at a time: its row is with the driver as soon as it is made, whatever becomes of the actor.
        actor.given[actor.handle.do.remote(group[0])] = group

    def _say_what_is_awaited(self) -> None:
        if not any(actor.begins is None for actor in self.actors):
            self.watch.notice("no machine of the cluster has had room for a process yet; waiting")

    def _answer(
        self, actor: _Actor, ready: Any, waiting: deque[list[Case[Any]]]
    ) -> Iterator[tuple[Outcome[Any], Exception | None]]:
        try:
            answer = self.ray.get(ready)
        except self.ray.exceptions.RayTaskError as error:
            raise StudyError(str(error.cause)) from None
        except self.ray.exceptions.RayError:
            yield from self._lost(actor, waiting)
            return
        if actor.begins is not None:
            actor.begins = None
            return
        outcome, lines = answer
        for line in lines:
            self.watch.notice(line)
        if rest := actor.given.pop(ready)[1:]:
            self._ask(actor, rest)
        yield outcome, None if outcome.error is None else StudyError(outcome.error)

    def _lost(self, actor: _Actor, waiting: deque[list[Case[Any]]]) -> Iterator[tuple[Outcome[Any], Exception | None]]:
        """What the actor had is given to others. It died at the first case that it was given, or before."""
        self.actors.remove(actor)
        groups = list(actor.given.values())
        name = groups[0][0].name if groups else ""
        self.deaths[name] += 1
        if not groups and self.deaths[name] >= TRIES:
            raise StudyError(
                f"{TRIES} processes of the cluster died before they had begun; there may be too little memory"
            )
        self.watch.notice(f"a process of the cluster died; {sum(map(len, groups))} cases are given to others")
        blamed = self.deaths[name] >= TRIES
        if blamed:
            groups[0] = groups[0][1:]
        waiting.extendleft(reversed([group for group in groups if group]))
        if blamed:
            why = f"{TRIES} processes died at it; there may be too little memory"
            yield Outcome(name, None, why, "ProcessDied"), StudyError(why)


class _Serves:
    """What an actor is: a context that is opened once, and cases worked on one after another."""

    def __init__(self, task: Job, threads: int) -> None:
        self.task, self.threads, self.context = task, threads, None

    def begin(self) -> None:
        self.context = self.task.open()
        share_cores(self.threads)
        if (model := getattr(self.context, "model", None)) is not None:
            fit_threads(model)

    def do(self, case: Case[Any]) -> tuple[Outcome[Any], list[str]]:
        lines: list[str] = []
        outcome, _ = self.task.do(case, self.context, Watch(lines.append, searches=self.task.searches))
        return outcome, lines

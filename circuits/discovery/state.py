"""How far a search is, kept in a file as it goes: killed at any moment, it goes on from there to the same bytes.

What a batch finds depends, in its last bits, on which edges were asked together and on what the engine has carried over from
the batches before. So a search goes on from a `Mark`: between two batches, where the engine has forgotten all that, with
what decides which edges come next together (what is expected of them, and how wide batches pay). Marks come after so many
batches, not after so many seconds: that would make a result depend on the clock.

The file is a journal. Its first line says of which search it is, and each further line adds what was decided since the one
before. A line has its checksum, so that one that was being written when the machine stopped is known and left out.
"""

import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from circuits.circuit import Provenance
from circuits.records import Unreadable, parse_json, read_bytes, write_whole

STATE_FORMAT = "kcircuit/acdc-state"
STATE_VERSION = 3
SECONDS_TO_DISK = 30.0
"""How much of a search a power cut may cost."""


class ResumeError(ValueError):
    """A state file that cannot be read or belongs to another run."""


class Interrupted(KeyboardInterrupt):
    """The search was stopped; ``state`` continues it."""

    def __init__(self, state: "State") -> None:
        super().__init__(f"stopped after {state.decided:,} of {len(state.scores):,} edges")
        self.state = state


def fingerprint(provenance: Provenance) -> str:
    """Digest of all that decides a search's result."""
    content = {**provenance.__dict__, "settings": dict(provenance.settings)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()


@dataclass(slots=True)
class Guesses:
    """What a search expects of the edges of the depth under way (`circuits.discovery.speculation`)."""

    first: int
    """How many edges were decided when the depth began."""
    shifts: Float[np.ndarray, "edge fact"]
    """Of each edge that the depth tries: how far it is expected, or was measured, to move the facts' log-odds."""
    known: int
    """The first so many have a shift; of the others nothing is expected."""

    def copy(self) -> "Guesses":
        return Guesses(self.first, self.shifts.copy(), self.known)


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment between two batches, and all that the next steps depend on besides the decisions so far."""

    decided: int
    nll: float
    evaluations: int
    near_ties: int
    now: Float[np.ndarray, "fact"] | None = None
    """NLL of the circuit on each fact."""
    learnt: tuple[float, float] | None = None
    """By `circuits.discovery.speculation.Width`."""
    guesses: Guesses | None = None
    """In the middle of a depth."""

    def to_json(self) -> dict[str, Any]:
        guesses = self.guesses
        return {
            "decided": self.decided,
            "nll": self.nll,
            "evaluations": self.evaluations,
            "now": None if self.now is None else self.now.tolist(),
            "learnt": self.learnt,
            "guesses": guesses and {"first": guesses.first, "known": guesses.known, "shifts": guesses.shifts.tolist()},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], near_ties: int) -> "Mark":
        guesses = content.pop("guesses")
        now, learnt = content.pop("now"), content.pop("learnt")
        if guesses is not None:
            guesses = Guesses(guesses["first"], np.array(guesses["shifts"], dtype=np.float64), guesses["known"])
        return cls(
            **content,
            near_ties=near_ties,
            now=None if now is None else np.array(now, dtype=np.float64),
            learnt=None if learnt is None else (learnt[0], learnt[1]),
            guesses=guesses,
        )


@dataclass
class State:
    """How far a search is: a decision for each edge of the traversal so far. What a state file holds."""

    fingerprint: str
    """Digest of everything that decides the result: model, facts, settings."""
    kept: list[bool]
    scores: list[float | None]
    """S of each tried edge in nats; None where it went untested, or is still to come."""
    decided: int = 0
    nll: float = 0.0
    evaluations: int = 0
    near_ties: list[str] = field(default_factory=list)
    """Edges whose step came so close to tau that rounding may have decided it (`Engine.noise`), in the order tried."""
    mark: Mark | None = field(default=None, compare=False)
    """Where the search goes on from; None where it has not begun."""

    @property
    def finished(self) -> bool:
        return self.decided == len(self.kept)

    def rewind(self) -> None:
        """Forget what was decided after the mark."""
        if (mark := self.mark) is not None:
            rest = len(self.kept) - mark.decided
            self.kept[mark.decided :] = [True] * rest
            self.scores[mark.decided :] = [None] * rest
            self.decided, self.nll, self.evaluations = mark.decided, mark.nll, mark.evaluations
            del self.near_ties[mark.near_ties :]

    def save(self, path: Path) -> None:
        """Write the file, the whole of it or nothing."""
        write_whole(path, self.header() + self.lines())

    def header(self) -> bytes:
        origin = {"format": STATE_FORMAT, "version": STATE_VERSION}
        return _line({**origin, "fingerprint": self.fingerprint, "edges": len(self.kept)})

    def lines(self, since: Mark | None = None) -> bytes:
        """What a state file gains from that mark to this one."""
        mark = self.mark or Mark(self.decided, self.nll, self.evaluations, len(self.near_ties))
        first, ties = (0, 0) if since is None else (since.decided, since.near_ties)
        return _line(
            {
                "kept": "".join("01"[kept] for kept in self.kept[first : mark.decided]),
                "scores": self.scores[first : mark.decided],
                "near_ties": self.near_ties[ties : mark.near_ties],
                "mark": mark.to_json(),
            }
        )

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> "State":
        """Read the state of the run with this fingerprint, up to the last whole line.

        Raises:
            ResumeError: no state file, a damaged one, or that of another run.
        """
        try:
            header, *steps = _contents(read_bytes(path), str(path))
            if header.pop("format") != STATE_FORMAT or header.pop("version") != STATE_VERSION:
                raise ResumeError(f"{path} is no state file of this version; delete it to start anew")
            edges, state = header.pop("edges"), cls(**header, kept=[], scores=[])
            for step in steps:
                state._add(**step)
            if not steps or not len(state.kept) == len(state.scores) == state.decided <= edges:
                raise Unreadable(f"expected decisions of at most {edges} edges, got {len(state.kept)}")
        except (Unreadable, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ResumeError(f"{path} is no whole state file ({error}); delete it to start anew") from error
        if state.fingerprint != fingerprint:
            raise ResumeError(
                f"{path} belongs to a run with another model, facts or settings; delete it, or write to another folder"
            )
        rest = edges - state.decided
        state.kept += [True] * rest
        state.scores += [None] * rest
        return state

    def _add(self, kept: str, scores: list[float | None], near_ties: list[str], mark: dict[str, Any]) -> None:
        self.kept += [one == "1" for one in kept]
        self.scores += scores
        self.near_ties += near_ties
        self.mark = Mark.from_json(mark, len(self.near_ties))
        self.decided, self.nll, self.evaluations = self.mark.decided, self.mark.nll, self.mark.evaluations


def _line(content: dict[str, Any]) -> bytes:
    body = json.dumps(content, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _contents(data: bytes, source: str) -> list[dict[str, Any]]:
    """The lines' contents, without a last one that was not written whole."""
    lines = data.split(b"\n")
    found = []
    for i, line in enumerate(lines):
        checksum, _, body = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(body):
            if i >= len(lines) - 2:
                break
            raise Unreadable(f"{source}: line {i + 1} was altered")
        found.append(parse_json(body, source))
    if not found:
        raise Unreadable(f"{source}: expected a line with its checksum, got {data[:20]!r}")
    return found


class Journal:
    """Keeps a search's state file up to date, from mark to mark.

    What is written outlives the process at once, and a power cut after `SECONDS_TO_DISK`: to wait for the disk takes long, so
    it is seldom done. A file that cannot be written ends no search: it is said once, and tried again. One that another process
    has written or deleted meanwhile, which does the same search, is written anew, the whole of it.
    """

    def __init__(self, path: Path, notice: Callable[[str], None] = lambda _: None) -> None:
        self.path, self.notice = path, notice
        self._last: Mark | None = None
        """What the file holds; None where it has to be written anew."""
        self._size = 0
        self._synced = time.monotonic()
        self._failed = False

    def note(self, state: State) -> None:
        """Called between batches."""
        mark = state.mark
        if mark is None or mark is self._last or not mark.decided:
            return
        try:
            if self._last is None or not self.path.exists() or self.path.stat().st_size != self._size:
                self._begin(state)
            else:
                self._add(state.lines(self._last))
            self._last = mark
        except OSError as error:
            # After a line that was cut off nothing may follow.
            self._last = None
            if not self._failed:
                self.notice(f"{self.path} cannot be written ({error.strerror}): the search goes on, and is not saved")
            self._failed = True

    def _add(self, lines: bytes) -> None:
        # Into the file that is there: one that was deleted since is not made, for it would have no header.
        with self.path.open("r+b") as file:
            file.seek(self._size)
            file.write(lines)
            file.flush()
            self._size += len(lines)
            if time.monotonic() - self._synced >= SECONDS_TO_DISK:
                os.fsync(file.fileno())
                self._synced = time.monotonic()

    def _begin(self, state: State) -> None:
        """As `State.save`, without waiting for the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part, content = self.path.with_name(f".{self.path.name}.{os.getpid()}.part"), state.header() + state.lines()
        try:
            part.write_bytes(content)
            part.replace(self.path)
            self._size = len(content)
        finally:
            part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Saves:
    """Where searches of one model and facts, at several thresholds, are kept."""

    file: Callable[[float], Path | None] = lambda tau: None
    fingerprint: Callable[[float], str] = lambda tau: ""
    notice: Callable[[str], None] = lambda _: None
    _journals: dict[str, Journal] = field(default_factory=dict)

    def resume(self, tau: float) -> State | None:
        """The state of the search at that threshold, where one is kept. What it decides from now on is kept too.

        Raises:
            ResumeError: see `State.load`.
        """
        file, fingerprint = self.file(tau), self.fingerprint(tau)
        if file is None:
            return None
        self._journals[fingerprint] = Journal(file, self.notice)
        # A power cut can leave a new file with nothing in it.
        if not file.exists() or not read_bytes(file).strip(b"\0"):
            return None
        return State.load(file, fingerprint)

    def note(self, state: State) -> None:
        """Called between batches of a search at one of the thresholds that were asked of `resume`."""
        if (journal := self._journals.get(state.fingerprint)) is not None:
            journal.note(state)

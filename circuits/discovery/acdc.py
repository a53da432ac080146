"""ACDC: try every edge once, from the logits back, and keep those whose removal costs more than tau.

Conmy et al. 2023, "Towards Automated Circuit Discovery", as paper 2 (section 2.2) uses it. With C the circuit at that
moment, an edge scores S(e) = NLL(C without e) - NLL(C) and is removed if S < tau. (Paper 2's Eq. 1 prints a sum; it is a
difference.) Receivers come in reverse topological order: logits, then from the last layer to the first its MLP and its heads from the
last, each head's slots in the order v, k, q; senders from the latest to ``input``. A receiver whose node has no
kept outgoing edge loses all its incoming edges untested.

The order is part of the specification: the same inputs give the same circuit.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from circuits.circuit import Provenance, Scores
from circuits.engines.protocol import Engine
from circuits.graph import Graph

NEAR_TIE = 1e-5
"""A step closer to tau than this, in nats, could fall the other way on other hardware; it is counted and reported."""
STATE_FORMAT = "kcircuit/acdc-state"
STATE_VERSION = 1


class ResumeError(ValueError):
    """A state file that cannot be read or belongs to another run."""


class Interrupted(KeyboardInterrupt):
    """The search was stopped; ``state`` continues it."""

    def __init__(self, state: "State") -> None:
        super().__init__(f"stopped after {state.decided:,} of {len(state.scores):,} edges")
        self.state = state


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
    near_ties: int = 0

    def save(self, path: Path) -> None:
        content = {"format": STATE_FORMAT, "version": STATE_VERSION, **self.__dict__}
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(path)

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> "State":
        """Read the state of the run with this fingerprint.

        Raises:
            ResumeError: no whole state file, or that of another run.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != STATE_FORMAT or content.pop("version") != STATE_VERSION:
                raise ResumeError(f"{path} is no state file of this version; delete it to start anew")
            state = cls(**content)
        except (OSError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ResumeError(f"{path} is no whole state file ({error}); delete it to start anew") from error
        if state.fingerprint != fingerprint:
            raise ResumeError(
                f"{path} belongs to a run with another model, facts or settings; delete it, or write to another folder"
            )
        return state


@dataclass(frozen=True, slots=True)
class Progress:
    """What a progress bar shows."""

    done: int
    total: int
    kept: int
    nll: float


@dataclass(frozen=True)
class Traversal:
    """ACDC's order over a graph: for each receiver, its candidates' positions in one long list of edges."""

    graph: Graph
    edges: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        edges = tuple(
            (writer, reader)
            for reader in reversed(range(len(self.graph.readers)))
            for writer in reversed(range(self.graph.upstream[reader]))
        )
        object.__setattr__(self, "edges", edges)

    def receivers(self) -> Iterator[tuple[int, int, int]]:
        """(reader, first, end): its candidates are ``edges[first:end]``."""
        first = 0
        for reader in reversed(range(len(self.graph.readers))):
            end = first + self.graph.upstream[reader]
            yield reader, first, end
            first = end


def acdc(
    engine: Engine,
    *,
    tau: float,
    absolute: bool = False,
    per_token: Callable[[np.ndarray], float] = lambda nll: float(nll.mean()),
    provenance: Provenance,
    state: State | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> tuple[Scores, State]:
    """Scores of the edges that ACDC tried; ``scores.above(tau)`` is its circuit.

    Args:
        engine: bound to the facts and the ablation.
        tau: the threshold in nats. Larger keeps fewer edges.
        absolute: compare the magnitude of S, so that edges whose removal helps the answer (suppressive ones) stay too.
        per_token: facts' NLL to the one number compared; the mean by default.
        provenance: what is written into the result.
        state: continue this search (of the same engine and settings).
        progress: called after every batch of decisions.

    Raises:
        Interrupted: on Ctrl-C; it carries the state to continue from.
    """
    graph = engine.graph
    walk = Traversal(graph)
    total = len(walk.edges)
    if state is None:
        state = State(fingerprint(provenance), [True] * total, [None] * total)
        state.nll = per_token(engine.nll(graph.legal))
        state.evaluations = 1
    kept = graph.legal.copy()
    for (writer, reader), still in zip(walk.edges, state.kept, strict=True):
        kept[writer, reader] = still
    try:
        for reader, first, end in walk.receivers():
            if state.decided >= end:
                continue
            if not _is_read(graph, kept, reader):
                kept[:, reader] = False
                state.kept[first:end] = [False] * (end - first)
                state.decided = end
            while state.decided < end:
                _decide_some(engine, walk, kept, state, reader, end, tau, absolute, per_token)
                progress(Progress(state.decided, total, int(kept.sum()), state.nll))
            progress(Progress(state.decided, total, int(kept.sum()), state.nll))
    except KeyboardInterrupt:
        raise Interrupted(state) from None
    values = np.full(graph.legal.shape, np.nan)
    for (writer, reader), score in zip(walk.edges, state.scores, strict=True):
        values[writer, reader] = np.nan if score is None else score
    return Scores(graph, values, provenance), state


def _is_read(graph: Graph, kept: Bool[np.ndarray, "writer reader"], reader: int) -> bool:
    """Whether any kept edge leaves the reader's node."""
    node = graph.readers[reader].node
    return node.kind == "logits" or bool(kept[graph.writer_index(node)].any())


def _decide_some(
    engine: Engine,
    walk: Traversal,
    kept: Bool[np.ndarray, "writer reader"],
    state: State,
    reader: int,
    end: int,
    tau: float,
    absolute: bool,
    per_token: Callable[[np.ndarray], float],
) -> None:
    """Decide the next candidates of one receiver: as many as one call of the engine settles, at least one.

    Variant j of the call has the first j + 1 undecided candidates removed. The steps stand as long as each stays under
    tau; the first that does not is the edge to keep, and what comes after it is asked anew.
    """
    width = min(engine.width, end - state.decided)
    candidates = [walk.edges[state.decided + j][0] for j in range(width)]
    nlls = engine.nll_without(kept, reader, [candidates[: j + 1] for j in range(width)])
    for writer, nll in zip(candidates, nlls, strict=True):
        after = per_token(nll)
        score = after - state.nll
        strength = abs(score) if absolute else score
        state.near_ties += abs(strength - tau) < NEAR_TIE
        state.scores[state.decided] = score
        remove = strength < tau
        state.kept[state.decided] = not remove
        state.decided += 1
        state.evaluations += 1
        if not remove:
            return
        kept[writer, reader] = False
        state.nll = after


def fingerprint(provenance: Provenance) -> str:
    """Digest of all that decides a search's result."""
    content = {**provenance.__dict__, "settings": dict(provenance.settings)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()


def diluted(prompt_lengths: list[int], answer_lengths: list[int]) -> Callable[[Float[np.ndarray, "fact"]], float]:
    """``compat="kc"``: the published code's metric, whose mean runs over *all* predicted positions.

    Its answer positions' NLL is divided by the length of the longest padded prompt, so that the effective tau grows with it.
    """
    longest = max(p + a for p, a in zip(prompt_lengths, answer_lengths, strict=True)) - 1

    def mean(nll: Float[np.ndarray, "fact"]) -> float:
        return float((nll * np.array(answer_lengths)).mean() / longest)

    return mean

"""The decisions of an ACDC search under way: batch after batch, with a mark every so many.

Where the engine runs many variants at once, the candidates of a whole depth are tried along the path that is expected
(`circuits.discovery.speculation`); else one receiver's, as long as all of them go.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from circuits.discovery.averages import Average
from circuits.discovery.speculation import Width, cuts, expected_path, measured_shifts, shift_of
from circuits.discovery.state import Guesses, Mark, State
from circuits.discovery.traversal import Traversal
from circuits.engines.engine import Engine, WideEngine
from circuits.graph import Graph
from circuits.metrics import log_odds

BATCHES = 100
"""Batches from one mark to the next, where the engine carries values over from batch to batch and has to forget them there."""


def forget(engine: Engine) -> None:
    if isinstance(engine, WideEngine):
        engine.forget()


def recalled(done: State) -> Float[np.ndarray, "edge"]:
    """How far each edge moved the log-odds when a finished search tried it, all facts as one; 0 where it was dropped untested."""
    tried = np.array([score is not None for score in done.scores], dtype=bool)
    scores = np.array([score or 0.0 for score in done.scores])
    went = np.where(tried & ~np.array(done.kept, dtype=bool), scores, 0.0)
    # C's NLL ends at the state's, and rose by each score of an edge that went.
    before = done.nll - went[::-1].cumsum()[::-1]
    return np.where(tried, log_odds(before + scores) - log_odds(before), 0.0)


def is_read(graph: Graph, kept: Bool[np.ndarray, "writer reader"], reader: int) -> bool:
    """Whether any kept edge leaves the reader's node."""
    node = graph.readers[reader].node
    return node.kind == "logits" or bool(kept[graph.writer_index(node)].any())


@dataclass
class Decisions:
    """A search under way: ``kept`` is C, the circuit at that moment; ``state`` records every decision."""

    walk: Traversal
    kept: Bool[np.ndarray, "writer reader"]
    state: State
    tau: float
    noise: float
    absolute: bool
    per_token: Average
    expected: Float[np.ndarray, "edge"] | None = None
    """How far each edge of the walk may move the log-odds, where that can be told beforehand (`recalled`). Only speed depends on it."""
    now: Float[np.ndarray, "fact"] | None = None
    """NLL of C on each fact, where known."""
    width: Width = field(default_factory=lambda: Width(1))
    guesses: Guesses | None = None
    """In the middle of a depth."""
    batches: int = 0
    """Since the last mark."""

    def begin(self, engine: Engine) -> None:
        """Go on from the state's mark, or set the first."""
        self.width = Width(engine.width)
        if (mark := self.state.mark) is not None:
            self.now, self.guesses = mark.now, mark.guesses and mark.guesses.copy()
            if mark.learnt is not None:
                self.width.settled, self.width.ends = mark.learnt
        self.mark(engine)

    def batch_done(self, engine: Engine) -> None:
        self.batches += 1
        if self.batches >= BATCHES or not isinstance(engine, WideEngine):
            self.mark(engine)

    def mark(self, engine: Engine) -> None:
        """From here on nothing depends on what was asked before but through the state."""
        forget(engine)
        state, guesses, learnt = self.state, self.guesses, (self.width.settled, self.width.ends)
        so_far = (state.decided, state.nll, state.evaluations, len(state.near_ties))
        state.mark = Mark(*so_far, self.now, learnt, guesses and guesses.copy())
        self.batches = 0

    def receiver(self, engine: Engine, reader: int, first: int, end: int, report: Callable[[], None]) -> None:
        """Decide one receiver's candidates, as many at once as the engine likes.

        Variant j of a call has the first j + 1 undecided candidates removed. The steps stand as long as each stays under
        tau; the first that does not is the edge to keep, and what comes after it is asked anew.
        """
        if self.state.decided < end and not is_read(self.walk.graph, self.kept, reader):
            self._drop(reader, first, end)
        while self.state.decided < end:
            width = min(engine.width, end - self.state.decided)
            candidates = [self.walk.edges[self.state.decided + j][0] for j in range(width)]
            for nll in engine.nll_without(self.kept, reader, [candidates[: j + 1] for j in range(width)]):
                if not self._decide(self.state.decided, nll):
                    break
            self.batch_done(engine)
            report()
        report()

    def depth(self, engine: WideEngine, receivers: list[tuple[int, int, int]], report: Callable[[], None]) -> None:
        """Decide all candidates of receivers at one depth in few, wide calls: see `circuits.discovery.speculation`."""
        if self.guesses is not None and self.guesses.first < receivers[0][1]:
            # Of a depth that was decided to its end.
            self.guesses = None
        begun = self.state.decided if self.guesses is None else self.guesses.first
        tried: list[int] = []
        for reader, first, end in receivers:
            if is_read(self.walk.graph, self.kept, reader):
                tried += range(max(first, begun), end)
            else:
                self._drop(reader, first, end, decided=False)
        edges = [self.walk.edges[position] for position in tried]
        if self.now is None:
            self.now = engine.nll(self.kept)
        if self.guesses is None:
            self.guesses = Guesses(begun, np.zeros((len(edges), len(self.now))), 0)
            if self.expected is not None:
                self.guesses.shifts = np.repeat(self.expected[tried][:, None], len(self.now), 1)
                self.guesses.known = len(edges)
            elif len(edges) > engine.width:
                # Where one call could try them all, it tells more than a forecast, and costs as much.
                self.guesses.shifts = shift_of(engine.forecast(self.kept, edges), self.now)
                self.guesses.known = len(edges)
        guesses, shifts = self.guesses, self.guesses.shifts
        start = sum(position < self.state.decided for position in tried)
        while start < len(tried):
            batch = slice(start, start + self.width.now)
            goes = np.ones(len(shifts[batch]), dtype=bool)
            guessed = slice(start, min(batch.stop, guesses.known))
            goes[: guesses.known - start] = expected_path(shifts[guessed], self.now, self.per_token, self._stays)
            nlls = engine.nll_cutting(self.kept, edges[batch], cuts(goes))
            shifts[batch] = measured_shifts(nlls, goes, self.now)
            guesses.known = max(guesses.known, start + len(goes))
            settled, as_guessed = 0, True
            for position, nll, went in zip(tried[batch], nlls, goes.tolist(), strict=True):
                settled += 1
                as_guessed = self._decide(position, nll) == went
                if not as_guessed:
                    break
            self.width.learn(settled, as_guessed)
            start += settled
            self.batch_done(engine)
            report()
        self.state.decided = receivers[-1][2]
        self.guesses = None
        report()

    def _stays(self, score: float) -> bool:
        return (abs(score) if self.absolute else score) >= self.tau

    def _decide(self, position: int, nll: Float[np.ndarray, "fact"]) -> bool:
        """Record one step of the search, from C's NLL to ``nll``; True if the edge goes."""
        # As Python's float: numpy's would make numpy's integers of the counts, which JSON does not write.
        state, after = self.state, float(self.per_token(nll))
        score = after - state.nll
        if abs((abs(score) if self.absolute else score) - self.tau) < self.noise:
            state.near_ties.append(self.walk.graph.edge_name(*self.walk.edges[position]))
        state.scores[position] = score
        goes = not self._stays(score)
        state.kept[position] = not goes
        state.decided = position + 1
        state.evaluations += 1
        if goes:
            writer, reader = self.walk.edges[position]
            self.kept[writer, reader] = False
            state.nll, self.now = after, nll
        return goes

    def drop_unread(self) -> None:
        """Every undecided receiver that nothing reads any more loses its edges, as it would when its turn comes."""
        for reader, first, end in self.walk.receivers():
            if first >= self.state.decided and not is_read(self.walk.graph, self.kept, reader):
                self._drop(reader, first, end, decided=False)

    def _drop(self, reader: int, first: int, end: int, *, decided: bool = True) -> None:
        """A receiver that nothing reads loses its edges untested."""
        self.kept[:, reader] = False
        self.state.kept[first:end] = [False] * (end - first)
        if decided:
            self.state.decided = end

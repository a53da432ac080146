"""ACDC: try every edge once, from the logits back, and keep those whose removal costs more than tau.

Conmy et al. 2023, "Towards Automated Circuit Discovery", as paper 2 (section 2.2) uses it. With C the circuit at that
moment, an edge scores S(e) = NLL(C without e) - NLL(C) and is removed if S < tau. (Paper 2's Eq. 1 prints a sum; it is a
difference.) Receivers come in reverse topological order: logits, then from the last layer to the first its MLP and its heads from the
last, each head's slots in the order v, k, q; senders from the latest to ``input``. A receiver whose node has no
kept outgoing edge loses all its incoming edges untested.

The order is part of the specification: the same inputs give the same circuit.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from circuits.circuit import Provenance, Scores
from circuits.discovery.averages import Average, diluted, mean
from circuits.discovery.budget import Enough
from circuits.discovery.decisions import Decisions, forget, recalled
from circuits.discovery.method import DiscoveryMethod, Report
from circuits.discovery.problem import Problem, Progress
from circuits.discovery.state import Interrupted, State, fingerprint
from circuits.discovery.traversal import Traversal
from circuits.engines.engine import Engine, WideEngine

RESOLUTION = 10.0
"""The smallest threshold, in units of the engine's noise: below it, rounding would keep edges."""


class NoiseError(ValueError):
    """A threshold so small that rounding would decide; the message says what can be resolved."""


@dataclass(frozen=True, slots=True)
class AcdcOptions:
    """``tau`` is the threshold in nats: larger keeps fewer edges; the default is paper 2's. With ``absolute`` the magnitude
    of S is compared, so that edges whose removal helps the answer (suppressive ones) stay too. ``compat="kc"`` is the
    published code's metric: `diluted` (`search` and `sweep`, which know no tokens, are given it as ``per_token``)."""

    tau: float = 0.01
    absolute: bool = False
    compat: Literal["kc"] | None = None


def search(
    engine: Engine,
    options: AcdcOptions,
    *,
    per_token: Average = mean,
    provenance: Provenance,
    walk: Traversal | None = None,
    state: State | None = None,
    expected: Float[np.ndarray, "edge"] | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    force: bool = False,
) -> tuple[Scores, State]:
    """Scores of the edges that ACDC tried, and its last state; ``scores.above(tau)`` is its circuit.

    Where ``progress`` ends the search before all is decided, the others stay: the circuit holds them, and its settings say how
    many were ``decided``. The state continues the search, to the same result as if it had not been ended.

    Args:
        engine: bound to the facts and the ablation.
        per_token: facts' NLL to the one number compared; the mean by default.
        provenance: what is written into the result.
        walk: the edges to try, in order, with all others ablated from the start; by default all, in ACDC's order. The
            provenance's settings must tell of another.
        state: continue this search (of the same engine and settings).
        expected: how far each edge of the walk may move the log-odds, as `recalled` tells of a like search; only speed depends on it.
        progress: called after every batch of decisions; raises `Enough` to have what is decided so far.
        force: search even below what rounding lets be told apart.

    Raises:
        NoiseError: tau is less than `RESOLUTION` times the engine's noise.
        Interrupted: on Ctrl-C; it carries the state to continue from.
    """
    graph, walk = engine.graph, walk or Traversal(engine.graph)
    noise = _noise(engine, per_token)
    if not force:
        require_resolvable(noise, options.tau, engine)
    total = len(walk.edges)
    kept = np.zeros_like(graph.legal)
    writers, readers = np.array(walk.edges, dtype=int).reshape(-1, 2).T
    forget(engine)
    if state is None:
        state = State(fingerprint(provenance), [True] * total, [None] * total)
        kept[writers, readers] = True
        state.nll = float(per_token(engine.nll(kept)))
        state.evaluations = 1
    state.rewind()
    kept[writers, readers] = state.kept
    search = Decisions(walk, kept, state, options.tau, noise, options.absolute, per_token, expected)
    search.begin(engine)

    def report() -> None:
        progress(Progress(state.decided, total, int(kept.sum()), state.nll, state))

    try:
        for receivers in walk.depths():
            if state.decided >= receivers[-1][2]:
                continue
            if isinstance(engine, WideEngine):
                search.depth(engine, receivers, report)
            else:
                for reader, first, end in receivers:
                    search.receiver(engine, reader, first, end, report)
        search.mark(engine)
        report()
    except KeyboardInterrupt:
        state.rewind()
        raise Interrupted(state) from None
    except Enough:
        search.drop_unread()
    values = np.full(graph.legal.shape, np.nan)
    values[writers, readers] = [np.nan if score is None else score for score in state.scores]
    if state.finished:
        return Scores(graph, values, provenance), state
    kept[writers[: state.decided], readers[: state.decided]] = False
    decided = {"decided": total - int(kept.sum()), "to_decide": total}
    so_far = replace(provenance, settings={**provenance.settings, **decided})
    return Scores(graph, values, so_far, undecided=kept), state


def _acdc(problem: Problem, options: AcdcOptions, report: Report) -> Float[np.ndarray, "writer reader"]:
    provenance = acdc.provenance(problem, options)
    return next(_sweep(problem, options, (options.tau,), provenance=lambda _: provenance, report=report))[1].values


def _sweep(
    problem: Problem,
    options: AcdcOptions,
    taus: Sequence[float],
    *,
    provenance: Callable[[float], Provenance],
    candidates: Bool[np.ndarray, "writer reader"] | None = None,
    reverse_senders: bool = False,
    resume: Callable[[float], State | None] = lambda tau: None,
    report: Report = lambda _: None,
    force: bool = False,
) -> Iterator[tuple[float, Scores, State]]:
    tokens = [problem.model.tokens(fact) for fact in problem.facts]
    published = diluted([len(t.prompt) for t in tokens], [len(t.answer) for t in tokens])
    return sweep(
        problem.engine,
        taus,
        absolute=options.absolute,
        per_token=published if options.compat else mean,
        walk=Traversal(problem.graph, reverse_senders=reverse_senders, candidates=candidates),
        provenance=provenance,
        resume=resume,
        progress=report,
        force=force,
    )


acdc = DiscoveryMethod(
    "acdc",
    _acdc,
    AcdcOptions,
    "the rise of the answer’s negative log-likelihood when the edge was cut from the circuit of that moment",
    by_cutting=True,
    sweep=_sweep,
)


def _noise(engine: Engine, per_token: Average) -> float:
    """The engine's noise in units of what is compared with tau."""
    facts = len(engine.facts)
    return engine.noise() * (per_token(np.ones(facts)) - per_token(np.zeros(facts)))


def require_resolvable(noise: float, tau: float, engine: Engine) -> None:
    """Refuse a threshold at which rounding would keep edges.

    Raises:
        NoiseError: tau is closer to 0 than `RESOLUTION` times the noise.
    """
    if abs(tau) < RESOLUTION * noise:
        raise NoiseError(
            f"tau is {tau:g}, and rounding alone moves what is measured by {noise:.2g} ({engine.name} in {engine.precision}): "
            f"decisions can be told from chance from tau {RESOLUTION * noise:.2g} on. Take a larger tau, or compute in "
            "float32 if this is a shorter type; `kcircuit discover --force` searches all the same"
        )


def sweep(
    engine: Engine,
    taus: Sequence[float],
    *,
    absolute: bool = False,
    provenance: Callable[[float], Provenance],
    per_token: Average = mean,
    walk: Traversal | None = None,
    resume: Callable[[float], State | None] = lambda tau: None,
    progress: Callable[[Progress], None] = lambda _: None,
    force: bool = False,
) -> Iterator[tuple[float, Scores, State]]:
    """`search` for each tau in rising order, on one engine: clean values are computed once, shared first decisions not retaken,
    and what edges did at one tau is what is expected of them at the next.

    The same results as one search a tau, up to the engine's rounding. ``resume`` gives the state of an interrupted search.
    """
    done, walk = None, walk or Traversal(engine.graph)
    for tau in sorted(taus):
        origin = provenance(tau)
        state = resume(tau)
        if state is None and done is not None and done.finished:
            state = _shared(engine, walk, done, tau, absolute, per_token, fingerprint(origin))
        scores, done = search(
            engine,
            AcdcOptions(tau, absolute),
            per_token=per_token,
            provenance=origin,
            walk=walk,
            state=state,
            expected=recalled(done) if done is not None and done.finished else None,
            progress=progress,
            force=force,
        )
        yield tau, scores, done


def _shared(
    engine: Engine,
    walk: Traversal,
    done: State,
    tau: float,
    absolute: bool,
    per_token: Average,
    fingerprint: str,
) -> State:
    """A finished search's decisions for another tau: all up to the first that falls the other way, and that one."""
    state = State(fingerprint, [True] * len(done.scores), [None] * len(done.scores), evaluations=1)
    noise = _noise(engine, per_token)
    for position, (score, kept) in enumerate(zip(done.scores, done.kept, strict=True)):
        state.kept[position], state.scores[position], state.decided = kept, score, position + 1
        if score is None:
            continue
        strength = abs(score) if absolute else score
        state.evaluations += 1
        if abs(strength - tau) < noise:
            state.near_ties.append(engine.graph.edge_name(*walk.edges[position]))
        state.kept[position] = strength >= tau
        if state.kept[position] != kept:
            break
    circuit = np.zeros_like(engine.graph.legal)
    writers, readers = np.array(walk.edges, dtype=int).reshape(-1, 2).T
    circuit[writers, readers] = state.kept
    forget(engine)
    state.nll = per_token(engine.nll(circuit))
    return state

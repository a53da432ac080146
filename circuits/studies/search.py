"""One search for a circuit, as a spec asks for it: its model, its engine, its problem, and the edges that are kept."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from pydantic import BaseModel, ConfigDict

from circuits.circuit import Circuit, Provenance, Scores
from circuits.datasets import corrupted as corruption
from circuits.datasets.objects import metric_for
from circuits.discovery import find_method, prefilter
from circuits.discovery.budget import Budget, Meter
from circuits.discovery.problem import Problem, Progress
from circuits.discovery.state import Interrupted, ResumeError, Saves, State, fingerprint
from circuits.engines import Ablation, Engine, make_engine
from circuits.evaluation import KNOWN_RANK, Answers
from circuits.facts import Fact, Relations
from circuits.model import Model
from circuits.studies.loading import load_named
from circuits.studies.specs import DEFAULT_EDGES, RunSpec
from circuits.studies.study import Watch


class UnknownFactError(ValueError):
    """A circuit was asked for a fact that the model does not recall."""


class Prefiltered(BaseModel):
    """What a prefilter did to a search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    candidates: int
    """Edges that it let through."""
    nll_start: float | None = None
    """NLL with these alone, where the search begins, in nats; mean over the facts."""
    loss: prefilter.Loss | None = None
    """Measured only if asked for: it takes the full search."""


class Unfinished(BaseModel):
    """How far a search was that its budget ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: str
    decided: int
    to_decide: int

    def __str__(self) -> str:
        return f"stopped at its budget of {self.budget}: {self.decided:,} of {self.to_decide:,} edges decided"


def unfinished(circuit: Circuit, budget: Budget | None) -> Unfinished | None:
    """None where all of the circuit's edges were decided."""
    settings = circuit.provenance.settings
    if budget is None or "decided" not in settings:
        return None
    return Unfinished.model_validate(
        {"budget": budget.text, "decided": settings["decided"], "to_decide": settings["to_decide"]}
    )


def search(spec: RunSpec, relations: Relations, model: Model, watch: Watch | None = None) -> Circuit:
    """The circuit of `run` alone, for callers that search many: nothing is measured or read beside it.

    Whether the model recalls the facts is not asked either: what it says wrongly has a circuit too.

    Args:
        watch: told how far the search is. Where it has a folder, the circuit stays there, under the digest of all that decides
            it, and the same search is not done twice; one that was stopped goes on.

    Raises:
        circuits.discovery.state.Interrupted: on Ctrl-C.
    """
    watch, provenance = watch or Watch(), provenance_of(spec, model)
    asked, state = fingerprint(provenance), state_in(watch, spec, model)
    file = None if state is None else state.with_suffix(".json")
    if file is not None and file.exists():
        return Circuit.load(file, weights=model.weights)
    engine = engine_for(spec, spec.built_from, relations, model)
    saves = Saves(lambda _: state, lambda _: asked, watch.notice)
    found = searches(spec, (spec.tau,), relations, model, engine, lambda _: provenance, saves, shown(watch))
    try:
        _, circuit, _, _ = next(found)
    except Interrupted as stop:
        if state is not None:
            state.parent.mkdir(parents=True, exist_ok=True)
            stop.state.save(state)
        raise
    if file is not None and state is not None:
        circuit.save(file)
        state.unlink(missing_ok=True)
    return Circuit.from_json(circuit.to_json())


def state_in(watch: Watch, spec: RunSpec, model: Model) -> Path | None:
    """Where in a folder of many searches the state of this one is kept. One that is damaged is gone: no one is there to delete it."""
    if watch.searches is None:
        return None
    asked = fingerprint(provenance_of(spec, model))
    file = watch.searches / f"{asked}.state"
    try:
        Saves(lambda _: file, lambda _: asked).resume(spec.tau)
    except ResumeError as why:
        watch.notice(f"a search is begun anew: {why}")
        file.unlink(missing_ok=True)
    return file


def shown(watch: Watch) -> Callable[[Progress], None]:
    """Tells whoever watches of each batch of edges."""
    return lambda now: watch.progress(now.done, now.total, f"{now.kept:,} kept, NLL {now.nll:.4f} nats")


Found = tuple[float, Circuit, State, Prefiltered | None]
"""(tau, the circuit, the search's last state, what a prefilter did) at one threshold."""


def searches(
    spec: RunSpec,
    taus: Sequence[float],
    relations: Relations,
    model: Model,
    engine: Engine,
    provenance: Callable[[float], Provenance],
    saves: Saves,
    progress: Callable[[Progress], None],
    budget: Budget | None = None,
) -> Iterator[Found]:
    """The circuit at each threshold, in rising order, by the method that ``spec`` names.

    Args:
        budget: of each threshold's search; a method that scores all edges at once has no circuit before it is done.
    """
    problem = problem_of(spec, relations, model, engine)
    if not find_method(spec.method).has_threshold:
        return _scored(spec, taus, problem, provenance, progress)
    meter = None if budget is None else Meter(budget, lambda: engine.evaluations)
    return _searched(spec, taus, problem, provenance, saves, progress, meter)


def problem_of(spec: RunSpec, relations: Relations, model: Model, engine: Engine) -> Problem:
    """What a method is given, whose engine is at hand."""
    return Problem(
        model,
        spec.built_from,
        ablation_for(spec, spec.built_from, relations, model),
        spec.granularity,
        metric_for(spec.metric, spec.built_from, relations, model),
        given=engine,
    )


def _searched(
    spec: RunSpec,
    taus: Sequence[float],
    problem: Problem,
    provenance: Callable[[float], Provenance],
    saves: Saves,
    progress: Callable[[Progress], None],
    meter: Meter | None,
) -> Iterator[Found]:
    """The circuit at each threshold, among the edges that the prefilter lets through, if there is one."""
    candidates, prefiltered, method = None, None, find_method(spec.method)
    assert method.sweep is not None
    options = spec.options_of(method)
    if spec.prefilter is not None:
        scores = _scores(spec.prefilter, spec, problem, provenance(spec.tau), progress)
        candidates = prefilter.candidates(scores, spec.keep or prefilter.KEEP)
        begins = prefilter.start(problem.engine, candidates, problem.model.network.d_vocab)
        if not spec.force:
            prefilter.require_alive(begins, spec.prefilter, spec.keep or prefilter.KEEP)
        prefiltered = Prefiltered(method=spec.prefilter, candidates=int(candidates.sum()), nll_start=begins.nll)

    def begun(tau: float) -> State | None:
        if meter is not None:
            meter.begin()
        return saves.resume(tau)

    def saved(now: Progress) -> None:
        if now.state is not None:
            saves.note(now.state)
        progress(now)
        if meter is not None:
            meter.note()

    for tau, scores, state in method.sweep(
        problem,
        options,
        taus,
        provenance=provenance,
        candidates=candidates,
        resume=begun,
        report=saved,
        force=spec.force,
    ):
        circuit = scores.above(tau, absolute=spec.absolute)
        if prefiltered is not None and candidates is not None and spec.prefilter_check and state.finished:
            try:
                alone = method.sweep(problem, options, (tau,), provenance=provenance, report=progress, force=spec.force)
                _, full, _ = next(alone)
            except Interrupted:
                # Its state is another search's than the one that would be continued.
                raise KeyboardInterrupt from None
            loss = prefilter.compare(full.above(tau, absolute=spec.absolute), circuit, candidates)
            prefiltered = prefiltered.model_copy(update={"loss": loss})
        yield tau, circuit, state, prefiltered


def _scored(
    spec: RunSpec,
    taus: Sequence[float],
    problem: Problem,
    provenance: Callable[[float], Provenance],
    progress: Callable[[Progress], None],
) -> Iterator[Found]:
    """The best edges of a method that scores them all: the same at each threshold, for it has none."""
    before = problem.engine.evaluations
    scores = _scores(spec.method, spec, problem, provenance(spec.tau), progress)
    n = prefilter.n_edges(spec.edges or DEFAULT_EDGES, scores.graph.n_edges)
    circuit = scores.connected(n, absolute=spec.absolute)
    done = State("", [], [], evaluations=problem.engine.evaluations - before)
    for tau in sorted(taus):
        yield tau, circuit, done, None


def _scores(
    method: str, spec: RunSpec, problem: Problem, provenance: Provenance, progress: Callable[[Progress], None]
) -> Scores:
    found = find_method(method)
    return found(problem, spec.options_of(found), provenance=provenance, report=progress)


def spec_digest(spec: RunSpec) -> str:
    """Twelve hexadecimal digits that tell this spec from others."""
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:12]


def load_model(spec: RunSpec) -> Model:
    """The model that ``spec`` asks for.

    Raises:
        circuits.model.device.DeviceError: no such device.
    """
    return load_named(spec.model, spec.device, spec.dtype, spec.processing)


_SHARED: WeakValueDictionary[tuple[object, ...], Model] = WeakValueDictionary()
"""What `shared_model` loaded and someone still holds."""


def shared_model(spec: RunSpec) -> Model:
    """As `load_model`; one that was loaded here before and is still in use is not loaded again."""
    asked = spec.model, spec.device, spec.dtype, spec.processing
    model = _SHARED.get(asked) or load_model(spec)
    _SHARED[asked] = model
    return model


def require_known(model: Model, facts: tuple[Fact, ...], answers: Answers) -> None:
    """A circuit says how a fact is recalled, so the fact must be: its rank is at most `KNOWN_RANK`."""
    for fact, rank in zip(facts, answers.rank.per_example, strict=True):
        if rank > KNOWN_RANK:
            raise UnknownFactError(
                f"{model.name} does not know this: in {fact.prompt!r} the answer {fact.object!r} ranks {int(rank)}, not among the "
                f"first {KNOWN_RANK}. `kcircuit facts --known` lists what it knows; --force builds the circuit all the same"
            )


def warn(line: str) -> None:
    warnings.warn(line, RuntimeWarning, stacklevel=2)


def engine_for(
    spec: RunSpec,
    facts: tuple[Fact, ...],
    relations: Relations,
    model: Model,
    max_memory: int | None = None,
    notice: Callable[[str], None] = warn,
) -> Engine:
    """The engine that ``spec`` asks for, on these facts: its ablation's prompts drawn, its model loaded."""
    return make_engine(
        spec.engine,
        model,
        facts,
        ablation=ablation_for(spec, facts, relations, model),
        granularity=spec.granularity,
        max_memory=max_memory,
        metric=metric_for(spec.metric, facts, relations, model),
        notice=notice,
    )


def ablation_for(spec: RunSpec, facts: tuple[Fact, ...], relations: Relations, model: Model) -> Ablation:
    """The ablation that ``spec`` asks for, with the other prompts that these facts need for it.

    Raises:
        circuits.datasets.corrupted.CorruptionError: there are none.
    """
    match spec.ablation:
        case "zero":
            return Ablation("zero")
        case "mean":
            return Ablation("mean", reference=corruption.reference(facts, relations))
        case "resample":
            return Ablation("resample", corrupted=corruption.donors(facts, relations, model, spec.seed))


def provenance_of(spec: RunSpec, model: Model) -> Provenance:
    return Provenance(
        model=spec.model,
        weights=model.weights,
        processing=model.processing,
        method=spec.method,
        settings=spec.settings,
        seed=spec.seed,
        facts=tuple(str(fact) for fact in spec.built_from),
    )

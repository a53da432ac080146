"""From a spec to its runs, the story of a search in order: check that the model knows the facts, search the circuit, rebuild it
and run it alone, read it through the lens, certify it."""

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import circuits
from circuits.analysis.attention import PromptAttention, read_attention
from circuits.analysis.lens import read_circuit, trajectory
from circuits.circuit import Circuit, Provenance
from circuits.discovery import find_method
from circuits.discovery.state import Interrupted, Saves, State, fingerprint
from circuits.engines import Engine
from circuits.engines.memory import TooLargeError
from circuits.engines.sparse import SparseEngine
from circuits.evaluation import standalone, whole_model
from circuits.evaluation.certificate import Certificate, certify
from circuits.evaluation.roles import read_known_fact
from circuits.facts import Fact, Relations
from circuits.model import Model
from circuits.model.transformer import UnsupportedArchitecture
from circuits.studies import subjects
from circuits.studies.run import Run
from circuits.studies.search import (
    Found,
    engine_for,
    load_model,
    provenance_of,
    require_known,
    searches,
    shown,
    unfinished,
    warn,
)
from circuits.studies.specs import RunSpec
from circuits.studies.study import Watch

CERTIFIED_ALONE = 4 + 2 * 20 + subjects.N_SUBJECTS
"""Passes of a circuit alone that a run of one fact and its quick certificate take: its own, the model's, the rest's, random ones."""
PAGE = 1.5
"""Seconds that writing a run and its page takes on one core; most of them go into packing the plots' script."""
NAMED = 20
"""Near ties that a run names."""


class Saved(Interrupted):
    """A search that was stopped; whoever asks for it again goes on from ``file``."""

    def __init__(self, state: State, file: Path) -> None:
        super().__init__(state)
        self.file = file

    def __str__(self) -> str:
        return (
            f"{super().__str__()}. Saved to {self.file}: run the same command again to continue, or delete the file to "
            "start anew"
        )


def run(
    spec: RunSpec,
    relations: Relations,
    *,
    model: Model | None = None,
    state_file: Path | None = None,
    max_memory: int | None = None,
    read: bool = False,
    certified: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Do what ``spec`` asks: `run_sweep` at one threshold. `discover` does the same from a sentence.

    Args:
        spec: what is asked; the threshold ``tau`` in nats.
        relations: where mean and resample ablation find other subjects, and roles other facts.
        model: the loaded ``spec.model``, if the caller has it already.
        state_file: a search that was interrupted is continued from this file, if it exists.
        max_memory: bytes that the fast engine may use; what is free, by default.
        read: tell what heads and MLPs do for the first fact too.
        certified: certify the circuit of a single fact.
        watch: as of `run_sweep`.

    Returns:
        The circuit with all that was measured of it, and no live model.

    Raises:
        UnknownFactError: the model does not recall a fact, and ``spec.force`` is off; and what `run_sweep` raises.
    """
    runs = run_sweep(
        spec,
        (spec.tau,),
        relations,
        model=model,
        state_file=lambda tau: state_file,
        max_memory=max_memory,
        read=read,
        certified=certified,
        watch=watch,
    )
    return next(runs)


def run_sweep(
    spec: RunSpec,
    taus: Sequence[float],
    relations: Relations,
    *,
    model: Model | None = None,
    state_file: Callable[[float], Path | None] = lambda tau: None,
    max_memory: int | None = None,
    read: bool = False,
    certified: bool = False,
    watch: Watch | None = None,
) -> Iterator[Run]:
    """One run for each threshold, in rising order; they share the model's clean values and what decisions they can.

    Args:
        relations: where mean and resample ablation find other subjects.
        model: the loaded ``spec.model``, if the caller has it already.
        state_file: the search is saved there as it goes, and continued from there if the file exists. Whoever has the
            run deletes it.
        max_memory: bytes that the fast engine may use; what is free, by default.
        read: tell what heads and MLPs do for the first fact too.
        certified: certify each circuit, where it is of a single fact.
        watch: told, in a line, what the search and what follows it will need, and of a fallback to the slow engine;
            and how far it is, as edges are decided. Without one the fallback is a warning. Its budget ends each threshold's
            search; the run says so, and the same call with the same state file goes on.

    Raises:
        UnknownFactError: the model does not recall a fact, and ``spec.force`` is off.
        circuits.discovery.prefilter.DestroyedError: with the prefilter's candidates alone the answer is gone, and
            ``spec.force`` is off.
        circuits.discovery.acdc.NoiseError: rounding would decide at this tau, and ``spec.force`` is off.
        circuits.engines.memory.TooLargeError: the search does not fit into ``max_memory``.
        circuits.discovery.state.Interrupted: on Ctrl-C; it is `Saved` where there is a state file.
    """
    watched, watch = watch is not None, watch or Watch(warn)
    notice = watch.notice
    model = model or load_model(spec)
    model_answers = whole_model(model, spec.facts)
    if not spec.force:
        require_known(model, spec.facts, model_answers)
    engine = engine_for(spec, spec.built_from, relations, model, max_memory, notice)
    answering = engine_for(spec, spec.facts, relations, model, max_memory, notice) if spec.siblings else engine
    test_engine, model_test = None, None
    if spec.test_facts:
        test_engine = engine_for(spec, spec.test_facts, relations, model, max_memory, notice)
        model_test = whole_model(model, spec.test_facts)

    def provenance(tau: float) -> Provenance:
        return provenance_of(spec.model_copy(update={"tau": tau}), model)

    saves = Saves(state_file, lambda tau: fingerprint(provenance(tau)), notice)
    # The whole model's, so the same for every threshold.
    path = trajectory(model, spec.facts[0])
    began = time.perf_counter()
    empty = standalone(model, answering, Circuit.empty(engine.graph, provenance(spec.tau)), spec.facts)
    alone = time.perf_counter() - began
    reading = read_known_fact(model, spec.facts[0], relations, seed=spec.seed) if read else None
    if isinstance(engine, SparseEngine) and watched:
        afterwards = len(taus) * (PAGE + (CERTIFIED_ALONE * alone if certified and len(spec.facts) == 1 else 0.0))
        watch.notice(f"before the search: {replace(engine.estimate(), afterwards=afterwards)}")
    certify_one = certifier(spec, relations, model, max_memory, notice)
    found = searches(spec, taus, relations, model, engine, provenance, saves, shown(watch), watch.budget)
    for tau, searched, state, prefiltered in _saved(found, sorted(taus), state_file):
        # Rebuilt from its own saved form, so that what is measured is what the file says.
        circuit = Circuit.from_json(searched.to_json())
        yield Run(
            spec=spec.model_copy(update={"tau": tau}),
            circuit_json=circuit.to_json(),
            model_answers=model_answers,
            circuit_answers=standalone(model, answering, circuit, spec.facts),
            model_test_answers=model_test,
            circuit_test_answers=standalone(model, test_engine, circuit, spec.test_facts) if test_engine else None,
            readouts=read_circuit(model, spec.facts[0], circuit),
            trajectory=path,
            engine=engine.name,
            evaluations=state.evaluations,
            near_ties=len(state.near_ties),
            near_tie_edges=tuple(state.near_ties[:NAMED]),
            noise=engine.noise() if find_method(spec.method).has_threshold else None,
            empty_answers=empty,
            prefiltered=prefiltered,
            unfinished=unfinished(circuit, watch.budget),
            reading=reading,
            certificate=certify_one(circuit) if certified else None,
            attention=_attention(model, spec.facts[0], circuit),
            bos=model.bos,
            quantisation=model.quantisation,
            versions=_versions(),
        )


def _saved(
    found: Iterator[Found], taus: Sequence[float], state_file: Callable[[float], Path | None]
) -> Iterator[Found]:
    """The same. A search that is stopped is saved first, where it has a file."""
    for tau in taus:
        try:
            one = next(found)
        except Interrupted as stop:
            if (file := state_file(tau)) is None:
                raise
            file.parent.mkdir(parents=True, exist_ok=True)
            stop.state.save(file)
            raise Saved(stop.state, file) from None
        yield one


def certifier(
    spec: RunSpec,
    relations: Relations,
    model: Model,
    max_memory: int | None = None,
    notice: Callable[[str], None] = warn,
) -> Callable[[Circuit], Certificate | None]:
    """Gives the quick certificate of a single fact's circuit, beside the other subjects that `circuits.studies.subjects.asked`
    draws: the same for each circuit, and drawn with the first.

    None for several facts, and where the engine of the other subjects does not fit into memory, which is said. A fact of no
    relation has no other subjects: its specificity is undecided.
    """
    fact, *more = spec.facts
    drawn = cache(lambda: subjects.asked(fact, spec.built_from, relations, model, spec.seed))

    def engine(facts: Sequence[Fact]) -> Engine:
        return engine_for(spec, tuple(facts), relations, model, max_memory, lambda _: None)

    def certificate(circuit: Circuit) -> Certificate | None:
        if more:
            return None
        try:
            return certify(model, engine, circuit, fact, drawn(), seed=spec.seed)
        except TooLargeError as error:
            notice(f"no certificate, for want of memory: beside {len(drawn())} other subjects {error}")
            return None

    return certificate


def _attention(model: Model, fact: Fact, circuit: Circuit) -> PromptAttention | None:
    try:
        return read_attention(model, fact, [node for node in circuit.nodes if node.kind == "head"])
    except UnsupportedArchitecture:
        return None


def _versions() -> dict[str, str]:
    packages = ("torch", "transformer-lens", "transformers")
    return {
        "kcircuit": circuits.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }

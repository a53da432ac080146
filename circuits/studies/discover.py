"""The main job: a RunSpec says what is asked, `run` answers it, and the Run that comes back holds no live model.

The story, in order: read the facts, check that the model knows them, search the circuit, rebuild it and run it alone, read it
through the lens.
"""

import hashlib
import html
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

import circuits
from circuits.analysis.attention import PromptAttention, read_attention
from circuits.analysis.lens import NodeReadout, Trajectory, read_circuit, trajectory
from circuits.analysis.reading import Reading
from circuits.analysis.roles import Role
from circuits.analysis.story import Sentence, tell
from circuits.choices import counted
from circuits.circuit import Circuit, Provenance, Scores
from circuits.datasets import corrupted as corruption
from circuits.datasets.objects import metric_for
from circuits.discovery import find_method, prefilter
from circuits.discovery.problem import Problem, Progress
from circuits.discovery.state import Interrupted, Saves, State, fingerprint
from circuits.engines import Ablation, Engine, make_engine
from circuits.engines.memory import TooLargeError
from circuits.engines.sparse import SparseEngine
from circuits.evaluation import KNOWN_RANK, Answers, standalone, whole_model
from circuits.evaluation.certificate import Certificate, certify
from circuits.evaluation.lines import Line
from circuits.evaluation.roles import read_known_fact
from circuits.facts import Fact, Relations
from circuits.graph import Node
from circuits.metrics import Measurement
from circuits.model import Model
from circuits.model.transformer import UnsupportedArchitecture
from circuits.records import write_whole
from circuits.studies import subjects
from circuits.studies.options import command
from circuits.studies.specs import DEFAULT_EDGES, RunSpec

RUN_FILE = "run.json"
CIRCUIT_FILE = "circuit.json"
NAMED = 20
"""Near ties that a run names."""


class UnknownFactError(ValueError):
    """A circuit was asked for a fact that the model does not recall."""


class RunFileError(ValueError):
    """A saved run that cannot be read."""


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


class Run(BaseModel):
    """What came back: everything that a report shows, and no model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["kcircuit/run"] = "kcircuit/run"
    version: Literal[1] = 1
    spec: RunSpec
    circuit_json: dict[str, Any]
    model_answers: Answers
    circuit_answers: Answers
    model_test_answers: Answers | None = None
    circuit_test_answers: Answers | None = None
    readouts: tuple[NodeReadout, ...]
    """The lens on every node of the circuit, for the first fact."""
    trajectory: Trajectory
    """The first fact's answer in the residual stream of the whole model."""
    engine: str
    evaluations: int
    near_ties: int
    """Steps of the search that rounding may have decided: closer to tau than ``noise``."""
    near_tie_edges: tuple[str, ...] = ()
    """The first few of them."""
    noise: float | None = None
    """How far rounding may move the NLL, in nats, as the engine measured it; None where nothing was searched."""
    empty_answers: Answers | None = None
    """With every edge ablated: what a circuit must do better than."""
    prefiltered: Prefiltered | None = None
    reading: Reading | None = None
    """What heads and MLPs do for the first fact, in the whole model; None where it was not asked for or cannot be told."""
    certificate: Certificate | None = None
    """What the circuit of a single fact is worth; None where it was not asked for, or did not fit into memory."""
    lines: tuple[Line, ...] = ()
    """The full certificate's, where `kcircuit certify` examined the run."""
    attention: PromptAttention | None = None
    """Of the circuit's heads over the first fact's prompt, in the whole model; None where the model hides its weights."""
    bos: str | None = None
    """The token that the prompts began with."""
    quantisation: str | None = None
    """What the model's weights were dequantised from."""
    versions: dict[str, str]

    @property
    def story(self) -> tuple[Sentence, ...]:
        """The first fact's way through the model, in sentences with their numbers; empty without a reading."""
        return tell(self.reading, self.circuit) if self.reading else ()

    @property
    def roles(self) -> dict[Node, Role]:
        """The heads with an established role for the first fact's relation; empty without a reading."""
        told = self.reading.roles if self.reading else None
        return {verdict.head: verdict.role for verdict in told.labelled} if told else {}

    @cached_property
    def circuit(self) -> Circuit:
        return Circuit.from_json(self.circuit_json)

    def save(self, folder: Path | str) -> None:
        """Write ``run.json`` and ``circuit.json`` into ``folder``, made if need be; each file whole."""
        folder = Path(folder)
        write_whole(folder / RUN_FILE, self.model_dump_json(indent=1) + "\n")
        self.circuit.save(folder / CIRCUIT_FILE)

    @classmethod
    def load(cls, folder: Path | str) -> "Run":
        """Read what `save` wrote.

        Raises:
            RunFileError: no run there, or not a whole one.
        """
        folder = Path(folder)
        path = folder / RUN_FILE
        try:
            saved = cls.model_validate_json(path.read_bytes())
            _ = saved.circuit
        except OSError as error:
            raise RunFileError(f"no saved run in {folder}: cannot read {path.name} ({error.strerror})") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            reason = f"{where}: {first['msg']}" if where else first["msg"]
            raise RunFileError(f"{path} is no whole run file of this version: {reason}") from error
        except ValueError as error:
            raise RunFileError(f"{path} is no whole run file: {error}") from error
        return saved

    def command(self) -> str:
        """A shell command that does this run again."""
        spec, words = self.spec, ["discover"]
        if spec.relation is None:
            words += ["--fact", str(spec.facts[0]), "--subject", spec.facts[0].subject]
        else:
            words += ["--relation", spec.relation, "--split", spec.split, "--n", str(len(spec.facts))]
        if spec.siblings:
            words += ["--siblings", str(len(spec.siblings))]
        return command(words, spec, leave_out=() if spec.method == "acdc" else ("tau",))

    def summary(self) -> dict[str, Any]:
        """The run in a few numbers. NLL in nats; ranks and hits are means over the facts."""
        circuit = self.circuit
        facts = self.spec.facts
        summary: dict[str, Any] = {
            "model": self.spec.model,
            "fact": facts[0].statement
            if self.spec.relation is None
            else f"{counted(len(facts), 'fact')} of {self.spec.relation}",
            "method": self.spec.method,
            "edges_total": circuit.graph.n_edges,
            "edges_kept": circuit.n_edges,
            "nodes_kept": len(circuit.nodes),
            "nll_model": self.model_answers.nll.value,
            "nll_circuit": self.circuit_answers.nll.value,
            "rank_model": _tidy(self.model_answers.rank),
            "rank_circuit": _tidy(self.circuit_answers.rank),
            "hit10_model": self.model_answers.hit(10).value,
            "hit10_circuit": self.circuit_answers.hit(10).value,
            "evaluations": self.evaluations,
            "engine": self.engine,
            "near_ties": self.near_ties,
            "bos": self.bos,
            "quantisation": self.quantisation,
            "noise": self.noise,
            "nll_empty": self.empty_answers and self.empty_answers.nll.value,
            "rank_empty": self.empty_answers and _tidy(self.empty_answers.rank),
        }
        if self.spec.method != "acdc":
            summary["edges_asked"] = prefilter.n_edges(self.spec.edges or DEFAULT_EDGES, circuit.graph.n_edges)
        if self.prefiltered:
            summary["prefilter"] = self.prefiltered.method
            summary["candidates"] = self.prefiltered.candidates
            summary["nll_start"] = self.prefiltered.nll_start
            if loss := self.prefiltered.loss:
                summary |= {
                    "edges_full_search": loss.full,
                    "share_filtered_out": loss.share_filtered_out,
                    "share_lost": loss.share_lost,
                    "edges_extra": loss.extra,
                }
        if self.certificate:
            summary["certificate"] = self.certificate.to_json()
        if self.model_test_answers and self.circuit_test_answers:
            summary["test_facts"] = len(self.spec.test_facts)
            summary["hit10_test_model"] = self.model_test_answers.hit(10).value
            summary["hit10_test_circuit"] = self.circuit_test_answers.hit(10).value
        return summary

    def __repr__(self) -> str:
        return f"<Run: {self}>"

    def _repr_html_(self) -> str:
        """How a notebook shows it: the sentence, the circuit as a picture, and its strongest edges."""
        # Drawing needs plotly's colours and templates, which a run itself does without.
        from circuits.pages.picture import circuit_picture

        picture = circuit_picture(self.circuit, self.readouts, self.roles)
        return f"<p>{html.escape(str(self))}</p>{picture}{self.circuit._repr_html_()}"

    def __str__(self) -> str:
        answers = "ranks the answer" if len(self.spec.facts) == 1 else "ranks the answers on average"
        return f"{self.circuit}; alone, it {answers} {_tidy(self.circuit_answers.rank)} (model: {_tidy(self.model_answers.rank)})"


def _tidy(ranks: Measurement) -> float | int:
    """A mean rank, as an integer where it is one."""
    return int(ranks.value) if ranks.value == int(ranks.value) else round(ranks.value, 3)


def run(
    spec: RunSpec,
    relations: Relations,
    *,
    model: Model | None = None,
    state_file: Path | None = None,
    max_memory: int | None = None,
    read: bool = False,
    certified: bool = False,
    notice: Callable[[str], None] | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
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
        notice: told, in a line, what the search will need.
        progress: called as edges are decided.

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
        notice=notice,
        progress=progress,
    )
    return next(runs)


def _warn(line: str) -> None:
    warnings.warn(line, RuntimeWarning, stacklevel=2)


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
    notice: Callable[[str], None] | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
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
        notice: told, in a line, what the search will need, and of a fallback to the slow engine; without it the fallback
            is a warning.
        progress: called as edges are decided.

    Raises:
        UnknownFactError: the model does not recall a fact, and ``spec.force`` is off.
        circuits.discovery.prefilter.DestroyedError: with the prefilter's candidates alone the answer is gone, and
            ``spec.force`` is off.
        circuits.discovery.acdc.NoiseError: rounding would decide at this tau, and ``spec.force`` is off.
        circuits.engines.memory.TooLargeError: the search does not fit into ``max_memory``.
        circuits.discovery.state.Interrupted: on Ctrl-C; its state can be saved to the state file.
    """
    model = model or load_model(spec)
    model_answers = whole_model(model, spec.facts)
    if not spec.force:
        require_known(model, spec.facts, model_answers)
    engine = engine_for(spec, spec.built_from, relations, model, max_memory, notice or _warn)
    answering = engine_for(spec, spec.facts, relations, model, max_memory, notice or _warn) if spec.siblings else engine
    if isinstance(engine, SparseEngine) and notice is not None:
        notice(f"before the search: {engine.estimate()}")
    test_engine, model_test = None, None
    if spec.test_facts:
        test_engine = engine_for(spec, spec.test_facts, relations, model, max_memory, notice or _warn)
        model_test = whole_model(model, spec.test_facts)

    def provenance(tau: float) -> Provenance:
        return _provenance(spec.model_copy(update={"tau": tau}), model)

    saves = Saves(state_file, lambda tau: fingerprint(provenance(tau)), notice or _warn)
    # The whole model's, so the same for every threshold.
    path = trajectory(model, spec.facts[0])
    empty = standalone(model, answering, Circuit.empty(engine.graph, provenance(spec.tau)), spec.facts)
    reading = read_known_fact(model, spec.facts[0], relations, seed=spec.seed) if read else None
    find = _searched if find_method(spec.method).has_threshold else _scored
    for tau, found, state, prefiltered in find(spec, taus, relations, model, engine, provenance, saves, progress):
        # Rebuilt from its own saved form, so that what is measured is what the file says.
        circuit = Circuit.from_json(found.to_json())
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
            reading=reading,
            certificate=certificate_of(spec, circuit, relations, model, max_memory, notice or _warn)
            if certified
            else None,
            attention=_attention(model, spec.facts[0], circuit),
            bos=model.bos,
            quantisation=model.quantisation,
            versions=_versions(),
        )


def certificate_of(
    spec: RunSpec,
    circuit: Circuit,
    relations: Relations,
    model: Model,
    max_memory: int | None = None,
    notice: Callable[[str], None] = _warn,
) -> Certificate | None:
    """The quick certificate of a single fact's circuit, beside the other subjects that `circuits.studies.subjects.asked` draws.

    None for several facts, and where the engine of the other subjects does not fit into memory, which is said. A fact of no
    relation has no other subjects: its specificity is undecided.
    """
    if len(spec.facts) != 1:
        return None
    fact = spec.facts[0]
    others = subjects.asked(fact, spec.built_from, relations, model, spec.seed)
    try:
        return certify(
            model,
            lambda facts: engine_for(spec, tuple(facts), relations, model, max_memory, lambda _: None),
            circuit,
            fact,
            others,
            seed=spec.seed,
        )
    except TooLargeError as error:
        notice(f"no certificate, for want of memory: beside {len(others)} other subjects {error}")
        return None


def _attention(model: Model, fact: Fact, circuit: Circuit) -> PromptAttention | None:
    try:
        return read_attention(model, fact, [node for node in circuit.nodes if node.kind == "head"])
    except UnsupportedArchitecture:
        return None


def search(spec: RunSpec, relations: Relations, model: Model) -> Circuit:
    """The circuit of `run` alone, for callers that search many: nothing is measured or read beside it.

    Whether the model recalls the facts is not asked either: what it says wrongly has a circuit too.
    """
    engine = engine_for(spec, spec.built_from, relations, model)
    find = _searched if find_method(spec.method).has_threshold else _scored
    provenance = _provenance(spec, model)
    found = find(spec, (spec.tau,), relations, model, engine, lambda _: provenance, Saves(), lambda _: None)
    return Circuit.from_json(next(found)[1].to_json())


_Found = tuple[float, Circuit, State, Prefiltered | None]


def _searched(
    spec: RunSpec,
    taus: Sequence[float],
    relations: Relations,
    model: Model,
    engine: Engine,
    provenance: Callable[[float], Provenance],
    saves: Saves,
    progress: Callable[[Progress], None],
) -> Iterator[_Found]:
    """The circuit at each threshold, among the edges that the prefilter lets through, if there is one."""
    candidates, prefiltered, method = None, None, find_method(spec.method)
    assert method.sweep is not None
    problem, options = _problem(spec, relations, model, engine), spec.options_of(method)
    if spec.prefilter is not None:
        scores = _scores(spec.prefilter, spec, relations, model, engine, provenance(spec.tau), progress)
        candidates = prefilter.candidates(scores, spec.keep or prefilter.KEEP)
        begins = prefilter.start(engine, candidates, model.network.d_vocab)
        if not spec.force:
            prefilter.require_alive(begins, spec.prefilter, spec.keep or prefilter.KEEP)
        prefiltered = Prefiltered(method=spec.prefilter, candidates=int(candidates.sum()), nll_start=begins.nll)

    def saved(now: Progress) -> None:
        if now.state is not None:
            saves.note(now.state)
        progress(now)

    for tau, scores, state in method.sweep(
        problem,
        options,
        taus,
        provenance=provenance,
        candidates=candidates,
        resume=saves.resume,
        report=saved,
        force=spec.force,
    ):
        circuit = scores.above(tau, absolute=spec.absolute)
        if prefiltered is not None and candidates is not None and spec.prefilter_check:
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
    relations: Relations,
    model: Model,
    engine: Engine,
    provenance: Callable[[float], Provenance],
    saves: Saves,
    progress: Callable[[Progress], None],
) -> Iterator[_Found]:
    """The best edges of a method that scores them all: the same at each threshold, for it has none."""
    before = engine.evaluations
    scores = _scores(spec.method, spec, relations, model, engine, provenance(spec.tau), progress)
    n = prefilter.n_edges(spec.edges or DEFAULT_EDGES, scores.graph.n_edges)
    circuit = scores.connected(n, absolute=spec.absolute)
    done = State("", [], [], evaluations=engine.evaluations - before)
    for tau in sorted(taus):
        yield tau, circuit, done, None


def _scores(
    method: str,
    spec: RunSpec,
    relations: Relations,
    model: Model,
    engine: Engine,
    provenance: Provenance,
    progress: Callable[[Progress], None],
) -> Scores:
    found = find_method(method)
    problem = _problem(spec, relations, model, engine)
    return found(problem, spec.options_of(found), provenance=provenance, report=progress)


def _problem(spec: RunSpec, relations: Relations, model: Model, engine: Engine) -> Problem:
    return Problem(
        model,
        spec.built_from,
        ablation_for(spec, spec.built_from, relations, model),
        spec.granularity,
        metric_for(spec.metric, spec.built_from, relations, model),
        given=engine,
    )


def spec_digest(spec: RunSpec) -> str:
    """Twelve hexadecimal digits that tell this spec from others."""
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:12]


def load_model(spec: RunSpec) -> Model:
    """The model that ``spec`` asks for.

    Raises:
        circuits.model.device.DeviceError: no such device.
    """
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[spec.dtype]
    return Model.load(spec.model, device=spec.device, dtype=dtype, processing=spec.processing)


def require_known(model: Model, facts: tuple[Fact, ...], answers: Answers) -> None:
    """A circuit says how a fact is recalled, so the fact must be: its rank is at most `KNOWN_RANK`."""
    for fact, rank in zip(facts, answers.rank.per_example, strict=True):
        if rank > KNOWN_RANK:
            raise UnknownFactError(
                f"{model.name} does not know this: in {fact.prompt!r} the answer {fact.object!r} ranks {int(rank)}, not among the "
                f"first {KNOWN_RANK}. `kcircuit facts --known` lists what it knows; --force builds the circuit all the same"
            )


def engine_for(
    spec: RunSpec,
    facts: tuple[Fact, ...],
    relations: Relations,
    model: Model,
    max_memory: int | None = None,
    notice: Callable[[str], None] = _warn,
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


def _provenance(spec: RunSpec, model: Model) -> Provenance:
    return Provenance(
        model=spec.model,
        weights=model.weights,
        processing=model.processing,
        method=spec.method,
        settings=spec.settings,
        seed=spec.seed,
        facts=tuple(str(fact) for fact in spec.built_from),
    )


def _versions() -> dict[str, str]:
    packages = ("torch", "transformer-lens", "transformers")
    return {
        "kcircuit": circuits.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }

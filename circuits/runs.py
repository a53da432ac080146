"""The main job: a RunSpec says what is asked, `run` answers it, and the Run that comes back holds no live model.

The story, in order: read the facts, check that the model knows them, search the circuit, rebuild it and run it alone, read it
through the lens.
"""

import hashlib
import html
import math
import platform
import shlex
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

import circuits
from circuits.analysis.lens import NodeReadout, Trajectory, read_circuit, trajectory
from circuits.circuit import Circuit, Provenance, Setting
from circuits.datasets import corrupted as corruption
from circuits.datasets.split import Split
from circuits.discovery import METHODS
from circuits.discovery.acdc import Progress, State, diluted, fingerprint, sweep
from circuits.engines import Ablation, Engine, make_engine
from circuits.engines.ablation import AblationKind
from circuits.engines.sparse import SparseEngine
from circuits.evaluation import KNOWN_RANK, Answers, standalone, whole_model
from circuits.facts import Fact, Relations
from circuits.graph import Granularity
from circuits.metrics import Measurement
from circuits.model import Model, Processing
from circuits.paths import FACTLM

RUN_FILE = "run.json"
CIRCUIT_FILE = "circuit.json"
DEFAULT_TAU = 0.01
"""Paper 2's threshold, in nats."""


class UnknownFactError(ValueError):
    """A circuit was asked for a fact that the model does not recall."""


class DeviceError(ValueError):
    """A device that this machine does not have."""


class RunFileError(ValueError):
    """A saved run that cannot be read."""


class RunSpec(BaseModel):
    """What is asked. Two specs that differ in one field make two runs that can be compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    facts: tuple[Fact, ...]
    test_facts: tuple[Fact, ...] = ()
    """Facts that the circuit is not built from but scored on, with their own answers (D_test)."""
    relation: str | None = None
    """The relation whose facts these are, where they were drawn from one; ``split`` says from which half."""
    split: Split = "val"
    model: str = FACTLM
    method: Literal["acdc"] = "acdc"
    tau: float = DEFAULT_TAU
    absolute: bool = False
    granularity: Granularity = "qkv"
    ablation: AblationKind = "zero"
    engine: Literal["sparse", "hook"] = "sparse"
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    processing: Processing = "compatibility"
    compat: Literal["kc"] | None = None
    seed: int = 0
    force: bool = False
    """Build the circuit even of facts that the model does not recall."""

    @model_validator(mode="after")
    def _sensible(self) -> "RunSpec":
        if not self.facts:
            raise ValueError("expected at least one fact, got none")
        if len(self.facts) > 1 and self.relation is None:
            raise ValueError("several facts make one circuit only if they are of one relation; name it")
        if not 0 < self.tau < math.inf:
            raise ValueError(f"tau must be a finite number of nats above 0, got {self.tau}")
        if self.method not in METHODS:
            raise ValueError(f"expected a method of {METHODS}, got {self.method!r}")
        return self


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
    versions: dict[str, str]

    @property
    def circuit(self) -> Circuit:
        return Circuit.from_json(self.circuit_json)

    def save(self, folder: Path | str) -> None:
        """Write ``run.json`` and ``circuit.json`` into ``folder``, made if need be; each file whole."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{RUN_FILE}.part"
        part.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        part.replace(folder / RUN_FILE)
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
        spec, words = self.spec, ["kcircuit", "discover"]
        if spec.relation is None:
            words += ["--fact", str(spec.facts[0]), "--subject", spec.facts[0].subject]
        else:
            words += ["--relation", spec.relation, "--split", spec.split, "--n", str(len(spec.facts))]
        fields = RunSpec.model_fields
        names = ("model", "tau", "granularity", "ablation", "engine", "device", "dtype", "processing", "compat", "seed")
        for name in names:
            value = getattr(spec, name)
            if value != fields[name].default:
                words += [f"--{name}", str(value)]
        words += [f"--{name}" for name in ("absolute", "force") if getattr(spec, name)]
        return shlex.join(words)

    def summary(self) -> dict[str, Any]:
        """The run in a few numbers. NLL in nats; ranks and hits are means over the facts."""
        circuit = self.circuit
        facts = self.spec.facts
        summary: dict[str, Any] = {
            "model": self.spec.model,
            "fact": facts[0].statement if self.spec.relation is None else f"{len(facts)} facts of {self.spec.relation}",
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
        }
        if self.model_test_answers and self.circuit_test_answers:
            summary["test_facts"] = len(self.spec.test_facts)
            summary["hit10_test_model"] = self.model_test_answers.hit(10).value
            summary["hit10_test_circuit"] = self.circuit_test_answers.hit(10).value
        return summary

    def __repr__(self) -> str:
        return f"<Run: {self}>"

    def _repr_html_(self) -> str:
        """How a notebook shows it: the sentence, and the circuit."""
        return f"<p>{html.escape(str(self))}</p>{self.circuit._repr_html_()}"

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
    progress: Callable[[Progress], None] = lambda _: None,
) -> Run:
    """Do what ``spec`` asks: see `run_sweep`, of which this is the case of one threshold."""
    runs = run_sweep(
        spec,
        (spec.tau,),
        relations,
        model=model,
        state_file=lambda tau: state_file,
        max_memory=max_memory,
        progress=progress,
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
    notice: Callable[[str], None] = lambda _: None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Iterator[Run]:
    """One run for each threshold, in rising order; they share the model's clean values and what decisions they can.

    Args:
        relations: where mean and resample ablation find other subjects.
        model: the loaded ``spec.model``, if the caller has it already.
        state_file: a search that was interrupted is continued from this file, if it exists.
        max_memory: bytes that the fast engine may use; what is free, by default.
        notice: told, in a line, what the search will need, and of a fallback to the slow engine.
        progress: called as edges are decided.

    Raises:
        UnknownFactError: the model does not recall a fact, and ``spec.force`` is off.
        circuits.engines.preflight.TooLargeError: the search does not fit into ``max_memory``.
        circuits.discovery.acdc.Interrupted: on Ctrl-C; its state can be saved to the state file.
    """
    model = model or load_model(spec)
    model_answers = whole_model(model, spec.facts)
    if not spec.force:
        require_known(model, spec.facts, model_answers)
    engine = _engine(spec, spec.facts, relations, model, max_memory, notice)
    if isinstance(engine, SparseEngine):
        notice(f"before the search: {engine.estimate()}")
    test_engine, model_test = None, None
    if spec.test_facts:
        test_engine = _engine(spec, spec.test_facts, relations, model, max_memory, notice)
        model_test = whole_model(model, spec.test_facts)

    def provenance(tau: float) -> Provenance:
        return _provenance(spec.model_copy(update={"tau": tau}), model)

    def resume(tau: float) -> State | None:
        file = state_file(tau)
        return State.load(file, fingerprint(provenance(tau))) if file is not None and file.exists() else None

    # The whole model's, so the same for every threshold.
    path = trajectory(model, spec.facts[0])
    metric = {"per_token": _diluted(model, spec.facts)} if spec.compat == "kc" else {}
    for tau, scores, state in sweep(
        engine, taus, provenance=provenance, absolute=spec.absolute, resume=resume, progress=progress, **metric
    ):
        # Rebuilt from its own saved form, so that what is measured is what the file says.
        circuit = Circuit.from_json(scores.above(tau, absolute=spec.absolute).to_json())
        yield Run(
            spec=spec.model_copy(update={"tau": tau}),
            circuit_json=circuit.to_json(),
            model_answers=model_answers,
            circuit_answers=standalone(model, engine, circuit, spec.facts),
            model_test_answers=model_test,
            circuit_test_answers=standalone(model, test_engine, circuit, spec.test_facts) if test_engine else None,
            readouts=read_circuit(model, spec.facts[0], circuit),
            trajectory=path,
            engine=engine.name,
            evaluations=state.evaluations,
            near_ties=state.near_ties,
            versions=_versions(),
        )


def spec_digest(spec: RunSpec) -> str:
    """Twelve hexadecimal digits that tell this spec from others."""
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:12]


def load_model(spec: RunSpec) -> Model:
    """The model that ``spec`` asks for.

    Raises:
        DeviceError: a CUDA device where there is none.
    """
    if spec.device.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(f"no CUDA device is at hand for --device {spec.device}; --device cpu needs none")
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


def _engine(
    spec: RunSpec,
    facts: tuple[Fact, ...],
    relations: Relations,
    model: Model,
    max_memory: int | None,
    notice: Callable[[str], None],
) -> Engine:
    match spec.ablation:
        case "zero":
            ablation = Ablation("zero")
        case "mean":
            ablation = Ablation("mean", reference=corruption.reference(facts, relations))
        case "resample":
            donors = tuple(corruption.corrupted(fact, relations, model, spec.seed) for fact in facts)
            ablation = Ablation("resample", corrupted=donors)
    return make_engine(
        spec.engine,
        model,
        facts,
        ablation=ablation,
        granularity=spec.granularity,
        max_memory=max_memory,
        notice=notice,
    )


def _provenance(spec: RunSpec, model: Model) -> Provenance:
    settings: dict[str, Setting] = {
        "tau": spec.tau,
        "absolute": spec.absolute,
        "ablation": spec.ablation,
        "compat": spec.compat,
        "dtype": spec.dtype,
    }
    return Provenance(
        model=spec.model,
        weights=model.weights,
        processing=model.processing,
        method=spec.method,
        settings=settings,
        seed=spec.seed,
        facts=tuple(str(fact) for fact in spec.facts),
    )


def _diluted(model: Model, facts: tuple[Fact, ...]) -> Callable[[Any], float]:
    tokens = [model.tokens(fact) for fact in facts]
    return diluted([len(t.prompt) for t in tokens], [len(t.answer) for t in tokens])


def _versions() -> dict[str, str]:
    packages = ("torch", "transformer-lens", "transformers")
    return {
        "kcircuit": circuits.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }

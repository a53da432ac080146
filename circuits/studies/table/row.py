"""One row of Table 1: a relation's circuit, built from D_val and scored on D_val and D_test, each with its own labels."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict

from circuits.analysis.lens import trajectory
from circuits.circuit import Circuit
from circuits.datasets.split import split_facts
from circuits.engines import Engine
from circuits.evaluation import Answers, known, standalone
from circuits.evaluation.baseline import DRAWS, Draw, bootstrap, commonest, random_answers
from circuits.facts import Fact, Kind, Relation, Relations
from circuits.metrics import Share, kl_divergence
from circuits.model import Model
from circuits.records import file_name
from circuits.studies.run import Run, RunFileError
from circuits.studies.runs import run_sweep
from circuits.studies.search import engine_for, spec_digest
from circuits.studies.specs import RunSpec, TableSpec
from circuits.studies.study import Watch

Half = Literal["val", "test"]
HALVES: tuple[Half, ...] = get_args(Half)


class TableValue(BaseModel):
    """A part of a table's row: a frozen value, in which a field that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Scored(TableValue):
    """How well some facts are answered. NLL in nats."""

    hit1: float
    hit10: float
    mrr: float
    nll: float

    @classmethod
    def of(cls, answers: Answers) -> "Scored":
        return cls(hit1=answers.hit(1).value, hit10=answers.hit(10).value, mrr=answers.mrr.value, nll=answers.nll.value)


class AtTau(TableValue):
    """The circuit of one threshold: its size, and its answers alone."""

    tau: float
    edges: int
    edges_merged: int
    nodes: int
    val: Scored
    test: Scored


class RandomLevel(TableValue):
    """Hit@10 of random circuits of the same size: mean, 95 % bootstrap interval of the mean, and the best draw."""

    draw: Draw
    val: float
    val_interval: tuple[float, float]
    val_best: float
    test: float
    test_interval: tuple[float, float]
    test_best: float


class Blind(TableValue):
    """The subject-blind baseline on D_test: the share of its facts whose object is the commonest of D_val's, or one of its ten
    commonest, given to every subject alike."""

    hit1: float
    hit10: float

    @classmethod
    def of(cls, seen: Sequence[Fact], asked: Sequence[Fact]) -> "Blind":
        """Args:
        seen: all facts of D_val, known or not.
        """

        def share(k: int) -> float:
            given = commonest(seen, k)
            return sum(fact.object in given for fact in asked) / len(asked)

        return cls(hit1=share(1), hit10=share(10))


class Beaten(TableValue):
    """A circuit whose Hit@10 is above the model's, and the same search keeping suppressive edges (``absolute``)."""

    halves: tuple[Half, ...]
    """Where the circuit beats the model."""
    absolute: AtTau
    suppressive: int
    """Edges of that second circuit whose removal would have helped the answer: those that signed removal drops."""
    still: tuple[Half, ...]
    """Where the circuit that keeps them beats the model all the same."""

    @property
    def explained(self) -> bool:
        """Whether keeping the suppressive edges ends it everywhere."""
        return not self.still


class Row(TableValue):
    """Everything the table, its page and its figures show of one relation."""

    relation: str
    title: str
    kind: Kind
    n_val: int
    n_test: int
    edges_total: int
    edges_total_merged: int
    model_val: Scored
    model_test: Scored
    circuits: tuple[AtTau, ...]
    """One a threshold, in the order asked for; the first is the table's."""
    random: tuple[RandomLevel, ...]
    empty_val: Scored
    """The model with every edge ablated: what a circuit that joins nothing answers."""
    empty_test: Scored
    blind: Blind
    kl_val: float
    """From the model's next-token distributions to the table's circuit's at the answers' tokens, in nats; mean over facts."""
    kl_test: float
    beaten: Beaten | None
    heads_active: tuple[float, ...]
    """Share of each layer's heads that the circuit uses (paper 2, Figure 2)."""
    mlps_active: tuple[float, ...]
    """1 for each layer whose MLP the circuit uses, else 0."""
    states: tuple[str, ...]
    """The residual stream's states: Input, L0 attn, L0 MLP, ..."""
    mean_ranks: tuple[float, ...]
    """The answer's rank in each state of the whole model, mean over D_val (paper 2, Figure 6)."""

    @property
    def circuit(self) -> AtTau:
        return self.circuits[0]

    @property
    def share(self) -> float:
        """Of the graph's edges, those in the circuit."""
        return self.circuit.edges / self.edges_total

    @property
    def hit1_test(self) -> Share:
        """Of the table's circuit."""
        return Share(round(self.circuit.test.hit1 * self.n_test), self.n_test)

    def chance(self, draw: Draw) -> RandomLevel:
        return next(level for level in self.random if level.draw == draw)


class Skipped(TableValue):
    """A relation without a row, and why."""

    relation: str
    reason: str


def make_row(
    spec: TableSpec,
    relation: Relation,
    relations: Relations,
    model: Model,
    *,
    state_folder: Path | None = None,
    runs_folder: Path | None = None,
    max_memory: int | None = None,
    watch: Watch | None = None,
) -> Row | Skipped:
    """Build and score the relation's circuits; `Skipped` where the model knows no fact of D_val.

    Args:
        relations: where mean and resample ablation find other subjects.
        state_folder: an interrupted search is saved there, and continued from there.
        runs_folder: the run of the row's circuit is saved in a folder of it, read besides: see `folder_of`.
        max_memory: bytes that a search may use; what is free, by default.

    Raises:
        circuits.discovery.state.Interrupted: on Ctrl-C.
    """
    watch = watch or Watch()
    candidates = split_facts(relation, "val", seed=spec.seed)
    val, test = _halves(spec, relation, model)
    if not val or not test:
        what = f"knows none of the {len(candidates)} facts of D_val" if not val else "has no fact left for D_test"
        return Skipped(relation=relation.name, reason=f"{model.name} {what}")
    asked = spec.run_spec(relation.name, val, test)
    runs = _search(asked, spec.taus, relations, model, state_folder, max_memory, watch, read=runs_folder is not None)
    main = runs[spec.taus[0]]
    if runs_folder is not None:
        main.save(folder_of(relation.name, runs_folder))
    assert main.model_test_answers is not None
    engines: dict[Half, Engine] = {
        "val": engine_for(asked, val, relations, model, max_memory, watch.notice),
        "test": engine_for(asked, test, relations, model, max_memory, watch.notice),
    }
    facts: dict[Half, tuple[Fact, ...]] = {"val": val, "test": test}
    circuit = main.circuit
    circuits = tuple(_at_tau(runs[tau]) for tau in spec.taus)
    whole: dict[Half, Scored] = {"val": Scored.of(main.model_answers), "test": Scored.of(main.model_test_answers)}
    beats = _beats(circuits[0], whole)
    beaten = None
    if beats and not spec.absolute:
        keeping = asked.model_copy(update={"absolute": True})
        second = _search(keeping, spec.taus[:1], relations, model, state_folder, max_memory, watch)[spec.taus[0]]
        kept = _at_tau(second)
        scores = np.array([second.circuit.score(edge) for edge in second.circuit.edges])
        beaten = Beaten(halves=beats, absolute=kept, suppressive=int((scores < 0).sum()), still=_beats(kept, whole))
    nothing = Circuit.empty(circuit.graph, circuit.provenance)
    empty = {half: Scored.of(standalone(model, engines[half], nothing, facts[half])) for half in HALVES}
    shape = circuit.graph.shape
    paths = [trajectory(model, fact) for fact in val]
    return Row(
        relation=relation.name,
        title=relation.title,
        kind=relation.kind,
        n_val=len(val),
        n_test=len(test),
        edges_total=circuit.graph.n_edges,
        edges_total_merged=model.graph("node").n_edges,
        model_val=whole["val"],
        model_test=whole["test"],
        circuits=circuits,
        random=tuple(_random_level(spec, model, engines, circuit, facts, draw) for draw in DRAWS),
        empty_val=empty["val"],
        empty_test=empty["test"],
        blind=Blind.of(candidates, test),
        kl_val=_kl(engines["val"], circuit),
        kl_test=_kl(engines["test"], circuit),
        beaten=beaten,
        heads_active=tuple(count / shape.n_heads for count in circuit.nodes_per_layer("head")),
        mlps_active=tuple(float(count) for count in circuit.nodes_per_layer("mlp")),
        states=paths[0].labels,
        mean_ranks=tuple(np.mean([path.ranks for path in paths], axis=0).tolist()),
    )


def _halves(spec: TableSpec, relation: Relation, model: Model) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """The facts of D_val that the model knows, and those of D_test, known or not; as many as the spec asks for."""
    val, test = (split_facts(relation, half, seed=spec.seed) for half in HALVES)
    return known(model, val)[: spec.n_val], test[: spec.n_test]


def folder_of(relation: str, runs_folder: Path) -> Path:
    """Where the run of a relation's circuit is, of those that the folder holds."""
    return runs_folder / file_name(relation)


def require_run(
    spec: TableSpec, relation: Relation, relations: Relations, model: Model, row: Row, *, folder: Path, watch: Watch
) -> None:
    """The run of a kept row's circuit is in ``folder``, a `folder_of` it; searched again where it is not, or is another's."""
    try:
        run = Run.load(folder)
    except RunFileError:
        pass
    else:
        asked = spec.run_spec(relation.name, run.spec.facts, run.spec.test_facts)
        if run.spec == asked and run.circuit.provenance.weights == model.weights:
            return
    asked = spec.run_spec(relation.name, *_halves(spec, relation, model))
    _search(asked, spec.taus[:1], relations, model, folder.parent, None, watch, read=True)[spec.taus[0]].save(folder)


def _search(
    run_spec: RunSpec,
    taus: tuple[float, ...],
    relations: Relations,
    model: Model,
    state_folder: Path | None,
    max_memory: int | None,
    watch: Watch,
    *,
    read: bool = False,
) -> dict[float, Run]:
    """The runs of all thresholds. What was interrupted before is continued, and saved if it is again."""

    def state_file(tau: float) -> Path | None:
        if state_folder is None:
            return None
        digest = spec_digest(run_spec.model_copy(update={"tau": tau}))
        return state_folder / f"{file_name(run_spec.relation or '')}-{digest}.state.json"

    runs: dict[float, Run] = {}
    for run in run_sweep(
        run_spec,
        taus,
        relations,
        model=model,
        state_file=state_file,
        max_memory=max_memory,
        read=read,
        watch=watch,
    ):
        runs[run.spec.tau] = run
        if (finished := state_file(run.spec.tau)) is not None:
            finished.unlink(missing_ok=True)
    return runs


def _at_tau(run: Run) -> AtTau:
    circuit = run.circuit
    assert run.circuit_test_answers is not None
    return AtTau(
        tau=run.spec.tau,
        edges=circuit.n_edges,
        edges_merged=circuit.n_merged_edges,
        nodes=len(circuit.nodes),
        val=Scored.of(run.circuit_answers),
        test=Scored.of(run.circuit_test_answers),
    )


def _kl(engine: Engine, circuit: Circuit) -> float:
    whole, alone = engine.answer_logits(circuit.graph.legal), engine.answer_logits(circuit.kept)
    return fmean(float(kl_divergence(own, other).mean()) for own, other in zip(whole, alone, strict=True))


def _beats(circuit: AtTau, whole: dict[Half, Scored]) -> tuple[Half, ...]:
    scores: dict[Half, Scored] = {"val": circuit.val, "test": circuit.test}
    return tuple(half for half in HALVES if scores[half].hit10 > whole[half].hit10)


def _random_level(
    spec: TableSpec,
    model: Model,
    engines: dict[Half, Engine],
    circuit: Circuit,
    facts: dict[Half, tuple[Fact, ...]],
    draw: Draw,
) -> RandomLevel:
    fields: dict[str, float | tuple[float, float]] = {}
    for half in HALVES:
        drawn = random_answers(model, engines[half], circuit, facts[half], draws=spec.draws, seed=spec.seed, draw=draw)
        interval = bootstrap([answers.hit(10).value for answers in drawn], seed=spec.seed)
        fields[half] = interval.mean
        fields[f"{half}_interval"] = (interval.low, interval.high)
        fields[f"{half}_best"] = interval.most
    return RandomLevel.model_validate({"draw": draw, **fields})

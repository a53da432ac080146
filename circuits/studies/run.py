"""What a search came to: everything that a page shows of it, and no live model; saved as a folder's files."""

import html
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from circuits.analysis.attention import PromptAttention
from circuits.analysis.lens import NodeReadout, Trajectory
from circuits.analysis.reading import Reading
from circuits.analysis.roles import Role
from circuits.analysis.story import Sentence, tell
from circuits.choices import counted
from circuits.circuit import Circuit
from circuits.discovery import find_method, prefilter
from circuits.evaluation import Answers
from circuits.evaluation.certificate import Certificate
from circuits.evaluation.lines import Line
from circuits.graph import Node
from circuits.metrics import Measurement
from circuits.records import write_whole
from circuits.studies.options import command
from circuits.studies.search import Prefiltered, Unfinished
from circuits.studies.specs import DEFAULT_EDGES, RunSpec

RUN_FILE = "run.json"
CIRCUIT_FILE = "circuit.json"


class RunFileError(ValueError):
    """A saved run that cannot be read."""


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
    unfinished: Unfinished | None = None
    """Where its budget ended the search: what was not decided by then is in the circuit, untested."""
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
        if self.reading is None:
            return ()
        return (*self._so_far(), *tell(self.reading, self.circuit))

    def _so_far(self) -> tuple[Sentence, ...]:
        if (found := self.unfinished) is None:
            return ()
        text = f"The circuit is unfinished, so that heads and edges said to be in it may be there untested: its search {found}."
        numbers = ("edges decided", float(found.decided)), ("edges to decide", float(found.to_decide))
        return (Sentence(text, numbers),)

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
        if self.unfinished:
            words += ["--budget", self.unfinished.budget]
        return command(words, spec, leave_out=() if find_method(spec.method).has_threshold else ("tau",))

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
        if not find_method(self.spec.method).has_threshold:
            summary["edges_asked"] = prefilter.n_edges(self.spec.edges or DEFAULT_EDGES, circuit.graph.n_edges)
        if self.unfinished:
            summary["unfinished"] = str(self.unfinished)
            summary["edges_decided"], summary["edges_to_decide"] = self.unfinished.decided, self.unfinished.to_decide
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
        so_far = f" (search {self.unfinished})" if self.unfinished else ""
        return (
            f"{self.circuit}{so_far}; alone, it {answers} {_tidy(self.circuit_answers.rank)} "
            f"(model: {_tidy(self.model_answers.rank)})"
        )


def _tidy(ranks: Measurement) -> float | int:
    """A mean rank, as an integer where it is one."""
    return int(ranks.value) if ranks.value == int(ranks.value) else round(ranks.value, 3)

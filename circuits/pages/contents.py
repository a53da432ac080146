"""What the page of one run shows: every value of it, from what was saved."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circuits.analysis.attention import PromptAttention
from circuits.analysis.lens import NodeReadout, Trajectory
from circuits.analysis.reading import Reading
from circuits.analysis.roles import Role
from circuits.analysis.story import Sentence
from circuits.choices import MetricName
from circuits.circuit import Circuit
from circuits.evaluation.lines import Line
from circuits.graph import Node
from circuits.pages.verdict import verdict
from circuits.studies.run import Run

METRICS: dict[MetricName, str] = {
    "matchnll": "MatchNLL",
    "kl": "KL from the whole model",
    "contrast": "NLL of the answer among the relation's objects",
}


@dataclass(frozen=True)
class Page:
    """What one page shows. ``numbers`` and ``settings`` are (name, value) pairs, shown as they stand."""

    title: str
    """The fact, as a heading."""
    subtitle: str
    circuit: Circuit
    readouts: tuple[NodeReadout, ...]
    trajectory: Trajectory
    answer: str
    """The answer, as it is shown."""
    numbers: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    command: str
    """What a reader types to make the page again."""
    reading: Reading | None = None
    """What heads and MLPs do for this fact, where it was asked for."""
    objects: tuple[str, ...] = ()
    """Of the relation's facts that the roles were told from: what a node's words may name."""
    story: tuple[Sentence, ...] = ()
    attention: PromptAttention | None = None
    """Of the circuit's heads over the prompt."""
    verdict: tuple[str, ...] = ()
    """What the model answers and what the circuit does, in sentences that come first."""
    certificate: Mapping[str, Any] | None = None
    """The quick one."""
    lines: tuple[Line, ...] = ()
    """The full certificate's, which stands in place of the quick one."""


def _dequantised(run: Run) -> str:
    return "" if run.quantisation is None else f", dequantised from {run.quantisation}"


def _choice(run: Run) -> list[tuple[str, str]]:
    """How the edges were chosen: what means something to the method, and nothing else."""
    settings, sign = run.spec.settings, "absolute" if run.spec.absolute else "signed"
    if "tau" in settings:
        rows = [("tau", f"{settings['tau']:g} nats, {sign}")]
    else:
        asked = run.summary()["edges_asked"]
        rows = [
            (
                "edges",
                f"the best by score ({sign}), at most {asked:,} ({settings['edges']}), on paths from input to logits",
            )
        ]
    if "steps" in settings:
        rows.append(("steps of integrated gradients", str(settings["steps"])))
    if run.unfinished:
        rows.append(("search", str(run.unfinished)))
    if run.prefiltered:
        passed = f"{run.prefiltered.method}, {run.prefiltered.candidates:,} edges let through ({settings['keep']})"
        if loss := run.prefiltered.loss:
            passed += f"; of the full search’s {loss.full:,} edges, {loss.share_lost:.1%} are not in this circuit"
        rows.append(("prefilter", passed))
    return rows


def _unsaid(run: Run) -> bool:
    return len(run.spec.facts) == 1 and run.model_answers.rank.value > 1


def _objects(run: Run) -> tuple[str, ...]:
    roles = run.reading.roles if run.reading else None
    return tuple(dict.fromkeys(fact.rpartition(" => ")[2] for fact in roles.facts)) if roles else ()


def page_of(run: Run) -> Page:
    """The values that the page shows, from the saved run alone."""
    spec, summary = run.spec, run.summary()
    fact, circuit = spec.facts[0], run.circuit
    numbers = [
        ("edges kept", f"{circuit.n_edges:,} of {circuit.graph.n_edges:,}"),
        ("components kept", f"{len(circuit.nodes)} of {len(circuit.graph.nodes)}"),
        (f"rank of the answer, circuit alone; whole model {summary['rank_model']:,}", f"{summary['rank_circuit']:,}"),
        (
            f"negative log-likelihood of the answer in nats, circuit alone; whole model {summary['nll_model']:.3f}",
            f"{summary['nll_circuit']:.3f}",
        ),
        (
            f"answers among the first 10 (Hit@10), circuit alone; whole model {summary['hit10_model']:.2f}",
            f"{summary['hit10_circuit']:.2f}",
        ),
    ]
    if "hit10_test_circuit" in summary:
        said = f"Hit@10 on {summary['test_facts']} other facts, circuit alone; whole model {summary['hit10_test_model']:.2f}"
        numbers.append((said, f"{summary['hit10_test_circuit']:.2f}"))
    settings = [
        ("model", f"{spec.model} (weights {circuit.provenance.weights[:12]}, {spec.processing})"),
        ("facts", "; ".join(fact.statement for fact in spec.facts)),
        ("method", spec.method),
        *_choice(run),
        ("ablation", spec.ablation),
        ("granularity", spec.granularity),
        ("weights", f"{spec.processing}, {spec.dtype} on {spec.device}{_dequantised(run)}"),
        ("prompts begin with", run.bos or "nothing"),
        ("metric", "the published code's, diluted over the prompt (kc)" if spec.compat else METRICS[spec.metric]),
        *([("built beside", "; ".join(other.statement for other in spec.siblings))] if spec.siblings else []),
        ("engine", f"{run.engine}, {run.evaluations:,} evaluations, {run.near_ties} near ties"),
        ("seed", str(spec.seed)),
        ("versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
    ]
    return Page(
        title=f"“{summary['fact']}”, which the model does not say" if _unsaid(run) else summary["fact"],
        subtitle=f"Prompt “{fact.prompt}”, answer “{fact.object}”"
        + (f"; one of {len(spec.facts)} facts, whose lens and trajectory are shown" if len(spec.facts) > 1 else ""),
        circuit=circuit,
        readouts=run.readouts,
        trajectory=run.trajectory,
        answer=fact.object,
        numbers=tuple(numbers),
        settings=tuple(settings),
        command=run.command(),
        reading=run.reading,
        objects=_objects(run),
        story=run.story,
        attention=run.attention,
        verdict=verdict(run),
        certificate=summary.get("certificate"),
        lines=run.lines,
    )


def roles_on(page: Page) -> dict[Node, Role]:
    """Heads with an established role."""
    roles = page.reading.roles if page.reading else None
    return {verdict.head: verdict.role for verdict in roles.labelled} if roles else {}

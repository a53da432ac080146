"""What a run's page says first: what the model answers and what the circuit alone does, in one or two plain sentences."""

import math

from circuits.analysis.lens import NodeReadout
from circuits.evaluation.certificate import OVERCONFIDENT
from circuits.studies.run import Run
from circuits.studies.search import Unfinished


def verdict(run: Run) -> tuple[str, ...]:
    """The sentences, from the saved run alone.

    Of one fact: the model's first choice, the answer's rank and probability in the model and in the circuit alone, and what
    is left where no edge is kept, if the run measured that. A fact that the model does not put first is said to be none
    of the model's; a circuit whose NLL is below the model's by more than `OVERCONFIDENT` is said to be more certain. A search
    that its budget ended is said to be unfinished.
    """
    told = (_model(run), _circuit(run)) if len(run.spec.facts) == 1 else (_of_many(run),)
    return told if run.unfinished is None else (*told, _unfinished(run.unfinished))


def _unfinished(found: Unfinished) -> str:
    return f"Unfinished: the search {found}; the others are in the circuit, untested."


def _model(run: Run) -> str:
    answer, (rank,), (p,) = (
        run.spec.facts[0].object,
        run.model_answers.rank.per_example,
        run.model_answers.probability.per_example,
    )
    if rank == 1:
        return f"The model answers “{answer}”: rank 1, p {_p(p)}."
    readout = next((each for each in run.readouts if each.node.kind == "logits"), None)
    said = _first_choice(readout)
    instead = f" It says {said}" if said else " It says another word"
    return f"The model does not say “{answer}”.{instead} and “{answer}” is ranked {ordinal(rank)}, p {_p(p)}."


def _first_choice(readout: NodeReadout | None) -> str:
    """The model's first token, with its probability where the answer's logit, and so its distance from the first, is known."""
    if readout is None or not readout.promoted:
        return ""
    first = readout.promoted[0]
    if readout.answer_rank > len(readout.promoted):
        return f"“{first.token.strip()}”"
    above = first.logit - readout.promoted[readout.answer_rank - 1].logit
    return f"“{first.token.strip()}”, p {_p(min(1.0, readout.answer_probability * math.exp(above)))},"


def _circuit(run: Run) -> str:
    circuit, summary = run.circuit, run.summary()
    share = 100 * circuit.n_edges / circuit.graph.n_edges
    percent = f"{share:.0f}" if share >= 10 else f"{share:.2g}"
    (rank,), (p,) = run.circuit_answers.rank.per_example, run.circuit_answers.probability.per_example
    text = (
        f"The circuit, {circuit.n_edges:,} of {circuit.graph.n_edges:,} edges ({percent} %), alone ranks it {ordinal(rank)}, "
        f"p {_p(p)}"
    )
    ours, models = run.circuit_answers.nll.value, run.model_answers.nll.value
    if ours < models - OVERCONFIDENT:
        text += (
            f": it is more certain than the model (negative log-likelihood {ours:.2f} nats, the model’s {models:.2f})"
        )
    if summary.get("rank_empty") is not None:
        text += f"; with no edge at all it is ranked {ordinal(summary['rank_empty'])} ({summary['nll_empty']:.2f} nats)"
    return text + "."


def _of_many(run: Run) -> str:
    circuit, summary = run.circuit, run.summary()
    text = (
        f"Of {len(run.spec.facts)} answers the model has {summary['hit10_model']:.0%} among its first 10 (mean rank "
        f"{summary['rank_model']:g}, {summary['nll_model']:.2f} nats); the circuit, {circuit.n_edges:,} of "
        f"{circuit.graph.n_edges:,} edges, alone has {summary['hit10_circuit']:.0%} (mean rank {summary['rank_circuit']:g}, "
        f"{summary['nll_circuit']:.2f} nats)"
    )
    if summary.get("rank_empty") is not None:
        text += f"; with no edge at all the mean rank is {summary['rank_empty']:g} ({summary['nll_empty']:.2f} nats)"
    return text + "."


def ordinal(rank: float | int) -> str:
    """1st, 2nd, 3rd, 11th, 1,022nd."""
    n = int(rank)
    end = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n:,}{end}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"

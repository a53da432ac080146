"""From a saved run to its files: the graph as text and picture, and the page."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuits.pages.run import Page
    from circuits.studies.discover import Run


def export_run(result: "Run", out: Path) -> None:
    """Write the run, its graph and its page; everything is made before anything is written."""
    from circuits.pages.dot import render_svg
    from circuits.pages.run import render
    from circuits.records import write_files

    dot = graph_text(result)
    texts = {"circuit.gv": dot, "report.html": render(_page(result))}
    svg = render_svg(dot)
    if svg is not None:
        texts["circuit.svg"] = svg
    result.save(out)
    write_files(out, texts)


def graph_text(result: "Run") -> str:
    """The run's circuit as graphviz text: heads by role, each node with the token it promotes."""
    from circuits.pages.dot import circuit_to_dot

    return circuit_to_dot(result.circuit, result.readouts, title=result.summary()["fact"], roles=result.roles)


def _choice(result: "Run") -> list[tuple[str, str]]:
    """How the edges were chosen: what means something to the method, and nothing else."""
    settings, sign = result.spec.settings, "absolute" if result.spec.absolute else "signed"
    if "tau" in settings:
        rows = [("tau", f"{settings['tau']:g} nats, {sign}")]
    else:
        asked = result.summary()["edges_asked"]
        rows = [
            (
                "edges",
                f"the best by score ({sign}), at most {asked:,} ({settings['edges']}), on paths from input to logits",
            )
        ]
    if "steps" in settings:
        rows.append(("steps of integrated gradients", str(settings["steps"])))
    if result.prefiltered:
        passed = (
            f"{result.prefiltered.method}, {result.prefiltered.candidates:,} edges let through ({settings['keep']})"
        )
        if loss := result.prefiltered.loss:
            passed += f"; of the full search’s {loss.full:,} edges, {loss.share_lost:.1%} are not in this circuit"
        rows.append(("prefilter", passed))
    return rows


def _page(result: "Run") -> "Page":
    """The values that the page shows, from the saved run alone."""
    from circuits.pages.run import Page

    spec, summary = result.spec, result.summary()
    fact, circuit = spec.facts[0], result.circuit
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
        *_choice(result),
        ("ablation", spec.ablation),
        ("granularity", spec.granularity),
        ("weights", f"{spec.processing}, {spec.dtype} on {spec.device}"),
        ("metric", "the published code's, diluted over the prompt (kc)" if spec.compat else "MatchNLL"),
        ("engine", f"{result.engine}, {result.evaluations:,} evaluations, {result.near_ties} near ties"),
        ("seed", str(spec.seed)),
        ("versions", ", ".join(f"{name} {version}" for name, version in result.versions.items())),
    ]
    return Page(
        title=summary["fact"],
        subtitle=f"Prompt “{fact.prompt}”, answer “{fact.object}”"
        + (f"; one of {len(spec.facts)} facts, whose lens and trajectory are shown" if len(spec.facts) > 1 else ""),
        circuit=circuit,
        readouts=result.readouts,
        trajectory=result.trajectory,
        answer=fact.object,
        numbers=tuple(numbers),
        settings=tuple(settings),
        command=result.command(),
        reading=result.reading,
        story=result.story,
        attention=result.attention,
    )

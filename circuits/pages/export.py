"""A saved run's files: the run, its graph as text and picture, its page."""

from pathlib import Path

from circuits.pages.dot import circuit_to_dot, render_svg
from circuits.pages.run import render
from circuits.records import write_files
from circuits.studies.discover import Run


def export_run(run: Run, folder: Path | str) -> None:
    """Write the run, its graph and its page; everything is made before anything is written."""
    dot = graph_text(run)
    texts: dict[str, str | bytes] = {"circuit.gv": dot, "report.html": render(run)}
    if (svg := render_svg(dot)) is not None:
        texts["circuit.svg"] = svg
    run.save(folder)
    write_files(folder, texts)


def graph_text(run: Run) -> str:
    """The run's circuit as graphviz text: heads by role, each node with the token it promotes."""
    return circuit_to_dot(run.circuit, run.readouts, title=run.summary()["fact"], roles=run.roles)

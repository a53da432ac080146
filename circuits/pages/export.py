"""A saved run's files: the run, its graph as text and picture, its page."""

from pathlib import Path

from circuits.pages.dot import circuit_to_dot
from circuits.pages.picture import circuit_picture
from circuits.pages.run import render, resting
from circuits.records import write_files
from circuits.studies.run import Run


def export_run(run: Run, folder: Path | str) -> None:
    """Write the run, its graph and its page; everything is made before anything is written."""
    texts: dict[str, str | bytes] = {
        "circuit.gv": graph_text(run),
        "circuit.svg": picture_of(run),
        "report.html": render(run),
    }
    run.save(folder)
    write_files(folder, texts)


def graph_text(run: Run) -> str:
    """The run's circuit as graphviz text: heads by role, each node with the token it promotes."""
    return circuit_to_dot(run.circuit, run.readouts, title=run.summary()["fact"], roles=run.roles)


def picture_of(run: Run) -> str:
    """The run's circuit as one SVG picture, under the fact: heads by role, each node with the token it promotes."""
    title = run.summary()["fact"]
    return circuit_picture(run.circuit, run.readouts, run.roles, title=title, resting=resting(run.attention))

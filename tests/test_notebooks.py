"""Every notebook runs from top to bottom, and is committed with the outputs of such a run."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbformat import NotebookNode

from circuits.model import Model
from notebooks.execute import execute, forget, kernel, notebooks

LARGEST = 1_000_000
"""Bytes of a notebook with its outputs."""
AGAIN = "run `python notebooks/execute.py` and commit what it writes"


def outputs(notebook: NotebookNode) -> list[list[tuple[str, tuple[str, ...]]]]:
    """For each code cell its outputs' kinds, and the forms in which each is kept."""
    return [
        [(output.output_type, tuple(sorted(output.get("data", {})))) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def streams(notebook: NotebookNode, name: str) -> str:
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return "".join(
        output.text
        for cell in cells
        for output in cell.outputs
        if output.output_type == "stream" and output.name == name
    )


@pytest.fixture(scope="module")
def manager() -> Iterator[KernelManager]:
    """One process for all notebooks: to load what they import takes as long as some of them do."""
    with kernel() as manager:
        yield manager


def test_there_are_notebooks() -> None:
    assert [path.name for path in notebooks()]


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_notebook_runs_and_gives_outputs_of_the_committed_kinds(path: Path, manager: KernelManager) -> None:
    committed = nbformat.read(path, as_version=4)
    fresh = execute(path, manager)
    forget(manager)
    assert outputs(fresh) == outputs(committed), AGAIN
    assert not streams(fresh, "stderr")


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_notebook_is_committed_whole_small_and_without_this_machine(path: Path) -> None:
    committed = nbformat.read(path, as_version=4)
    nbformat.validate(committed)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), AGAIN
    assert sum(bool(cell.outputs) for cell in code) >= 3, AGAIN
    assert not streams(committed, "stderr")
    assert path.stat().st_size < LARGEST
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/(?:home|root|tmp|work|Users)/", text)
    for cell in committed.cells:
        assert set(cell.metadata) <= {"tags"}, "cells are kept without times and editors' settings"


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_notebooks_pictures_show_where_no_script_runs(path: Path) -> None:
    """As on the page of a repository, which shows images, text and tables, and runs nothing."""
    kinds = {kind for cell in outputs(nbformat.read(path, as_version=4)) for _, forms in cell for kind in forms}
    assert kinds <= {"image/svg+xml", "image/png", "text/plain", "text/html", "text/markdown"}
    assert "image/svg+xml" in kinds, "a picture at least"


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_notebooks_outputs_are_those_of_the_embedded_model_as_it_is(path: Path) -> None:
    hashes = re.findall(r"<Model factlm: [^>]* ([0-9a-f]{12})>", path.read_text(encoding="utf-8"))
    if hashes:
        assert set(hashes) == {Model.default().weights[:12]}, f"factlm was trained again: {AGAIN}"

"""Run the notebooks and keep their outputs: ``python notebooks/execute.py`` for all, or with the names of some.

Outputs come from the cells alone: no times, no paths of this machine, no execution metadata.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent
TIMEOUT = 900
"""Seconds for one cell, on a busy machine."""


def notebooks() -> list[Path]:
    return sorted(FOLDER.glob("*.ipynb"))


@contextmanager
def kernel() -> Iterator[KernelManager]:
    """A process that runs cells, until the end."""
    manager = KernelManager(kernel_name="python3")
    # One thread, as the commands give a small model: the same sums on any machine, and no waiting on a busy one.
    # A bar that wants a widget would say so on stderr.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}
    manager.start_kernel(env=environment, cwd=str(FOLDER))
    try:
        yield manager
    finally:
        manager.shutdown_kernel(now=True)


def execute(path: Path, manager: KernelManager) -> NotebookNode:
    """The notebook with the outputs of its cells; the file is left as it is.

    Args:
        manager: a kernel, a fresh one for outputs that are kept.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    _run(notebook, manager)
    # The kernel's own version would differ from machine to machine.
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def forget(manager: KernelManager) -> None:
    """What the kernel's cells defined; the modules that they imported stay loaded."""
    _run(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%reset -f")]), manager)


def _run(notebook: NotebookNode, manager: KernelManager) -> None:
    NotebookClient(
        notebook,
        km=manager,
        timeout=TIMEOUT,
        startup_timeout=TIMEOUT,
        record_timing=False,
        store_widget_state=False,
    ).execute()


def main(names: list[str]) -> None:
    for path in [FOLDER / name for name in names] or notebooks():
        with kernel() as manager:
            nbformat.write(execute(path, manager), path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])

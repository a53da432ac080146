"""``kcircuit report``: a saved run's page again."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.app import app, require_writable_folder


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Folder of a saved run (run.json).")]) -> None:
    """Draw a saved run's page and graph again; no model is loaded."""
    from circuits.pages.export import export_run
    from circuits.studies.run import Run

    result = Run.load(folder)
    require_writable_folder(folder)
    export_run(result, folder)
    typer.echo(f"Open {folder / 'report.html'}")

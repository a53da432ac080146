"""``kcircuit export``: a saved run's circuit as a picture, or in another tool's file format."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, app, require_writable_folder

if TYPE_CHECKING:
    from circuits.studies.run import Run

FORMATS = {
    "mib": "circuit.mib.json",
    "graphml": "circuit.graphml",
    "gexf": "circuit.gexf",
    "gv": "circuit.gv",
    "svg": "circuit.svg",
    "png": "circuit.png",
}


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder of a saved run (run.json).")],
    format: Annotated[
        str, typer.Option("--format", help="mib (EAP-IG's and MIB's JSON), graphml, gexf, gv (graphviz), svg or png.")
    ] = "mib",
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; beside the run by default.")] = None,
    d_model: Annotated[
        int | None, typer.Option("--d-model", min=1, help="mib: the model's width, where its folder is not at hand.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a saved run's circuit as a picture or for another tool; no model is loaded, and no browser is needed."""
    if format not in FORMATS:
        raise CommandError(f"expected --format {', '.join(FORMATS)}, got {format!r}")
    if d_model is not None and format != "mib":
        raise CommandError(f"--d-model belongs to --format mib, and --format is {format}")
    from circuits.exchange import write_gexf, write_graphml, write_mib
    from circuits.records import write_whole
    from circuits.studies.run import Run

    saved = Run.load(folder)
    target = folder / FORMATS[format] if out is None else out
    if target.is_dir():
        raise CommandError(f"expected a file for --out, and {target} is a folder")
    require_writable_folder(target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    if format == "mib":
        write_mib(saved.circuit, target, d_model=d_model or _width(saved.spec.model))
    elif format in ("gv", "svg", "png"):
        write_whole(target, _picture(saved, format))
    else:
        {"graphml": write_graphml, "gexf": write_gexf}[format](saved.circuit, target)
    if as_json:
        typer.echo(json.dumps({"file": str(target), "format": format, "edges": saved.circuit.n_edges}))
    else:
        typer.echo(f"{saved.circuit}: {target}")


def _picture(saved: "Run", format: str) -> bytes:
    from circuits.pages.dot import render_png
    from circuits.pages.export import graph_text, picture_of

    if format == "svg":
        return picture_of(saved).encode()
    text = graph_text(saved)
    if format == "gv":
        return text.encode()
    drawn = render_png(text)
    if drawn is None:
        raise CommandError(
            "--format png is drawn by graphviz' `dot`, which is not installed; --format svg and gv need it not"
        )
    return drawn


def _width(model: str) -> int:
    """The width of the residual stream, as the model's folder says."""
    from circuits.model import library
    from circuits.records import Unreadable, read_json

    file = (library.find(model) or Path(model)) / "config.json"
    try:
        config: dict[str, Any] = read_json(file)
    except Unreadable:
        config = {}
    for name in ("hidden_size", "n_embd", "d_model"):
        if isinstance(config.get(name), int):
            return config[name]
    raise CommandError(
        f"the MIB format wants the width of the residual stream, and {model} is no local folder that says it; give --d-model"
    )

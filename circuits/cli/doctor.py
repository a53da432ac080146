"""``kcircuit doctor``: what this machine has of what the commands use."""

import json
import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

from circuits.choices import counted
from circuits.cli.app import JsonOption, app

PACKAGES = ("torch", "transformer-lens", "transformers", "numpy", "plotly", "pydantic", "typer")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
USES = {
    "dot": "`kcircuit export --format png` and `circuit.svg` by graphviz",
    "chromium": "the README's pictures of pages, and the tests that click in them",
}
"""What goes without where a program is not there; every page opens without either."""


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine has: versions, programs, models, processors, memory, GPU. Changes nothing."""
    found = examine()
    typer.echo(json.dumps(found, ensure_ascii=False, indent=1) if as_json else "\n".join(lines(found)))


def examine() -> dict[str, Any]:
    """Versions by package, programs by path (None: not there), the models that go by a name, threads, bytes of memory, GPUs."""
    import torch

    import circuits
    from circuits.engines.memory import available_memory
    from circuits.model import library

    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "versions": {
            "kcircuit": circuits.__version__,
            "python": platform.python_version(),
            **{package: _version(package) for package in PACKAGES},
        },
        "system": platform.platform(),
        "programs": {
            "dot": shutil.which("dot"),
            "chromium": next((path for name in BROWSERS if (path := shutil.which(name))), None),
        },
        "models": {entry.name: {"present": entry.present, "where": entry.where} for entry in library.entries()},
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": available_memory(torch.device("cpu")),
        "gpus": [
            {"device": f"cuda:{i}", "name": torch.cuda.get_device_name(i), "memory": torch.cuda.mem_get_info(i)[0]}
            for i in gpus
        ],
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """The same for a reader: what is missing says what goes without it."""
    told = [f"{package} {number or 'is not installed'}" for package, number in found["versions"].items()]
    said = [", ".join(told), found["system"]]
    for program, path in found["programs"].items():
        said.append(f"{program}: {path or f'not there; without it there is no {USES[program]}'}")
    for name, model in found["models"].items():
        said.append(f"{name}: {'present, ' if model['present'] else 'not here, '}{model['where']}")
    said.append(
        f"{counted(found['cores'] or 1, 'core')}, torch uses {counted(found['threads'], 'thread')}; "
        f"{found['memory'] / 1e9:.1f} GB of memory can be taken"
    )
    gpus = [f"{gpu['device']}: {gpu['name']}, {gpu['memory'] / 1e9:.1f} GB free" for gpu in found["gpus"]]
    return said + (gpus or ["no GPU: --device cpu"])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

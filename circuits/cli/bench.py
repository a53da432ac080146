"""``kcircuit bench``: the engines against each other."""

import json
from typing import Annotated

import typer

from circuits.cli.app import CommandError, DeviceOption, JsonOption, ModelOption, app, load


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="acdc: the reference engine and the fast one on the same facts.")],
    n: Annotated[int, typer.Option("--n", min=1, help="How many facts, one a relation.")] = 12,
    tau: Annotated[float, typer.Option(help="Threshold in nats.")] = 0.01,
    model: ModelOption = "factlm",
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Time both engines on the same facts, and count the decisions in which they differ (it must be 0)."""
    if what != "acdc":
        raise CommandError(f"expected `kcircuit bench acdc`, got {what!r}; benchmarks/README.md names the longer ones")
    from circuits.datasets import relations_for
    from circuits.model import library
    from circuits.studies.bench import compare, first_facts

    facts = first_facts(relations_for(library.profile_of(model)), n)
    result = compare(load(model, device), facts, tau=tau, progress=lambda line: typer.echo(line, err=True)).to_json()
    if as_json:
        typer.echo(json.dumps(result))
        return
    typer.echo(
        f"{result['facts']} facts, tau {tau:g}: the fast engine takes {result['median_seconds']:.3f} s a fact, the reference "
        f"{result['median_seconds_reference']:.2f} s (medians), a median ratio of {result['median_ratio']:.0f}; "
        f"{result['decisions_differing']} decisions differ, {result['near_ties']} near ties; "
        f"peak memory {result['peak_bytes'] / 1e9:.2f} GB"
    )

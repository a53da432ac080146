"""``kcircuit bench``: the engines against each other."""

import json
from typing import Annotated, Any

import typer

from circuits.choices import Granularity
from circuits.cli.app import CommandError, JsonOption, app
from circuits.cli.options import asks
from circuits.studies.specs import OnModel

REFERENCE_EDGES = 20_000
"""Up to so many edges the reference engine is asked."""


@app.command()
@asks(OnModel)
def bench(
    asked: dict[str, Any],
    what: Annotated[str, typer.Argument(help="acdc: the reference engine and the fast one on the same facts.")],
    n: Annotated[int, typer.Option("--facts", "--n", min=1, help="How many facts, one a relation.")] = 12,
    tau: Annotated[float, typer.Option(help="Threshold in nats.")] = 0.01,
    granularity: Annotated[Granularity, typer.Option(help="qkv: a head's slots apart; node: merged.")] = "qkv",
    as_json: JsonOption = False,
) -> None:
    """Time both engines on the same facts, and count the decisions in which they differ (it must be 0).

    Of a real model the reference would take days: there the fast engine is compared with itself by plain products, and with
    what the processor can do.
    """
    if what != "acdc":
        raise CommandError(f"expected `kcircuit bench acdc`, got {what!r}; benchmarks/README.md names the longer ones")
    from circuits.datasets import relations_for
    from circuits.model import library
    from circuits.studies.bench import compare, first_facts
    from circuits.studies.loading import load_asked
    from circuits.studies.roofline import real_searches

    def say(line: str) -> None:
        typer.echo(line, err=True)

    spec = OnModel(**asked)
    facts, loaded = first_facts(relations_for(library.profile_of(spec.model)), n), load_asked(spec)
    real = loaded.graph(granularity).n_edges > REFERENCE_EDGES
    if real:
        result = real_searches(loaded, facts, tau=tau, granularity=granularity, progress=say)
    else:
        result = compare(loaded, facts, tau=tau, granularity=granularity, progress=say).to_json()
    if as_json:
        typer.echo(json.dumps(result))
        return
    if real:
        typer.echo(
            f"{result['facts']} facts, tau {tau:g}: {result['search_seconds']:.1f} s a search (median), "
            f"{result['roofline_share']:.0%} of it its products at the processor's full speed; "
            f"{result['decisions_differing']} decisions differ from those by plain products, {result['near_ties']} near ties; "
            f"peak memory {result['peak_bytes'] / 1e9:.2f} GB"
        )
        return
    typer.echo(
        f"{result['facts']} facts, tau {tau:g}: the fast engine takes {result['median_seconds']:.3f} s a fact, the reference "
        f"{result['median_seconds_reference']:.2f} s (medians), a median ratio of {result['median_ratio']:.0f}; "
        f"{result['decisions_differing']} decisions differ, {result['near_ties']} near ties; "
        f"peak memory {result['peak_bytes'] / 1e9:.2f} GB"
    )

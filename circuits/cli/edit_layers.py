"""``kcircuit edit sweep-layers``: where a method should edit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption
from circuits.cli.edit import edit_app
from circuits.cli.edit_options import (
    parse_layers,
    parse_settings,
    progress_line,
    requests_of,
    resources_of,
)
from circuits.cli.options import asks
from circuits.studies.options import command
from circuits.studies.specs import LayersSpec

if TYPE_CHECKING:
    from circuits.model import Model
    from circuits.studies.edits import Contestant
    from circuits.studies.layers import SweepRow

SHARES = ("success", "generality", "locality", "same_subject")


@edit_app.command("sweep-layers")
@asks(LayersSpec)
def sweep(
    asked: dict[str, Any],
    out: Annotated[Path | None, typer.Option(help="Write the tables (Markdown) to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Edit at one layer after another: success, generality and locality of each."""
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise CommandError(f"expected --out as a file in a folder that exists, got {out}")
    spec = LayersSpec(**asked)
    layers = spec.layers
    chosen = None if layers is None else [parse_layers(part.replace("+", ",")) for part in layers.split(",")]
    options = parse_settings(spec.settings)
    wanted = _sites(spec.sites)
    from circuits.model import Model
    from circuits.pages.tables import write_page
    from circuits.studies.edits import Contestant

    contestants = Contestant.parse_all(spec.method)
    for each in contestants:
        if each.regime.steps > 1 or each.restraint:
            raise CommandError(f"a sweep makes single edits or batches, with no restraint; got {each}")
    loaded = Model.load(spec.model)
    requests = requests_of(loaded, spec.cases, spec.n, spec.seed)
    found: list[tuple[Contestant, SweepRow]] = []
    with progress_line() as show:
        for each in contestants:
            rows = _swept(loaded, each, requests, chosen, wanted, resources_of(spec.corpus), spec.seed, show, options)
            found += [(each, row) for row in rows]
    if out is not None:
        made_by = command(["edit", "sweep-layers"], spec, more=("--out", str(out)))
        write_page(out, _page(found, loaded, spec.n, spec.seed, made_by))
    if as_json:
        rows_json = [{"method": each.method, **_row(row)} for each, row in found]
        asked_for = {"model": spec.model, "weights": loaded.weights, "method": spec.method, "n": spec.n}
        typer.echo(json.dumps({**asked_for, "rows": rows_json}))
        return
    for each, row in found:
        typer.echo(f"{each.method:<6} {row}")
    if out is not None:
        typer.echo(f"\nWrote {out}")


def _sites(text: str) -> tuple[str, ...]:
    sites = tuple(part.strip() for part in text.split(","))
    if not set(sites) <= {"subject", "end"}:
        raise CommandError(f"expected --sites subject, end or both, got {text!r}")
    return sites


def _swept(
    model: "Model",
    contestant: "Contestant",
    requests: Sequence[Any],
    layers: Sequence[Sequence[int]] | None,
    sites: Sequence[str],
    resources: Any,
    seed: int,
    show: Any,
    options: dict[str, Any],
) -> "tuple[SweepRow, ...]":
    """One method at every layer, at each site if it has such a choice and ``--set`` does not make it."""
    from circuits.editing import find_method
    from circuits.studies.layers import sweep_layers

    choices = (
        [{"site": site} for site in sites]
        if find_method(contestant.method).has_sites and "site" not in options
        else [{}]
    )
    return tuple(
        row
        for choice in choices
        for row in sweep_layers(
            model,
            contestant.method,
            requests,
            layers,
            batch=contestant.regime.batch,
            resources=resources,
            seed=seed,
            progress=show,
            **options,
            **choice,
        )
    )


def _row(row: "SweepRow") -> dict[str, Any]:
    from circuits.studies.layers import share_of

    shares = {name: share_of(getattr(row, name)) for name in SHARES}
    return {
        "layers": list(row.layers),
        "site": row.site,
        **{name: None if share != share else round(100 * share, 3) for name, share in shares.items()},
        "seconds": round(row.seconds, 3),
    }


def _page(found: "list[tuple[Contestant, SweepRow]]", model: "Model", n: int, seed: int, command: str) -> str:
    from circuits.editing import find_method
    from circuits.pages.tables import grid, markdown
    from circuits.studies.columns import NOTHING, number

    parts = [
        "# Edits layer by layer",
        f"Model {model.name} (weights {model.weights[:12]}), {n} facts, seed {seed}, written by `{command}`. Shares in percent, "
        "of answers all of whose tokens are the likeliest. Locality is the mean of three kinds, as wherever edits are compared: "
        "other subjects, other facts of the edited subject (also apart, in the next column), and unrelated facts. "
        "The site is the token at which ROME and MEMIT store a value: the subject's last or "
        "the prompt's. Seconds an edit depend on the machine. Besides layer and site, options are the defaults.",
    ]
    for contestant in dict.fromkeys(each for each, _ in found):
        standard = find_method(contestant.method).options(model)
        layers = standard.layers if hasattr(standard, "layers") else (standard.layer,)
        lines = []
        for row in (_row(row) for each, row in found if each == contestant):
            shares = [number(row[name]) for name in SHARES]
            is_default = tuple(row["layers"]) == tuple(layers) and row["site"] == getattr(standard, "site", None)
            where = [", ".join(map(str, row["layers"])), row["site"] or NOTHING]
            lines.append([*where, *shares, number(row["seconds"], 2), "yes" if is_default else ""])
        header = ["layers", "site", "success", "generality", "locality", "same subject", "seconds", "default"]
        parts += [f"## {contestant.method}, {contestant.regime}", markdown(grid(header, lines, left=2))]
    return "\n\n".join(parts) + "\n"

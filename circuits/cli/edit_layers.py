"""``kcircuit edit sweep-layers``: where a method should edit."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, ModelOption
from circuits.cli.edit import edit_app
from circuits.cli.edit_options import (
    CasesOption,
    CorpusOption,
    SetOption,
    parse_layers,
    parse_settings,
    progress_line,
    requests_of,
    resources_of,
)

if TYPE_CHECKING:
    from circuits.model import Model
    from circuits.studies.edits import Contestant
    from circuits.studies.layers import SweepRow

SHARES = ("success", "generality", "locality", "same_subject")
SITES = "subject,end"


@edit_app.command("sweep-layers")
def sweep(
    method: Annotated[
        str, typer.Option(help="A method, or several: rome,memit/batch:10. Facts of a batch are edited together.")
    ] = "rome",
    n: Annotated[int, typer.Option("--n", min=1, help="How many facts.")] = 20,
    layers: Annotated[
        str | None, typer.Option(help="Layers, separated by commas; those joined by + are edited together: 0,1,2+3.")
    ] = None,
    sites: Annotated[
        str,
        typer.Option(help="Where ROME and MEMIT store a value: at the subject's last token, the prompt's end, both."),
    ] = SITES,
    model: ModelOption = "factlm",
    cases: CasesOption = None,
    settings: SetOption = None,
    corpus: CorpusOption = None,
    seed: Annotated[int, typer.Option(help="Of the facts, the new objects and the edits.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the tables (Markdown) to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Edit at one layer after another: success, generality and locality of each."""
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise CommandError(f"expected --out as a file in a folder that exists, got {out}")
    chosen = None if layers is None else [parse_layers(part.replace("+", ",")) for part in layers.split(",")]
    options = parse_settings(settings)
    wanted = _sites(sites)
    from circuits.model import Model
    from circuits.pages.tables import write_page
    from circuits.studies.edits import Contestant

    contestants = Contestant.parse_all(method)
    for each in contestants:
        if each.regime.steps > 1 or each.restraint:
            raise CommandError(f"a sweep makes single edits or batches, with no restraint; got {each}")
    loaded = Model.load(model)
    requests = requests_of(loaded, cases, n, seed)
    found: list[tuple[Contestant, SweepRow]] = []
    with progress_line() as show:
        for each in contestants:
            rows = _swept(loaded, each, requests, chosen, wanted, resources_of(corpus), seed, show, options)
            found += [(each, row) for row in rows]
    if out is not None:
        given = {"method": method, "n": n, "layers": layers, "sites": sites, "model": model, "seed": seed}
        given |= {"cases": cases, "corpus": corpus, "out": out}
        write_page(out, _page(found, loaded, n, seed, _command(given, settings or [])))
    if as_json:
        rows_json = [{"method": each.method, **_row(row)} for each, row in found]
        typer.echo(json.dumps({"model": model, "weights": loaded.weights, "method": method, "n": n, "rows": rows_json}))
        return
    for each, row in found:
        typer.echo(f"{each.method:<6} {row}")
    if out is not None:
        typer.echo(f"\nWrote {out}")


def _sites(text: str) -> tuple[str, ...]:
    sites = tuple(part.strip() for part in text.split(","))
    if not set(sites) <= set(SITES.split(",")):
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


def _command(given: dict[str, Any], settings: Sequence[str]) -> str:
    """The command line that these options are, without those that are the defaults."""
    defaults = {"method": "rome", "n": 20, "sites": SITES, "model": "factlm", "seed": 0}
    words = ["kcircuit", "edit", "sweep-layers"]
    for name, value in given.items():
        if value != defaults.get(name):
            words += [f"--{name}", str(value)]
    return shlex.join([*words, *(word for setting in settings for word in ("--set", setting))])


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

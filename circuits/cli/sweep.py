"""``kcircuit sweep``: a study over relations, models, methods, thresholds and seeds, each case kept in a store."""

import json
import shutil
import time
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import CommandError, JsonOption, app
from circuits.cli.options import asks
from circuits.cli.progress import progress, stoppable
from circuits.discovery.budget import seconds
from circuits.studies.specs import MaybeEdited

if TYPE_CHECKING:
    from circuits.studies.product import Contexts, Product
    from circuits.studies.store import Database
    from circuits.studies.study import Case
    from circuits.studies.sweep import Where

ALONE = frozenset({"table", "stability", "certify", "criteria"})
"""Studies that are given more than their spec, by a command of their own."""


@app.command()
@asks(MaybeEdited, leave_out=("model",))
def sweep(
    asked: dict[str, Any],
    study: Annotated[str, typer.Argument(help="discover, edits, layers, trace, diff-table, truth, ...")],
    relations: Annotated[
        str | None, typer.Option("--relation", "--relations", help="all, or names: adj_antonym,country_language.")
    ] = None,
    models: Annotated[str | None, typer.Option("--model", "--models", "-m", help="factlm,smollm2")] = None,
    methods: Annotated[str | None, typer.Option("--method", "--methods", help="acdc,eap-ig")] = None,
    taus: Annotated[str | None, typer.Option("--tau", "--taus", help="0.01,0.03")] = None,
    seeds: Annotated[str | None, typer.Option("--seed", "--seeds", help="0,1,2")] = None,
    n: Annotated[int | None, typer.Option(min=1, help="How many facts of each.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="A field of the study's spec, FIELD=VALUE or FIELD=A,B,C; again for another."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="TOML: [set] with fields, [over] with lists of values to combine.")
    ] = None,
    store: Annotated[
        Path, typer.Option(help="SQLite file that keeps every case; a sweep that was stopped goes on.")
    ] = Path("kcircuit.db"),
    on: Annotated[str, typer.Option(help="local: in this process; pool: in several; ray: on a cluster.")] = "local",
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes. [default: one a core, as memory allows]")] = None,
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster, or auto. [default: one is started on this machine]")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0.0, help="With ray: what each process takes of a GPU.")] = 0.0,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say how many cases, how long and how much memory; do nothing.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try cases again that failed.")] = False,
    budget: Annotated[str | None, typer.Option(help="Stop after so long: 90s, 30m, 8h.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Do a study for every combination of facts and settings; each case is done once and kept, failures too."""
    from circuits.studies.names import find_study
    from circuits.studies.product import product, specs_of
    from circuits.studies.store import Database
    from circuits.studies.sweep import Pool
    from circuits.studies.sweep import sweep as work

    named = find_study(study)
    if study in ALONE:
        raise CommandError(f"{study} is given more than settings: ask `kcircuit {study}`")
    if on not in ("local", "pool", "ray"):
        raise CommandError(f"expected --on local, pool or ray, got {on!r}")
    if address is not None and on != "ray":
        raise CommandError("--address is that of a Ray cluster: add --on ray")
    if on == "ray":
        from circuits.studies.cluster import require_ray

        require_ray()
    limit = None if budget is None else seconds(budget)
    fixed, over = _asked(file, setting or [])
    fixed |= {} if n is None else {"n": n}
    fixed |= {name: value for name, value in asked.items() if value != MaybeEdited.model_fields[name].default}
    lists = {"model": models, "relation": relations, "method": methods, "tau": taus, "seed": seeds}
    over = {name: _listed(text) for name, text in lists.items() if text is not None} | over
    if over.get("relation") == ["all"]:
        over["relation"] = _all_relations(over.get("model", [fixed.get("model")])[0])
    specs = specs_of(named.spec, fixed, over)
    searches = store.with_name(f"{store.name}-searches")
    each = product(named.load())
    began = time.perf_counter()
    with Database(store) as kept, stoppable(True), progress("cases") as (watch, finished):
        contexts = each.open(specs, None)
        for spec in specs:
            kept.asked(each.of, spec)
        cases = each.cases(specs, contexts)
        where = _where(on, contexts, jobs, address, gpus)
        if plan:
            n = where.jobs if isinstance(where, Pool) else (jobs or 1) if on == "ray" else 1
            _print_plan(_plan(each, specs, contexts, cases, kept, n), as_json)
            return
        done = skipped = failed = seen = 0
        outcomes = work(
            each,
            specs,
            context=contexts,
            where=where,
            store=kept,
            watch=replace(watch, searches=searches),
            finished=finished,
            failures="retry" if retry else "keep",
        )
        for outcome in outcomes:
            seen += 1
            skipped += outcome.kept
            failed += outcome.error is not None
            done += not outcome.kept and outcome.error is None
            if limit is not None and time.perf_counter() - began >= limit:
                outcomes.close()  # type: ignore[attr-defined]
                break
    told = {
        "study": study,
        "cases": len(cases),
        "done": done,
        "skipped": skipped,
        "failed": failed,
        "left": len(cases) - seen,
        "seconds": round(time.perf_counter() - began, 2),
    }
    if not failed and not told["left"]:
        # What a case that is done has searched, nothing asks for again.
        shutil.rmtree(searches, ignore_errors=True)
    if as_json:
        typer.echo(json.dumps(told))
        return
    typer.echo(
        f"{told['cases']:,} cases: {done:,} done, {skipped:,} kept from before, {failed:,} failed, in {told['seconds']:.0f} s; in {store}"
    )
    if failed:
        typer.echo(f"`kcircuit store query {store} failures` says why; --retry tries them again")


def _asked(file: Path | None, settings: list[str]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """(fields with one value, fields with several)."""
    fixed: dict[str, Any] = {}
    over: dict[str, list[Any]] = {}
    if file is not None:
        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise CommandError(f"{file}: expected TOML: {error}") from error
        if unknown := content.keys() - {"set", "over"}:
            raise CommandError(f"{file}: expected the tables [set] and [over], got {', '.join(sorted(unknown))}")
        fixed, over = dict(content.get("set", {})), dict(content.get("over", {}))
        if bad := [name for name, values in over.items() if not isinstance(values, list) or not values]:
            raise CommandError(f"{file}: expected a list of values for {bad[0]} in [over]")
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise CommandError(f"expected --set FIELD=VALUE, got {text!r}")
        if "," in value:
            over[name] = _listed(value)
        else:
            fixed[name] = value
    return fixed, over


def _listed(text: str) -> list[Any]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _all_relations(model: str | None) -> list[str]:
    from circuits.datasets import relations_for
    from circuits.model import library
    from circuits.paths import FACTLM

    return list(relations_for(library.profile_of(model or FACTLM)))


def _where(on: str, contexts: "Contexts", jobs: int | None, address: str | None, gpus: float) -> "Where | None":
    """Where cases are worked off, by the model of the first; None for this process."""
    from circuits.studies.cores import fitting, process_bytes
    from circuits.studies.sweep import Pool

    model = getattr(contexts.at(0), "model", None)
    match on:
        case "ray":
            from circuits.studies.cluster import Cluster

            return Cluster(jobs, address, gpus=gpus, memory=0 if model is None else process_bytes(model))
        case "pool":
            n = fitting(jobs, model) if model is not None else jobs or 1
            return Pool(n) if n > 1 else None
        case _:
            return None


def _plan(
    each: "Product",
    specs: tuple[Any, ...],
    contexts: "Contexts",
    cases: "Sequence[Case[Any]]",
    kept: "Database",
    jobs: int,
) -> dict[str, Any]:
    """How much there is to do. Time by what cases of this study and these weights took before; memory by the model."""
    from circuits.studies.cores import process_bytes

    there: list[object] = []
    for case in cases:
        key = each.key(specs, contexts, case)
        sql = 'SELECT 1 FROM results WHERE (study, algorithm, spec, weights, "case") = (?, ?, ?, ?, ?)'
        there.append(next(kept.query(sql, (key.study, key.algorithm, key.spec, key.weights, key.case)), None))
    weights = set(contexts.weights.values())
    marks = ", ".join("?" * len(weights))
    sql = f"SELECT avg(seconds) AS mean FROM results WHERE study = ? AND error IS NULL AND weights IN ({marks})"
    mean = next(kept.query(sql, (each.name, *weights)))["mean"]
    todo = sum(one is None for one in there)
    model = getattr(contexts.at(0), "model", None)
    return {
        "cases": len(cases),
        "kept": len(cases) - todo,
        "todo": todo,
        "settings": len(specs),
        "jobs": jobs,
        "seconds_a_case": mean,
        "seconds": None if mean is None else mean * todo / jobs,
        "bytes": None if model is None else jobs * process_bytes(model),
    }


def _print_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(plan))
        return
    typer.echo(f"{plan['cases']:,} cases of {plan['settings']:,} settings, {plan['kept']:,} of them kept already")
    if plan["seconds"] is None:
        typer.echo("time: not known before a case of this study and model is done")
    else:
        typer.echo(
            f"time: {plan['seconds'] / 60:.1f} minutes at {plan['seconds_a_case']:.2f} s a case in {plan['jobs']} processes"
        )
    if plan["bytes"] is not None:
        typer.echo(f"memory: about {plan['bytes'] / 1e9:.1f} GB")

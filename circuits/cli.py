"""The command line: parse, call one function, print. Whatever is slow to import waits until it is needed."""

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from circuits.discovery.acdc import Progress
    from circuits.facts import Fact, Relation, Relations
    from circuits.model import Model
    from circuits.runs import Run, RunSpec
    from circuits.viz.report import Page

app = typer.Typer(
    name="kcircuit",
    help="Knowledge circuits: which heads and MLPs of a transformer recall a fact, and what each of them does.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

STATE_FILE = "acdc-state.json"
SECONDS_BETWEEN_SAVES = 30.0


class CommandError(ValueError):
    """A command that cannot be carried out as given."""


class Stopped(Exception):
    """A command that was stopped on purpose, its work saved."""


ModelOption = Annotated[str, typer.Option("--model", "-m", help="factlm, a local HuggingFace folder, or a hub name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


@app.command()
def discover(
    fact: Annotated[
        str | None,
        typer.Option(help="A sentence that ends with its object, or 'prompt => object'."),
    ] = None,
    subject: Annotated[str | None, typer.Option(help="The subject, as spelled in the prompt.")] = None,
    object: Annotated[str | None, typer.Option(help="The object, where it is more than the last word.")] = None,
    relation: Annotated[str | None, typer.Option(help="Build one circuit for several facts of this relation.")] = None,
    split: Annotated[str, typer.Option(help="Half of the relation's facts to build from: val or test.")] = "val",
    n: Annotated[int, typer.Option("--n", min=1, help="How many facts of the relation.")] = 20,
    model: ModelOption = "factlm",
    method: Annotated[str, typer.Option(help="Search method: acdc.")] = "acdc",
    tau: Annotated[
        str, typer.Option(help="Threshold in nats, or several: 0.001,0.01. Larger keeps fewer edges.")
    ] = "0.01",
    absolute: Annotated[bool, typer.Option("--absolute", help="Keep suppressive edges too.")] = False,
    granularity: Annotated[str, typer.Option(help="qkv: a head's slots apart; node: merged.")] = "qkv",
    ablation: Annotated[str, typer.Option(help="zero, mean or resample.")] = "zero",
    engine: Annotated[str, typer.Option(help="sparse: fast; hook: the reference.")] = "sparse",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    max_memory: Annotated[str | None, typer.Option(help="Memory the fast engine may use, such as 4GB.")] = None,
    processing: Annotated[str, typer.Option(help="compatibility (folded, centred weights) or raw.")] = "compatibility",
    compat: Annotated[str | None, typer.Option(help="kc: the published code's diluted metric.")] = None,
    seed: Annotated[int, typer.Option(help="Of splits and corrupted prompts.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Also for facts that the model does not know.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for run.json, circuit.json, circuit.gv, report.html.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the knowledge circuit of a fact, or one circuit for several facts of a relation."""
    if relation is not None and (subject is not None or object is not None):
        raise CommandError("--subject and --object belong to --fact; a relation's facts have their own")
    if (fact is None) == (relation is None):
        raise CommandError("expected either --fact or --relation, got " + ("neither" if fact is None else "both"))
    if out is not None:
        _require_writable_folder(out)
    taus = _taus(tau)
    memory = _bytes(max_memory)
    started = time.perf_counter()
    from circuits.datasets import load_relations

    relations = load_relations()
    choices = {
        "model": model,
        "method": method,
        "tau": taus[0],
        "absolute": absolute,
        "granularity": granularity,
        "ablation": ablation,
        "engine": engine,
        "device": device,
        "dtype": dtype,
        "processing": processing,
        "compat": compat,
        "seed": seed,
        "force": force,
    }
    if fact is not None:
        from circuits.facts import parse_fact

        spec = _spec((parse_fact(fact, relations.values(), subject=subject, object=object),), **choices)
        loaded = _load(spec)
    else:
        assert relation is not None
        chosen = _relation(relations, relation)
        # Checked before the model is loaded, because that takes a while.
        spec = _spec(chosen.facts(), relation=relation, split=split, **choices)
        loaded = _load(spec)
        facts, test = _split(chosen, split, n, loaded, seed, force)
        spec = _spec(facts, test_facts=test, relation=relation, split=split, **choices)
    # A sweep writes one folder a threshold.
    folders = {one: out if out is None or len(taus) == 1 else out / f"tau-{one:g}" for one in taus}
    summaries = []
    for result in _search(spec, folders, relations, loaded, memory):
        folder = folders[result.spec.tau]
        if folder is not None:
            _export(result, folder)
        summary = {**result.summary(), "tau": result.spec.tau, "seconds": round(time.perf_counter() - started, 2)}
        summaries.append(summary)
        if not as_json:
            _print_summary(result, summary)
            if folder is not None:
                typer.echo(f"\nOpen {folder / 'report.html'}")
        started = time.perf_counter()
    if as_json:
        typer.echo(json.dumps(summaries[0] if len(summaries) == 1 else summaries, ensure_ascii=False))


@app.command()
def facts(
    relation: Annotated[str | None, typer.Option("--relation", "-r", help="Only this relation.")] = None,
    known: Annotated[bool, typer.Option("--known", help="Only facts that the model knows (rank at most 10).")] = False,
    model: ModelOption = "factlm",
    as_json: JsonOption = False,
) -> None:
    """List the dataset's facts, each with the rank that the model gives the answer."""
    from circuits.datasets import load_relations
    from circuits.evaluation import KNOWN_RANK, whole_model
    from circuits.model import Model

    relations = load_relations()
    chosen = [_relation(relations, relation)] if relation else list(relations.values())
    listed = [fact for item in chosen for fact in item.facts()]
    answers = whole_model(Model.load(model), listed)
    rows = [
        {
            "relation": fact.relation,
            "subject": fact.subject,
            "object": fact.object,
            "prompt": fact.prompt,
            "rank": int(rank),
            "probability": probability,
        }
        for fact, rank, probability in zip(
            listed, answers.rank.per_example, answers.probability.per_example, strict=True
        )
        if not known or rank <= KNOWN_RANK
    ]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        "relation", "prompt", "object", "rank", "probability", title=f"{len(rows):,} facts, as {model} ranks them"
    )
    table.columns[3].justify = table.columns[4].justify = "right"
    for row in rows:
        table.add_row(
            row["relation"], escape(row["prompt"]), escape(row["object"]), str(row["rank"]), f"{row['probability']:.3f}"
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Folder of a saved run (run.json).")]) -> None:
    """Draw a saved run's page and graph again; no model is loaded."""
    from circuits.runs import Run

    result = Run.load(folder)
    _require_writable_folder(folder)
    _export(result, folder)
    typer.echo(f"Open {folder / 'report.html'}")


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="acdc: the reference engine and the fast one on the same facts.")],
    n: Annotated[int, typer.Option("--n", min=1, help="How many facts, one a relation.")] = 12,
    tau: Annotated[float, typer.Option(help="Threshold in nats.")] = 0.01,
    model: ModelOption = "factlm",
    as_json: JsonOption = False,
) -> None:
    """Time both engines on the same facts, and count the decisions in which they differ (it must be 0)."""
    if what != "acdc":
        raise CommandError(f"expected `kcircuit bench acdc`, got {what!r}; benchmarks/README.md names the longer ones")
    from circuits.bench import compare, first_facts
    from circuits.datasets import load_relations
    from circuits.model import Model

    facts = first_facts(load_relations(), n)
    result = compare(Model.load(model), facts, tau=tau, progress=lambda line: typer.echo(line, err=True)).to_json()
    if as_json:
        typer.echo(json.dumps(result))
        return
    typer.echo(
        f"{result['facts']} facts, tau {tau:g}: the fast engine takes {result['median_seconds']:.3f} s a fact, the reference "
        f"{result['median_seconds_reference']:.2f} s (medians), a median ratio of {result['median_ratio']:.0f}; "
        f"{result['decisions_differing']} decisions differ, {result['near_ties']} near ties; "
        f"peak memory {result['peak_bytes'] / 1e9:.2f} GB"
    )


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        import circuits

        typer.echo(f"kcircuit {circuits.__version__}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Bad input ends in one line on stderr and exit status 1; Ctrl-C in 130."""
    try:
        app(arguments, standalone_mode=True)
    except (ValueError, OSError, FloatingPointError) as error:
        # Every error of this project that a user can cause is one of these, with a message that says what to do.
        if os.environ.get("KCIRCUIT_TRACEBACK"):
            raise
        typer.echo(f"error: {_one_paragraph(error)}", err=True)
        sys.exit(1)
    except Stopped as stop:
        typer.echo(str(stop), err=True)
        sys.exit(130)


# ---- parts of commands -----------------------------------------------------------------------------------------------


def _spec(facts: "tuple[Fact, ...]", **choices: Any) -> "RunSpec":
    from circuits.runs import RunSpec

    return RunSpec(facts=facts, **choices)


def _load(spec: "RunSpec") -> "Model":
    from circuits.runs import load_model

    return load_model(spec)


def _taus(text: str) -> list[float]:
    try:
        taus = [float(part) for part in text.split(",")]
    except ValueError:
        raise CommandError(f"expected --tau as a number of nats or several, such as 0.001,0.01, got {text!r}") from None
    if not all(0 < tau < math.inf for tau in taus):
        raise CommandError(f"tau must be a finite number of nats above 0, got {text}")
    if len({f"{tau:g}" for tau in taus}) < len(taus):
        raise CommandError(f"expected thresholds that differ in their first six digits, got {text}")
    return taus


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    from circuits.engines.preflight import parse_bytes

    return parse_bytes(text)


def _relation(relations: "Relations", name: str) -> "Relation":
    if name not in relations:
        import difflib

        near = difflib.get_close_matches(name, relations, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "`kcircuit facts` lists them"
        raise CommandError(f"no relation called {name!r} in the dataset; {hint}")
    return relations[name]


def _split(
    relation: "Relation", split: str, n: int, model: "Model", seed: int, force: bool
) -> "tuple[tuple[Fact, ...], tuple[Fact, ...]]":
    """(n facts of that half that the model knows, n facts of the other half)."""
    from circuits.datasets.split import split_facts
    from circuits.evaluation import KNOWN_RANK, whole_model

    built = split_facts(relation, "val" if split == "val" else "test", seed=seed)
    other = split_facts(relation, "test" if split == "val" else "val", seed=seed)
    if not force:
        ranks = whole_model(model, built).rank.per_example
        built = tuple(fact for fact, rank in zip(built, ranks, strict=True) if rank <= KNOWN_RANK)
    if not built:
        raise CommandError(f"{model.name} knows no fact of {relation.name}; --force builds the circuit all the same")
    return built[:n], other[:n]


def _search(
    spec: "RunSpec",
    folders: "Mapping[float, Path | None]",
    relations: "Relations",
    model: "Model",
    max_memory: int | None,
) -> "Iterator[Run]":
    """The runs of all thresholds. What is interrupted is saved beside its results, and said how to continue."""
    from circuits.discovery.acdc import Interrupted
    from circuits.runs import run_sweep, spec_digest

    def state_file(tau: float) -> Path:
        # Without a folder of its own, a search is told from others in the same place by what it searches.
        folder = folders[tau]
        name = f"kcircuit-{spec_digest(spec.model_copy(update={'tau': tau}))}.state.json"
        return Path(name) if folder is None else folder / STATE_FILE

    signal.signal(signal.SIGTERM, _stop)
    waiting = sorted(folders)
    if state_file(waiting[0]).exists():
        typer.echo(f"continuing the search saved in {state_file(waiting[0])}", err=True)
    try:
        with _progress_bar(state_file(waiting[0]).exists()) as progress:
            for result in run_sweep(
                spec,
                waiting,
                relations,
                model=model,
                state_file=state_file,
                max_memory=max_memory,
                notice=lambda line: typer.echo(line, err=True),
                progress=progress,
            ):
                state_file(waiting.pop(0)).unlink(missing_ok=True)
                yield result
    except Interrupted as stop:
        path = state_file(waiting[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        stop.state.save(path)
        raise Stopped(
            f"{stop}. Saved to {path}: run the same command again to continue, or delete the file to start anew"
        ) from None


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _progress_bar(resumed: bool) -> Iterator[Callable[["Progress"], None]]:
    """Edges done, edges kept, NLL now, time left; on stderr, so that stdout holds the result alone."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(
        TextColumn("resuming" if resumed else "searching"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("edges, {task.fields[kept]:,} kept, NLL {task.fields[nll]:.4f} nats"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("acdc", total=None, kept=0, nll=float("nan"))

        def show(now: "Progress") -> None:
            bar.update(task, completed=now.done, total=now.total, kept=now.kept, nll=now.nll)

        yield show


def _require_writable_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"expected a folder for the results, and {folder} is a file")
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise CommandError(f"cannot write to {folder}: {existing} is not a folder one may write to")


def _export(result: "Run", out: Path) -> None:
    """Write the run, its graph and its page; everything is made before anything is written."""
    from circuits.viz.dot import circuit_to_dot, render_svg
    from circuits.viz.report import render

    page = _page(result)
    dot = circuit_to_dot(page.circuit, page.readouts, title=page.title)
    texts = {"circuit.gv": dot, "report.html": render(page)}
    svg = render_svg(dot)
    if svg is not None:
        texts["circuit.svg"] = svg
    out.mkdir(parents=True, exist_ok=True)
    result.save(out)
    for name, text in texts.items():
        part = out / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(out / name)


def _page(result: "Run") -> "Page":
    """The values that the page shows, from the saved run alone."""
    from circuits.viz.report import Page

    spec, summary = result.spec, result.summary()
    fact, circuit = spec.facts[0], result.circuit
    numbers = [
        ("edges kept", f"{circuit.n_edges:,} of {circuit.graph.n_edges:,}"),
        ("nodes kept", f"{len(circuit.nodes)} of {len(circuit.graph.nodes)}"),
        ("rank of the answer, circuit alone", f"{summary['rank_circuit']:,}"),
        ("rank of the answer, whole model", f"{summary['rank_model']:,}"),
        ("NLL, circuit alone", f"{summary['nll_circuit']:.3f} nats"),
        ("NLL, whole model", f"{summary['nll_model']:.3f} nats"),
        ("Hit@10, circuit alone", f"{summary['hit10_circuit']:.2f}"),
        ("Hit@10, whole model", f"{summary['hit10_model']:.2f}"),
    ]
    if "hit10_test_circuit" in summary:
        numbers.append(
            (f"Hit@10 on {summary['test_facts']} other facts, circuit", f"{summary['hit10_test_circuit']:.2f}")
        )
        numbers.append((f"Hit@10 on {summary['test_facts']} other facts, model", f"{summary['hit10_test_model']:.2f}"))
    settings = [
        ("model", f"{spec.model} (weights {circuit.provenance.weights[:12]}, {spec.processing})"),
        ("facts", "; ".join(fact.statement for fact in spec.facts)),
        ("method", spec.method),
        ("tau", f"{spec.tau:g} nats, {'absolute' if spec.absolute else 'signed'}"),
        ("ablation", spec.ablation),
        ("granularity", spec.granularity),
        ("weights", f"{spec.processing}, {spec.dtype} on {spec.device}"),
        ("metric", "the published code's, diluted over the prompt (kc)" if spec.compat else "MatchNLL"),
        ("engine", f"{result.engine}, {result.evaluations:,} evaluations, {result.near_ties} near ties"),
        ("seed", str(spec.seed)),
        ("versions", ", ".join(f"{name} {version}" for name, version in result.versions.items())),
    ]
    return Page(
        title=summary["fact"],
        subtitle=f"Prompt “{fact.prompt}”, answer “{fact.object}”"
        + (f"; one of {len(spec.facts)} facts, whose lens and trajectory are shown" if len(spec.facts) > 1 else ""),
        circuit=circuit,
        readouts=result.readouts,
        trajectory=result.trajectory,
        answer=fact.object,
        numbers=tuple(numbers),
        settings=tuple(settings),
        command=result.command(),
    )


def _print_summary(result: "Run", summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    console.print(summary["fact"], style="bold", markup=False)
    console.print(f"in {summary['model']}, engine {summary['engine']}", markup=False)
    table = Table(show_edge=False, pad_edge=False)
    for column in ("", "model", "circuit alone"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("edges", f"{summary['edges_total']:,}", f"{summary['edges_kept']:,}")
    table.add_row("NLL of the answer, nats", f"{summary['nll_model']:.4f}", f"{summary['nll_circuit']:.4f}")
    table.add_row("rank of the answer", f"{summary['rank_model']:,}", f"{summary['rank_circuit']:,}")
    table.add_row("Hit@10", f"{summary['hit10_model']:.2f}", f"{summary['hit10_circuit']:.2f}")
    if "hit10_test_model" in summary:
        table.add_row(
            f"Hit@10 on {summary['test_facts']} other facts",
            f"{summary['hit10_test_model']:.2f}",
            f"{summary['hit10_test_circuit']:.2f}",
        )
    console.print(table)
    share = 100 * summary["edges_kept"] / summary["edges_total"]
    decided = result.trajectory.decided
    console.print(
        f"The circuit keeps {share:.1f} % of the edges and {summary['nodes_kept']} nodes. "
        + (f"In the whole model the answer is first from {decided} on. " if decided else "")
        + f"{summary['evaluations']:,} evaluations, {summary['seconds']:.1f} s."
    )
    if summary["near_ties"]:
        console.print(
            f"{summary['near_ties']} steps came within 1e-5 nats of tau: on other hardware they may fall the other way."
        )


def _one_paragraph(error: BaseException) -> str:
    """A pydantic error in a line; any other as it is."""
    errors = getattr(error, "errors", None)
    if callable(errors):
        parts = []
        for item in errors():  # type: ignore[attr-defined]
            where = ".".join(str(part) for part in item["loc"])
            message = str(item["msg"]).removeprefix("Value error, ")
            parts.append(f"{where}: {message}, got {item['input']!r}" if where else message)
        return "; ".join(parts)
    return str(error)


if __name__ == "__main__":
    main()

"""``kcircuit discover``: from a fact, or a relation's facts, to a circuit."""

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli.app import (
    CommandError,
    JsonOption,
    Stopped,
    app,
    fit_threads,
    parse_memory,
    put_edit,
    require_writable_folder,
    typed_command,
)
from circuits.cli.options import asks
from circuits.cli.progress import bar_or_lines
from circuits.cli.reading import print_reading
from circuits.discovery import find_method
from circuits.discovery.budget import Budget
from circuits.graph import label_of
from circuits.studies.specs import DEFAULT_TAU, RunSpec, WhichOfMany

if TYPE_CHECKING:
    from circuits.evaluation.certificate import Certificate
    from circuits.facts import Fact, Relation, Relations
    from circuits.model import Model
    from circuits.studies.run import Run

STATE_FILE = "acdc-state.json"


@app.command()
@asks(WhichOfMany, RunSpec)
def discover(
    asked: dict[str, Any],
    split: Annotated[str, typer.Option(help="Half of the relation's facts to build from: val or test.")] = "val",
    max_memory: Annotated[str | None, typer.Option(help="Memory the fast engine may use, such as 4GB.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for run.json, circuit.json, circuit.gv, report.html; of several facts, one in it each."
        ),
    ] = None,
    siblings: Annotated[
        int,
        typer.Option(
            min=0, help="Other known subjects of the relation to build from too, whose own answers must stay."
        ),
    ] = 0,
    certificate: Annotated[bool, typer.Option(help="Certify the circuit of a single fact.")] = True,
    budget: Annotated[
        str | None,
        typer.Option(
            help="End each acdc search after so long, with what it has decided; the same command goes on: "
            "90s, 30m, 8h, or '5000 circuits' run, which is the same on any machine."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the knowledge circuit of a fact, of each of several, or one circuit for several facts of a relation."""
    which = WhichOfMany(**{name: asked.pop(name) for name in WhichOfMany.model_fields.keys() & asked.keys()})
    words, relation = which.fact, which.relation
    if relation is not None and (which.subject is not None or which.object is not None):
        raise CommandError("--subject and --object belong to --fact; a relation's facts have their own")
    if bool(words) == (relation is not None):
        raise CommandError("expected either --fact or --relation, got " + ("both" if words else "neither"))
    if len(words) > 1 and which.object is not None:
        raise CommandError("--object belongs to a single --fact; 'prompt => object' says it of each")
    if siblings and not words:
        raise CommandError("--siblings belongs to --fact: a relation's circuit is built from as many facts as --n says")
    if out is not None:
        require_writable_folder(out, "run.json" if len(words) < 2 else "facts.json")
    method, edit = asked["method"], asked.get("with_edit")
    if "tau" in asked and not find_method(method).has_threshold:
        raise CommandError(f"--tau is acdc's threshold; method {method} keeps the best edges, as many as --edges says")
    if budget is not None and not find_method(method).has_threshold:
        raise CommandError(f"--budget is acdc's: method {method} has no circuit before it has scored every edge")
    limit = None if budget is None else Budget.parse(budget)
    taus = asked.pop("tau", (DEFAULT_TAU,))
    memory = parse_memory(max_memory)
    started = time.perf_counter()
    from circuits.datasets import relations_for
    from circuits.model import library

    relations = relations_for(library.profile_of(asked["model"]), relation)
    asked["tau"] = taus[0]
    specs: list[RunSpec] = []
    if words:
        from circuits.facts import parse_fact

        for text in words:
            fact = parse_fact(text, relations.values(), subject=which.subject, object=which.object)
            specs.append(RunSpec(facts=(fact,), **asked))
        loaded = put_edit(_load(specs[0]), edit)
    else:
        from circuits.studies.setting import find_relation

        assert relation is not None
        chosen = find_relation(relations, relation)
        asked |= {"relation": relation, "split": split}
        # Checked before the model is loaded, because that takes a while.
        spec = RunSpec(facts=chosen.facts(), **asked)
        loaded = put_edit(_load(spec), edit)
        facts, test = _split(chosen, split, which.n, loaded, spec.seed, spec.force)
        specs.append(RunSpec(facts=facts, test_facts=test, **asked))
    maker = _Maker(relations, loaded, taus, siblings, memory, certificate, limit, as_json, started)
    if len(specs) > 1:
        _each(specs, maker, out)
        return
    summaries = [summary for _, summary in maker.made(specs[0], out)]
    if as_json:
        typer.echo(json.dumps(summaries[0] if len(summaries) == 1 else summaries, ensure_ascii=False))


@dataclass
class _Maker:
    """What makes, prints and exports the runs of one search after another."""

    relations: "Relations"
    model: "Model"
    taus: tuple[float, ...]
    siblings: int
    memory: int | None
    certified: bool
    budget: Budget | None
    quiet: bool
    started: float

    def folders(self, out: Path | None) -> dict[float, Path | None]:
        """A sweep writes one folder a threshold."""
        return {one: out if out is None or len(self.taus) == 1 else out / f"tau-{one:g}" for one in self.taus}

    def asked(self, spec: RunSpec) -> RunSpec:
        """Beside its siblings.

        Raises:
            circuits.facts.FactError: the model knows too few.
        """
        if not self.siblings:
            return spec
        from circuits.studies.subjects import beside

        others = beside(spec.facts[0], self.relations, self.model, self.siblings, spec.seed)
        return spec.model_copy(update={"siblings": others})

    def made(self, spec: RunSpec, out: Path | None) -> "Iterator[tuple[Run, dict[str, Any]]]":
        """Each threshold's run and its summary."""
        from circuits.pages.export import export_run
        from circuits.studies.summary import summary_of

        folders = self.folders(out)
        for result in self.searched(self.asked(spec), folders):
            folder = folders[result.spec.tau]
            if folder is not None:
                export_run(result, folder)
            summary = {**summary_of(result).to_json(), "seconds": round(time.perf_counter() - self.started, 2)}
            if not self.quiet:
                print_summary(result, summary)
                print_reading(result)
                if folder is not None:
                    typer.echo(f"\nOpen {folder / 'report.html'}")
            yield result, summary
            self.started = time.perf_counter()

    def searched(self, spec: RunSpec, folders: "Mapping[float, Path | None]") -> "Iterator[Run]":
        """The runs of all thresholds. What is interrupted is saved beside its results, and said how to continue."""
        from circuits.studies.runs import Saved, run_sweep
        from circuits.studies.search import spec_digest
        from circuits.studies.study import Watch

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
            with _progress_bar("resuming" if state_file(waiting[0]).exists() else spec.method) as progress:
                for result in run_sweep(
                    spec,
                    waiting,
                    self.relations,
                    model=self.model,
                    state_file=state_file,
                    max_memory=self.memory,
                    read=True,
                    certified=self.certified,
                    watch=Watch(lambda line: typer.echo(line, err=True), progress, budget=self.budget),
                ):
                    state = state_file(waiting.pop(0))
                    if result.unfinished is None:
                        state.unlink(missing_ok=True)
                    elif state.exists():
                        typer.echo(f"{result.unfinished}; the same command goes on from {state}", err=True)
                    yield result
        except Saved as stop:
            raise Stopped(str(stop)) from None
        except KeyboardInterrupt:
            raise Stopped("stopped; only an acdc search can be continued later") from None

    def kept(self, spec: RunSpec, out: Path | None) -> "list[Run]":
        """The runs of all thresholds, where whole ones of these settings and weights lie there already."""
        from circuits.studies.run import Run, RunFileError
        from circuits.studies.search import provenance_of

        found = []
        for tau, folder in self.folders(out).items():
            if folder is None or not (folder / "report.html").exists():
                return []
            try:
                run = Run.load(folder)
            except RunFileError:
                return []
            asked = self.asked(spec).model_copy(update={"tau": tau})
            same = run.spec == asked and run.circuit.provenance == provenance_of(asked, self.model)
            if not same or (self.certified and run.certificate is None):
                return []
            found.append(run)
        return found


def _each(specs: list[RunSpec], maker: _Maker, out: Path | None) -> None:
    """A circuit and a folder for each fact, and a page of all. What is there is kept; a fact that fails loses no other.

    Raises:
        CommandError: a fact has no circuit; said when all others have theirs.
    """
    from circuits.pages.several import Single, index
    from circuits.records import to_text, write_files
    from circuits.studies.discover import by_names
    from circuits.studies.summary import summary_of

    singles: list[Single] = []
    summaries: list[dict[str, Any]] = []
    for (name, fact), spec in zip(by_names([spec.facts[0] for spec in specs]).items(), specs, strict=True):
        folder = None if out is None else out / name
        try:
            runs = maker.kept(spec, folder)
            summaries += [summary_of(run).to_json() for run in runs]
            for run, summary in () if runs else maker.made(spec, folder):
                runs.append(run)
                summaries.append(summary)
            folders = maker.folders(folder)
            singles += [Single(fact.statement, folders[run.spec.tau] or Path(), run) for run in runs]
        except (ValueError, FloatingPointError) as error:
            singles.append(Single(fact.statement, folder or Path(), error=str(error)))
            summaries.append({"fact": fact.statement, "error": str(error)})
            typer.echo(f"{fact.statement}: {error}", err=True)
        if out is not None:
            # After each fact, so that what is done can be opened when the command is stopped.
            page = index(singles, out, command=typed_command())
            write_files(out, {"facts.json": to_text(summaries), "index.html": page})
    if maker.quiet:
        typer.echo(json.dumps(summaries, ensure_ascii=False))
    elif out is not None:
        typer.echo(f"\nOpen {out / 'index.html'}")
    if failed := sum(single.run is None for single in singles):
        raise CommandError(f"{failed} of {len(specs)} facts have no circuit")


def _load(spec: RunSpec) -> "Model":
    from circuits.studies.search import load_model

    return fit_threads(load_model(spec))


def _split(
    relation: "Relation", split: str, n: int, model: "Model", seed: int, force: bool
) -> "tuple[tuple[Fact, ...], tuple[Fact, ...]]":
    """(n facts of that half that the model knows, n facts of the other half)."""
    from circuits.datasets.split import split_facts
    from circuits.evaluation import known

    built = split_facts(relation, "val" if split == "val" else "test", seed=seed)
    other = split_facts(relation, "test" if split == "val" else "val", seed=seed)
    if not force:
        built = known(model, built)
    if not built:
        raise CommandError(f"{model.name} knows no fact of {relation.name}; --force builds the circuit all the same")
    return built[:n], other[:n]


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _progress_bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """Edges done, edges kept, NLL now, time left; on stderr, so that stdout holds the result alone."""
    from rich.progress import MofNCompleteColumn, TextColumn

    line = f"{what}: begun"
    columns = MofNCompleteColumn(), TextColumn("edges, {task.fields[state]}")
    with bar_or_lines(lambda: typer.echo(line, err=True), *columns) as bar:
        task = bar.add_task(what, total=None, state="")

        def show(done: int, total: int, state: str) -> None:
            nonlocal line
            line = f"{what}: {done:,} of {total:,} edges, {state}"
            bar.update(task, completed=done, total=total, state=state)

        yield show


def certificate_lines(certificate: "Certificate") -> tuple[str, ...]:
    """The verdict, and a line a check: its number and interval, what chance gives, and its grade."""
    sufficiency, specificity, necessity = certificate.sufficiency, certificate.specificity, certificate.necessity
    surer = "; more certain than the model" if sufficiency.overconfident else ""
    specific = (
        f"own answer {specificity.own_answer}, this answer {specificity.this_answer}, blind {specificity.blind:.2f}: {specificity.grade}"
        if specificity.own_answer.n
        else "not asked: no relation"
        if certificate.fact.relation is None
        else "not asked: no other known subject"
    )
    return (
        f"certificate: {certificate.verdict}",
        f"  sufficiency: {'gives' if sufficiency.given else 'does not give'} the answer, KL {sufficiency.kl:.3g} nats{surer}; "
        f"random circuits that give it {sufficiency.random}: {sufficiency.grade}",
        f"  specificity: {specific}",
        f"  necessity: without it the answer is {'lost' if necessity.lost else 'given'}; lost without as many random edges "
        f"{necessity.random}: {necessity.grade}",
    )


def print_summary(result: "Run", summary: dict[str, Any]) -> None:
    from circuits.pages.tables import grid, show
    from circuits.pages.verdict import verdict

    typer.secho(summary["fact"], bold=True)
    typer.echo(f"in {summary['model']}, method {summary['method']}, engine {summary['engine']}")
    typer.echo(verdict(result)[0])
    if result.unfinished:
        typer.secho(verdict(result)[-1], bold=True)
    if result.certificate:
        for line in certificate_lines(result.certificate):
            typer.echo(line)
    lines: list[tuple[str, ...]] = [
        ("edges", f"{summary['edges_total']:,}", f"{summary['edges_kept']:,}"),
        ("NLL of the answer, nats", f"{summary['nll_model']:.4f}", f"{summary['nll_circuit']:.4f}"),
        ("rank of the answer", f"{summary['rank_model']:,}", f"{summary['rank_circuit']:,}"),
        ("Hit@10", f"{summary['hit10_model']:.2f}", f"{summary['hit10_circuit']:.2f}"),
    ]
    if "hit10_test_model" in summary:
        hits = (f"{summary[f'hit10_test_{side}']:.2f}" for side in ("model", "circuit"))
        lines.append((f"Hit@10 on {summary['test_facts']} other facts", *hits))
    show(grid(("", "model", "circuit alone"), lines))
    share = 100 * summary["edges_kept"] / summary["edges_total"]
    decided = result.trajectory.decided
    typer.echo(
        f"The circuit keeps {share:.1f} % of the edges and {summary['nodes_kept']} nodes. "
        + (f"In the whole model the answer is first from {decided} on. " if decided else "")
        + f"{summary['evaluations']:,} evaluations, {summary['seconds']:.1f} s."
    )
    if "edges_asked" in summary and summary["edges_kept"] < summary["edges_asked"]:
        typer.echo(
            f"{summary['edges_asked']:,} edges were asked for: these are as many of the best as lie on paths from input to logits."
        )
    if "candidates" in summary:
        typer.echo(
            f"The prefilter {summary['prefilter']} let {summary['candidates']:,} of {summary['edges_total']:,} edges through; with "
            f"these alone, where the search began, the answer's NLL is {summary['nll_start']:.3g} nats."
        )
    if "share_lost" in summary:
        typer.echo(
            f"Of the {summary['edges_full_search']:,} edges that the full search keeps, the filter dropped "
            f"{summary['share_filtered_out']:.1%}, and this circuit lacks {summary['share_lost']:.1%}; "
            f"it has {summary['edges_extra']:,} others."
        )
    if summary["near_ties"]:
        ties, more = ", ".join(map(label_of, result.near_tie_edges[:3])), " ..." if summary["near_ties"] > 3 else ""
        typer.echo(
            f"{summary['near_ties']} steps came within {summary['noise']:.1e} nats of tau, which is rounding: on other hardware "
            f"they may fall the other way ({ties}{more})."
        )

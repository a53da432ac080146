"""The page of several facts that have a circuit each: a line a fact, which opens the fact's own page."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from circuits.choices import counted
from circuits.pages.document import document
from circuits.pages.tables import grid, plain, to_html
from circuits.studies.run import Run

HEADER = ("fact", "answer", "certificate", "edges", "share", "rank", "by the circuit")


@dataclass(frozen=True)
class Single:
    """One of the facts: where its run lies, at what threshold; or why it has none."""

    statement: str
    folder: Path
    run: Run | None = None
    error: str = ""


def index(singles: Sequence[Single], folder: Path, *, command: str) -> str:
    """The page that stands in ``folder``, with links from there."""
    done = [(one, one.run) for one in singles if one.run is not None]
    taus = len({run.spec.tau for _, run in done}) > 1
    lines = [(*_cells(one.statement, run), *([f"{run.spec.tau:g}"] if taus else [])) for one, run in done]
    links = [Path(os.path.relpath(one.folder / "report.html", folder)).as_posix() for one, _ in done]
    title = f"Circuits of {counted(len({one.statement for one in singles}), 'fact')}"
    failed = [f"<li>{plain(one.statement)}: {plain(one.error)}</li>" for one in singles if one.run is None]
    header = (*HEADER, "tau, nats") if taus else HEADER
    parts = [to_html(grid(header, lines, left=3), links=links, linked=0)]
    if failed:
        parts.append("<h2>Without a circuit</h2>\n<ul>\n" + "\n".join(failed) + "\n</ul>")
    head = [
        f'<p class="eyebrow">A circuit each</p>\n<h1>{plain(title)}</h1>',
        *([f'<div class="verdict-first"><p>{plain(_verdict([run for _, run in done]))}</p></div>'] if done else []),
        f'<p class="caption">Made by <code>{plain(command)}</code>. A fact opens its circuit.</p>',
    ]
    return document(title, head, ['<section class="card">\n' + "\n".join(parts) + "\n</section>"])


def _cells(statement: str, run: Run) -> tuple[str, ...]:
    circuit, summary = run.circuit, run.summary()
    return (
        statement,
        run.spec.facts[0].object,
        run.certificate.verdict if run.certificate else "not asked",
        f"{circuit.n_edges:,}" + (", unfinished" if run.unfinished else ""),
        f"{100 * circuit.n_edges / circuit.graph.n_edges:.2g} %",
        f"{summary['rank_model']:,}",
        f"{summary['rank_circuit']:,}",
    )


def _verdict(runs: Sequence[Run]) -> str:
    first = sum(run.summary()["rank_model"] == 1 for run in runs)
    alone = sum(run.summary()["rank_circuit"] == 1 for run in runs)
    return f"Of {counted(len(runs), 'circuit')} {alone} alone put the answer first; the model itself does for {first}."

"""The table as Markdown and as one HTML page without scripts: rows, averages, what tau does, where circuits beat the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.choices import counted
from circuits.discovery import find_method
from circuits.pages.document import document
from circuits.pages.table_figures import figure_2, figure_6, tau_figure
from circuits.pages.tables import Grid, grid, markdown, plain
from circuits.pages.tables import to_html as to_grid
from circuits.studies.options import command as spec_command
from circuits.studies.specs import DEFAULT_EDGES, TableSpec
from circuits.studies.table.published import Published, PublishedTable
from circuits.studies.table.row import HALVES, Beaten, Row
from circuits.studies.table.table import Table, average, by_tau, flat, table_json

HALF_NAMES = {"val": "D_val", "test": "D_test"}

HEADER = (
    "kind",
    "relation",
    "edges",
    "merged",
    "share",
    "D_val model",
    "circuit",
    "random",
    "D_test model",
    "circuit",
    "random",
    "published (GPT-2-medium): edges",
    "D_val model → circuit",
    "D_test model → circuit",
)


def command(table: Table, relations: str = "all", more: Sequence[str] = ()) -> str:
    """A shell command that makes the table again."""
    leave_out = () if find_method(table.spec.method).has_threshold else ("taus",)
    return spec_command(["table", "--relations", relations], table.spec, leave_out=leave_out, more=more)


def cells(row: Row, published: Published | None) -> tuple[str, ...]:
    """The row's cells under `HEADER`."""
    uniform = row.chance("uniform")
    circuit = row.circuit
    paper = ("", "", "")
    if published is not None:
        paper = (
            str(published.edges),
            f"{published.hit10_val_model:.2f} → {published.hit10_val_circuit:.2f}",
            f"{published.hit10_test_model:.2f} → {published.hit10_test_circuit:.2f}",
        )
    halves = row.beaten.halves if row.beaten else ()
    return (
        row.kind,
        row.title,
        str(circuit.edges),
        str(circuit.edges_merged),
        f"{100 * row.share:.1f} %",
        f"{row.model_val.hit10:.2f}",
        f"{circuit.val.hit10:.2f}" + (" ↑" if "val" in halves else ""),
        _interval(uniform.val, uniform.val_interval),
        f"{row.model_test.hit10:.2f}",
        f"{circuit.test.hit10:.2f}" + (" ↑" if "test" in halves else ""),
        _interval(uniform.test, uniform.test_interval),
        *paper,
    )


def _interval(mean: float, ends: tuple[float, float]) -> str:
    return f"{mean:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"


def _average_cells(label: str, rows: Sequence[Row], published: PublishedTable | None) -> tuple[str, ...]:
    means = average(rows)
    paper = ("", "", "")
    if published is not None:
        val, val_circuit, test, test_circuit = published.average
        paper = ("", f"{val:.2f} → {val_circuit:.2f}", f"{test:.2f} → {test_circuit:.2f}")
    return (
        "average",
        label,
        f"{means['edges']:.1f}",
        f"{means['edges_merged']:.1f}",
        f"{100 * means['share']:.1f} %",
        f"{means['hit10_val_model']:.2f}",
        f"{means['hit10_val_circuit']:.2f}",
        f"{means['hit10_val_random']:.2f}",
        f"{means['hit10_test_model']:.2f}",
        f"{means['hit10_test_circuit']:.2f}",
        f"{means['hit10_test_random']:.2f}",
        *paper,
    )


def main_cells(table: Table, published: PublishedTable | None) -> list[tuple[str, ...]]:
    """All lines of the main table: rows, then averages for each kind and over all."""
    lines = [cells(row, published.row(row.relation) if published else None) for row in table.rows]
    lines += [_average_cells(kind, table.of_kind(kind), None) for kind in table.kinds]
    return [*lines, _average_cells("all", table.rows, published)]


HIDDEN_HEADER = (
    "kind",
    "relation",
    "Hit@1: model",
    "circuit",
    "blind",
    "Hit@10: model",
    "circuit",
    "blind",
    "random, connected",
    "NLL: model",
    "circuit",
    "KL",
)
HIDDEN_NOTE = (
    "On D_test. Blind: D_val's commonest answer, or its ten commonest, given to every subject alike. Random, connected: of as many "
    "edges, each on a path from input to logits. NLL of the whole answer and KL from the model's next-token distributions to the "
    "circuit's, in nats. Brackets: Wilson's interval of 95 %."
)


def hidden_grid(table: Table) -> Grid:
    """What Hit@10 hides: Hit@1, what an answer that ignores the subject scores, and how far a circuit is from its model."""
    lines: list[tuple[str, ...]] = []
    for row in table.rows:
        share = row.hit1_test
        lines.append(
            (row.kind, row.title, *_hidden(flat(row), interval=f" [{share.low:.2f}, {share.high:.2f}]")),
        )
    lines += [("average", kind, *_hidden(average(table.of_kind(kind)))) for kind in table.kinds]
    lines.append(("average", "all", *_hidden(average(table.rows))))
    averages = [i for i, line in enumerate(lines) if line[0] == "average"]
    return grid(HIDDEN_HEADER, lines, left=2, strong=averages)


def _hidden(numbers: Mapping[str, Any], interval: str = "") -> tuple[str, ...]:
    return (
        f"{numbers['hit1_test_model']:.2f}",
        f"{numbers['hit1_test_circuit']:.2f}{interval}",
        f"{numbers['hit1_test_blind']:.2f}",
        *(f"{numbers[f'hit10_test_{who}']:.2f}" for who in ("model", "circuit", "blind", "random_connected")),
        *(f"{numbers[f'nll_test_{who}']:.2f}" for who in ("model", "circuit")),
        f"{numbers['kl_test']:.2f}",
    )


TERMINAL_HEADER = (
    "kind",
    "relation",
    "edges",
    "merged",
    "share",
    "D_val\nmodel",
    "\ncircuit",
    "\nrandom",
    "D_test\nmodel",
    "\ncircuit",
    "\nrandom",
    "GPT-2-medium, as\npublished: edges",
    "\nD_val",
    "\nD_test",
)


def terminal_cells(table: Table, published: PublishedTable | None) -> list[tuple[str, ...]]:
    """`main_cells`, narrower: without the intervals."""
    return [tuple(cell.split(" [")[0] for cell in line) for line in main_cells(table, published)]


def main_grid(table: Table, published: PublishedTable | None, *, narrow: bool = False) -> Grid:
    """The main table; ``narrow`` for a terminal."""
    lines = terminal_cells(table, published) if narrow else main_cells(table, published)
    averages = [i for i, line in enumerate(lines) if line[0] == "average"]
    return grid(TERMINAL_HEADER if narrow else HEADER, lines, left=2, strong=averages)


def tau_grid(table: Table) -> Grid:
    return grid(TAU_HEADER, tau_cells(table), left=0)


def tau_cells(table: Table) -> list[tuple[str, ...]]:
    return [
        (
            f"{line['tau']:g}",
            f"{line['edges']:.1f}",
            f"{100 * line['share']:.2f} %",
            f"{line['hit10_val_circuit']:.3f}",
            _percent(line["retained_val"]),
            f"{line['hit10_test_circuit']:.3f}",
            _percent(line["retained_test"]),
        )
        for line in by_tau(table.rows)
    ]


TAU_HEADER = ("tau, nats", "edges", "share", "D_val Hit@10", "of the model's", "D_test Hit@10", "of the model's")


def _percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.1f} %"


def beaten_sentence(row: Row, beaten: Beaten) -> str:
    """One row whose circuit beats the model, and whether dropping suppressive edges is what does it."""
    numbers = {
        "val": (row.circuit.val.hit10, row.model_val.hit10, beaten.absolute.val.hit10),
        "test": (row.circuit.test.hit10, row.model_test.hit10, beaten.absolute.test.hit10),
    }
    parts = [
        f"Hit@10 on {HALF_NAMES[half]} {numbers[half][0]:.2f} against the model's {numbers[half][1]:.2f}, "
        f"{numbers[half][2]:.2f} with suppressive edges kept"
        for half in beaten.halves
    ]
    reason = (
        f"signed removal drops suppressive edges: kept ({beaten.suppressive} of {beaten.absolute.edges} edges), they end it"
        if beaten.explained
        else f"not by the dropped suppressive edges alone: with them ({beaten.suppressive} of {beaten.absolute.edges} edges) "
        f"the circuit still beats the model on {' and '.join(HALF_NAMES[half] for half in beaten.still)}"
    )
    return f"{row.title}: {'; '.join(parts)}. The circuit beats the model; {reason}."


def _search(spec: TableSpec) -> str:
    """The method and what decides the size of its circuits, in words."""
    sign = "absolute" if spec.absolute else "signed"
    if find_method(spec.method).has_threshold:
        return f"{spec.method}, tau {spec.taus[0]:g} nats, {sign} removal"
    return f"{spec.method}, the best {spec.edges or DEFAULT_EDGES} edges by {sign} score"


def notes(table: Table, published: PublishedTable | None) -> list[str]:
    """What a reader must know to read the numbers."""
    spec, means = table.spec, average(table.rows)
    ends = {half: (means[f"hit10_{half}_random_connected"], means[f"hit10_{half}_empty"]) for half in HALVES}
    lines = [
        f"Model {spec.model}, weights {table.weights[:12]}; {_search(spec)}, {spec.ablation} ablation, "
        f"granularity {spec.granularity}; seed {spec.seed}.",
        f"D_val: at most {spec.n_val} facts of one half of a relation, all known to the model (rank at most 10), so its Hit@10 there is 1 "
        f"by construction; they build the circuit. D_test: at most {spec.n_test} facts of the other half, known or not, "
        "scored with their own answers.",
        "Edges count a head's query, key and value apart; merged counts them as one, as the paper's #Edge does. An average counts "
        "each relation once.",
        f"Random: {counted(spec.draws, 'circuit')} of as many edges, drawn uniformly from the graph; mean Hit@10 with a 95 % "
        "bootstrap interval of the mean. "
        f"So few edges hardly ever join the input to the logits, so that such a circuit answers as the model with every "
        f"edge ablated does (average Hit@10 {ends['val'][1]:.2f} on D_val, {ends['test'][1]:.2f} on D_test). Random circuits "
        f"whose every edge lies on a path from input to logits reach {ends['val'][0]:.2f} on D_val and {ends['test'][0]:.2f} on D_test.",
        "↑ marks a circuit whose Hit@10 is above the model's.",
    ]
    if published is not None:
        lines.append(f"Published: {published.source}. " + " ".join(published.notes))
    lines += [f"No row for {skipped.relation}: {skipped.reason}." for skipped in table.skipped]
    return lines


def summary(table: Table) -> str:
    """The table in a sentence: on D_test, of whose facts no circuit was built."""
    means = average(table.rows)

    def share(who: str, measures: Sequence[str] = ("hit10", "hit1")) -> str:
        return " and ".join(f"{100 * means[f'{measure}_test_{who}']:.0f}" for measure in measures) + " %"

    return (
        f"{counted(len(table.rows), 'relation')}: the average circuit keeps {100 * means['share']:.1f} % of the edges. Of facts that it "
        f"was not built from (D_test) it has the answer among the first ten, and first, in {share('circuit')} of cases; its model in "
        f"{share('model')}, the commonest answers given to every subject in {share('blind')}, connected random circuits of its "
        f"size in {share('random_connected', ['hit10'])} among the first ten."
    )


def beaten_lines(table: Table) -> list[str]:
    lines = [beaten_sentence(row, row.beaten) for row in table.beaten if row.beaten is not None]
    if table.spec.absolute:
        return ["Suppressive edges were kept in this table (--absolute), so none was dropped."]
    return lines or ["No circuit's Hit@10 is above the model's."]


def to_markdown(
    table: Table, published: PublishedTable | None, *, relations: str = "all", page: Path | None = None
) -> str:
    """The table as a Markdown page; its figures are files beside it, by the names that `page_files` gives them for ``page``."""
    prefix = "" if page is None else f"{page.stem}-"
    made_by = command(table, relations, () if page is None else ("--page", str(page)))

    tau_parts = [
        "## How the result moves with tau",
        markdown(tau_grid(table)),
        f"![Hit@10 and size against tau]({prefix}tau.svg)",
    ]
    if len(table.spec.taus) == 1:
        tau_parts = []
    parts = [
        f"# Knowledge circuits of {table.spec.model}, relation by relation",
        summary(table),
        f"Made by `{made_by}`.",
        markdown(main_grid(table, published)),
        "\n".join(f"* {note}" for note in notes(table, published)),
        "## What Hit@10 hides",
        HIDDEN_NOTE,
        markdown(hidden_grid(table)),
        *tau_parts,
        "## Where a circuit beats the model",
        "\n".join(f"* {line}" for line in beaten_lines(table)),
        "## Where in the model the circuits lie",
        f"![Share of nodes active per layer by kind of knowledge]({prefix}figure2.svg)",
        "## Where in the model the answer appears",
        f"![Mean rank of the answer after every sub-layer]({prefix}figure6.svg)",
    ]
    return "\n\n".join(parts) + "\n"


STYLE = """
svg { max-width: 100%; height: auto; background: #fff; border-radius: 8px; }
.wide th { white-space: normal; vertical-align: bottom; }
"""
"""Beside the style of all pages: the figures are drawn on white; a wide table's headings break."""


def to_html(
    table: Table, published: PublishedTable | None, *, relations: str = "all", links: Sequence[str] = ()
) -> str:
    """The table as one page that loads nothing and runs nothing.

    Args:
        links: what its rows open, an address each.
    """
    title = f"Knowledge circuits of {table.spec.model}, relation by relation"

    def items(texts: Sequence[str]) -> str:
        return "<ul>\n" + "\n".join(f"<li>{plain(text)}</li>" for text in texts) + "\n</ul>"

    def card(*parts: str) -> str:
        return '<section class="card">\n' + "\n".join(parts) + "\n</section>"

    header = [
        f'<p class="eyebrow">Relation by relation</p>\n<h1>{plain(title)}</h1>',
        f'<div class="verdict-first"><p>{plain(summary(table))}</p></div>',
        f'<p class="caption">Made by <code>{plain(command(table, relations))}</code>.'
        + (" A relation opens its circuit.</p>" if links else "</p>"),
    ]
    cards = [
        card(to_grid(main_grid(table, published), links=links, linked=1), items(notes(table, published))),
        card("<h2>What Hit@10 hides</h2>", f'<p class="caption">{plain(HIDDEN_NOTE)}</p>', to_grid(hidden_grid(table))),
        *(
            [card("<h2>How the result moves with tau</h2>", to_grid(tau_grid(table)), tau_figure(table))]
            if len(table.spec.taus) > 1
            else []
        ),
        card("<h2>Where a circuit beats the model</h2>", items(beaten_lines(table))),
        card("<h2>Where in the model the circuits lie</h2>", figure_2(table)),
        card("<h2>Where in the model the answer appears</h2>", figure_6(table)),
    ]
    return document(title, header, cards, style=STYLE)


def files(
    table: Table, published: PublishedTable | None, *, relations: str = "all", links: Sequence[str] = ()
) -> dict[str, str]:
    """Name and text of every file that the table is written as; ``links`` as of `to_html`."""
    made: dict[str, str] = {"table.json": table_json(table, published)}
    if table.rows:
        made |= {
            "table.md": to_markdown(table, published, relations=relations),
            "table.html": to_html(table, published, relations=relations, links=links),
            **_figures(table),
        }
    return made


def page_files(
    table: Table, published: PublishedTable | None, page: Path, *, relations: str = "all"
) -> dict[Path, str]:
    """The Markdown page for this file, and its figures beside it under the page's name."""
    figures = {page.with_name(f"{page.stem}-{name}"): text for name, text in _figures(table).items()}
    return {page: to_markdown(table, published, relations=relations, page=page), **figures}


def _figures(table: Table) -> dict[str, str]:
    sweep = {"tau.svg": tau_figure(table)} if len(table.spec.taus) > 1 else {}
    return {"figure2.svg": figure_2(table), "figure6.svg": figure_6(table), **sweep}

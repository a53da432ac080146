"""The page of an atlas, and its figures: each table and picture from one query, which is printed with it."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from circuits.pages.charts import Panel, line_panels
from circuits.pages.heatmap import heat_map
from circuits.pages.tables import Grid, grid, markdown
from circuits.studies.atlas import ATLAS, of_setting
from circuits.studies.columns import NOTHING
from circuits.studies.queries import Query

Answer = Sequence[Mapping[str, Any]]
"""A query's rows."""
MOST_LINES = 40
"""Lines of a table on the page: the first of the answer."""


def table(answer: Answer) -> Grid:
    """The answer's first `MOST_LINES` rows under the names of its columns; of no row, no column."""
    shown = answer[:MOST_LINES]
    names = tuple(shown[0]) if shown else ()
    words = [all(isinstance(row[name], str | None) for row in shown) for name in names]
    left = words.index(False) if False in words else len(words)
    header = [name.replace("_", " ") for name in names]
    return grid(header, [[_cell(row[name]) for name in names] for row in shown], left=left)


def _cell(value: Any) -> str:
    match value:
        case None:
            return NOTHING
        case float():
            return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
        case _:
            return str(value)


# ---- figures ---------------------------------------------------------------------------------------------------------


def overlap_map(answer: Answer) -> str:
    """The overlap of every two relations, those of one kind together."""
    kinds = {row["one"]: row["kind"] or "" for row in answer}
    names = sorted(kinds, key=lambda name: (kinds[name], name))
    overlap = {(row["one"], row["other"]): row["overlap"] for row in answer}
    values = [[overlap.get((one, other), math.nan) for other in names] for one in names]
    return heat_map("Overlap of two relations' circuits", names, names, values, groups=[kinds[name] for name in names])


def node_map(answer: Answer) -> str:
    """The share of all facts' circuits that hold each head and each layer's MLP, in percent; the last layer on top."""
    shares = {row["node"]: row["share"] for row in answer}
    heads = [(int(found[1]), int(found[2])) for name in shares if (found := re.fullmatch(r"a(\d+)\.h(\d+)", name))]
    mlps = [int(name[1:]) for name in shares if re.fullmatch(r"m\d+", name)]
    n_layers = 1 + max([*(layer for layer, _ in heads), *mlps], default=0)
    n_heads = 1 + max((head for _, head in heads), default=0)
    layers = list(reversed(range(n_layers)))
    values = [
        [100 * shares.get(name, 0.0) for name in (*(f"a{layer}.h{head}" for head in range(n_heads)), f"m{layer}")]
        for layer in layers
    ]
    columns = [*(f"h{head}" for head in range(n_heads)), "MLP"]
    title = "Share of the facts' circuits that hold it, %"
    return heat_map(title, [f"layer {layer}" for layer in layers], columns, values, cell=40, shown="{:.0f}".format)


def layers_figure(answer: Answer) -> str:
    """Heads a circuit holds in each layer, and the share of circuits with its MLP, by kind of knowledge."""
    return line_panels(
        [
            _by_kind(answer, "layer", "heads", "Heads of each layer in a circuit", "layer", "heads, mean"),
            _by_kind(answer, "layer", "mlp", "MLPs in the circuits", "layer", "share of circuits"),
        ]
    )


def spread_figure(answer: Answer) -> str:
    """The share of each kind's circuits by their number of edges."""
    return line_panels(
        [_by_kind(answer, "from_edges", "share", "Sizes of circuits", "edges, from", "share of circuits", step=20)]
    )


def _by_kind(answer: Answer, along: str, field: str, title: str, x: str, y: str, *, step: int = 1) -> Panel:
    """A panel with a line a kind; where the answer has no row, the value is 0."""
    at = {(row["kind"] or "", row[along]): float(row[field]) for row in answer}
    places = [place for _, place in at]
    steps = range(min(places), max(places) + 1, step)
    kinds = sorted({kind for kind, _ in at})
    series = {kind: tuple(at.get((kind, place), 0.0) for place in steps) for kind in kinds}
    return Panel(title, x, y, tuple(str(place) for place in steps), series)


def taught_figure(answer: Answer) -> str:
    """Edges, and what circuits are worth, by how often training stated the fact."""
    labels = tuple(row["stated"] or "not known" for row in answer)
    checks = {
        name: tuple(float(row[name] or 0.0) for row in answer) for name in ("sufficient", "specific", "necessary")
    }
    edges = {"edges, mean": tuple(float(row["edges"]) for row in answer)}
    return line_panels(
        [
            Panel("Circuits by how often the fact was stated", "", "edges, mean", labels, edges),
            Panel("What they are worth", "", "share of circuits", labels, checks, limits=(0.0, 1.0)),
        ]
    )


def sure_figure(answer: Answer) -> str:
    """Edges by how sure the model is."""
    labels = tuple(f"{row['nll_model']:.3f}" for row in answer)
    edges = {"edges, mean": tuple(float(row["edges"]) for row in answer)}
    return line_panels(
        [
            Panel(
                "Circuits by how sure the model is",
                "NLL of the model, nats: mean of each tenth",
                "edges, mean",
                labels,
                edges,
            )
        ]
    )


FIGURES: Mapping[str, Callable[[Answer], str]] = {
    "spread": spread_figure,
    "nodes": node_map,
    "layers": layers_figure,
    "map": overlap_map,
    "taught": taught_figure,
    "sure": sure_figure,
}
"""By the query that each is drawn from."""
DRAWN_ONLY = frozenset({"spread", "layers", "map"})
"""Queries whose answer is a figure and no table."""


def figures(answers: Mapping[str, Answer]) -> dict[str, str]:
    """SVG by query, of those that have an answer."""
    return {name: draw(answers[name]) for name, draw in FIGURES.items() if answers.get(name)}


# ---- the page --------------------------------------------------------------------------------------------------------


def page(answers: Mapping[str, Answer], settings: Answer, setting: str, command: str, name: str) -> str:
    """The Markdown text.

    Args:
        answers: the rows of each query of `ATLAS`, by its name.
        settings: the rows of `circuits.studies.atlas.SETTINGS`.
        setting: the one that the answers are of.
        command: makes the page again.
        name: of the page's file, without its ending; figures are called after it.
    """
    own = next(row for row in settings if row["setting"] == setting)
    parts = [
        "# The circuits of many facts, together",
        f"{own['circuits']:,} circuits of a single fact each, of {own['relations']} relations, under the setting `{setting}` (weights "
        f"{own['weights']}). Written by `{command}` from the store of a sweep of `discover`; the same store gives the same page.",
        "Each table and figure is the answer to the SQL that stands below it, for `kcircuit store query`. Shares are of circuits, NLL in "
        "nats; `first` is where the circuit alone ranks the answer first; `sufficient`, `specific` and `necessary` are the checks of its "
        "certificate.",
        "All settings in the store:",
        markdown(table(settings)),
    ]
    for query in ATLAS:
        parts += _section(query, answers.get(query.name, ()), setting, name)
    return "\n\n".join(parts) + "\n"


def _section(query: Query, answer: Answer, setting: str, name: str) -> list[str]:
    parts = [f"## {query.question}"]
    if not answer:
        parts.append("The store has nothing to say on this.")
    if answer and query.name in FIGURES:
        parts.append(f"![{query.question}]({name}-{query.name}.svg)")
    if answer and query.name not in DRAWN_ONLY:
        more = len(answer) - MOST_LINES
        parts.append(markdown(table(answer)) + (f"\n\n{more:,} more lines." if more > 0 else ""))
    return [*parts, f"```sql\n{of_setting(query, setting)}\n```"]

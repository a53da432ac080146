"""Tasks that were put to a model, as a table: each with its own level by chance, and what an edit makes of it."""

from collections.abc import Iterator, Sequence
from typing import Any

from circuits.evaluation.ability import Score
from circuits.model import Model
from circuits.pages.tables import Grid, grid, markdown
from circuits.records import to_json
from circuits.studies.ability import Ability
from circuits.studies.columns import number


def pairs(rows: Sequence[Ability]) -> Iterator[tuple[Score, Score | None]]:
    """Each score, and the same with the edit on."""
    for row in rows:
        yield from zip(row.scores, row.edited or (None,) * len(row.scores), strict=True)


def table(found: Sequence[tuple[Score, Score | None]], *, edited: bool) -> Grid:
    header = ["task", "measure", "items", "%", "by chance", "above chance"]
    header += ["edited, %", "change, points"] if edited else []
    return grid(
        header, [[*_cells(score), *(() if after is None else _change(score, after))] for score, after in found], left=2
    )


def _cells(score: Score) -> list[str]:
    low, high = score.interval
    return [
        score.task,
        score.measure,
        str(len(score.per_item)),
        f"{number(100 * score.value)} [{number(100 * low)}, {number(100 * high)}]",
        number(100 * score.chance),
        "yes" if score.above_chance else "no",
    ]


def _change(score: Score, after: Score) -> list[str]:
    return [number(100 * after.value), after.beyond(score).points]


def page(rows: Sequence[Ability], model: Model, command: str) -> str:
    """The Markdown text; ``command`` makes it again."""
    found, edited = list(pairs(rows)), any(row.edited for row in rows)
    able = [pair for pair in found if pair[0].above_chance]
    unable = [pair for pair in found if not pair[0].above_chance]
    parts = [
        f"# What {model.name} is able to do",
        f"Model {model.name} (weights {model.weights[:12]}), written by `{command}`.",
        "Shares are in percent, with intervals of 95 %: Wilson's where an item counts or does not, else a bootstrap over items. A "
        "choice is made by the log-probability of the whole answer; its level by chance is one over the number of choices, or the "
        "share of the commonest answer where that is more. Written answers are decoded greedily; their level by chance is "
        "their score against the answers of the other items. Exact match, F1 and ROUGE are counted by torchmetrics.",
    ]
    if able:
        parts.append(markdown(table(able, edited=edited)))
    if unable:
        parts += [
            "## Left out",
            "Not above chance in the unedited model, by the interval: what an edit does to these says nothing.",
            markdown(table(unable, edited=edited)),
        ]
    about = "\n".join(f"* **{row.scores[0].task}**: {row.about}" for row in rows if row.about)
    return "\n\n".join([*parts, *(["## Tasks", about] if about else [])]) + "\n"


def as_json(rows: Sequence[Ability]) -> list[dict[str, Any]]:
    """One object a score."""
    return [{**_score(score), "edited": None if after is None else _score(after)} for score, after in pairs(rows)]


def _score(score: Score) -> dict[str, Any]:
    low, high = score.interval
    worked_out = {
        "value": score.value,
        "low": low,
        "high": high,
        "chance": score.chance,
        "above_chance": score.above_chance,
    }
    return {**to_json(score), **worked_out}

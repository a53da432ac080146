"""The page of search criteria: what circuits of the same facts are worth by each, and the same relation by relation."""

from collections.abc import Iterable, Sequence

import numpy as np

from circuits.evaluation.baseline import bootstrap
from circuits.evaluation.certificate import BAR, KL_BAR, OVERCONFIDENT
from circuits.model import Model
from circuits.pages.tables import Grid, grid, markdown
from circuits.studies.columns import NOTHING, number
from circuits.studies.criteria import Criterion, CriterionRow

HEADER = (
    "circuits by",
    "n",
    "edges",
    "KL, nats",
    "surer",
    "own answer",
    "this answer",
    "blind",
    "sufficient",
    "specific",
    "necessary",
    "all three",
    "Jaccard, other words",
    "CPU s",
)


def by_criterion(rows: Sequence[CriterionRow]) -> dict[Criterion, list[CriterionRow]]:
    """The rows of each criterion, in the order in which these come up."""
    criteria = dict.fromkeys(row.criterion for row in rows)
    return {one: [row for row in rows if row.criterion == one] for one in criteria}


def summary(rows: Sequence[CriterionRow]) -> Grid:
    return grid(HEADER, [_line(criterion, own) for criterion, own in by_criterion(rows).items()])


def _line(criterion: Criterion, rows: Sequence[CriterionRow]) -> tuple[str, ...]:
    certificates = [row.certificate for row in rows]
    specific = [one.specificity for one in certificates]
    searched = criterion.circuits == "searched"
    return (
        criterion.name,
        str(len(rows)),
        f"{np.median([row.edges for row in rows]):.0f}",
        _mean(one.sufficiency.kl for one in certificates),
        _count(one.sufficiency.overconfident for one in certificates),
        _mean(one.own_answer.value for one in specific),
        _mean(one.this_answer.value for one in specific),
        _mean((one.blind for one in specific), interval=False),
        *(
            _count(one.grades[check] == "passed" for one in certificates)
            for check in ("sufficiency", "specificity", "necessity")
        ),
        _count(one.verdict == "passed" for one in certificates),
        _mean(row.paraphrase for row in rows) if searched else NOTHING,
        number(float(np.mean([row.seconds for row in rows]))) if searched else NOTHING,
    )


def _count(outcomes: Iterable[bool]) -> str:
    return str(sum(outcomes))


def _mean(values: Iterable[float], *, interval: bool = True) -> str:
    """The mean over the facts that have a value, with its bootstrap interval."""
    there = [value for value in values if value == value]
    if not there:
        return NOTHING
    mean = bootstrap(there)
    return f"{mean.mean:.2f} [{mean.low:.2f}, {mean.high:.2f}]" if interval else f"{mean.mean:.2f}"


def by_relation(rows: Sequence[CriterionRow]) -> Grid:
    """Shares of other subjects that get their own answer / this fact's, mean over the relation's facts."""
    split = by_criterion(rows)
    names = list(dict.fromkeys(row.relation for own in split.values() for row in own))
    lines = []
    for criterion, own in split.items():
        cells = [criterion.name]
        for name in names:
            there = [row.certificate.specificity for row in own if row.relation == name]
            shares = ([one.own_answer.value for one in there], [one.this_answer.value for one in there])
            cells.append(" / ".join(_mean(share, interval=False) for share in shares))
        lines.append(cells)
    return grid(("circuits by", *names), lines)


def page(rows: Sequence[CriterionRow], model: Model, command: str) -> str:
    """The Markdown text; ``command`` makes it again."""
    return "\n\n".join(
        [
            "# What circuits of one fact are worth, by what they were searched by",
            f"Model {model.name} (weights {model.weights[:12]}), written by `{command}`. CPU seconds are those of one search on one "
            "core and depend on the machine; all else is the same each time.",
            "A criterion is what is measured, what an ablated edge carries, and beside how many siblings (other known subjects of the "
            "relation, with their own answers) the fact is searched. Each circuit has its certificate, under its own ablation, beside at "
            "most 30 other known subjects that it was not built from. Edges are the median; own and this answer are shares of those "
            "other subjects that get their own answer and this fact's, blind the share of the commonest answer among them. Brackets are "
            "bootstrap intervals of means over facts (95 %). Surer, sufficient, specific, necessary and all three are numbers of facts.",
            f"Bars: sufficient is every token of the answer first, KL at most {KL_BAR:g} nats, and fewer than {BAR:.0%} of random "
            f"circuits of the size that give it too; surer, an NLL {OVERCONFIDENT:g} nats below the model's. The whole model is undecided "
            "where it is compared with random circuits of its size, which are itself.",
            markdown(summary(rows)),
            "## Own answer / this answer, relation by relation",
            markdown(by_relation(rows)),
            "",
        ]
    )

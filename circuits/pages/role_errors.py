"""The page of how often heads are labelled where there is nothing to label."""

from collections.abc import Sequence

from circuits.model import Model
from circuits.pages.tables import Grid, grid, markdown
from circuits.studies.columns import NOTHING
from circuits.studies.role_errors import NULL_RANGES, ErrorRate, Trials

HEADER = ("trials", "standing", "n", "labelled", "share", "95 %", "claimed at most", "by intervals alone")
NAMES = {"scrambled": "scrambled models with any label", "ranges": "other relations' ranges that pass as this one's"}


def rates(found: Sequence[ErrorRate]) -> Grid:
    return grid(HEADER, [_line(each) for each in found], left=2)


def _line(rate: ErrorRate) -> tuple[str, ...]:
    share = f"{rate.labelled / rate.n:.3f}" if rate.n else NOTHING
    sure = f"[{rate.low:.3f}, {rate.high:.3f}]" if rate.n else NOTHING
    control = str(rate.by_intervals) if rate.kind == "scrambled" else NOTHING
    counts = (str(rate.n), str(rate.labelled), share, sure, f"{rate.level:g}", control)
    return (NAMES[rate.kind], rate.standing, *counts)


def by_relation(trials: Sequence[Trials]) -> Grid:
    """Labelled of how many, for each relation: scrambled models, and ranges."""

    def counted(name: str, kind: str) -> str:
        own = [each for each in trials if each.relation == name and each.kind == kind and each.n]
        return f"{sum(each.labelled for each in own)} of {sum(each.n for each in own)}" if own else NOTHING

    names = sorted({each.relation for each in trials})
    return grid(
        ("relation", "scrambled", "ranges"),
        [(name, counted(name, "scrambled"), counted(name, "ranges")) for name in names],
    )


def page(found: Sequence[ErrorRate], trials: Sequence[Trials], model: Model, command: str) -> str:
    """The Markdown text; ``command`` makes it again."""
    return "\n\n".join(
        [
            f"# Heads labelled where there is nothing to label, in {model.name}",
            f"Weights {model.weights[:12]}, written by `{command}`. The same each time.",
            markdown(rates(found)),
            "* **Scrambled models**: the entries of each weight tensor dealt anew, each model another draw, the relations in turn; "
            "labelled by the function that labels a run's heads, from the relation's first facts; any role on any head counts. "
            "Independent trials: Wilson's interval. By intervals alone: an effect above the bar whose interval leaves out 0.\n"
            f"* **Ranges**: on the model itself, for each relation {NULL_RANGES} ranges of other relations, drawn at random, are the "
            "null, and all that are left are tried against these alone. The interval is a bootstrap over relations, because those "
            "of one relation share their null.\n"
            "* **Standing**: within, the interval is at most the level claimed; above, it is over it; else undecided.",
            "## Relation by relation",
            markdown(by_relation(trials)),
            "",
        ]
    )

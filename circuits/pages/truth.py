"""The page of results: one table an ablation, and how it is to be read. Made by ``kcircuit groundtruth --out``."""

from collections.abc import Sequence

from circuits.discovery import METHODS
from circuits.evaluation.recovery import Recovery
from circuits.pages.tables import grid, markdown
from circuits.planted import Planted
from circuits.studies.columns import number

HEAD = """# Discovery methods against known circuits

Made by `kcircuit groundtruth{options} --out FILE`; what stands below the tables is written by hand.

Each cell is **precision / recall / AUROC** over edges. Precision and recall are of the edges that the method keeps:
those whose score reaches tau, for methods whose scores are in the metric's unit (ACDC, exact, EAP, EAP-IG); the best
as many as there are true edges, for those without a unit (IFR, random), which helps them. `–` means that nothing was
kept. AUROC is the chance that a true edge scores higher than another, ties counting half; it asks for no threshold.
`random` is the mean of 20 draws.

`acdc` goes by the signed rule of [Knowledge Circuits](https://arxiv.org/abs/2405.17969): remove an edge if that
raises the loss by less than tau. `acdc absolute` looks at the magnitude; so do all others.

## Transformers made by hand

Two layers, two heads each, 46 edges, without norm (`circuits/planted/`: each file derives its edges and what each is
worth). What is not in the circuit has random weights and writes where nobody in the circuit reads. Loss: MatchNLL.
The true edges depend on the ablation: under zero ablation every edge that the weights connect matters; under
resampling those that carry something else on the corrupted prompt.
"""

COMPILED = """
## Transformers compiled from programs

Compiled with Tracr from programs of known meaning, with edge lists from their weights and from exhaustive replacement
of single edges (read from the folder that `KCIRCUIT_TRACR` names; not part of this repository). Bidirectional,
without norm, up to 6 layers; `xproportion` puts out a number. Each method is compared with the list of the ablation
that it applies, not counting the output at BOS. ACDC and `exact` measure squared error at all other positions, with
tau {tau:g}; EAP and EAP-IG measure MatchNLL where the output is a word and squared error where it is a number; their
scores are cut at the same tau. For resampling every prompt takes values from {donors} others at least as long, drawn
by chance.
"""

KEPT = """
True edges that ACDC or `exact` did not keep:

{missed}

Edges that they kept and that are not true:

{extra}
"""


def _cell(row: Recovery) -> str:
    return " / ".join(number(value, 2) for value in (row.precision, row.recall, row.auroc))


def table(rows: Sequence[Recovery]) -> str:
    """Methods down, circuits across, in the order in which they come up."""
    circuits = list(dict.fromkeys(row.circuit for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    cells = {(row.method, row.circuit): _cell(row) for row in rows}
    true = {row.circuit: row.n_true for row in rows}
    lines = [[method, *(cells[method, name] for name in circuits)] for method in methods]
    return markdown(grid(["", *(f"{name} ({true[name]})" for name in circuits)], lines))


def tables(rows: Sequence[Recovery]) -> str:
    parts = []
    for ablation in dict.fromkeys(row.ablation for row in rows):
        parts.append(f"\n**{ablation.capitalize()} ablation** (in brackets: true edges)\n")
        parts.append(table([row for row in rows if row.ablation == ablation]))
    return "\n".join(parts) + "\n"


def page(
    planted: Sequence[Recovery], circuits: Sequence[Planted], compiled: Sequence[Recovery], *, tau: float, donors: int
) -> str:
    """The whole page as Markdown; without ``compiled`` rows, only the transformers made by hand."""
    made = "\n".join(f"* `{circuit.name}`: {circuit.title}" for circuit in circuits) + "\n"
    text = HEAD.format(options=" --compiled" if compiled else "") + "\n" + made + tables(planted)
    if compiled:
        text += COMPILED.format(tau=tau, donors=donors) + tables(compiled) + _kept(compiled)
    return text


def _kept(rows: Sequence[Recovery]) -> str:
    """Where methods that measure each edge's own effect differ from the lists, edge by edge."""

    def lines(field: str) -> str:
        found = [
            f"* {row.circuit}, {row.ablation}, {row.method}: {', '.join(f'`{edge}`' for edge in getattr(row, field))}"
            for row in rows
            if row.method in METHODS and METHODS[row.method].by_cutting and getattr(row, field)
        ]
        return "\n".join(found) or "* none"

    return KEPT.format(missed=lines("missed"), extra=lines("extra"))

"""Head roles of many relations, checked, as a page: a line a relation, and what chance alone gives.

Made by ``kcircuit heads --relation all --out FILE``.
"""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean, median

from circuits.analysis.roles import ALPHA, MIN_EFFECT, MIN_READING, RELATION_ALPHA, ROLES, SUBJECT_ALPHA, Role
from circuits.graph import Node
from circuits.model import Model
from circuits.pages.tables import grid, markdown
from circuits.studies.false_labels import FalseLabels
from circuits.studies.heads import Unlabelled
from circuits.studies.roles import TRIALS, RoleChecks

LABELS: tuple[Role, ...] = tuple(role for role in ROLES if role != "other")


HEADER = (
    "relation",
    "facts",
    *LABELS,
    "words",
    "same label",
    "kappa",
    "r of effects",
    "top mover kept",
    "movers − matched, logits",
    "shuffled",
    "wrong ranges",
)


def cells(checks: RoleChecks) -> tuple[str, ...]:
    """A relation's line under `HEADER`."""
    counts, gain = Counter(checks.labels[0]), checks.advantage
    return (
        checks.relation,
        str(checks.n_facts),
        *(str(counts[role]) for role in LABELS),
        str(len(checks.templates)),
        _percent(checks.agreement),
        _number(checks.kappa),
        _number(checks.correlation),
        _percent(checks.top_mover_kept),
        "–" if gain is None else f"{gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]",
        _percent(checks.shuffled_rate, 1),
        _percent(checks.wrong_range_rate),
    )


def average_cells(found: Sequence[RoleChecks]) -> tuple[str, ...]:
    """The last line: means over the relations that have the number."""
    gains = [checks.advantage.mean for checks in found if checks.advantage is not None]
    return (
        "mean",
        f"{fmean(checks.n_facts for checks in found):.1f}",
        *(f"{fmean(checks.labels[0].count(role) for checks in found):.1f}" for role in LABELS),
        f"{fmean(len(checks.templates) for checks in found):.1f}",
        _percent(_mean([checks.agreement for checks in found])),
        _number(_mean([checks.kappa for checks in found])),
        _number(_mean([checks.correlation for checks in found])),
        _percent(_mean([checks.top_mover_kept for checks in found])),
        f"{fmean(gains):+.2f}" if gains else "–",
        _percent(fmean(checks.shuffled_rate for checks in found), 1),
        _percent(_mean([checks.wrong_range_rate for checks in found]), 1),
    )


def sentences(found: Sequence[RoleChecks], chance: FalseLabels) -> list[str]:
    """What the lines say together."""
    gains = [checks.advantage for checks in found if checks.advantage is not None]
    labelled = [sum(role != "other" for role in checks.labels[0]) for checks in found]
    deals, ranges = TRIALS * len(found), sum(checks.n_ranges for checks in found)
    passed = round(sum(checks.shuffled_rate for checks in found) * TRIALS)
    wrong = round(sum((checks.wrong_range_rate or 0) * checks.n_ranges for checks in found))
    lines = [
        f"Heads with a role: {median(labelled):g} of {len(found[0].labels[0])} in the median relation "
        f"({min(labelled)} to {max(labelled)}); {sum('mover' in c.labels[0] or 'mixture' in c.labels[0] for c in found)} of {len(found)} "
        f"relations have a mover or mixture head, {sum('relation' in c.labels[0] or 'mixture' in c.labels[0] for c in found)} a relation "
        "or mixture head.",
        f"Causal effect: on facts that did not make the labels, movers' cuts cost the answer more than those of unlabelled heads of like "
        f"size, with an interval above 0, in {sum(gain.low > 0 for gain in gains)} of {len(gains)} relations.",
        f"Shuffled answers: {passed} of {deals:,} deals pass ({passed / deals:.2%}; claimed: at most {SUBJECT_ALPHA:.0%}).",
    ]
    if ranges:
        lines.append(
            f"Wrong ranges: {wrong} of {ranges:,} pass ({wrong / ranges:.1%}; claimed: at most {RELATION_ALPHA:.0%})."
        )
    return [*lines, f"Models that know nothing: {chance}"]


def tested(found: Sequence[RoleChecks], heads: Sequence[Node]) -> list[tuple[str, ...]]:
    """For each head that has a role anywhere: in how many relations it has which."""
    counts = [Counter(checks.labels[0][i] for checks in found) for i in range(len(heads))]
    rows = [(head, count) for head, count in zip(heads, counts, strict=True) if len(found) > count["other"]]
    rows.sort(key=lambda row: row[1]["other"])
    return [(head.label, *(str(count[role]) for role in LABELS), str(count["other"])) for head, count in rows]


def page(
    model: Model,
    rows: Sequence[RoleChecks | Unlabelled],
    chance: FalseLabels,
    heads: Sequence[Node],
    *,
    command: str,
) -> str:
    """The whole page as Markdown."""
    found = [row for row in rows if isinstance(row, RoleChecks)]
    without = [f"* {row.relation}: {row.reason}." for row in rows if isinstance(row, Unlabelled)]
    parts = [
        f"# Head roles in {model.name}, relation by relation",
        f"Model {model.name} (weights {model.weights[:12]}), written by `{command}`. "
        "What a role claims, and how it is tested, is in the docstring of `circuits/analysis/roles.py`.",
        "\n".join(f"* {line}" for line in sentences(found, chance)),
        "## Relations",
        _table(HEADER, [*(cells(checks) for checks in found), average_cells(found)]),
        NOTES,
        "## Heads",
        "In how many relations a head has which role (those with a role in any).",
        _table(("head", *LABELS, "none"), tested(found, heads)),
    ]
    if without:
        parts += ["## Relations without labels", "\n".join(without)]
    return "\n\n".join(parts) + "\n"


NOTES = f"""* **facts** make the labels, all known to the model, in the relation's first template; the four columns after it
  count heads.
* **words**: templates in which enough facts are known. **same label**: of the heads with a role in either of two templates,
  those with the same in both; a head whose effect is near the bar of {MIN_EFFECT:g} logits falls on either side of it.
  **kappa**: Cohen's, over all heads. **r of effects**: correlation over all heads of what cutting the subject costs, which
  needs no bar. All three are means over pairs of templates. **top mover kept**: the share of the other templates in which
  the first one's strongest mover is a mover too.
* **movers − matched**: movers labelled on half of the facts; on the other half, the fall of the answer when what they read from
  the subject is cut, less that of the unlabelled heads whose writes are nearest in length; mean and 95 % interval over
  facts. –: half of the facts give no mover.
* **shuffled**: of {TRIALS} deals of the answers to wrong subjects, those that pass the answers' test (at most
  {SUBJECT_ALPHA:.0%} claimed). **wrong ranges**: of the other relations' ranges, those that pass the range's test (at
  most {RELATION_ALPHA:.0%} claimed).
* A model that knows nothing has the entries of each of the model's weight tensors dealt anew, one such model a relation; any
  role on any head counts (at most {ALPHA:.0%} claimed). By intervals alone: an effect of {MIN_EFFECT:g} logits whose interval
  leaves out 0, of a head that draws {MIN_READING:.0%} of its write from there."""


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _percent(share: float | None, digits: int = 0) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    return markdown(grid(header, body))

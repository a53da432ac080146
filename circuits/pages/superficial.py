"""The superficial-edit audit as a card of a diff's page."""

import math

from circuits.evaluation.edits.relapse import Relapse, Standoff
from circuits.evaluation.edits.superficial import Audit
from circuits.graph import label_of
from circuits.pages.page import plain, signed
from circuits.pages.tables import grid, to_html
from circuits.studies.columns import NOTHING

PREFIXES = ("before the prompt", "n", "new given, %", "old given, %", "old likelier, %", "ln p(old) − ln p(new), nats")
SILENCED = ("silent", "prompts", "ln p(old) − ln p(new), nats", "old likelier, %", "old given, %")


def audit_section(audit: Audit) -> str:
    """Each number of the unedited model and of the edited one; and the heads that bring the old answer back, if any do."""
    rows = [
        (
            row.prefix,
            str(row.n),
            *(" → ".join(map(_percent, pair)) for pair in (row.new_given, row.old_given, row.old_likelier)),
            " → ".join(map(_nats, row.log_odds)),
        )
        for row in audit.prefixes
    ]
    return (
        '<section class="card" aria-labelledby="audit-heading">\n<h2 id="audit-heading">Does the old answer come back?</h2>\n'
        '<p class="caption">The edited prompt with something before it, in the unedited model → in the edited one. Given: all of '
        "the answer’s tokens are the likeliest. Likelier: per token, as likely as the other answer or more. A third object, said "
        "as often as the old one, is the control.</p>\n"
        f"{to_html(grid(PREFIXES, rows))}\n{_relapse(audit.relapse)}</section>\n"
    )


def _relapse(found: Relapse | None) -> str:
    if found is None:
        return (
            '<p class="caption">No heads were sought that bring it back: the old answer is the likelier one after fewer than two '
            "prefixes, or no head’s silence lowers it.</p>"
        )
    names = ", ".join(f"{label_of(name)} ({signed(effect)} nats)" for name, effect in found.heads)
    rows = [
        ("none", *_standoff(found.tested, found.whole)),
        (", ".join(label_of(name) for name, _ in found.heads), *_standoff(found.tested, found.without)),
    ]
    if found.random:
        rows.append((f"as many at random, mean of {len(found.random)}", *_standoff(found.tested, _mean(found.random))))
    control = f"; {found.as_strong:.0%} of the random sets lower it as much" if found.random else ""
    return (
        f'<p class="caption">Heads that bring it back, found by silencing each at {found.searched} of the prompts after which it '
        f"is likelier, with what each is worth there: {plain(names)}. At the {found.tested} others, silenced together (first "
        f"tokens{control}):</p>\n{to_html(grid(SILENCED, rows))}\n"
    )


def _mean(drawn: tuple[Standoff, ...]) -> Standoff:
    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values)

    return Standoff(
        mean([each.log_odds for each in drawn]),
        mean([each.old_likelier for each in drawn]),
        mean([each.old_given for each in drawn]),
    )


def _standoff(n: int, found: Standoff) -> tuple[str, ...]:
    return str(n), _nats(found.log_odds), _percent(found.old_likelier), _percent(found.old_given)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _nats(value: float) -> str:
    return signed(value) if math.isfinite(value) else NOTHING

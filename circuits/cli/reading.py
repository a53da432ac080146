"""What heads and MLPs do for one fact, on the terminal: special heads (paper 2, Table 3), and the story."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuits.studies.run import Run

TOP = 4
"""Promoted tokens that a line shows."""


def print_reading(result: "Run") -> None:
    """The special heads as a table, then the story."""
    from rich.console import Console

    from circuits.pages.style import token_text
    from circuits.pages.tables import grid, show

    reading = result.reading
    if reading is None:
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
    if reading.heads and reading.roles is not None:
        inside = set(result.circuit.nodes)
        words = ("special head", "role", "in the circuit", "promotes")
        shares = ("to sink", "to subject", "to relation", "from subject", "from relation")
        lines = [
            (
                each.head.label,
                each.role,
                "yes" if each.head in inside else "no",
                " ".join(token_text(score.token) for score in each.promoted[:TOP]),
                f"{each.sink:.0%}",
                *(f"{reading.drawn(each.attention, which):.0%}" for which in ("subject", "relation")),
                *(f"{reading.drawn(each.write, which):.0%}" for which in ("subject", "relation")),
                f"{each.subject_cut:+.2f}",
                f"{each.relation_cut:+.2f}",
            )
            for each in reading.heads
        ]
        show(grid((*words, *shares, "answer falls", "range falls"), lines, left=4))
        console.print(
            f"Roles for {reading.roles.relation}, told from {len(reading.roles.facts)} facts. To: attention from this prompt's last "
            "token; the sink is the first token, where attention rests whatever stands there. From: of what the head writes, the share "
            "that it draws from there. Falls in logits here, when the head's reading of the subject (of the relation) is cut.",
            markup=False,
        )
    console.print("\nHow the fact is recalled, in the whole model:", markup=False)
    for sentence in result.story:
        console.print(f"- {sentence}", markup=False)

"""The page of claims: a line for each with its effect, interval and verdict, and below how each was tested."""

from collections.abc import Sequence
from typing import Any

from circuits.evaluation.claims import LEAST_CASES
from circuits.model import Model
from circuits.pages.tables import Grid, grid, markdown
from circuits.studies.claims.table import ClaimRow
from circuits.studies.columns import NOTHING

HEADER = ("claim", "paper", "verdict", "n", "measured", "control", "effect", "95 %", "bar", "unit")
WORDS = 3


def as_rows(rows: Sequence[ClaimRow]) -> list[dict[str, Any]]:
    """The rows as JSON: numbers that there are not are null."""
    return [
        {
            "claim": row.claim.name,
            "says": row.claim.says,
            "section": row.claim.section,
            "model": row.model,
            "test": row.claim.test,
            "control": row.claim.control,
            "unit": row.claim.unit,
            "bar": row.claim.bar,
            "n": row.judgement.n,
            "without_control": row.judgement.without,
            "not_bearing": row.beside,
            "measured": _number(row.judgement.value),
            "of_control": _number(row.judgement.control),
            "effect": _number(row.judgement.effect),
            "low": _number(row.judgement.low),
            "high": _number(row.judgement.high),
            "verdict": row.verdict,
            "refused": row.refused or None,
            "command": row.command,
        }
        for row in rows
    ]


def _number(value: float) -> float | None:
    return value if value == value else None


def summary(rows: Sequence[ClaimRow]) -> Grid:
    return grid(HEADER, [_line(row) for row in rows], left=WORDS)


def _line(row: ClaimRow) -> tuple[str, ...]:
    found, claim = row.judgement, row.claim
    if not found.n:
        return (claim.name, claim.section, row.verdict, "0", *[NOTHING] * 4, f"{claim.bar:g}", claim.unit)
    return (
        claim.name,
        claim.section,
        row.verdict,
        str(found.n),
        f"{found.value:.2f}",
        f"{found.control:.2f}",
        f"{found.effect:+.2f}",
        f"[{found.low:+.2f}, {found.high:+.2f}]",
        f"{claim.bar:g}",
        claim.unit,
    )


def page(rows: Sequence[ClaimRow], model: Model, command: str) -> str:
    """The Markdown text; ``command`` makes it again."""
    return "\n\n".join(
        [
            "# What the papers say, put to the model",
            f"Model {model.name} (weights {model.weights[:12]}), written by `{command}`. The same each time.",
            "Each claim is put to cases. Of each, one number is measured, and the same of a control. The effect is the mean of "
            "measured less control, with an interval of 95 %: Newcombe's for paired shares where each number is 0 or 1, else a "
            "bootstrap over cases. The bar, the least effect that the claim means, the test and its control were fixed before "
            "anything was measured. A claim **holds** where the whole interval is above the bar, **does not** where it is below, and "
            f"is **undecided** where the bar is within it, where fewer than {LEAST_CASES} cases have a control, or where more lack "
            "one than have one. One that would hold whatever the model did is not tried: **by construction**.",
            markdown(summary(rows)),
            "## How each was tested",
            "\n".join(_tested(row) for row in rows),
            "",
        ]
    )


def _tested(row: ClaimRow) -> str:
    claim, found = row.claim, row.judgement
    begins = f"* **{claim.name}** ({claim.section}): {claim.says}. "
    if row.refused:
        return f"{begins}Not tried: {row.refused}."
    left = [f"{found.without} had no control"] if found.without else []
    left += [f"{row.beside} did not bear on it"] if row.beside else []
    more = f" Of the cases {' and '.join(left)}." if left else ""
    return f"{begins}Measured: {claim.test}. Control: {claim.control}.{more} `{row.command}`"

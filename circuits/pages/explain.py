"""An explanation as one HTML file: its verdict first, the head that it hangs on, then both circuits, then the story."""

import html
from collections.abc import Mapping, Sequence
from string import Template

from circuits.choices import counted
from circuits.pages.page import asset, plain, signed
from circuits.pages.pair import pair, sentence_case
from circuits.studies.explain.told import HeadsTold, HeadTold, Put, Tells
from circuits.studies.explain.verdict import Evidence

HEADS = 10
"""Of the table of heads, the rows that are seen at once."""


def render_explained(found: Tells, *, command: str = "") -> str:
    """The page as one HTML text that loads nothing. The same case gives the same bytes.

    Args:
        command: what a reader types to make the page again.
    """
    told, common = found.told, pair(found.diff, command)
    return Template(asset("explain.html")).substitute(
        common
        | {
            "title": plain(told.title),
            "description": plain(told.verdict),
            "question": plain(told.question),
            "verdict": plain(told.verdict),
            "put": "\n".join(map(_put, told.put)),
            "heads": _heads(told.heads),
            "story": _story(told.story),
            "conclusion": plain(found.verdict.conclusion),
            "evidence": _evidence(found.verdict.evidence),
            "css": common["css"] + asset("explain.css"),
        }
    )


def _put(each: Put) -> str:
    state = "" if each.right is None else "right" if each.right else "wrong"
    return (
        f'<div class="{state}"><p class="name">{plain(each.name)}</p><p class="prompt">{plain(each.prompt)} …</p>'
        f'<p class="answer">{plain(each.answer)}</p><p class="detail">{plain(each.detail)}</p></div>'
    )


def _heads(told: HeadsTold) -> str:
    heading = f'<h2 id="heads-heading">{plain(told.heading)}</h2>\n<p class="caption">{plain(told.caption)}</p>\n'
    if not told.rows:
        content = f"<p>{plain(told.none)}</p>"
    else:
        units = [unit for _, unit in told.columns]
        tops: dict[str, float] = {}
        for row in told.rows:
            for unit, value in zip(units, row.numbers, strict=True):
                tops[unit] = max(tops.get(unit, 0.0), abs(value))
        columns = "".join(f'<th scope="col" class="num">{plain(f"{name}, {unit}")}</th>' for name, unit in told.columns)

        def table(some: Sequence[HeadTold]) -> str:
            rows = "".join(_row(row, units, tops) for row in some)
            return (
                '<div class="scroll" tabindex="0" role="region" aria-labelledby="heads-heading"><table class="told"><thead><tr>'
                f'<th scope="col">Head</th>{columns}<th scope="col">{plain(told.does)}</th></tr></thead><tbody>{rows}</tbody></table></div>'
            )

        # The one that the verdict hangs on is seen whatever its place.
        seen = [row for i, row in enumerate(told.rows) if i < HEADS or row.marked]
        rest = [row for row in told.rows if row not in seen]
        content = table(seen)
        if rest:
            content += f"<details><summary>{counted(len(rest), 'other head')}</summary>\n{table(rest)}</details>"
    return f'<section class="card" aria-labelledby="heads-heading">\n{heading}{content}\n</section>'


def _row(row: HeadTold, units: Sequence[str], tops: Mapping[str, float]) -> str:
    def number(value: float, unit: str) -> str:
        text = f"{value:.0f}" if unit == "%" else signed(value)
        share = abs(value) / (tops[unit] or 1.0)
        return f'<td class="num">{text}<i class="{"less" if value < 0 else ""}" style="--share:{share:.3f}"></i></td>'

    numbers = "".join(number(value, unit) for value, unit in zip(row.numbers, units, strict=True))
    mark = ' class="marked"' if row.marked else ""
    return f'<tr{mark}><th scope="row">{plain(row.head)}</th>{numbers}<td class="does">{plain(row.does)}</td></tr>'


def _story(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{plain(sentence_case(each))}</li>" for each in sentences)
    return (
        '<section class="card" aria-labelledby="story-heading">\n<h2 id="story-heading">The story</h2>\n'
        f'<ol class="story">{items}</ol>\n</section>'
    )


def _evidence(evidence: Sequence[Evidence]) -> str:
    """Each number with its unit, and what it is compared with."""

    def number(value: float, unit: str) -> str:
        return html.escape(f"{value:.3g} {unit}".strip())

    rows = "".join(
        f'<tr><th scope="row">{plain(each.name)}</th><td class="num">{number(each.value, each.unit)}</td><td>'
        + ("" if each.against is None else f"{plain(each.against_name)} {number(each.against, each.unit)}")
        + "</td></tr>"
        for each in evidence
    )
    return f'<table class="evidence"><tbody>{rows}</tbody></table>' if rows else "<p>Nothing was measured.</p>"

"""The certificate as a card: the quick one of every run of a single fact, or all its lines where `kcircuit certify` made them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from circuits.evaluation.lines import Line, verdict_of
from circuits.pages.page import pairs, plain
from circuits.pages.tables import grid, to_html
from circuits.studies.columns import NOTHING

HEADER = ("check", "what", "value", "interval", "n", "chance", "bar", "grade")


def cells(line: Line) -> tuple[str, ...]:
    """The line under `HEADER`."""
    alone = line.low == line.high or not math.isfinite(line.low)
    interval = NOTHING if alone else f"[{_number(line.low)}, {_number(line.high)}]"
    return (
        line.check,
        line.what,
        _number(line.value),
        interval,
        str(line.n),
        _number(line.chance),
        line.bar or NOTHING,
        line.grade or "told",
    )


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else NOTHING


def lines_section(lines: Sequence[Line]) -> str:
    """All lines of a certificate."""
    verdict = verdict_of(lines)
    return _card(verdict, to_html(grid(HEADER, [cells(line) for line in lines], left=2)))


def certificate_section(certificate: Mapping[str, Any] | None) -> str:
    """The certificate as a card, from what `circuits.evaluation.certificate.Certificate.to_json` gives; empty without one."""
    if certificate is None:
        return ""
    grades, intervals = certificate["grades"], certificate["intervals"]
    rows = [
        (
            f"Sufficiency {grades['sufficiency']}: random circuits of its size that give the answer too",
            _share(intervals["random_give"]),
        ),
        (
            f"Specificity {grades['specificity']}: other subjects that get their own answer"
            f" (the commonest answer for all would score {_percent(certificate['blind'])})",
            _share(intervals["own_answer"]),
        ),
        ("other subjects that get this answer", _share(intervals["this_answer"])),
        (
            f"Necessity {grades['necessity']}: rank of the answer in the model without the circuit’s edges; as many edges "
            f"drawn anywhere lose it in {_share(intervals['random_lose'])}",
            f"{certificate['rank_without']:,}",
        ),
        ("KL from the model, nats", f"{certificate['kl']:.3f}"),
    ]
    return _card(certificate["verdict"], f'<dl class="settings">\n{pairs(rows)}\n</dl>')


def _card(verdict: str, content: str) -> str:
    return (
        f'<section class="card certificate {plain(verdict)}" aria-labelledby="certificate-heading">\n'
        f'<h2 id="certificate-heading">Certificate: {plain(verdict)}</h2>\n{content}\n</section>\n'
    )


def _share(interval: Mapping[str, Any]) -> str:
    if not interval["n"]:
        return "none to ask"
    return f"{interval['share']:.0%} of {interval['n']} [{interval['low']:.0%}, {interval['high']:.0%}]"


def _percent(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.0%}"

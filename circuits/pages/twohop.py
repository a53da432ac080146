"""The page of questions in two hops: what became of them, which patches repair them, where what is readable, and each by itself."""

from collections.abc import Sequence
from typing import Any

from circuits.evaluation.claims import LEAST_CASES, Judgement
from circuits.metrics import Share
from circuits.model import Model
from circuits.pages.charts import Panel, line_panels
from circuits.pages.tables import Grid, grid, markdown
from circuits.records import to_json
from circuits.studies.columns import NOTHING
from circuits.studies.explain.diagnosis import PATCHES, READABLE, WHERES, Patch, TwoHopRow
from circuits.studies.explain.repairs import (
    BAR,
    DIAGNOSES,
    NAMES,
    ReadableShare,
    RepairShare,
    halves,
    pair_counts,
    readable_by_point,
    readable_shares,
    repair_shares,
    turned_by_point,
)

WHERE_FROM: dict[Patch, str] = {
    "back": "a later layer's state at the first hop's end, put into an earlier layer there",
    "back at last": "a later layer's state at the last token, put into an earlier layer there",
    "onward": "a state at the first hop's end, put at the last token",
    "named": "the state at the bridge's own last token in the question that names it, put at the first hop's end in the same layer",
}
JUDGED = ("n", "share", "control", "effect", "95 %")


def counts(rows: Sequence[TwoHopRow]) -> Grid:
    """What became of the questions, by pair of relations."""
    found = pair_counts(rows)
    lines = [(each.first, each.second, str(each.n), *map(str, each.diagnoses)) for each in found]
    return grid(
        ("first hop", "second hop", "n", *DIAGNOSES), lines, left=2, strong=[len(lines) - 1] if len(lines) > 1 else []
    )


def repairs(found: Sequence[RepairShare]) -> Grid:
    header = ("patch", "of the questions", "against", "repairs: verdict", "points", *JUDGED)
    lines = [
        (
            each.patch or "any of these",
            each.group,
            each.control,
            each.judgement.verdict,
            "any" if each.points is None else f"{each.points[0]} to {each.points[1]}",
            *_numbers(each.judgement),
        )
        for each in found
    ]
    return grid(header, lines, left=5)


def readable(found: Sequence[ReadableShare]) -> Grid:
    header = ("readable", "where", "of the questions", "readable: verdict", *JUDGED)
    lines = [
        (
            each.what,
            each.where,
            "answered" if each.answered else "wrong",
            each.judgement.verdict,
            *_numbers(each.judgement),
        )
        for each in found
        if each.judgement.n
    ]
    return grid(header, lines, left=4)


def _numbers(found: Judgement) -> tuple[str, ...]:
    if not found.n:
        return ("0", *[NOTHING] * 4)
    shares = (f"{found.value:.2f}", f"{found.control:.2f}", f"{found.effect:+.2f}")
    return (str(found.n), *shares, f"[{found.low:+.2f}, {found.high:+.2f}]")


def each_question(rows: Sequence[TwoHopRow]) -> Grid:
    """Of each the diagnosis, what is said, and how many points of each patch give the answer (and of the other question's state)."""

    def tried(row: TwoHopRow, patch: Patch) -> str:
        found = next((each for each in row.patches if each.patch == patch), None)
        return NOTHING if found is None else f"{len(found.own)} ({len(found.other)})"

    lines = [
        (row.prompt, row.bridge, row.answer, row.gives.strip(), row.diagnosis, *(tried(row, each) for each in PATCHES))
        for row in rows
    ]
    return grid(("question", "bridge", "answer", "the model's first token", "diagnosis", *PATCHES), lines, left=5)


def turning(rows: Sequence[TwoHopRow]) -> Grid:
    """Where the answer turns to the other question's: at how many points, and at which most."""
    lines = []
    for where in WHERES:
        if not (shares := turned_by_point(rows, where)):
            continue
        most = max(shares, key=lambda point: shares[point].count)
        some = [any(each.where == where and each.points for each in row.turned) for row in rows if row.turned]
        lines.append((where, str(Share.of(some)), str(most), str(shares[most])))
    return grid(("the other question's state at the", "at some point", "most at point", "there"), lines, left=1)


def turning_figure(rows: Sequence[TwoHopRow]) -> str:
    """`turning` point by point, as SVG; empty without a question."""
    series = {where: turned_by_point(rows, where) for where in WHERES}
    points = list(series[WHERES[0]])
    if not points:
        return ""
    values = {where: tuple(share.value for share in shares.values()) for where, shares in series.items()}
    title = f"The other question's state put in ({next(iter(series[WHERES[0]].values())).n})"
    labels = tuple(map(str, points))
    return line_panels([Panel(title, "point", "gives the other answer", labels, values, limits=(0.0, 1.0))])


def figure(rows: Sequence[TwoHopRow], *, answered: bool) -> str:
    """The share of questions in which each thing is readable, point by point and place by place, as SVG; empty without a question."""
    own = [row for row in rows if row.answered == answered]
    panels = []
    for where in WHERES if own else ():
        series = {what: readable_by_point(own, what, where) for pair in NAMES for what in pair}
        labels = tuple(str(point) for point in range(own[0].n_layers + 1))
        title = f"{where}, {'answered' if answered else 'wrong'} ({len(own)})"
        there = {what: values for what, values in series.items() if values}
        panels.append(Panel(title, "point", f"among the first {READABLE}", labels, there, limits=(0.0, 1.0)))
    return line_panels(panels) if panels else ""


def figures(rows: Sequence[TwoHopRow], stem: str) -> dict[str, str]:
    """The pictures by file name, of the page of that name."""
    made = {name: figure(rows, answered=name == "answered") for name in ("wrong", "answered")}
    made["turned"] = turning_figure(rows)
    return {f"{stem}-{name}.svg": text for name, text in made.items() if text}


def as_json(rows: Sequence[TwoHopRow], model: Model, seed: int) -> dict[str, Any]:
    """All numbers: of pairs of relations, of readable names, of repairs, and of each question."""
    return {
        "model": model.name,
        "weights": model.weights,
        "pairs": [
            {
                "first": each.first,
                "second": each.second,
                "n": each.n,
                **dict(zip(DIAGNOSES, each.diagnoses, strict=True)),
            }
            for each in pair_counts(rows)
        ],
        "readable": [to_json(each) for each in readable_shares(rows, seed=seed)],
        "turned": [
            {"where": where, "point": point, "count": share.count, "n": share.n, "low": share.low, "high": share.high}
            for where in WHERES
            for point, share in turned_by_point(rows, where).items()
        ],
        "repairs": [to_json(each) for each in repair_shares(rows, seed=seed)],
        "questions": [{**to_json(row), "diagnosis": row.diagnosis} for row in rows],
    }


def page(rows: Sequence[TwoHopRow], model: Model, command: str, stem: str, seed: int = 0) -> str:
    """The Markdown text; ``command`` makes it again, and ``stem`` is what its pictures' names begin with."""
    chooses, reports = halves(rows)
    seen, turns = "Share of questions in which each is readable, by point", "Share of answers that turn, by point"
    pictures = [f"![{turns if 'turned' in name else seen}]({name})" for name in figures(rows, stem)]
    return "\n\n".join(
        [
            f"# Two hops: where a question fails, and what repairs it, in {model.name}",
            f"Weights {model.weights[:12]}, written by `{command}`. The same each time.",
            "Questions whose two hops the model answers rightly by themselves, every token of both.",
            markdown(counts(rows)),
            f"* **Answered**: every token of the answer is put first. **Signal too weak**: it is not, and the bridge's first token is "
            f"nowhere among the first {READABLE} of the logit lens, neither at the first hop's end nor at the last token. **Not "
            "routed**: it is there, and a patch gives the answer from and to points where another question's state does not. **Not "
            "repaired**: it is there, and none does.\n"
            f"* **Point** l is the place before layer l; the last point is after the last layer. {_points_tried(rows)}",
            "## What repairs a question",
            f"{len(chooses)} questions that are answered wrongly chose the points of each kind of patch, and {len(reports)} others are "
            "reported: every token of the answer is then put first.",
            markdown(repairs(repair_shares(rows, seed=seed))),
            "\n".join(f"* **{patch}**: {words}." for patch, words in WHERE_FROM.items()),
            "* **Against another question's state**: the same patch with the state of a question of the same two relations, with another "
            "bridge and another answer. **Other layers**: the question's own state, from and to any other points of the kind. **Another "
            "question's state, any layers**: the share that some points repair, as repairs are often counted, and the same of the other "
            "question's state. **The other way round**: the share with some patch that gives the answer where the other question's state "
            "does not, on which a diagnosis hangs, against the share where that one does and its own does not.\n"
            f"* **Verdict**: holds where the whole interval of 95 % of the effect is above {BAR:g}, does not where it is below, else "
            f"undecided; so are fewer than {LEAST_CASES} questions. Newcombe's interval for paired shares, or a bootstrap over questions "
            "where the control is a mean.",
            "## Where bridge, relation and answer are readable",
            f"Among the first {READABLE} tokens of the lens at some point after the first layer; of the relation, any object but the "
            "answer. The control is read at the same place: another question's bridge and answer, and as many objects of another "
            "relation.",
            markdown(readable(readable_shares(rows, seed=seed))),
            *(each for each in pictures if seen in each),
            *_what_decides(rows, [each for each in pictures if turns in each]),
            "## Each question",
            "Of each patch, the points that give the answer, and in brackets those of the other question's state.",
            markdown(each_question(rows)),
            "",
        ]
    )


def _points_tried(rows: Sequence[TwoHopRow]) -> str:
    apart = rows[0].every
    return (
        "States are taken from and put at all of them."
        if apart == 1
        else f"States are taken from and put at every {apart}th."
    )


def _what_decides(rows: Sequence[TwoHopRow], pictures: Sequence[str]) -> list[str]:
    """Empty where no two questions are answered."""
    made = turning(rows)
    return (
        [
            "## What decides the answer",
            "Questions that are answered rightly, with another question that is, too: its state is put at the same place of this one, "
            "in the same layer. Does the model then give the other question's answer, every token of it? Unpatched it never does. "
            "Wilson's interval of 95 %.",
            markdown(made),
            *pictures,
        ]
        if made.lines
        else []
    )

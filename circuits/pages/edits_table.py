"""The results page: compared methods as Markdown, everything on it computed from what was measured."""

import json
from collections.abc import Sequence
from typing import Any

from circuits.evaluation.edits.failures import FAILURE_CLASSES
from circuits.model import Model
from circuits.pages.tables import Grid, grid, markdown
from circuits.paths import data_dir
from circuits.studies.columns import number
from circuits.studies.edits import BY_CASE, METRICS, WRITTEN_METRICS, Standing

PUBLISHED = "published/editing.json"
STAYING = {
    "locality_neighbour": ("other subjects", "the same relation of other subjects"),
    "locality_same_subject": ("same subject", "other relations of the edited subject"),
    "locality_forgetfulness": ("forgetfulness", "its other objects in the edited relation"),
    "locality_unrelated": ("unrelated", "unrelated facts"),
    "attributes": ("attributes", "the same relation of subjects that have the new object already"),
}
"""What must stay, as a row of a comparison has it: its column, and what is asked."""


def page(standings: Sequence[Standing], model: Model, command: str) -> str:
    """The Markdown text; ``command`` makes it again."""
    rows = [standing.to_json() for standing in standings]
    parts = [
        "# Editing methods compared",
        f"Model {model.name} (weights {model.weights[:12]}), written by `{command}`. Seconds depend on the machine and on what "
        "else it does; all else is the same each time.",
        "Facts that the model knows are given another object of their relation, drawn at random. Shares are in percent. An "
        "answer counts if all of its tokens are the likeliest ones; what must stay counts if the unedited model's own answer "
        "stays, token by token. A request's value is the mean over its kinds of question, the metric the mean over requests. "
        "Fluency is the weighted bi-gram and tri-gram entropy, in bits, of sampled text. Seconds are those of making the edit, "
        "for each fact.",
        markdown(compared(rows)),
        "Where these means may lie, of other requests: 95 %, Wilson's interval where each request counts whole or not at all, "
        "else a bootstrap over requests. Requests edited together share a model, so of batches and sequences it is too narrow.",
        table(
            ["method", "regime", "restraint", *METRICS],
            [[*_name(row), *(_between(row["intervals"][metric]) for metric in METRICS)] for row in rows],
            left=3,
        ),
        "The unedited model's values on the same questions:",
        table(
            ["method", "regime", "restraint", *METRICS, "fluency"],
            [
                [
                    *_name(row),
                    *(number(row[f"{metric}_before"]) for metric in METRICS),
                    number(row["fluency_before"], 2),
                ]
                for row in rows
            ],
            left=3,
        ),
        "## Locality by kind, and success by probability",
        *_staying(rows),
        "## Teacher-forced and free",
        *_free(rows),
        "## How answers fail",
        "Classes of the generated answers to the edited prompts (paper 0, section 4.5, by fixed rules), and how many questions "
        "met logits that are not finite.",
        table(
            ["method", "regime", "restraint", *FAILURE_CLASSES, "not finite"],
            [
                [*_name(row), *(str(row["failures"][name]) for name in FAILURE_CLASSES), str(row["not_finite"])]
                for row in rows
            ],
            left=3,
        ),
    ]
    if any(row["prefixes"] for row in rows):
        parts += ["## Does the old answer come back?", *_prefixes(rows)]
    if any(row["perplexity"] is not None for row in rows):
        parts += ["## General ability", *_general(rows)]
    if any(row["by_case"][name] is not None for row in rows for name in BY_CASE):
        parts += ["## By case", *_by_case(rows)]
    retained = [standing for standing in standings if standing.retention]
    if retained:
        parts += ["## What is left of earlier edits", _retention(retained)]
    routed = [row for row in rows if "routing" in row]
    if routed:
        parts += ["## Where MEMoE's tokens go", _routing(routed)]
    parts += ["## What papers report", _published({row["method"] for row in rows})]
    return "\n\n".join(parts) + "\n"


def compared(rows: Sequence[dict[str, Any]]) -> Grid:
    """A method a line, in every regime: what is compared, and what it costs."""
    lines = [
        [
            *_name(row),
            str(row["n"]),
            *(number(row[metric]) for metric in METRICS),
            number(row["fluency"], 2),
            number(row["seconds"], 2),
        ]
        for row in rows
    ]
    return grid(["method", "regime", "restraint", "n", *METRICS, "fluency", "seconds"], lines, left=3)


def _name(row: dict[str, Any]) -> list[str]:
    return [row["method"], row["regime"], row["restrain"] or "–"]


def _between(interval: tuple[float, float] | None) -> str:
    return number(None) if interval is None else " to ".join(map(number, interval))


def _staying(rows: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """What must stay, by kind, of the kinds that some request has a question of."""
    asked = [name for name in STAYING if any(row[name] is not None for row in rows)]
    kinds = "; ".join(f"{STAYING[name][0]}: {STAYING[name][1]}" for name in asked if name != "attributes")
    text = f"Locality is the mean of its kinds ({kinds})."
    if "attributes" in asked:
        text += (
            f" Beside it stand attributes: {STAYING['attributes'][1]}. An edit that leaks keeps these, so they are no part of "
            "locality."
        )
    text += " ES, GS and LS (paper 1) count where the right answer is likelier than its rival."
    lines = [
        [
            *_name(row),
            *(number(row[name]) for name in asked),
            *(number(row[score]) for score in ("ES", "GS", "LS")),
        ]
        for row in rows
    ]
    header = ["method", "regime", "restraint", *(STAYING[name][0] for name in asked), "ES", "GS", "LS"]
    return text, table(header, lines, left=3)


def _free(rows: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Teacher-forced numbers beside those of text that is written freely."""
    asked = [metric for metric in WRITTEN_METRICS if any(metric in row["free"] for row in rows)]
    text = (
        "Tokens: the share of the right answer's tokens that are the likeliest, each with the right ones before it. Alone: the "
        "model, left to write, ends its sentence by itself, names a right answer in it and not its rival. The gap between "
        "them, in points, is what teacher forcing hides."
    )
    if "generation" in asked:
        text += " Generation: after prompts of the data that leave the model to write about the subject."
    header = ["method", "regime", "restraint"]
    for metric in asked:
        header += [f"{metric}, tokens", "alone", "gap"]
    lines = []
    for row in rows:
        found = [row["free"].get(metric, {}).get(name) for metric in asked for name in ("tokens", "alone", "gap")]
        lines.append([*_name(row), *map(number, found)])
    return text, table(header, lines, left=3)


def _prefixes(rows: Sequence[dict[str, Any]]) -> tuple[str, str]:
    text = (
        "The edited prompt with something before it: an unrelated fact, another fact of the subject, or the old object again; a "
        "third object, said as often, is the control. Old given: all of its tokens are the likeliest. Old likelier: at least as "
        "likely as the new one, per token. In the unedited model → in the edited one."
    )
    lines = [
        [*_name(row), one["prefix"], str(one["n"]), *(_shift(one[name]) for name in ("old_given", "old_likelier"))]
        for row in rows
        for one in row["prefixes"]
    ]
    header = ["method", "regime", "restraint", "before the prompt", "n", "old given, %", "old likelier, %"]
    return text, table(header, lines, left=4)


def _shift(shares: Sequence[float]) -> str:
    return " → ".join(number(100 * share) for share in shares)


def _general(rows: Sequence[dict[str, Any]]) -> tuple[str, str]:
    text = (
        "On text that names nothing of any edit: perplexity in the unedited model and in the edited ones, KL of the edited model "
        "from the unedited one in nats a token, and the share of tokens at which both find the same next token likeliest; means "
        "over requests, each of the model that it was asked of."
    )
    names = ("perplexity_before", "perplexity", "kl", "agreement")
    lines = [[*_name(row), *(number(row[name], 4 if name == "kl" else 2) for name in names)] for row in rows]
    header = ["method", "regime", "restraint", "perplexity, before", "after", "KL, nats", "agreement, %"]
    return text, table(header, lines, left=3)


def _by_case(rows: Sequence[dict[str, Any]]) -> tuple[str, str]:
    text = (
        "The edits of one case are made together. Edit-wise: the share of edits whose prompt is answered with the new object. "
        "Instance-wise: of cases all of whose single hops are answered. Multi-hop: of cases any of whose questions is (Zhong "
        "et al. 2023, who show the model examples first; here the question stands alone). Before: the unedited model."
    )
    names = [f"{name}{when}" for name in ("edit_wise", *BY_CASE) for when in ("_before", "")]
    header = [name.replace("_before", ", before").replace("_", "-") for name in names]
    lines = [[*_name(row), *(number(row["by_case"][name]) for name in names)] for row in rows]
    return text, table(["method", "regime", "restraint", *header], lines, left=3)


def _retention(standings: Sequence[Standing]) -> str:
    """Success after the last edit, by quarters of the sequence: the first quarter was edited in first."""
    lines = []
    for standing in standings:
        chains = [retention.success[-1] for retention in standing.retention]
        quarters = []
        for quarter in range(4):
            parts = [row[len(row) * quarter // 4 : len(row) * (quarter + 1) // 4] for row in chains]
            values = [value for part in parts for value in part]
            quarters.append(number(100 * sum(values) / len(values)) if values else "–")
        contestant = standing.contestant
        lines.append([contestant.method, str(contestant.regime), contestant.restraint or "–", *quarters])
    text = "Success after the last edit, by when in the sequence a fact was edited."
    return f"{text}\n\n" + table(
        ["method", "regime", "restraint", "first quarter", "second", "third", "last"], lines, left=3
    )


def _routing(rows: Sequence[dict[str, Any]]) -> str:
    text = (
        "Consistency (paper 3, Eq. 13): the share of a paraphrase's tokens that go to the expert of the taught prompt (same "
        "knowledge), and of the tokens of a group of like prompts that go to the group's expert (similar knowledge; k-means, "
        "5 groups). By chance: of the same prompts, matched or grouped at random; a router with one expert for everything has 100 "
        "of both. Busiest: the share of all tokens that the busiest expert gets; in use: how many experts, used alike, have the "
        "entropy of their use. Volume is the norm of what the bypass writes over that of the MLP beside it, where the answer is "
        "predicted: on the taught prompts, and on prompts that must keep their answers."
    )
    shares = ("same", "same_by_chance", "similar", "similar_by_chance")
    lines = []
    for row in rows:
        routing = row["routing"]
        lines.append(
            [
                *_name(row),
                *(number(None if routing[name] is None else 100 * routing[name]) for name in shares),
                str(len(routing["use"])),
                number(100 * routing["use"][0]),
                number(routing["experts_used"]),
                *(number(routing[name], 2) for name in ("taught_volume", "other_volume")),
            ]
        )
    header = ["method", "regime", "restraint", "same, %", "by chance", "similar, %", "by chance"]
    header += ["experts", "busiest, %", "in use", "volume, taught", "volume, others"]
    return f"{text} {published_record()['routing']}\n\n{table(header, lines, left=3)}"


def published_record() -> dict[str, Any]:
    return json.loads((data_dir() / PUBLISHED).read_text(encoding="utf-8"))


def _published(methods: set[str]) -> str:
    content = published_record()
    lines = [
        [*row[:5], *(number(value) for value in row[5:])]
        for row in content["rows"]
        if row[content["columns"].index("method")] in methods
    ]
    shown = table(content["columns"], lines, left=5)
    return "\n\n".join([f"{content['source']}. {' '.join(content['notes'])}", shown])


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    return markdown(grid(header, rows, left=left))

"""What a model is able to do on tasks of its own kind, and whether that is more than chance (paper 1, section 5.3; paper 0, 4.3).

Written answers are what greedy decoding writes up to the end of its sentence or line. ROUGE, exact match and F1 are counted by
torchmetrics, as the published scripts of ROUGE and SQuAD count them, and are its F-measures; the other measures need no library.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from circuits.datasets.tasks import Item, Task
from circuits.evaluation.baseline import Interval, bootstrap, likely
from circuits.evaluation.continuations import completion, read
from circuits.evaluation.edits.generation import greedy
from circuits.model import Model
from circuits.records import Number

LONGEST = 48
"""Tokens of a written answer, at most."""
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


class ScoreError(ValueError):
    """A measure that cannot be counted here."""


@dataclass(frozen=True, slots=True)
class Score:
    """One measure of one task. Shares between 0 and 1."""

    task: str
    measure: str
    per_item: tuple[Number, ...]
    by_chance: tuple[Number, ...]
    """Of each item, what one who knows nothing of it gets: see `scores`."""
    said: tuple[str, ...]
    """What was chosen or written."""

    @property
    def value(self) -> float:
        return math.fsum(self.per_item) / len(self.per_item)

    @property
    def chance(self) -> float:
        return math.fsum(self.by_chance) / len(self.by_chance)

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %, over the items."""
        return likely(self.per_item)

    @property
    def above_chance(self) -> bool:
        """Whether all of the interval is: of the score, or where it is no share of items, of its differences from chance."""
        if {*self.per_item} <= {0.0, 1.0}:
            return self.interval[0] > self.chance
        return bootstrap([own - chance for own, chance in zip(self.per_item, self.by_chance, strict=True)]).low > 0

    def beyond(self, other: "Score") -> Interval:
        """How much more this is than the other of the same items, item by item."""
        return bootstrap([own - one for own, one in zip(self.per_item, other.per_item, strict=True)])


def scores(model: Model, task: Task) -> tuple[Score, ...]:
    """The task's measures, one score each; ``rouge`` makes three.

    By chance: of a choice, 1 / the number of choices, or the share of the commonest answer where that is more. Of a written answer,
    the mean score of what the model wrote for this item against the other items' answers: what its manner earns without the
    question.

    Raises:
        ScoreError: a measure needs a library that is not installed.
        circuits.model.ContextError: a prompt that does not fit the model's context.
    """
    if task.measures == ("choice",):
        return (_chosen(model, task),)
    counted = [named for measure in task.measures for named in COUNTED[measure]().items()]
    prompts = [completion(model, item.prompt, item.answers[0]).prompt for item in task.items]
    said = [model.vocabulary.decode(text.ids).strip() for text in greedy(model, prompts, LONGEST)]
    return tuple(_written(task, name, count, said) for name, count in counted)


def _chosen(model: Model, task: Task) -> Score:
    asked = [completion(model, item.prompt, choice) for item in task.items for choice in item.choices]
    nlls = iter(reading.nll * len(tokens.answer) for tokens, reading in zip(asked, read(model, asked), strict=True))
    said, right = [], []
    for item in task.items:
        own = {choice: next(nlls) for choice in item.choices}
        best = min(own, key=lambda choice: (math.isnan(own[choice]), own[choice]))
        # What is not finite is no answer, and of equals none is the likeliest.
        alone = sum(nll <= own[best] for nll in own.values()) == 1 and not any(map(math.isnan, own.values()))
        said.append(best if alone else "")
        right.append(float(said[-1] in item.answers))
    commonest = Counter(item.answers[0] for item in task.items).most_common(1)[0][1] / len(task.items)
    guessed = math.fsum(1 / len(item.choices) for item in task.items) / len(task.items)
    chance = max(commonest, guessed)
    return Score(task.name, "choice", tuple(right), (chance,) * len(right), tuple(said))


Count = Callable[[str, Item], float]
"""A written answer, scored against an item's."""


def _written(task: Task, name: str, count: Count, said: Sequence[str]) -> Score:
    found = [[count(text, item) for item in task.items] for text in said]
    n = len(said)
    by_chance = tuple((math.fsum(row) - row[i]) / (n - 1) for i, row in enumerate(found))
    return Score(task.name, name, tuple(row[i] for i, row in enumerate(found)), by_chance, tuple(said))


def _solved() -> Mapping[str, Count]:
    def count(text: str, item: Item) -> float:
        numbers = NUMBER.findall(text)
        return float(bool(numbers) and float(numbers[-1].replace(",", "")) == float(item.answers[0]))

    return {"solve rate": count}


def _squad(name: str, key: str) -> Callable[[], Mapping[str, Count]]:
    def counts() -> Mapping[str, Count]:
        try:
            from torchmetrics.functional.text.squad import squad
        except ImportError as error:
            raise _missing(name) from error

        def count(text: str, item: Item) -> float:
            target = {"answers": {"text": list(item.answers), "answer_start": [0] * len(item.answers)}, "id": "0"}
            return float(squad([{"prediction_text": text, "id": "0"}], [target])[key]) / 100

        return {name: count}

    return counts


def _rouge() -> Mapping[str, Count]:
    try:
        from torchmetrics.functional.text.rouge import rouge_score
    except ImportError as error:
        raise _missing("ROUGE") from error

    def of(key: str) -> Count:
        def count(text: str, item: Item) -> float:
            return max(float(rouge_score(text, answer, rouge_keys=key)[f"{key}_fmeasure"]) for answer in item.answers)

        return count

    return {"ROUGE-1": of("rouge1"), "ROUGE-2": of("rouge2"), "ROUGE-L": of("rougeL")}


def _missing(name: str) -> ScoreError:
    return ScoreError(f'{name} is counted by torchmetrics, which is not installed: pip install "kcircuit[tasks]"')


COUNTED: Mapping[str, Callable[[], Mapping[str, Count]]] = {
    "exact": _squad("exact match", "exact_match"),
    "f1": _squad("F1", "f1"),
    "rouge": _rouge,
    "solve": _solved,
}
"""What each measure of written answers counts, by the names of its scores; the library is loaded when first asked for."""

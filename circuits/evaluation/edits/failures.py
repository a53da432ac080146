"""The ways in which an edited model's answer fails (paper 0, section 4.5), told apart by fixed rules.

The paper names four and had people assign them. Here the first rule that holds decides; a fifth class, an answer that is
still the old one, stands beside the paper's four because it is another failure than an irrelevant answer.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from circuits.evaluation.edits.fluency import words

FailureClass = Literal["correct", "unchanged", "meaningless", "missing", "partial", "irrelevant"]
FAILURE_CLASSES: tuple[FailureClass, ...] = ("correct", "unchanged", "meaningless", "missing", "partial", "irrelevant")

MIN_DISTINCT_BIGRAMS = 0.3
"""A text with a smaller share of different bi-grams among all only repeats itself."""
MIN_BIGRAMS = 3
"""Fewer do not show repetition."""
_FUNCTION_WORDS = """
a an and are as at be been by for from had has have he her his in is it its of on or she that the their they this to was
were which with
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


def contains(answer: str, candidate: str) -> bool:
    """Whether the words of ``candidate`` occur in ``answer``, whole and in a row ("Niger" is not in "Nigeria")."""
    own, wanted = words(answer), words(candidate)
    return bool(wanted) and any(own[i : i + len(wanted)] == wanted for i in range(len(own) - len(wanted) + 1))


def answers(answer: str, accepted: Sequence[str]) -> bool:
    """Whether a generated answer holds one of the accepted ones."""
    return any(contains(answer, candidate) for candidate in accepted)


def classify(answer: str, target: Sequence[str], before: Sequence[str]) -> FailureClass:
    """Class of what an edited model wrote: one sentence, without the prompt.

    Args:
        answer: the generated text.
        target: the new object, then its aliases.
        before: what counts as the old answer: the old object, and what the unedited model wrote.

    The rules, in order:
        correct: the target or an alias occurs.
        meaningless: no letter or digit at all; one character again and again; or the same bi-grams again and again.
        unchanged: the old answer occurs, and no word that the target alone has.
        missing: some words of the target, not all, and no other content word.
        partial: words of the target among other content words, such as those of the old answer.
        irrelevant: none of the above.
    """
    found = words(answer)
    if answers(answer, target):
        return "correct"
    if not any(word[0].isalnum() for word in found) or _repeats(answer, found):
        return "meaningless"
    wanted = set(_content(target[0]) or words(target[0]))
    if any(contains(answer, old) and not (wanted - set(words(old))) & set(found) for old in before):
        return "unchanged"
    if not wanted & set(found):
        return "irrelevant"
    return "missing" if set(_content(answer)) < wanted else "partial"


def _content(text: str) -> list[str]:
    return [word for word in words(text) if word[0].isalnum() and word not in FUNCTION_WORDS]


def _repeats(text: str, found: Sequence[str]) -> bool:
    if re.search(r"([^\W\d_])\1{3,}", text.lower()):
        return True
    bigrams = list(pairwise(found))
    return len(bigrams) >= MIN_BIGRAMS and len(set(bigrams)) / len(bigrams) < MIN_DISTINCT_BIGRAMS

"""Which of a prompt's tokens are the subject, which express the relation."""

import re
from dataclasses import dataclass

from circuits.facts import Fact
from circuits.model import Model


class SpanError(ValueError):
    """A prompt in which no token can be said to be the subject's."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Positions of one prompt's tokens, in three classes that share none; BOS and what an edit shows before the prompt are in none.

    ``last`` is where the answer is predicted. It is never counted as subject or relation, because by then everything
    may have been gathered there. ``relation`` is all that is left: the template's words.
    """

    subject: tuple[int, ...]
    relation: tuple[int, ...]
    last: int

    @property
    def readable(self) -> tuple[int, ...]:
        """Subject and relation positions, in order."""
        return tuple(sorted(self.subject + self.relation))


def spans(model: Model, fact: Fact) -> Spans:
    """The classes of the prompt's tokens, as ``model`` tokenizes it.

    The subject is its first occurrence as whole words (else its first occurrence at all). A token belongs to it if it
    covers any of its letters: a token that holds the subject's end and more besides is the subject's.

    Raises:
        SpanError: the subject has no token before the last one.
    """
    ids = model.tokens(fact).prompt
    n_special = len(model.opening)
    whole = re.search(rf"(?<!\w){re.escape(fact.subject)}(?!\w)", fact.prompt)
    start = whole.start() if whole else fact.prompt.index(fact.subject)
    # Ends of tokens in the prompt's own letters, counted from its end: tokenizers may add a space before the text.
    ends = [len(model.vocabulary.decode(ids[n_special : i + 1])) for i in range(n_special, len(ids))]
    excess = ends[-1] - len(fact.prompt)
    stop, last = start + len(fact.subject), len(ids) - 1
    subject, begin = [], 0
    for position, end in enumerate((end - excess for end in ends), start=n_special):
        # A token may be a part of one letter: it covers that letter.
        begin = min(begin, end - 1)
        if begin < stop and end > start and position < last:
            subject.append(position)
        begin = end
    if not subject:
        raise SpanError(
            f"expected tokens of the subject {fact.subject!r} before the last token of {fact.prompt!r}, found none: "
            "what a head reads from the subject cannot be told from what the last token holds"
        )
    relation = tuple(i for i in range(n_special, last) if i not in subject)
    return Spans(tuple(subject), relation, last)

"""What a forward pass is given: rows of ids of one length, and where in them the prompt ends."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int, Real
from torch import Tensor

from circuits.model.text import Tokens

Ids = Int[Tensor, "batch pos"]


@dataclass(frozen=True)
class Batch:
    """Rows of ids with prompts of one length and answers of one length: nothing is padded.

    A model without bypasses looks at ``ids`` alone. A bypass may look at where the prompt ends, since what is fed or
    generated after it is no part of the question.
    """

    ids: Ids
    """Prompts, and what follows them: all but the last token of an answer, or what was generated so far."""
    n_prompt: int
    """How many of the ids are the prompt."""
    answer: Real[Tensor, "batch answer"]
    """Token ids, or where the model's output is a number, numbers. No columns where nothing is asked for."""

    def __post_init__(self) -> None:
        if not 1 <= self.n_prompt <= self.ids.shape[1]:
            raise ValueError(f"expected a prompt of 1 to all {self.ids.shape[1]} tokens, got {self.n_prompt}")

    @classmethod
    def of_prompts(cls, ids: Ids) -> "Batch":
        """Prompts, with nothing after them and no answer."""
        return cls.continued(ids, ids.shape[1])

    @classmethod
    def continued(cls, ids: Ids, n_prompt: int) -> "Batch":
        """Prompts of that length with tokens after them, and no answer that is asked for."""
        return Batch(ids, n_prompt, ids[:, :0])

    @property
    def n_answer(self) -> int:
        return self.answer.shape[1]

    @property
    def prompts(self) -> "Batch":
        """The prompts alone."""
        return Batch.of_prompts(self.ids[:, : self.n_prompt])

    def __getitem__(self, rows: slice) -> "Batch":
        """Some of the rows."""
        return replace(self, ids=self.ids[rows], answer=self.answer[rows])

    def to(self, device: torch.device) -> "Batch":
        return replace(self, ids=self.ids.to(device), answer=self.answer.to(device))

    def repeat(self, times: int) -> "Batch":
        """The rows, one after the other, and again, ``times`` in all."""
        return Batch(self.ids.repeat(times, 1), self.n_prompt, self.answer.repeat(times, 1))


@dataclass(frozen=True)
class Group(Batch):
    """A batch of facts, and which of a list of facts they are."""

    rows: tuple[int, ...]
    """Positions of these facts in the list they come from."""

    def __getitem__(self, rows: slice) -> "Group":
        return replace(self, ids=self.ids[rows], answer=self.answer[rows], rows=self.rows[rows])

    def pieces(self, n: int) -> Iterator["Group"]:
        """Its facts, at most n at a time."""
        return (self[start : start + n] for start in range(0, len(self.rows), n))


def grouped(facts: Sequence[Tokens]) -> tuple[Group, ...]:
    """Facts as a model reads them, in groups of like length, in order of first occurrence."""
    if not facts:
        raise ValueError("expected at least one fact, got none")
    by_length: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, tokens in enumerate(facts):
        by_length[len(tokens.prompt), len(tokens.answer)].append(row)
    return tuple(
        Group(
            torch.tensor([facts[row].forced for row in rows]),
            n_prompt,
            torch.tensor([facts[row].numbers or facts[row].answer for row in rows]),
            tuple(rows),
        )
        for (n_prompt, _), rows in by_length.items()
    )

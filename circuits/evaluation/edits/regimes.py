"""How many facts are edited together, and how many edits are made one on top of another, before the model is as it was.

Every regime is a chain of ``steps`` edits of ``batch`` requests each (paper 3, section 2: batch, sequential and sequential
batch editing; single editing is the chain of one edit of one request).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Literal, TypeVar

EvalAt = Literal["immediate", "end", "checkpoints"]
"""When a chain is evaluated: each step's requests right after their own step; all requests after the last step; or all
requests so far, after some of the steps."""
EVAL_AT: tuple[EvalAt, ...] = ("immediate", "end", "checkpoints")
CHECKPOINTS = (1, 2, 5)
"""Checkpoints are these numbers of steps times the powers of ten, and the last step."""

T = TypeVar("T")


class RegimeError(ValueError):
    """A regime that cannot be read."""


@dataclass(frozen=True, slots=True)
class Regime:
    """``steps`` edits one on top of another, each of ``batch`` requests at once; then the model is rolled back.

    The requests of one case are never apart, and count as one.
    """

    batch: int = 1
    steps: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1 or self.steps < 1:
            raise RegimeError(f"expected at least one request and one step, got {self.batch} and {self.steps}")

    @classmethod
    def parse(cls, text: str) -> "Regime":
        """``single``, ``batch:30``, ``sequential:100``, or ``sequential-batch:10x20`` (20 edits of 10 requests each).

        Raises:
            RegimeError: anything else.
        """
        match = re.fullmatch(r"single|(batch|sequential):(\d+)|sequential-batch:(\d+)x(\d+)", text.strip())
        if not match:
            raise RegimeError(
                "expected a regime such as single, batch:30, sequential:100 or sequential-batch:10x20 "
                f"(20 edits of 10 facts each), got {text!r}"
            )
        if match[1] == "batch":
            return cls(batch=int(match[2]))
        if match[1] == "sequential":
            return cls(steps=int(match[2]))
        return cls(int(match[3]), int(match[4])) if match[3] else cls()

    def __str__(self) -> str:
        if self.steps == 1:
            return "single" if self.batch == 1 else f"batch:{self.batch}"
        return f"sequential:{self.steps}" if self.batch == 1 else f"sequential-batch:{self.batch}x{self.steps}"

    def chains(
        self, requests: Sequence[T], case: Callable[[T], str | None] = lambda _: None
    ) -> tuple[tuple[tuple[T, ...], ...], ...]:
        """The requests by chain and step, in order. The last chain and its last step may be short.

        Args:
            case: names the case that a request belongs to, if any.
        """
        steps = [tuple(chain.from_iterable(part)) for part in chunks(in_cases(requests, case), self.batch)]
        return chunks(steps, self.steps)


SINGLE = Regime()
"""One edit of one request at a time."""


def in_cases(requests: Sequence[T], case: Callable[[T], str | None]) -> tuple[tuple[T, ...], ...]:
    """Requests that follow each other and are of one case, together; any other alone."""
    groups = groupby(enumerate(requests), lambda each: (case(each[1]), each[0] if case(each[1]) is None else None))
    return tuple(tuple(request for _, request in group) for _, group in groups)


def chunks(items: Sequence[T], size: int) -> tuple[tuple[T, ...], ...]:
    return tuple(tuple(items[start : start + size]) for start in range(0, len(items), size))


def checkpoints(steps: int) -> tuple[int, ...]:
    """The steps after which a chain of that many is evaluated: 1, 2, 5, 10, 20, 50, ..., and the last."""
    found, scale = set[int](), 1
    while scale <= steps:
        found.update(scale * first for first in CHECKPOINTS)
        scale *= 10
    return tuple(sorted({step for step in found if step < steps} | {steps}))


def parse_eval_at(text: str) -> EvalAt:
    """Raises:
    RegimeError: no such choice.
    """
    for choice in EVAL_AT:
        if choice == text:
            return choice
    raise RegimeError(f"expected --eval-at {', '.join(EVAL_AT)}, got {text!r}")


def evaluated_steps(eval_at: EvalAt, steps: int) -> tuple[int, ...]:
    """The steps (counted from 1) after which a chain of that many is evaluated."""
    if eval_at == "immediate":
        return tuple(range(1, steps + 1))
    return (steps,) if eval_at == "end" else checkpoints(steps)

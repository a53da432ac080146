"""What is left of earlier edits as later ones follow."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class Retention:
    """Of one chain: ``success[i][j]`` is the share of step j's requests whose prompt, after step ``steps[i]``, is answered
    with the new object. Row i has the steps made until then and no more, so it is as long as ``steps[i]``.
    """

    steps: tuple[int, ...]
    success: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, rows: Sequence[tuple[int, Sequence[bool]]], sizes: Sequence[int]) -> "Retention":
        """From (step, success of every request so far, in the order in which they were made) at each evaluated step.

        Args:
            sizes: the number of requests of each step.
        """
        ends = tuple(accumulate(sizes, initial=0))
        return cls(
            tuple(step for step, _ in rows),
            tuple(tuple(sum(done[a:b]) / (b - a) for a, b in pairwise(ends[: step + 1])) for step, done in rows),
        )

    def overall(self, row: int = -1) -> float:
        """Mean success of the steps made by then."""
        return sum(self.success[row]) / len(self.success[row])

    def lost(self) -> float | None:
        """Mean drop from right after a step to the last evaluated one, over earlier steps that were evaluated right away."""
        drops = [
            self.success[i][step - 1] - self.success[-1][step - 1]
            for i, step in enumerate(self.steps)
            if step < len(self.success[-1])
        ]
        return sum(drops) / len(drops) if drops else None

    def to_json(self) -> dict[str, Any]:
        return {"after_step": list(self.steps), "success": [[round(100 * v, 4) for v in row] for row in self.success]}

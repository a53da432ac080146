"""How far the rounding of numbers moves what an engine measures: what is below it, no search can tell apart.

Rounding is simulated, so that one function serves every engine and model: the whole model runs a few times more, and in each
run every write to the residual stream and every read from it is moved by one unit in its last place, up or down by a coin
of its own. Float32 products round about so much; a sum over writers that cancel, such as massive ones, much more, and the
simulated one with it, since each writer's last place is that of its own size.

The model's NLL of a fact it knows is near 0 and hardly moves, whatever its logits do; a circuit's need not be. So what
saturates counts by what does not (`circuits.metrics.Metric.unsaturated`): an NLL by its log-odds.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Slot
from circuits.metrics import Metric, Shown
from circuits.model import Model
from circuits.model.batch import Group
from circuits.model.taps import ReaderKind, Taps, WriterKind

SPREAD = 3.0
"""The noise, in root mean squares of the simulated changes: errors of single circuits stay within it."""
DRAWS = 8
"""Simulated runs of each fact."""
ROWS = 64
"""Most prompts in one forward pass."""


def rounding_noise(
    model: Model, groups: Sequence[Group], metric: Metric, dtype: torch.dtype | None = None, *, seed: int = 0
) -> float:
    """How far rounding in ``dtype`` may move the metric: `SPREAD` root mean squares over facts and simulated runs.

    In the metric's unit (of NLL: nats of log-odds); the same for the same model, facts and seed.

    Args:
        dtype: the type that is computed in; by default the model's.
    """
    dtype = dtype or model.biases.dtype
    generator, squares = torch.Generator().manual_seed(seed), list[float]()
    size = max(1, ROWS // (DRAWS + 1))
    for group in groups:
        for batch in (group[start : start + size] for start in range(0, len(group.rows), size)):
            runs, rounded = batch.repeat(DRAWS + 1), _Rounded(DRAWS, torch.finfo(dtype).eps, generator)
            logits = model.run(runs, rounded)[:, -group.n_answer :]
            trials = logits.cpu().view(DRAWS + 1, len(batch.rows), *logits.shape[1:])
            target = metric.target(Shown(batch.answer, trials[0], batch.rows))
            moved = metric.unsaturated or (lambda outputs, asked: metric.of(outputs, asked).double().numpy())
            values = moved(trials, target)
            squares += ((values[1:] - values[0]) ** 2).ravel().tolist()
    return SPREAD * float(np.sqrt(np.mean(squares)))


def type_name(dtype: torch.dtype) -> str:
    """``"float32"``, ``"bfloat16"``, ..."""
    return str(dtype).removeprefix("torch.")


class _Rounded(Taps):
    """Taps that move reads and writes by one unit in the last place; the first of its runs is left alone."""

    def __init__(self, draws: int, eps: float, generator: torch.Generator) -> None:
        self._draws, self._eps, self._generator = draws, eps, generator
        self._moved: Tensor | float = 0.0
        """By how much the residual stream is off, so far."""

    def write(self, kind: WriterKind, layer: int, value: Tensor) -> None:
        step = self._ulps(value)
        self._moved = self._moved + (step.sum(2) if kind == "head" else step)

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        moved = self._moved
        if kind == "head" and isinstance(moved, Tensor):
            moved = moved[:, :, None]
        return (value + moved + self._ulps(value)).to(value.dtype)

    def _ulps(self, value: Float[Tensor, "run *rest"]) -> Float[Tensor, "run *rest"]:
        signs = torch.randint(0, 2, value.shape, generator=self._generator, dtype=torch.int8).to(value.device)
        steps = (2.0 * signs - 1.0) * self._eps * value
        steps[: len(value) // (self._draws + 1)] = 0.0
        return steps

"""What an ablated edge carries instead of its sender's value: nothing, a mean, or a value from another prompt.

Zero ablation is paper 2's. Mean ablation takes the sender's mean over all positions of a reference set. Resample
ablation takes its value on a corrupted prompt of the same length, position by position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engines.protocol import Group, group_facts
from circuits.facts import Fact
from circuits.model import Model

AblationKind = Literal["zero", "mean", "resample"]


class AblationError(ValueError):
    """An ablation that lacks the prompts it needs."""


@dataclass(frozen=True)
class Ablation:
    """``reference`` facts give the mean; ``corrupted`` facts, one for each fact in order, give the resampled values."""

    kind: AblationKind = "zero"
    reference: tuple[Fact, ...] = ()
    corrupted: tuple[Fact, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("zero", "mean", "resample"):
            raise AblationError(f"expected ablation zero, mean or resample, got {self.kind!r}")
        if self.kind == "mean" and not self.reference:
            raise AblationError("mean ablation needs reference facts to take the mean over, got none")
        if self.kind == "resample" and not self.corrupted:
            raise AblationError("resample ablation needs a corrupted prompt for each fact, got none")

    def values(
        self, model: Model, facts: Sequence[Fact], groups: Sequence[Group]
    ) -> list[Float[Tensor, "writer #batch #pos d_model"]]:
        """For each group, what every writer's ablated edges carry.

        Raises:
            AblationError: a corrupted prompt whose length differs from its fact's.
        """
        match self.kind:
            case "zero":
                zero = torch.zeros(len(model.graph().writers), 1, 1, model.network.d_model)
                return [zero.to(model.biases) for _ in groups]
            case "mean":
                mean = mean_outputs(model, self.reference)[:, None, None]
                return [mean for _ in groups]
            case "resample":
                return [model.node_outputs(ids) for ids in self._corrupted_ids(model, facts, groups)]

    def _corrupted_ids(self, model: Model, facts: Sequence[Fact], groups: Sequence[Group]) -> list[Tensor]:
        if len(self.corrupted) != len(facts):
            raise AblationError(f"expected {len(facts)} corrupted prompts, one a fact, got {len(self.corrupted)}")
        batches = []
        for group in groups:
            rows = []
            for row in group.rows:
                clean, other = model.tokens(facts[row]), model.tokens(self.corrupted[row])
                if len(clean.prompt) != len(other.prompt):
                    raise AblationError(
                        f"the corrupted prompt {self.corrupted[row].prompt!r} is {len(other.prompt)} tokens long, and "
                        f"{facts[row].prompt!r} is {len(clean.prompt)}: resample ablation goes position by position"
                    )
                # The answer's own tokens are kept: only the prompt is corrupted.
                rows.append(other.prompt + clean.answer[:-1])
            batches.append(torch.tensor(rows))
        return batches


def mean_outputs(model: Model, reference: Sequence[Fact]) -> Float[Tensor, "writer d_model"]:
    """Every writer's mean output over all positions of all reference prompts."""
    total, count = torch.zeros(1), 0
    for group in group_facts(model, reference):
        outputs = model.node_outputs(group.ids)
        total = total.to(outputs) + outputs.sum((1, 2))
        count += outputs.shape[1] * outputs.shape[2]
    return total / count

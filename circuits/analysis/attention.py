"""Attention patterns: from every position of one prompt, what each head gives to the positions it sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.analysis.tracing import open_parts
from circuits.facts import Fact
from circuits.graph import Node
from circuits.model import Batch, Model
from circuits.model.bypassed import on_weights
from circuits.model.taps import Taps


@dataclass(frozen=True, slots=True)
class HeadPattern:
    """One head's attention pattern, lower triangle: row i holds what position i gives to positions 0 to i, and sums to 1."""

    head: Node
    rows: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class PromptAttention:
    """Patterns of some heads over one prompt, read as these tokens (leading spaces kept)."""

    tokens: tuple[str, ...]
    patterns: tuple[HeadPattern, ...]


@torch.no_grad()
def read_attention(model: Model, fact: Fact, heads: Sequence[Node]) -> PromptAttention:
    """The patterns of ``heads`` over the fact's prompt, in the whole model.

    Raises:
        circuits.model.transformer.UnsupportedArchitecture: the model does not show its weights.
    """
    parts, prompt = open_parts(model, (fact,)), model.tokens(fact).prompt
    ids = torch.tensor([prompt])
    patterns = _Patterns()
    on_weights(model.network, parts).run(Batch.of_prompts(ids), patterns)
    return PromptAttention(
        tokens=tuple(model.token_text(token) for token in prompt),
        patterns=tuple(
            HeadPattern(
                node,
                tuple(tuple(row[: i + 1]) for i, row in enumerate(patterns.layers[node.layer][node.head].tolist())),
            )
            for node in heads
        ),
    )


class _Patterns(Taps):
    """Keeps every head's pattern over one prompt."""

    def __init__(self) -> None:
        self.layers: list[Float[Tensor, "head query key"]] = []

    def pattern(self, layer: int, value: Tensor) -> None:
        self.layers.append(value[0].cpu())

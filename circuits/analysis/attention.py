"""Attention patterns: from every position of one prompt, what each head gives to the positions it sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from circuits.analysis.tracing import open_parts
from circuits.facts import Fact
from circuits.graph import Node
from circuits.model import Batch, Model


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
        circuits.model.components.UnsupportedArchitecture: the model does not show its weights.
    """
    parts, prompt = open_parts(model, (fact,)), model.tokens(fact).prompt
    ids = Batch.of_prompts(torch.tensor([prompt]))
    outputs, writers = model.node_outputs(ids).float()[:, 0], model.graph().writers
    patterns = []
    for layer, block in enumerate(parts.blocks):
        attention = block.attention
        state = outputs[[i for i, node in enumerate(writers) if node.layer < layer]].sum(0) + parts.b_O[:layer].sum(0)
        normed = attention.norm(state)
        q = attention.query(normed @ attention.W_Q + attention.b_Q[:, None])
        k = attention.key(normed @ attention.W_K + attention.b_K[:, None])
        visible = attention.visible(len(prompt), len(prompt), q.device)
        scores = (q @ k.transpose(-1, -2)).mul(attention.scale).masked_fill(~visible, -torch.inf)
        patterns.append(scores.softmax(-1).cpu())
    return PromptAttention(
        tokens=tuple(model.token_text(token) for token in prompt),
        patterns=tuple(
            HeadPattern(
                node,
                tuple(tuple(row[: i + 1]) for i, row in enumerate(patterns[node.layer][node.head].tolist())),
            )
            for node in heads
        ),
    )

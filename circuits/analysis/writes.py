"""How much of a token's logit each node writes: direct logit attribution, in logits.

A node's write is read through the final norm, whose scale is held at what the whole stream has, onto the token's column
of W_U less the mean column: what a node adds to every token alike says nothing about one of them.

Law: the writes, and what the attention's output biases and the norm's and unembedding's biases add, sum to the token's logit
less the vocabulary's mean logit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from circuits.analysis.tracing import open_parts, traces
from circuits.facts import Fact
from circuits.graph import Node
from circuits.model import Model


@dataclass(frozen=True, slots=True)
class Write:
    """What one node adds to the logits of some tokens at the prompt's last position."""

    node: Node
    logits: tuple[float, ...]
    """One number for each token asked about."""


@torch.no_grad()
def direct_writes(model: Model, fact: Fact, answers: Sequence[str]) -> tuple[Write, ...]:
    """For every node of the model's graph (an edit's bypass too), what it writes of each answer's first token.

    Args:
        answers: objects, as they stand in facts: without their leading space.

    Raises:
        circuits.model.transformer.UnsupportedArchitecture: the model does not show its final norm and unembedding.
    """
    parts = open_parts(model, (fact,))
    (trace,) = traces(model, (fact,), parts)
    first = [model.tokens(Fact(fact.prompt, fact.subject, answer)).answer[0] for answer in answers]
    directions = parts.W_U[:, first] - parts.W_U.mean(1, keepdim=True)
    logits = parts.final.share(trace.writes[:, 0], trace.final) @ directions
    writers = model.graph().writers
    return tuple(Write(node, tuple(row)) for node, row in zip(writers, logits.tolist(), strict=True))

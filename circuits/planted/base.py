"""What a planted circuit is, and the few ways in which one is written into weights.

All are transformers of two layers with two heads each (46 edges), without norm and without biases, so that a read is a
plain sum and what an edge carries can be read off the weights. Directions of the residual stream have one meaning each.
What is not part of the circuit is no silence: every other head and MLP has random weights, reads everything, and
writes into directions of its own (the *noise*) that no part of the circuit and not the unembedding read.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from circuits.circuit import Circuit, Provenance
from circuits.facts import Fact
from circuits.graph import Graph, Shape
from circuits.model import Model, WordVocabulary
from circuits.model.network import PlainNetwork

SHAPE = Shape(n_layers=2, n_heads=2)
N_NOISE = 4
"""Directions that only the nodes outside the circuit write and read."""
SHARP = 20.0
"""Makes softmax a maximum: a key that does not match gets e^-20 = 2e-9 of the attention."""

Ablated = Literal["zero", "mean", "resample"]
"""By what an edge's value is replaced; the names of `circuits.engines.ablation`, which this package does not import."""


@dataclass(frozen=True)
class Planted:
    """A transformer made by hand, facts that it answers, and the edges that answer them."""

    name: str
    title: str
    model: Model
    facts: tuple[Fact, ...]
    corrupted: tuple[Fact, ...]
    """For each fact the prompt that resample ablation takes its values from."""
    edges: Mapping[Ablated, tuple[str, ...]]
    """By ablation, the edges that matter: those whose ablated value differs from their own and reaches the answer.

    Zero ablation shows every edge that the weights connect, for each carries something. Resample ablation does not show
    edges that carry the same on the corrupted prompt, such as the query of "is".
    """
    tau: float = 0.1
    """A threshold in nats: each true edge is worth more, on its own or (where they stand in for each other) as the last one."""
    redundant: bool = False
    """Parts of the circuit stand in for each other, so that single edges can be ablated without loss."""
    suppressive: bool = False
    """Some edges of the circuit work against the answer, so that a signed rule removes them."""

    def truth(self, ablation: Ablated) -> Circuit:
        graph = Graph(SHAPE)
        kept = np.zeros_like(graph.legal)
        for name in self.edges[ablation]:
            kept[graph.edge(name)] = True
        return Circuit(graph, kept, Provenance(self.name, self.model.weights, processing="raw", method="by hand"))


def edges(text: str) -> tuple[str, ...]:
    return tuple(text.split())


@dataclass
class Draft:
    """Weights under way: a residual stream of ``d_stream`` directions with a meaning, and the noise after them."""

    words: str
    d_stream: int
    n_ctx: int
    d_head: int
    d_mlp: int
    bos: int | None = None

    def __post_init__(self) -> None:
        d_model, n_words = self.d_stream + N_NOISE, len(self.words.split())
        self.weights: dict[str, Tensor] = {
            "embed.W_E": torch.zeros(n_words, d_model),
            "pos_embed.W_pos": torch.zeros(self.n_ctx, d_model),
            "unembed.W_U": torch.zeros(d_model, n_words),
        }
        for layer in range(SHAPE.n_layers):
            a, m = f"blocks.{layer}.attn.", f"blocks.{layer}.mlp."
            self.weights |= {f"{a}W_{slot}": torch.zeros(SHAPE.n_heads, d_model, self.d_head) for slot in "QKV"}
            self.weights[f"{a}W_O"] = torch.zeros(SHAPE.n_heads, self.d_head, d_model)
            self.weights[f"{m}W_in"] = torch.zeros(d_model, self.d_mlp)
            self.weights[f"{m}b_in"] = torch.zeros(self.d_mlp)
            self.weights[f"{m}W_out"] = torch.zeros(self.d_mlp, d_model)

    def embed(self, word: str, *directions: int) -> None:
        """Let the word write 1 in these directions."""
        self.weights["embed.W_E"][self.words.split().index(word), list(directions)] = 1

    def position(self, first: int) -> None:
        """Let position i write 1 in direction ``first + i``."""
        self.weights["pos_embed.W_pos"][:, first : first + self.n_ctx] = torch.eye(self.n_ctx)

    def answers(self, **directions: int) -> None:
        """Let the unembedding read the logit of each word in its direction."""
        for word, direction in directions.items():
            self.weights["unembed.W_U"][direction, self.words.split().index(word)] = 1

    def head(self, node: str, *, query: range, key: range, value: range, writes: range, strength: float = 1.0) -> None:
        """A head that attends from a position to the one whose ``key`` directions match its ``query`` directions, and moves
        what stands there in ``value`` to ``writes``, ``strength`` times."""
        layer, head = (int(part[1:]) for part in node.split("."))
        a = f"blocks.{layer}.attn."
        for slot, directions, size in (("Q", query, SHARP), ("K", key, 1.0), ("V", value, 1.0)):
            for channel, direction in enumerate(directions):
                self.weights[f"{a}W_{slot}"][head, direction, channel] = size
        for channel, direction in enumerate(writes):
            self.weights[f"{a}W_O"][head, channel, direction] = strength

    def unit(self, layer: int, unit: int, reads: Mapping[int, float], bias: float, writes: Mapping[int, float]) -> None:
        """A hidden unit: relu of a sum of directions and a bias, times what it writes in each direction."""
        m = f"blocks.{layer}.mlp."
        for direction, weight in reads.items():
            self.weights[f"{m}W_in"][direction, unit] = weight
        self.weights[f"{m}b_in"][unit] = bias
        for direction, weight in writes.items():
            self.weights[f"{m}W_out"][unit, direction] = weight

    def model(self, name: str, circuit: Collection[str], seed: int) -> Model:
        """The transformer: nodes named in ``circuit`` as drafted, all others random, writing into the noise alone."""
        generator = torch.Generator().manual_seed(seed)
        weights = {key: value.clone() for key, value in self.weights.items()}

        def random(like: Tensor) -> Tensor:
            return torch.randn(like.shape, generator=generator)

        for layer in range(SHAPE.n_layers):
            a, m = f"blocks.{layer}.attn.", f"blocks.{layer}.mlp."
            for head in range(SHAPE.n_heads):
                if f"a{layer}.h{head}" not in circuit:
                    for slot in "QKV":
                        weights[f"{a}W_{slot}"][head] = random(weights[f"{a}W_{slot}"][head])
                    weights[f"{a}W_O"][head, :, self.d_stream :] = random(weights[f"{a}W_O"][head, :, self.d_stream :])
            if f"m{layer}" not in circuit:
                weights[f"{m}W_in"] = random(weights[f"{m}W_in"])
                weights[f"{m}W_out"][:, self.d_stream :] = random(weights[f"{m}W_out"][:, self.d_stream :])
        vocabulary = WordVocabulary(tuple(self.words.split()), self.bos)
        return Model.by_hand(PlainNetwork(weights), vocabulary, name=f"planted/{name}")

"""Where MLPs make the answer: which one first puts it on top, which heads feed that one, which of its neurons write it.

Paper 2, section 4, reads "L14H13 -> MLP17" from the circuit's edges and "after MLP17" from the lens. Here the edge is cut, and
what the MLP then writes of the answer is compared with what it wrote before.

Writes of the answer are direct ones, in logits: through the final norm, whose scale is held at what the whole stream has, onto the
answer's column of W_U less the mean column.
"""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.analysis.lens import TokenScore
from circuits.analysis.tracing import Trace, open_parts, traces
from circuits.facts import Fact
from circuits.graph import Node
from circuits.metrics import rank
from circuits.model import Model
from circuits.model.transformer import Components


@dataclass(frozen=True, slots=True)
class Feeder:
    """A head and what it does to what one MLP writes of the answer, in logits."""

    head: Node
    effect: float
    """Fall of the MLP's write of the answer when the edge from this head to it is cut."""


@dataclass(frozen=True, slots=True)
class Neuron:
    """A hidden unit of an MLP, at the prompt's last position."""

    index: int
    activation: float
    contribution: float
    """What it writes of the answer: activation times what its value vector says, in logits."""
    promoted: tuple[TokenScore, ...]
    """The lens on what it writes (its value vector with the activation's sign), best first."""


@dataclass(frozen=True, slots=True)
class AnswerMlp:
    """One MLP's part in one answer, at the prompt's last position."""

    mlp: Node
    rank_before: int
    """The answer's rank in the residual stream with everything up to this MLP but without its write."""
    rank_after: int
    contribution: float
    """What the MLP writes of the answer, in logits."""
    feeders: tuple[Feeder, ...]
    """All heads that it reads, the largest effect first."""
    neurons: tuple[Neuron, ...]
    """Those that write the most of the answer, best first."""
    bias: float
    """What its output bias writes of the answer: neurons and bias together write the contribution."""

    @property
    def puts_on_top(self) -> bool:
        """Whether the answer is at rank 1 with its write and not without."""
        return self.rank_before > 1 and self.rank_after == 1


@torch.no_grad()
def read_mlps(model: Model, fact: Fact, *, top: int = 10) -> tuple[AnswerMlp, ...]:
    """Every MLP's part in the answer of ``fact``, layer by layer, with its ``top`` neurons.

    Raises:
        circuits.model.transformer.UnsupportedArchitecture: the model does not show its weights.
    """
    parts = open_parts(model, (fact,))
    (trace,) = traces(model, (fact,), parts)
    answer = model.tokens(fact).at_end
    direction = parts.W_U[:, answer] - parts.W_U.mean(1)
    return tuple(_read(model, parts, trace, layer, answer, direction, top) for layer in range(parts.shape.n_layers))


def _read(
    model: Model,
    parts: Components,
    trace: Trace,
    layer: int,
    answer: int,
    direction: Float[Tensor, "d_model"],
    top: int,
) -> AnswerMlp:
    graph, n_heads, mlp = model.graph(), parts.shape.n_heads, parts.blocks[layer].mlp
    final, writes = trace.final[0], trace.writes[:, 0]
    first = graph.writer_index(Node(layer, "head", 0))
    before_mlp = trace.states[layer, 0] + writes[first : first + n_heads].sum(0) + parts.b_O[layer]
    own = writes[graph.writer_index(Node(layer, "mlp"))]
    says = partial(_says, parts, final, direction)

    logits = model.readout(torch.stack((before_mlp, before_mlp + own)))
    ranks = rank(logits, torch.tensor(answer).expand(2).to(logits.device)).tolist()

    # In a parallel block the MLP reads what the layer's heads read, and not these heads.
    read = trace.states[layer, 0] if parts.shape.parallel else before_mlp
    heads = [n for n in graph.writers if n.kind == "head" and n.layer < layer + (not parts.shape.parallel)]
    cut = read - writes[[graph.writer_index(head) for head in heads]]
    effects = says(own) - says(mlp(cut)) if heads else read.new_zeros(0)
    feeders = sorted(zip(heads, effects.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))

    activations = mlp.hidden(read)
    contributions = activations * says(mlp.W_out)
    best = contributions.topk(min(top, len(contributions))).indices
    values = mlp.W_out[best] * activations[best].sign()[:, None]
    promoted = model.readout(values.to(parts.W_U)).topk(min(5, parts.d_vocab), dim=-1)
    return AnswerMlp(
        mlp=Node(layer, "mlp"),
        rank_before=int(ranks[0]),
        rank_after=int(ranks[1]),
        contribution=float(says(own)),
        feeders=tuple(Feeder(head, effect) for head, effect in feeders),
        neurons=tuple(
            Neuron(
                int(index),
                float(activations[index]),
                float(contributions[index]),
                tuple(
                    TokenScore(model.output_text(token), logit)
                    for token, logit in zip(promoted.indices[i].tolist(), promoted.values[i].tolist(), strict=True)
                ),
            )
            for i, index in enumerate(best.tolist())
        ),
        bias=float(says(mlp.b_out)),
    )


def _says(
    parts: Components,
    final: Float[Tensor, "d_model"],
    direction: Float[Tensor, "d_model"],
    vectors: Float[Tensor, "*rest d_model"],
) -> Float[Tensor, "*rest"]:
    """What vectors of the stream write of the answer."""
    return parts.final.share(vectors, final) @ direction

"""Logit lens: what each node writes, and what the residual stream would say, read as tokens (paper 2, section 3.2).

A vector v reads as W_U LN(v) with the model's own final norm, its statistics taken from v itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.circuit import Circuit
from circuits.facts import Fact
from circuits.graph import Node
from circuits.metrics import probability, rank
from circuits.model import Model


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token as text (its leading space kept), and its logit under the lens."""

    token: str
    logit: float


@dataclass(frozen=True, slots=True)
class NodeReadout:
    """What one node writes at the answer position, read through the lens, and where the answer stands in it."""

    node: Node
    promoted: tuple[TokenScore, ...]
    """The tokens of highest logit, best first."""
    suppressed: tuple[TokenScore, ...]
    """The tokens of lowest logit, lowest first."""
    answer_rank: int
    answer_probability: float


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The answer's rank and probability in the residual stream after every sub-layer (paper 2, Figure 3).

    ``labels`` name the states: Input, then L0 attn, L0 MLP, ... ; the last is what the model answers with. In a model with
    parallel blocks a layer is one state, L0.
    """

    labels: tuple[str, ...]
    ranks: tuple[int, ...]
    probabilities: tuple[float, ...]

    @property
    def decided(self) -> str | None:
        """The first state from which on the answer stays at rank 1; None if it never does."""
        first = None
        for label, position in zip(reversed(self.labels), reversed(self.ranks), strict=True):
            if position > 1:
                break
            first = label
        return first


def _last_position(model: Model, fact: Fact) -> Float[Tensor, "writer d_model"]:
    ids = torch.tensor([model.tokens(fact).prompt])
    return model.node_outputs(ids)[:, 0, -1]


def read_nodes(model: Model, fact: Fact, nodes: Sequence[Node], *, top: int = 10) -> tuple[NodeReadout, ...]:
    """The lens on each of ``nodes`` at the prompt's last position. `logits` reads as the whole residual stream does."""
    if not nodes:
        return ()
    outputs = _last_position(model, fact)
    writers = model.graph().writers
    whole = outputs.sum(0) + model.biases.sum(0)
    vectors = torch.stack([whole if node.kind == "logits" else outputs[writers.index(node)] for node in nodes])
    logits = model.readout(vectors)
    answer = torch.tensor(model.tokens(fact).answer[0]).expand(len(nodes)).to(logits.device)
    ranks, probabilities = rank(logits, answer), probability(logits, answer)

    def tokens(row: Tensor, *, largest: bool) -> tuple[TokenScore, ...]:
        values, ids = row.topk(min(top, len(row)), largest=largest)
        return tuple(TokenScore(model.token_text(int(i)), float(value)) for value, i in zip(values, ids, strict=True))

    return tuple(
        NodeReadout(
            node,
            promoted=tokens(row, largest=True),
            suppressed=tokens(row, largest=False),
            answer_rank=int(ranks[i]),
            answer_probability=float(probabilities[i]),
        )
        for i, (node, row) in enumerate(zip(nodes, logits, strict=True))
    )


def read_circuit(model: Model, fact: Fact, circuit: Circuit, *, top: int = 10) -> tuple[NodeReadout, ...]:
    """The lens on every node of the circuit."""
    return read_nodes(model, fact, circuit.nodes, top=top)


def residual_states(model: Model, fact: Fact) -> tuple[tuple[str, ...], Float[Tensor, "state d_model"]]:
    """(labels, residual stream at the prompt's last position after the input and after every sub-layer)."""
    outputs, biases, shape = _last_position(model, fact), model.biases, model.shape
    state = outputs[0]
    labels, states = ["Input"], [state]
    for layer in range(shape.n_layers):
        first = 1 + layer * (shape.n_heads + 1)
        heads, mlp = outputs[first : first + shape.n_heads].sum(0) + biases[layer], outputs[first + shape.n_heads]
        if shape.parallel:
            state = state + heads + mlp
            labels, states = [*labels, f"L{layer}"], [*states, state]
        else:
            states += [state + heads, state + heads + mlp]
            labels += [f"L{layer} attn", f"L{layer} MLP"]
            state = states[-1]
    return tuple(labels), torch.stack(states)


def trajectory(model: Model, fact: Fact) -> Trajectory:
    """Rank and probability of the answer's first token after every sub-layer."""
    labels, states = residual_states(model, fact)
    logits = model.readout(states)
    answer = torch.tensor(model.tokens(fact).answer[0]).expand(len(labels)).to(logits.device)
    return Trajectory(
        labels,
        tuple(int(value) for value in rank(logits, answer)),
        tuple(float(value) for value in probability(logits, answer)),
    )

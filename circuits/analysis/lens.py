"""Logit lens: what each node writes, and what the residual stream would say, read as tokens (paper 2, section 3.2).

A vector v reads as W_U LN(v) with the model's own final norm, its statistics taken from v itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.circuit import Circuit
from circuits.facts import Fact
from circuits.graph import Node
from circuits.metrics import probability, rank
from circuits.model import Model
from circuits.model.spans import SpanError, spans

CHUNK_NUMBERS = 2**25
"""Node outputs held at once, as a count of numbers."""
LOGITS_AT_ONCE = 2**22
"""Logits held at once, as a count of numbers, however many nodes and facts are read: the vocabulary may be large."""


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
    subject_probabilities: tuple[float, ...] = ()
    """Probability of the subject's own first token in the same states: high where the subject itself is moved there."""
    ranks_at_subject: tuple[int, ...] = ()
    """The answer's rank in the states of the subject's last token; empty where no token before the last is the subject's."""

    @property
    def first_on_top(self) -> str | None:
        """The first state in which the answer is at rank 1, even if it does not stay there; None if there is none."""
        return next((label for label, at in zip(self.labels, self.ranks, strict=True) if at == 1), None)

    @property
    def decided(self) -> str | None:
        """The first state from which on the answer stays at rank 1 (early decoding); None if it never does."""
        first = None
        for label, position in zip(reversed(self.labels), reversed(self.ranks), strict=True):
            if position > 1:
                break
            first = label
        return first


def read_nodes(
    model: Model, fact: Fact, nodes: Sequence[Node], *, top: int = 10, position: int = -1
) -> tuple[NodeReadout, ...]:
    """The lens on each of ``nodes`` at one position of the prompt, by default the last, where the answer is predicted."""
    return read_facts(model, (fact,), nodes, top=top, position=position)[0]


@torch.no_grad()
def read_facts(
    model: Model, facts: Sequence[Fact], nodes: Sequence[Node], *, top: int = 10, position: int | Sequence[int] = -1
) -> tuple[tuple[NodeReadout, ...], ...]:
    """`read_nodes` of many facts in one call: for each fact, the lens on each of ``nodes``.

    Facts of like length are run together, and none is padded. `logits` reads as the whole residual stream does.

    Args:
        position: one for all prompts, or one for each; negative ones count from the prompt's end.
    """
    if not nodes:
        return ((),) * len(facts)
    at = [position] * len(facts) if isinstance(position, int) else list(position)
    found: dict[int, tuple[NodeReadout, ...]] = {}
    for rows, outputs in _outputs(model, facts, at):
        whole = outputs.sum(0) + model.biases.sum(0)
        vectors = torch.stack(
            [whole if n.kind == "logits" else outputs[model.graph().writer_index(n)] for n in nodes], 1
        )
        answers = [token for row in rows for token in [model.tokens(facts[row]).at_end] * len(nodes)]
        read = iter(_read(model, vectors.flatten(0, 1), answers, top))
        for row in rows:
            found[row] = tuple(NodeReadout(node, *next(read)) for node in nodes)
    return tuple(found[row] for row in range(len(facts)))


_Read = tuple[tuple[TokenScore, ...], tuple[TokenScore, ...], int, float]
"""Promoted, suppressed, the answer's rank, its probability."""


def _read(model: Model, vectors: Float[Tensor, "row d_model"], answers: Sequence[int], top: int) -> Iterator[_Read]:
    """Each vector through the lens, with where its answer stands."""

    def tokens(values: Tensor, ids: Tensor) -> tuple[TokenScore, ...]:
        return tuple(TokenScore(model.output_text(i), v) for v, i in zip(values.tolist(), ids.tolist(), strict=True))

    for logits, target in _logits(model, vectors, answers):
        ranks, probabilities = rank(logits, target).tolist(), probability(logits, target).tolist()
        best, worst = (logits.topk(min(top, logits.shape[1]), largest=largest) for largest in (True, False))
        for i, placed in enumerate(zip(ranks, probabilities, strict=True)):
            yield tokens(best.values[i], best.indices[i]), tokens(worst.values[i], worst.indices[i]), *placed


def _logits(
    model: Model, vectors: Float[Tensor, "row d_model"], answers: Sequence[int]
) -> Iterator[tuple[Float[Tensor, "some d_vocab"], Int[Tensor, "some"]]]:
    """The vectors' logits with their answers, `LOGITS_AT_ONCE` at once."""
    step = max(1, LOGITS_AT_ONCE // model.network.d_vocab)
    targets = torch.tensor(answers, device=vectors.device)
    for some, target in zip(vectors.split(step), targets.split(step), strict=True):
        logits = model.readout(some)
        yield logits, target.to(logits.device)


def _outputs(
    model: Model, facts: Sequence[Fact], positions: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], Float[Tensor, "writer batch d_model"]]]:
    """(rows, what every node writes at each of these facts' position), for facts of like length."""
    for group in model.batches(facts):
        n_pos = group.n_prompt
        n_numbers = len(model.graph().writers) * n_pos * model.network.d_model
        some = max(1, CHUNK_NUMBERS // n_numbers)
        for chunk in group.pieces(some):
            rows, outputs = chunk.rows, model.node_outputs(chunk.prompts)
            at = torch.tensor([positions[row] for row in rows], device=outputs.device)
            out_of = [facts[row].prompt for row in rows if not -n_pos <= positions[row] < n_pos]
            if out_of:
                raise ValueError(f"expected a position of the {n_pos} tokens of {out_of[0]!r}, got {at.tolist()}")
            yield rows, outputs[:, torch.arange(len(rows), device=outputs.device), at]


def read_circuit(model: Model, fact: Fact, circuit: Circuit, *, top: int = 10) -> tuple[NodeReadout, ...]:
    """The lens on every node of the circuit."""
    return read_nodes(model, fact, circuit.nodes, top=top)


def residual_states(
    model: Model, fact: Fact, *, position: int = -1
) -> tuple[tuple[str, ...], Float[Tensor, "state d_model"]]:
    """(labels, residual stream at one position of the prompt after the input and after every sub-layer)."""
    ((_, outputs),) = _outputs(model, (fact,), (position,))
    labels, states = _states(model, outputs)
    return labels, states[:, 0]


def _states(
    model: Model, outputs: Float[Tensor, "writer batch d_model"]
) -> tuple[tuple[str, ...], Float[Tensor, "state batch d_model"]]:
    biases, shape, graph = model.biases, model.shape, model.graph()
    state = outputs[0]
    labels, states = ["Input"], [state]
    for layer in range(shape.n_layers):
        first = graph.writer_index(Node(layer, "head", 0))
        heads, mlp = outputs[first : first + shape.n_heads].sum(0) + biases[layer], outputs[first + shape.n_heads]
        if layer in shape.bypasses:
            # The bypass stands beside the MLP: one sub-layer with it.
            mlp = mlp + outputs[first + shape.n_heads + 1]
        if shape.parallel:
            state = state + heads + mlp
            labels, states = [*labels, f"L{layer}"], [*states, state]
        else:
            states += [state + heads, state + heads + mlp]
            labels += [f"L{layer} attn", f"L{layer} MLP"]
            state = states[-1]
    return tuple(labels), torch.stack(states)


def trajectory(model: Model, fact: Fact) -> Trajectory:
    """Rank and probability of the answer's first token after every sub-layer, and what Figure 3's text adds to them."""
    return trajectories(model, (fact,))[0]


@torch.no_grad()
def trajectories(model: Model, facts: Sequence[Fact]) -> tuple[Trajectory, ...]:
    """`trajectory` of many facts in one call."""
    last: dict[int, tuple[tuple[str, ...], list[int], list[float], list[float]]] = {}
    for row, labels, states in _states_of(model, facts, [-1] * len(facts)):
        tokens = model.tokens(facts[row])
        ranks, probabilities = _place(model, states, tokens.at_end)
        # Where answers are columns of their own, the subject has none.
        subject = [] if tokens.aligned else model.vocabulary.encode(" " + facts[row].subject)
        last[row] = labels, ranks, probabilities, _place(model, states, subject[0])[1] if subject else []
    ends = {row: at for row, fact in enumerate(facts) if (at := _subject_end(model, fact)) is not None}
    asked, there = [facts[row] for row in ends], dict[int, list[int]]()
    for i, _, states in _states_of(model, asked, list(ends.values())) if asked else ():
        there[list(ends)[i]] = _place(model, states, model.tokens(asked[i]).at_end)[0]
    return tuple(
        Trajectory(labels, tuple(ranks), tuple(probabilities), tuple(subject), tuple(there.get(row, ())))
        for row, (labels, ranks, probabilities, subject) in sorted(last.items())
    )


def _states_of(
    model: Model, facts: Sequence[Fact], positions: Sequence[int]
) -> Iterator[tuple[int, tuple[str, ...], Float[Tensor, "state d_model"]]]:
    for rows, outputs in _outputs(model, facts, positions):
        labels, states = _states(model, outputs)
        for i, row in enumerate(rows):
            yield row, labels, states[:, i]


def _place(model: Model, states: Float[Tensor, "state d_model"], token: int) -> tuple[list[int], list[float]]:
    """(ranks, probabilities) of one token in each state."""
    ranks, probabilities = [], []
    for logits, target in _logits(model, states, [token] * len(states)):
        ranks += rank(logits, target).tolist()
        probabilities += probability(logits, target).tolist()
    return ranks, probabilities


def _subject_end(model: Model, fact: Fact) -> int | None:
    """Position of the subject's last token, if it has one before the prompt's last."""
    try:
        return spans(model, fact).subject[-1]
    except SpanError:
        return None

"""What an answer loses without what some heads carry from some positions: the demonstrations before its question, or its subject."""

import random
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.analysis.attribution import SINK
from circuits.analysis.tracing import open_parts, source_parts, traces
from circuits.datasets.corpus import demonstration
from circuits.facts import Fact, Relation
from circuits.graph import Graph, Node, Slot
from circuits.metrics import match_nll
from circuits.model import ContextError, Model
from circuits.model.taps import ReaderKind, Taps
from circuits.studies.explain_specs import Wording

DRAWS = 40
"""Sets of other heads, of any layers, that a cut is compared with."""
VARIANTS_AT_ONCE = 64


def demonstrated(
    relation: Relation, subject: str, shown: Sequence[str], wording: Wording = "stated"
) -> tuple[Fact, Fact]:
    """(the question, the question after demonstrations of the relation on the subjects ``shown``)."""
    object_ = relation.object_of(subject)
    if wording == "bare":
        pairs = [(each, relation.object_of(each)) for each in shown]
        asked, after = demonstration((), subject), demonstration(pairs, subject)
    else:
        asked = relation.fact(subject).prompt
        after = ". ".join((*(relation.fact(each).statement for each in shown), asked))
    return Fact(asked, subject, object_, relation.name), Fact(after, subject, object_, relation.name)


def fits(model: Model, fact: Fact) -> bool:
    """Whether the prompt is within the model's context."""
    try:
        model.tokens(fact)
    except ContextError:
        return False
    return True


def demonstration_positions(model: Model, question: Fact, full: Fact) -> range:
    """Positions of the demonstrations before the ``question`` that ``full`` ends with, the prompt's first position apart.

    A token that holds the question's beginning is the question's.
    """
    ids = model.tokens(full).prompt
    n_special = int(model.vocabulary.bos is not None)
    # Counted from the end: tokenizers may add a space before the text.
    whole, asked = (len(model.vocabulary.decode(ids[n_special:])), len(question.prompt))
    ends = (len(model.vocabulary.decode(ids[n_special : i + 1])) for i in range(n_special, len(ids)))
    return range(SINK + 1, n_special + sum(end <= whole - asked for end in ends))


class ReadingCuts:
    """What the answer loses when some heads' last writes lack what they read at some positions.

    What is taken away is what the heads carry in the clean run; everything that hears the last position hears it without.
    """

    def __init__(self, model: Model, fact: Fact, positions: Sequence[int], graph: Graph) -> None:
        self._model = model
        self._nodes = {node.name: node for node in graph.nodes if node.kind == "head"}
        (self._batch,) = model.batches((fact,))
        parts = open_parts(model, (fact,))
        (trace,) = traces(model, (fact,), parts)
        split = torch.stack([source_parts(trace, parts, layer)[0] for layer in range(len(parts.blocks))])
        self._there = split[:, :, list(positions)].sum(2)
        self._elsewhere = split.sum(2) - self._there

    def losses(self, heads: Sequence[str], seed: int) -> list[float]:
        """Rise of the NLL without what ``heads`` carry from the positions; from elsewhere; and, for each of `DRAWS` draws of as
        many other heads of any layers, without what those carry from the positions (none, if there are fewer)."""
        own = [self._nodes[name] for name in heads]
        variants = [self._lacking(own, self._there), self._lacking(own, self._elsewhere)]
        others = [node for node in self._nodes.values() if node not in own]
        if len(others) >= len(own):
            rng = random.Random(seed)
            variants += [self._lacking(rng.sample(others, len(own)), self._there) for _ in range(DRAWS)]
        whole, *cut = self._nll(torch.stack([torch.zeros_like(variants[0]), *variants])).tolist()
        return [each - whole for each in cut]

    def _lacking(
        self, heads: Sequence[Node], carried: Float[Tensor, "layer head d_model"]
    ) -> Float[Tensor, "layer d_model"]:
        """What these heads carry, summed for each layer."""
        total = torch.zeros_like(carried[:, 0])
        for node in heads:
            total[node.layer] += carried[node.layer, node.head]
        return total

    def _nll(self, lacking: Float[Tensor, "variant layer d_model"]) -> Float[Tensor, "variant"]:
        found = []
        for some in lacking.split(VARIANTS_AT_ONCE):
            batch = self._batch.repeat(len(some))
            without = WithoutWrites(some, batch.n_prompt - 1, parallel=self._model.shape.parallel)
            logits = self._model.run(batch, without)
            found.append(match_nll(logits[:, -batch.n_answer :], batch.answer))
        return torch.cat(found)


class WithoutWrites(Taps):
    """Taps under which nobody hears some vectors that are written at one position by a layer's attention."""

    def __init__(self, lacking: Float[Tensor, "batch layer d_model"], position: int, *, parallel: bool) -> None:
        self._heard = lacking.cumsum(1)
        """Up to and with each layer."""
        self._position, self._parallel = position, parallel

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        after_own_heads = kind in ("mlp", "bypass") and not self._parallel
        # `logits` reads as the layer after the last.
        last = layer if after_own_heads else layer - 1
        if last < 0:
            return value
        value, lacking = value.clone(), self._heard[:, last].to(value)
        value[:, self._position] -= lacking[:, None] if kind == "head" else lacking
        return value

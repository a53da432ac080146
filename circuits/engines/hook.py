"""HookEngine: the obvious way to run a circuit, one full forward pass each, on the model's own hooks.

Every read from the residual stream is replaced by the sum over its writers: a kept edge carries what the writer wrote
in this run, an ablated edge what the ablation says. This is the reference that faster engines are held equal to.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.engines.ablation import Ablation
from circuits.engines.noise import rounding_noise, type_name
from circuits.facts import Fact
from circuits.graph import Granularity, Graph, Node, Reader, Slot
from circuits.metrics import Metric, Shown, require_finite
from circuits.model import Model
from circuits.model.taps import ReaderKind, Taps, WriterKind


class HookEngine:
    """See `circuits.engines.engine.Engine`."""

    name = "hook"
    width = 1

    def __init__(
        self,
        model: Model,
        facts: Sequence[Fact],
        *,
        ablation: Ablation | None = None,
        granularity: Granularity = "qkv",
        metric: Metric | None = None,
    ) -> None:
        """
        Args:
            metric: what `nll` gives; by default MatchNLL, and squared error for a model whose output is a number.
        """
        self.model = model
        self.metric = metric or model.metric
        self.facts = tuple(facts)
        self.graph: Graph = model.graph(granularity)
        self.evaluations = 0
        self.precision = type_name(model.biases.dtype)
        self._groups = model.batches(facts)
        self._ablated = (ablation or Ablation()).values(model, facts, self._groups)

    def noise(self) -> float:
        return self._noise

    @cached_property
    def _noise(self) -> float:
        return rounding_noise(self.model, self._groups, self.metric)

    def answer_logits(self, kept: Bool[np.ndarray, "writer reader"]) -> tuple[Float[Tensor, "answer d_vocab"], ...]:
        self.evaluations += 1
        per_fact: list[Tensor | None] = [None] * len(self.facts)
        for group, ablated in zip(self._groups, self._ablated, strict=True):
            rewrite = _ResidualRewrite(self.graph, torch.from_numpy(kept.copy()), ablated, self.model.biases)
            logits = self.model.run(group, rewrite)[:, -group.n_answer :]
            require_finite(logits, f"{self.model.name} on {self.facts[group.rows[0]].prompt!r}")
            for row, fact_logits in zip(group.rows, logits, strict=True):
                per_fact[row] = fact_logits
        return tuple(logits for logits in per_fact if logits is not None)

    def nll(self, kept: Bool[np.ndarray, "writer reader"]) -> Float[np.ndarray, "fact"]:
        logits = self.answer_logits(kept)
        per_fact = [
            self.metric.of(fact.cpu()[None], target[None])[0]
            for fact, target in zip(logits, self._targets, strict=True)
        ]
        return torch.stack(per_fact).numpy()

    @cached_property
    def _targets(self) -> list[Tensor]:
        """What each fact's outputs are measured against."""
        found: dict[int, Tensor] = {}
        for group in self._groups:
            own = self.model.logits(group)[:, -group.n_answer :].cpu()
            target = self.metric.target(Shown(group.answer, own, group.rows))
            found |= dict(zip(group.rows, target, strict=True))
        return [found[row] for row in range(len(self.facts))]

    def nll_without(
        self, kept: Bool[np.ndarray, "writer reader"], reader: int, removals: Sequence[Sequence[int]]
    ) -> Float[np.ndarray, "removal fact"]:
        rows = []
        for removal in removals:
            variant = kept.copy()
            variant[list(removal), reader] = False
            rows.append(self.nll(variant))
        return np.stack(rows)


class _ResidualRewrite(Taps):
    """Taps that rebuilds every read from the writes so far (DESIGN section 4, "Ablating an edge")."""

    def __init__(
        self,
        graph: Graph,
        kept: Bool[Tensor, "writer reader"],
        ablated: Float[Tensor, "writer #batch #pos d_model"],
        biases: Float[Tensor, "layer d_model"],
    ) -> None:
        self._graph = graph
        self._kept = kept.to(ablated)
        self._ablated = ablated
        self._biases = biases
        self._written: list[Float[Tensor, "writer batch pos d_model"]] = []

    def write(self, kind: WriterKind, layer: int, value: Tensor) -> None:
        self._written.append(rearrange(value, "b p h d -> h b p d") if kind == "head" else value[None])

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        heads = range(self._graph.shape.n_heads) if kind == "head" else [0]
        slot = slot if self._graph.granularity == "qkv" else None
        readers = [self._graph.reader_index(Reader(Node(layer, kind, head), slot)) for head in heads]
        # All heads of a layer have the same senders. In a parallel block the MLP may run after the heads, but does not
        # read them: take the legal prefix only.
        upstream = self._graph.upstream[readers[0]]
        written = torch.cat(self._written)[:upstream]
        kept = self._kept[:upstream, readers]
        clean = einsum(kept, written, "w r, w b p d -> b p r d")
        ablated = einsum(1 - kept, self._ablated[:upstream], "w r, w b p d -> b p r d")
        # Attention biases belong to no head: a state carries those of the layers it comes after.
        after_attention = kind in ("mlp", "bypass") and not self._graph.shape.parallel
        total = clean + ablated + self._biases[: layer + after_attention].sum(0)
        return total if kind == "head" else total[:, :, 0]

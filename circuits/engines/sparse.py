"""SparseEngine: the same numbers as HookEngine, computing only what changes and what the answer needs.

Four facts make it exact and fast. In ACDC's order everything before the receiver under test still carries its clean
value, computed once. A change reaches only the nodes after it that kept edges lead to. Variants of a circuit that differ
at readers of one depth share one batch (`propagation`). And a node whose readers are few matters at few positions
(`positions`). Its own forward pass is compared with the model's logits on every fact before it is trusted.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.engines.ablation import Ablation
from circuits.engines.engine import Cut
from circuits.engines.folding import Folded, fold
from circuits.engines.kernel import Pass
from circuits.engines.layout import Layout
from circuits.engines.lowered import lower
from circuits.engines.memory import Estimate, Sizes, available_memory, estimate
from circuits.engines.noise import rounding_noise, type_name
from circuits.engines.plan import plan
from circuits.engines.positions import needs
from circuits.engines.probed import ProbedPass
from circuits.engines.sides import Scratch
from circuits.engines.values import Change, PassOutcome, Values
from circuits.facts import Fact
from circuits.graph import Granularity, Graph
from circuits.metrics import NLL, Metric, Shown, require_finite
from circuits.model import Model
from circuits.model.agreement import disagreement
from circuits.model.batch import Group
from circuits.model.bypassed import Bypass, bypasses_of, shown
from circuits.model.transformer import Components

Kind = TypeVar("Kind", bound=Pass)


class EngineMismatch(RuntimeError):
    """The engine's own forward pass does not give the model's logits: it would find another model's circuit."""


class SparseEngine:
    """See `circuits.engines.engine.WideEngine`.

    Raises:
        UnsupportedArchitecture: the model does not show its weights, or they have no description here.
        EngineMismatch: own forward pass and the model disagree.
    """

    name = "sparse"

    def __init__(
        self,
        model: Model,
        facts: Sequence[Fact],
        *,
        ablation: Ablation | None = None,
        granularity: Granularity = "qkv",
        width: int | None = None,
        max_memory: int | None = None,
        dtype: torch.dtype | None = None,
        metric: Metric | None = None,
    ) -> None:
        """
        Args:
            width: how many variants run at once, if they fit; by default as many as keep the processor busy.
            max_memory: bytes that the engine may take, on top of the model's own. By default the width depends on model and
                facts alone (`circuits.engines.memory.Sizes.width`), so that the circuits run do too.
            dtype: to compute in, such as ``torch.bfloat16``; by default that of the weights. Only the same type gives the
                same decisions.
            metric: what `nll` gives; by default MatchNLL, and squared error for a model whose output is a number.
        """
        network, bypasses = shown(model.network), bypasses_of(model.network)
        self.model = model
        self.metric = metric or model.metric
        self.facts = tuple(facts)
        self.graph: Graph = model.graph(granularity)
        self.evaluations = 0
        groups = model.batches(facts)
        parts = network.components(max(group.ids.shape[1] for group in groups))
        ablated = (ablation or Ablation()).values(model, facts, groups)
        no_change = ablation is None or ablation.kind == "zero"
        device = parts.W_U.device
        if dtype is not None:
            parts = parts.to(dtype)
        self._dtype, self._fact_groups = parts.W_U.dtype, groups
        self.precision = type_name(self._dtype)
        self.sizes = Sizes.of(
            parts,
            self.graph,
            [(len(group.rows), group.ids.shape[1], group.n_answer) for group in groups],
            bytes_per_number=parts.W_U.element_size(),
            positional_ablation=not no_change,
        )
        wanted = width or max(_width(group.ids.numel(), parts.d_model) for group in groups)
        available = available_memory(device)
        self.width = self.sizes.width(wanted, available) if max_memory is None else self.sizes.fit(wanted, max_memory)
        folded = fold(parts, centred=not bypasses)
        with torch.no_grad(), _full_precision():
            self._groups = [
                _GroupRunner(
                    model, self.graph, parts, folded, bypasses, group, None if no_change else values, self.metric
                )
                for group, values in zip(groups, ablated, strict=True)
            ]

    def estimate(self) -> Estimate:
        """The most memory and time that a search takes with this engine."""
        return estimate(self.sizes, self.width, self._groups[0].device)

    def noise(self) -> float:
        return self._noise

    @cached_property
    def _noise(self) -> float:
        return rounding_noise(self.model, self._fact_groups, self.metric, self._dtype)

    # ---- Engine ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def answer_logits(self, kept: Bool[np.ndarray, "writer reader"]) -> tuple[Float[Tensor, "answer d_vocab"], ...]:
        self.evaluations += 1
        per_fact: list[Tensor | None] = [None] * len(self.facts)
        with _full_precision():
            for runner in self._groups:
                logits = runner.logits(kept)
                require_finite(logits, f"{self.model.name} on {self.facts[runner.group.rows[0]].prompt!r}")
                for row, fact_logits in zip(runner.group.rows, logits, strict=True):
                    per_fact[row] = fact_logits
        return tuple(logits for logits in per_fact if logits is not None)

    def nll(self, kept: Bool[np.ndarray, "writer reader"]) -> Float[np.ndarray, "fact"]:
        return self.nll_cutting(kept, (), np.zeros((1, 0), dtype=bool))[0]

    def nll_without(
        self, kept: Bool[np.ndarray, "writer reader"], reader: int, removals: Sequence[Sequence[int]]
    ) -> Float[np.ndarray, "removal fact"]:
        writers = sorted({writer for removal in removals for writer in removal})
        cut = np.array([[writer in removal for writer in writers] for removal in removals], dtype=bool)
        return self.nll_cutting(kept, [(writer, reader) for writer in writers], cut.reshape(len(removals), -1))

    # ---- WideEngine ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def nll_cutting(
        self,
        kept: Bool[np.ndarray, "writer reader"],
        edges: Sequence[Cut],
        cut: Bool[np.ndarray, "variant edge"],
    ) -> Float[np.ndarray, "variant fact"]:
        """`nll` of several variants of ``kept``: each lacks some of ``edges``."""
        self.evaluations += len(cut)
        nlls = np.empty((len(cut), len(self.facts)))
        with _full_precision():
            for runner in self._groups:
                for start in range(0, len(cut), self.width):
                    part = slice(start, start + self.width)
                    nlls[part, list(runner.group.rows)] = runner.nll_cutting(kept, edges, cut[part])
        if not np.isfinite(nlls).all():
            require_finite(torch.from_numpy(nlls), f"{self.model.name} (MatchNLL)")
        return nlls

    def forget(self) -> None:
        for runner in self._groups:
            runner.forget()

    def forecast(self, kept: Bool[np.ndarray, "writer reader"], edges: Sequence[Cut]) -> Float[np.ndarray, "edge fact"]:
        """First-order: the gradient of the NLL by what the reader reads, times what the writer contributes."""
        scores = np.zeros((len(edges), len(self.facts)))
        with _full_precision():
            for runner in self._groups:
                scores[:, list(runner.group.rows)] = runner.forecast(kept, edges)
        return scores


def _width(n_positions: int, d_model: int) -> int:
    """Variants whose rows fill a matrix product well and still fit the caches."""
    return max(16, min(256, 2**19 // (n_positions * d_model)))


class _GroupRunner:
    """The current circuit on one group of facts of like length, and the passes that start from it."""

    def __init__(
        self,
        model: Model,
        graph: Graph,
        parts: Components,
        folded: Folded,
        bypasses: Mapping[int, tuple[Bypass, ...]],
        group: Group,
        ablated: Float[Tensor, "writer #batch #pos d_model"] | None,
        metric: Metric,
    ) -> None:
        self.group = group
        # The same numbers as MatchNLL's, for less memory.
        self._measure = nll if metric == NLL else metric.of
        self._graph, self._folded, self._bypasses = graph, folded, bypasses
        self._layout, self._scratch = Layout(graph), Scratch()
        device, dtype = parts.W_U.device, parts.W_U.dtype
        if ablated is not None:
            ablated = folded.centre(ablated.to(device, dtype))
        n_batch, n_pos = group.ids.shape
        embedded = folded.centre(parts.embed(group.ids))
        self._values = Values(
            delta=embedded.new_zeros(len(graph.writers), n_batch, n_pos, parts.d_model),
            slots=embedded.new_zeros(
                graph.shape.n_layers, 3 * graph.shape.n_heads, n_batch, n_pos, parts.blocks[0].attention.W_Q.shape[2]
            ),
            ablated=ablated,
            constant=_constants(self._layout, folded.centre(parts.b_O), ablated),
            n_answer=group.n_answer,
            batch=group.to(device),
        )
        self._values.delta[0] = embedded if ablated is None else embedded - ablated[0]
        # The first pass computes every node at every position, whatever the answer needs.
        every = np.full(len(graph.writers), 2, dtype=np.int8)
        self._set(graph.legal, every)
        clean = self._pass(Pass, Change(dirty=tuple(range(len(graph.readers)))))
        clean.outcome.adopt(0, self._values)
        own = clean.logits()[0]
        theirs = model.logits(group)[:, -group.n_answer :]
        if off := disagreement(own, theirs):
            raise EngineMismatch(f"its own forward pass gives other logits than {model.name}: {off}")
        self._target = metric.target(Shown(group.answer.to(device), own, group.rows))
        self._clean = (self._values.delta.clone(), self._values.slots.clone())
        self._set(graph.legal, needs(self._layout, graph.legal))
        self._last: tuple[Mapping[int, Bool[np.ndarray, "variant writer"]], PassOutcome] | None = None
        """What the last variants lacked at each reader, and their outcome."""

    @property
    def device(self) -> torch.device:
        return self._values.delta.device

    # ---- the current circuit -----------------------------------------------------------------------------------------

    def _set(self, kept: Bool[np.ndarray, "writer reader"], need: np.ndarray) -> None:
        self._kept, self._need = kept.copy(), need
        self._weights = torch.from_numpy(self._kept).to(self._values.delta)

    def _pass(self, kind: type[Kind], change: Change) -> Kind:
        todo = plan(self._layout, self._kept, self._need, change.readers)
        lowered = lower(todo, self._layout, self.device)
        return kind(
            self._folded, self._bypasses, self._layout, self._values, self._weights, lowered, change, self._scratch
        )

    def _become(self, kept: Bool[np.ndarray, "writer reader"]) -> None:
        """Make ``kept`` the current circuit."""
        if np.array_equal(kept, self._kept):
            return
        if (kept & ~self._kept).any():
            # Edges come back: nodes that were dead, and not kept up to date, may matter again. Start from the clean run.
            self.forget()
        gone = self._kept & ~kept
        changed = [int(reader) for reader in np.flatnonzero(gone.any(0)) if self._matters(int(reader))]
        last, self._last = self._last, None
        variant = _variant_with(gone, changed, last[0]) if last else None
        self._set(kept, needs(self._layout, kept))
        if last and variant is not None:
            last[1].adopt(variant, self._values)
        elif changed:
            self._pass(Pass, Change(dirty=tuple(changed))).outcome.adopt(0, self._values)

    def forget(self) -> None:
        """Make the whole model the current circuit, its values those of the first pass."""
        self._values.delta.copy_(self._clean[0])
        self._values.slots.copy_(self._clean[1])
        self._set(self._graph.legal, needs(self._layout, self._graph.legal))
        self._last = None

    def _matters(self, reader: int) -> bool:
        node = self._graph.readers[reader].node
        return node.kind == "logits" or bool(self._need[self._graph.writer_index(node)])

    # ---- answers -----------------------------------------------------------------------------------------------------

    def logits(self, kept: Bool[np.ndarray, "writer reader"]) -> Float[Tensor, "batch answer d_vocab"]:
        self._become(kept)
        return self._pass(Pass, Change()).logits()[0]

    def nll_cutting(
        self, kept: Bool[np.ndarray, "writer reader"], edges: Sequence[Cut], cut: Bool[np.ndarray, "variant edge"]
    ) -> Float[np.ndarray, "variant batch"]:
        self._become(kept)
        depths = {self._depth(reader) for _, reader in edges}
        if len(depths) > 1:
            return np.concatenate([self._one(kept, edges, row) for row in cut])
        masks: dict[int, np.ndarray] = {}
        for column, (writer, reader) in enumerate(edges):
            if reader not in masks:
                masks[reader] = np.zeros((len(cut), len(self._graph.writers)), dtype=bool)
            masks[reader][:, writer] = cut[:, column] & self._kept[writer, reader]
        removed = {r: torch.from_numpy(mask).to(self._values.delta) for r, mask in masks.items() if self._matters(r)}
        done = self._pass(Pass, Change(n_variants=len(cut), removed=removed))
        self._last = (masks, done.outcome)
        return self._measure(done.logits(), self._target).cpu().numpy()

    def _one(self, kept: np.ndarray, edges: Sequence[Cut], row: np.ndarray) -> np.ndarray:
        variant = kept.copy()
        for (writer, reader), is_cut in zip(edges, row, strict=True):
            variant[writer, reader] &= not is_cut
        return self.nll_cutting(variant, (), np.zeros((1, 0), dtype=bool))

    def _depth(self, reader: int) -> tuple[int, str]:
        node = self._graph.readers[reader].node
        return node.layer, node.kind

    def forecast(
        self, kept: Bool[np.ndarray, "writer reader"], edges: Sequence[Cut]
    ) -> Float[np.ndarray, "edge batch"]:
        with torch.no_grad():
            self._become(kept)
        scores = np.zeros((len(edges), len(self.group.rows)))
        alive = sorted({reader for _, reader in edges if self._matters(reader)})
        if not alive:
            return scores
        with torch.enable_grad():
            done = self._pass(ProbedPass, Change(probed=tuple(alive)))
            loss = self._measure(done.logits(), self._target).sum()
            probes = [done.probes[reader] for reader in alive]
            gradients = torch.autograd.grad(loss, probes, allow_unused=True, materialize_grads=True)
        delta = self._values.delta
        for reader, gradient in zip(alive, gradients, strict=True):
            rows = [row for row, edge in enumerate(edges) if edge[1] == reader]
            writers = torch.tensor([edges[row][0] for row in rows], device=delta.device)
            parts = delta[:, :, delta.shape[2] - gradient.shape[1] :][writers]
            scores[rows] = -(parts * gradient).sum((2, 3)).cpu().numpy()
        return scores


def _variant_with(
    gone: Bool[np.ndarray, "writer reader"],
    changed: Sequence[int],
    masks: Mapping[int, Bool[np.ndarray, "variant writer"]],
) -> int | None:
    """The variant that lacks exactly the edges that are gone."""
    if not changed or not set(changed) <= set(masks):
        return None
    same = np.logical_and.reduce([(mask == gone[:, reader]).all(1) for reader, mask in masks.items()])
    return int(same.argmax()) if same.any() else None


def _constants(
    layout: Layout, biases: Float[Tensor, "layer d_model"], ablated: Float[Tensor, "writer #batch #pos d_model"] | None
) -> Float[Tensor, "depth #batch #pos d_model"]:
    """What a reader reads with every edge ablated: the biases of the attention layers before it, and ablated writes.

    Row 2 l is for the heads of layer l (and for what stands beside them), 2 l + 1 for an MLP and a bypass after them; the
    last is for ``logits``.
    """
    before = [
        (layer + after, int(heads[0]) + after * layout.n_heads)
        for layer, heads in enumerate(layout.head_writers)
        for after in (0, 1)
    ]
    rows = []
    for n_biases, n_writers in (*before, (layout.n_layers, len(layout.graph.writers))):
        row = biases[:n_biases].sum(0)[None, None]
        rows.append(row if ablated is None else row + ablated[:n_writers].sum(0))
    return torch.stack(rows)


def nll(logits: Float[Tensor, "variant batch answer d_vocab"], answer: Tensor) -> Float[Tensor, "variant batch"]:
    """`circuits.metrics.match_nll` of logits that are not needed afterwards: without a float64 copy of them.

    Relative to the largest logit, so that rounding is relative to the NLL and not to the logits; summed in float64
    over the answer's tokens.
    """
    index = answer.expand(logits.shape[:-1])
    if logits.requires_grad:
        return F.cross_entropy(logits.flatten(0, 2), index.flatten(), reduction="none").view(index.shape).mean(-1)
    relative = logits.float().sub_(logits.amax(-1, keepdim=True))
    own = relative.gather(-1, index.unsqueeze(-1)).squeeze(-1).double()
    return (relative.exp_().sum(-1).double().log() - own).mean(-1)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Without TF32 on GPUs, whose 10-bit mantissa would decide near ties."""
    previous = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = previous

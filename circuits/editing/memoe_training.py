"""How MEMoE's experts and router are trained: every choice that paper 3 leaves open, and the loop that follows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.editing.anchors import AnchorReader, AnchorRule, token_ends
from circuits.editing.bypass import innermost
from circuits.editing.edit import EditError
from circuits.editing.experts import ExpertKind, Experts, initial, load_balance, mixture, route, top_gate
from circuits.editing.forward import answer_logits
from circuits.editing.method import ProgressLine
from circuits.editing.prompts import Forced
from circuits.facts import EditRequest
from circuits.graph import Slot
from circuits.model import Batch, Model
from circuits.model.agreement import disagreement
from circuits.model.network import ComponentNetwork
from circuits.model.norm import Norm
from circuits.model.taps import ReaderKind, Taps

Batches = Literal["further", "stacked"]
SPOKEN = 0.1
"""Where the model gives the old or the new object more than this share, a text may be about the edited fact."""


@dataclass(frozen=True, slots=True)
class MemoeOptions:
    """The choices. The defaults are paper 3's where it says one, and the plainest where it is silent.

    * ``experts`` (E), ``top_k``: 4 and 1, where paper 3's Figure 4 peaks.
    * ``kind``: "linear" is Eq. 10 as printed; "mlp" is a network of ``hidden`` units, the other reading of "FFN experts".
      Either starts by writing zero, so that training starts at the base model.
    * ``strength``: lambda of Eq. 11. The experts' size makes up for any value but 0, so 1.
    * ``renormalise``: whether the top-k gates are divided by their sum. Eq. 9 does not; with k = 1 it would cut the router
      off from the loss.
    * ``noise``: standard deviation of epsilon in Eq. 9, normal, in training only: answers stay deterministic.
    * ``balance``: coefficient of the load-balance loss, 0.01 as in the Switch Transformer, which paper 3 cites.
    * ``anchors``: "prompt" is paper 3's letter: the entities of the whole prompt, at each of its tokens; by the rule "so far" a
      token's routing depends on no later token, as everything else in the model does.
    * ``scoped``: the bypass is silent at positions none of whose anchors is a request's subject, so that prompts about other
      things get the base model's answers exactly. Paper 3 has no such rule and reports a locality of 100 all the same.
    * ``contexts``: lengths in tokens of sampled texts that each prompt is put after in training, besides standing alone: what
      the answer must not depend on. Paper 3 trains on the bare prompt.
    * ``keep``: weight of KL(base || edited) on texts that the base model itself writes: ``texts`` about each subject, going
      on for ``text_tokens`` after it, and as many about anything unless ``scoped``. They tell the experts, without any data,
      what is not to change. Places where the model is about to say the old or the new object do not count. Paper 3 has no
      such texts: 0.
    * ``batches``: what a batch does that follows another: "further" trains the experts and the router of those before it, as in
      paper 3, which reports what is forgotten; "stacked" puts experts and a router of its own beside them, which stay as they
      are.
    * ``steps``, ``lr``, ``enough``: Adam, its rate falling evenly to 0, until every answer's loss and the
      mean over the texts are below ``enough`` nats, or the steps are used up.
    """

    layer: int = 0
    experts: int = 4
    top_k: int = 1
    kind: ExpertKind = "linear"
    hidden: int = 64
    strength: float = 1.0
    renormalise: bool = False
    noise: float = 0.1
    balance: float = 0.01
    anchors: AnchorRule = "prompt"
    scoped: bool = False
    contexts: tuple[int, ...] = ()
    keep: float = 0.0
    texts: int = 4
    text_tokens: int = 8
    batches: Batches = "further"
    steps: int = 60
    lr: float = 2e-3
    enough: float = 0.05

    def __post_init__(self) -> None:
        if self.experts < 1 or not 1 <= self.top_k <= self.experts or self.hidden < 1:
            raise EditError(f"expected at least one expert and 1 <= top_k <= experts, got {self}")
        if min(self.strength, self.noise, self.balance, self.keep, self.texts, self.text_tokens) < 0:
            raise EditError(f"expected strength, noise, balance, keep, texts and text_tokens of at least 0, got {self}")
        if self.steps < 0 or self.lr <= 0:
            raise EditError(f"expected at least 0 steps and a learning rate above 0, got {self}")


Rows = Int[Tensor, "_"]
"""Indices of rows."""


class _Capture(Taps):
    """Keeps what one layer's MLP reads and what the next layer reads."""

    def __init__(self, layer: int, n_layers: int) -> None:
        self._layer, self._last = layer, layer == n_layers - 1
        self.read_by_mlp: Tensor | None = None
        self.after: Tensor | None = None

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        if layer == self._layer and kind == "mlp":
            self.read_by_mlp = value
        if layer == self._layer + 1 and (kind == "logits" if self._last else slot == "q"):
            self.after = value if self._last else value[:, :, 0]
        return value


@dataclass(frozen=True)
class _Rows:
    """Prompts padded at their ends, with all that does not change in training."""

    x: Float[Tensor, "row pos d_model"]
    """What the MLP reads, after its norm."""
    after: Float[Tensor, "row pos d_model"]
    """The residual stream before the next layer, in the base model."""
    anchors: Float[Tensor, "row pos d_model"]
    active: Bool[Tensor, "row pos"]
    """Positions at which the bypass speaks: no padding, and in scope where it has one."""
    length: Int[Tensor, "row"]


class Trainer:
    """Layers up to the MLP run once; the experts and the layers after them at every step."""

    def __init__(
        self,
        model: Model,
        requests: Sequence[EditRequest],
        said: Forced,
        texts: Sequence[tuple[int, ...]],
        norm: Norm,
        reader: AnchorReader,
        hyper: MemoeOptions,
        seed: int,
    ) -> None:
        """
        Args:
            said: the requests, each standing alone first and then in the same number of contexts.
            texts: ids of texts on which the model is to stay as it is.
            norm: that of the MLP beside which the bypass stands.

        Raises:
            EditError: the model has a bypass after that MLP, or its weights, as they are read here, give other logits.
        """
        layer = hyper.layer
        if any(other > layer for other in model.shape.bypasses):
            raise EditError(
                f"the model has a bypass after layer {layer}; add bypasses from the first layer to the last"
            )
        self._model, self._norm, self._reader, self._hyper = model, norm, reader, hyper
        self._generator = torch.Generator().manual_seed(seed)
        answered = zip(_fed(said), (said.at[:, 0] + 1).tolist(), strict=True)
        rows = [*answered, *((text, len(text)) for text in texts)]
        parts = innermost(model).components(max(len(ids) for ids, _ in rows))
        half = parts.W_U.dtype in (torch.bfloat16, torch.float16)
        self._tail = ComponentNetwork(parts.to(torch.float32) if half else parts, model.n_ctx)
        self._said, self._n_said = said, len(said.ids)
        self._n_contexts = self._n_said // len(requests)
        self._rows = self._read(rows)
        with torch.no_grad():
            self._check(rows[0])
            self._final = self._tail.resume(self._rows.after[self._n_said :], layer + 1)
            self._kept = self._keepable(requests, texts)

    def _read(self, rows: Sequence[tuple[tuple[int, ...], int]]) -> _Rows:
        groups: dict[tuple[int, int], list[int]] = {}
        for index, (ids, n_prompt) in enumerate(rows):
            groups.setdefault((len(ids), n_prompt), []).append(index)
        n_pos = max(length for length, _ in groups)
        d_model = self._model.network.d_model
        like = self._tail.parts.W_U
        x, after, anchors = (like.new_zeros(len(rows), n_pos, d_model) for _ in range(3))
        active = torch.zeros(len(rows), n_pos, dtype=torch.bool, device=like.device)
        for (length, n_prompt), members in sorted(groups.items()):
            batch = Batch.continued(torch.tensor([rows[index][0] for index in members]), n_prompt)
            capture = _Capture(self._hyper.layer, self._model.shape.n_layers)
            self._model.run(batch, capture)
            assert capture.read_by_mlp is not None
            assert capture.after is not None
            anchored = self._reader(batch)
            x[members, :length] = self._norm(capture.read_by_mlp).to(like)
            after[members, :length] = capture.after.to(like)
            anchors[members, :length] = anchored.vectors.to(like)
            active[members, :length] = anchored.in_scope.to(active.device) if self._hyper.scoped else True
        return _Rows(x, after, anchors, active, torch.tensor([len(ids) for ids, _ in rows]))

    def _check(self, row: tuple[tuple[int, ...], int]) -> None:
        """The tail is the model's own: else the experts would be trained for another one."""
        ids, n_prompt = row
        own = self._tail.readout(self._tail.resume(self._rows.after[:1, : len(ids)], self._hyper.layer + 1))
        theirs = self._model.logits(Batch.continued(torch.tensor([ids]), n_prompt))
        if off := disagreement(own, theirs):
            raise EditError(
                f"{self._model.name} cannot be edited: its weights, as they are read here, give other logits than the model: {off}"
            )

    def _keepable(self, requests: Sequence[EditRequest], texts: Sequence[tuple[int, ...]]) -> Bool[Tensor, "text pos"]:
        """Where the texts are kept: the bypass speaks there, and the model is not about to say what an edit is about."""
        keep = self._rows.active[self._n_said :].clone()
        bare = torch.arange(0, self._n_said, self._n_contexts)
        final = self._tail.resume(self._rows.after[bare], self._hyper.layer + 1)
        old = answer_logits(self._tail, final, self._said.at[bare, :1])[:, 0].argmax(-1).tolist()
        new = self._said.answer[bare, 0].tolist()
        for i, ids in enumerate(texts):
            text, _ = token_ends(self._model.vocabulary, ids)
            named = [j for j, request in enumerate(requests) if request.subject in text]
            if named:
                chances = self._tail.readout(self._final[i]).softmax(-1)
                keep[i] &= (chances[:, [old[j] for j in named] + [new[j] for j in named]] <= SPOKEN).all(-1)
        return keep

    def train(self, progress: ProgressLine, start: Experts | None = None) -> tuple[Experts, tuple[float, ...]]:
        """Args:
        start: experts that were trained before, which are trained further; new ones by default.
        """
        hyper, like = self._hyper, self._tail.parts.W_U
        if start is None:
            start = initial(hyper.experts, like.shape[0], hyper.kind, hyper.hidden, self._generator)
        tensors = {
            name: tensor.detach().to(like, copy=True).requires_grad_() for name, tensor in start.tensors().items()
        }
        experts = Experts.of(tensors)
        optimiser = torch.optim.Adam(tensors.values(), lr=hyper.lr)
        curve: list[float] = []
        done = 0
        for step in range(hyper.steps):
            nll, kl, balance = self._losses(experts, *self._taken(step))
            loss = nll.mean() + hyper.keep * kl + hyper.balance * balance
            worst, kept = float(nll.detach().max()), float(kl.detach())
            curve.append(float(loss.detach()))
            progress(f"MEMoE: step {step + 1}/{hyper.steps}, worst answer {worst:.3f} nats, kept {kept:.3f} nats")
            done = done + 1 if max(worst, kept) < hyper.enough else 0
            if done == self._turns:
                break
            for group in optimiser.param_groups:
                group["lr"] = hyper.lr * (1 - step / hyper.steps)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return Experts.of({name: tensor.detach().cpu() for name, tensor in tensors.items()}), tuple(curve)

    @property
    def _turns(self) -> int:
        """After so many steps every row has been taken."""
        return max(self._n_contexts - 1, self._hyper.texts if len(self._rows.x) > self._n_said else 0, 1)

    def _taken(self, step: int) -> tuple[Rows, Rows, Rows]:
        """The rows of one step: every request's bare prompt, one context of each, a share of the texts; in turn."""
        context = torch.arange(self._n_said) % self._n_contexts
        turn = 1 + step % (self._n_contexts - 1) if self._n_contexts > 1 else -1
        shares = max(1, self._hyper.texts)
        texts = torch.arange(self._n_said, len(self._rows.x))[step % shares :: shares]
        return (context == 0).nonzero()[:, 0], (context == turn).nonzero()[:, 0], texts

    def _losses(
        self, experts: Experts, bare: Rows, in_context: Rows, texts: Rows
    ) -> tuple[Float[Tensor, "said"], Tensor, Tensor]:
        """(NLL of each answer, mean KL(base || edited) in the texts, load balance), in nats."""
        nlls, wanted = [], []
        for rows in (bare, in_context):
            if len(rows):
                final, wants = self._edited(experts, rows)
                nlls.append(self._said.rows(rows).nll(answer_logits(self._tail, final, self._said.at[rows])))
                wanted.append(wants)
        kl = nlls[0].new_zeros(())
        if len(texts):
            final, wants = self._edited(experts, texts)
            wanted.append(wants)
            own, n_pos = texts - self._n_said, final.shape[1]
            base, kept = self._final[own][:, :n_pos], self._kept[own][:, :n_pos]
            if kept.any():
                before, after = (self._tail.readout(x[kept]).log_softmax(-1) for x in (base, final))
                kl = (before.exp() * (before - after)).sum(-1).mean()
        return torch.cat(nlls), kl, load_balance(torch.cat(wanted))

    def _edited(
        self, experts: Experts, rows: Rows
    ) -> tuple[Float[Tensor, "row pos d_model"], Float[Tensor, "active expert"]]:
        """(the residual stream after the last layer, what the router wants where the bypass speaks)."""
        hyper = self._hyper
        n_pos = int(self._rows.length[rows].max())
        active, after = self._rows.active[rows, :n_pos], self._rows.after[rows, :n_pos]
        x = self._rows.x[rows, :n_pos][active]
        features = torch.cat((x, self._rows.anchors[rows, :n_pos][active]), -1)
        noise = torch.randn(len(x), experts.n_experts, generator=self._generator).to(x) * hyper.noise
        wanted = route(features, experts.router, noise)
        gate = top_gate(wanted, hyper.top_k, renormalise=hyper.renormalise)
        written = hyper.strength * mixture(x, gate, experts)
        bypass = torch.zeros_like(after).masked_scatter(active[..., None], written)
        return self._tail.resume(after + bypass, hyper.layer + 1), wanted


def _fed(said: Forced) -> list[tuple[int, ...]]:
    """The ids that are fed, row by row: up to the position that predicts the last answer token."""
    return [tuple(row[: int(at.max()) + 1]) for row, at in zip(said.ids.tolist(), said.at, strict=True)]

"""The values that edits store: what an MLP should write at the subject's last token for the new object to be said.

A vector delta is added to the residual stream behind one layer at the subject's last token (or at the prompt's: see
`circuits.editing.prompts.Site`), and optimised so that the target follows the prompt in every context, while what the model
says of "{subject} is a" stays (Meng et al. 2022, Eq. 4; Meng et al. 2023, Eq. 16). ROME reads it as a change of the MLP's
output, MEMIT of the hidden state: the same vector.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.editing.edit import EditError
from circuits.editing.forward import answer_logits, at_rows, before_layer
from circuits.editing.prompts import Forced, Site, padded, read_prompt
from circuits.editing.stored import row_chunks
from circuits.facts import EditRequest
from circuits.model import Model
from circuits.model.network import ComponentNetwork

ESSENCE = "{} is a"


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """How a value is optimised.

    ``clamp`` bounds the norm of delta, in norms of the vector that it is added to. ``kl`` weighs KL(edited || unedited)
    of the essence prompt, whose logits are read at its last token ("a"); the published code reads them at the subject's
    last token instead, which is ``essence_at="subject"``. ``decay`` weighs ||delta|| / ||v0||, which has no unit; the
    published code divides by the norm's square, so that its 0.5 weighs otherwise on every model. Optimisation ends early
    when the loss falls below ``enough``. ``site`` is the token at which the value is stored.
    """

    steps: int = 20
    lr: float = 0.5
    clamp: float = 4.0
    kl: float = 0.0625
    decay: float = 0.08
    enough: float = 0.05
    essence_at: Literal["end", "subject"] = "end"
    site: Site = "subject"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr <= 0 or self.clamp <= 0 or self.kl < 0 or self.decay < 0:
            raise EditError(f"expected steps, lr and clamp above 0, and kl and decay of at least 0, got {self}")
        if self.site not in get_args(Site):
            raise EditError(f"expected site to be one of {', '.join(get_args(Site))}, got {self.site!r}")


@dataclass(frozen=True)
class Essence:
    """One row a request: the essence prompt, with the indices of the subject's last token and of the prompt's last."""

    ids: Int[Tensor, "request pos"]
    subject: Int[Tensor, "request"]
    end: Int[Tensor, "request"]

    def rows(self, chosen: slice) -> "Essence":
        """Some of the requests'."""
        return Essence(self.ids[chosen], self.subject[chosen], self.end[chosen])

    def stored_at(self, site: Site) -> Int[Tensor, "request"]:
        """The position in each row at which its request's value is added."""
        return self.subject if site == "subject" else self.end


def essence_of(model: Model, requests: Sequence[EditRequest]) -> Essence:
    """The essence prompt of each request's subject."""
    prompts = [read_prompt(model, ESSENCE, request.subject) for request in requests]
    return Essence(
        ids=padded([prompt.ids for prompt in prompts]),
        subject=torch.tensor([prompt.subject for prompt in prompts]),
        end=torch.tensor([len(prompt.ids) - 1 for prompt in prompts]),
    )


@dataclass(frozen=True)
class Targets:
    """For each request the vector to add, and what was minimised at each step."""

    deltas: Float[Tensor, "request d_model"]
    losses: tuple[tuple[float, ...], ...]


def optimise(
    network: ComponentNetwork,
    layer: int,
    said: Forced,
    essence: Essence,
    norms: Float[Tensor, "request"],
    options: TargetOptions,
    progress: Callable[[str], None] = lambda _: None,
) -> Targets:
    """A delta behind ``layer`` for each request, as it would come out alone; as many together as memory is given for.

    Args:
        said: the requests in their contexts, request by request, as many for each.
        norms: ||v0||, the norm of the vector that each delta is added to.
    """
    n_contexts = len(said.ids) // len(norms)
    found: list[Targets] = []
    for some in row_chunks(len(norms), n_contexts * said.n_pos):
        rows = said.rows(slice(some.start * n_contexts, some.stop * n_contexts))
        own = replace(rows, request=rows.request - some.start).trimmed()
        found.append(_optimise(network, layer, own, essence.rows(some), norms[some], options, progress))
    return Targets(torch.cat([some.deltas for some in found]), tuple(curve for some in found for curve in some.losses))


def _optimise(
    network: ComponentNetwork,
    layer: int,
    said: Forced,
    essence: Essence,
    norms: Float[Tensor, "request"],
    options: TargetOptions,
    progress: Callable[[str], None],
) -> Targets:
    """`optimise` of requests that run together."""
    n_requests = len(norms)
    device = network.parts.W_U.device
    request, norms = said.request.to(device), norms.to(device)
    said_at, essence_at = said.stored_at(options.site), essence.stored_at(options.site)
    said_before = before_layer(network, said.ids, layer + 1)
    essence_before = before_layer(network, essence.ids, layer + 1)

    def essence_logits(residual: Tensor) -> Tensor:
        final = network.resume(residual, layer + 1)
        return network.readout(
            at_rows(final, essence.end if options.essence_at == "end" else essence.subject)
        ).log_softmax(-1)

    with torch.no_grad():
        unedited = essence_logits(essence_before)
    per_request = torch.zeros(n_requests, device=device).index_add(0, request, torch.ones(len(request), device=device))
    deltas = torch.zeros(n_requests, network.d_model, device=device, dtype=network.parts.W_U.dtype, requires_grad=True)
    optimiser = torch.optim.Adam([deltas], lr=options.lr)
    active = torch.ones(n_requests, dtype=torch.bool, device=device)
    curves: list[list[float]] = [[] for _ in range(n_requests)]
    for step in range(options.steps):
        final = network.resume(_with_deltas(said_before, said_at, deltas[request]), layer + 1)
        nll = said.nll(answer_logits(network, final, said.at))
        nll = torch.zeros_like(norms).index_add(0, request, nll) / per_request
        edited = essence_logits(_with_deltas(essence_before, essence_at, deltas))
        kl = (edited.exp() * (edited - unedited)).sum(-1)
        # The norm has no gradient at 0, where every delta starts.
        decay = (deltas.square().sum(-1) + 1e-12).sqrt() / norms
        losses = nll + options.kl * kl + options.decay * decay
        for i in active.nonzero().flatten().tolist():
            curves[i].append(float(losses[i].detach()))
        active &= losses.detach() >= options.enough
        progress(f"value at layer {layer}: step {step + 1}/{options.steps}, loss {float(losses.detach().mean()):.3f}")
        if not active.any() or step == options.steps - 1:
            break
        optimiser.zero_grad()
        losses.sum().backward()
        with torch.no_grad():
            previous = deltas.detach().clone()
            optimiser.step()
            longest = options.clamp * norms
            length = deltas.norm(dim=-1).clamp_min(1e-12)
            deltas.mul_((longest / length).clamp(max=1)[:, None])
            # Adam's momentum would move what is done already.
            deltas.copy_(torch.where(active[:, None], deltas, previous))
    return Targets(deltas.detach(), tuple(tuple(curve) for curve in curves))


def _with_deltas(
    residual: Float[Tensor, "row pos d_model"], positions: Int[Tensor, "row"], deltas: Float[Tensor, "row d_model"]
) -> Float[Tensor, "row pos d_model"]:
    """The residual stream with each row's delta added at one position."""
    rows = torch.arange(len(residual), device=residual.device)
    return residual.index_put((rows, positions.to(residual.device)), deltas, accumulate=True)

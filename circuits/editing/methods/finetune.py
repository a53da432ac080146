"""FT-L and FT-M: fine-tuning the value matrices of one or a few layers on the edit itself (paper 0, sections 3.3.2, 4.2).

Adam on the matrices alone, biases left as they are; optionally each entry stays within a box around its old value (the
L-infinity constraint of Zhu et al. 2020). The two differ in the loss:

* **FT-M** is the language model's: cross-entropy of the target's tokens, each after those before it, the prompt masked.
* **FT-L** wants every token of the target at the prompt's last position at once. For a target of one token they are the
  same; for longer ones FT-L is no language model's loss, which is why it does so badly in the literature.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from circuits.editing.defaults import GPT2_LARGE, GPT2_MEDIUM, GPT2_XL, GPT_J, Settings
from circuits.editing.delta import Delta, Dense, WeightEdit
from circuits.editing.edit import EditError
from circuits.editing.forward import answer_logits, before_layer, open_network, require_layers
from circuits.editing.method import Method, ProgressLine, provenance
from circuits.editing.prompts import forced
from circuits.editing.resources import Resources
from circuits.facts import EditRequest
from circuits.model import Model
from circuits.model.network import value_matrix


@dataclass(frozen=True, slots=True)
class FineTuneOptions:
    """``box`` bounds how far an entry moves; None: it is free. ``batch`` is how many requests share a step.

    ``steps`` counts passes over the requests. Training ends when the mean loss of a pass is below ``enough``, and a
    batch that is below it takes no step.
    """

    layers: tuple[int, ...] = (0,)
    steps: int = 25
    lr: float = 5e-4
    box: float | None = None
    batch: int = 64
    enough: float = 0.01

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr <= 0 or self.batch < 1 or (self.box is not None and self.box <= 0):
            raise EditError(f"expected steps, lr and batch above 0, and a box above 0 or none, got {self}")


@dataclass(frozen=True)
class _FineTune:
    """Either method's function: all requests together. Nothing in it is random."""

    method: Literal["ft-l", "ft-m"]

    def __call__(
        self,
        model: Model,
        requests: tuple[EditRequest, ...],
        options: FineTuneOptions,
        resources: Resources,
        seed: int,
        progress: ProgressLine,
    ) -> WeightEdit:
        """Raises:
        EditError: no such layers.
        """
        curve, deltas = _trained(model, requests, options, self.method, progress)
        return WeightEdit(deltas, provenance(self.method, model, requests, options, seed, [curve]))


def _ft_l_defaults(model: Model) -> Settings:
    """The boxes of the published configurations."""
    boxes = {GPT2_MEDIUM: 2e-3, GPT2_LARGE: 1e-3, GPT2_XL: 5e-4, GPT_J: 5e-5}
    box = boxes.get(model.unedited.shape)
    return {} if box is None else {"box": box}


ft_l = Method("ft-l", _FineTune("ft-l"), FineTuneOptions, defaults=_ft_l_defaults)
ft_m = Method("ft-m", _FineTune("ft-m"), FineTuneOptions)


def _trained(
    model: Model,
    requests: tuple[EditRequest, ...],
    options: FineTuneOptions,
    method: Literal["ft-l", "ft-m"],
    progress: ProgressLine,
) -> tuple[list[float], dict[str, Delta]]:
    """(mean loss of each pass in nats, what is added to each matrix)."""
    layers = require_layers(model, options.layers)
    said = forced(model, requests, prompt_last=method == "ft-l")
    network = open_network(model, said.ids)
    before = before_layer(network, said.ids, layers[0])
    names = [value_matrix(layer) for layer in layers]
    old = {name: network.weight(name).detach().clone() for name in names}
    new = {name: weight.clone().requires_grad_() for name, weight in old.items()}
    optimiser = torch.optim.Adam(list(new.values()), lr=options.lr)
    tuned_network = network.with_weights(new)
    batches = [slice(start, start + options.batch) for start in range(0, len(requests), options.batch)]
    curve = []
    for step in range(options.steps):
        losses = []
        for batch in batches:
            rows = said.rows(batch)
            final = tuned_network.resume(before[batch], layers[0])
            loss = rows.nll(answer_logits(tuned_network, final, rows.at)).mean()
            losses += [float(loss.detach())] * len(rows.ids)
            if losses[-1] < options.enough:
                continue
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if options.box is not None:
                _clamp(new, old, options.box)
        curve.append(sum(losses) / len(losses))
        progress(f"{method}: step {step + 1}/{options.steps}, loss {curve[-1]:.3f}")
        if curve[-1] < options.enough:
            break
    return curve, {name: Dense((new[name].detach() - old[name]).float()) for name in names}


@torch.no_grad()
def _clamp(new: Mapping[str, Tensor], old: Mapping[str, Tensor], box: float) -> None:
    for name, weight in new.items():
        weight.copy_(weight.clamp(old[name] - box, old[name] + box))

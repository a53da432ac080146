"""The forward pass of a transformer without norms, written out from plain weights: what every other pass is held against."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor


def run_by_hand(
    weights: Mapping[str, Tensor], ids: Int[Tensor, "batch pos"], *, attention_scale: float = 1.0, causal: bool = True
) -> tuple[Float[Tensor, "batch pos d_vocab"], Float[Tensor, "writer batch pos d_model"]]:
    """(the logits, what every node writes), for weights as `circuits.model.network.PlainNetwork` has them; relu MLPs."""

    def bias(name: str) -> Tensor:
        return weights.get(name, torch.zeros(()))

    n_pos = ids.shape[1]
    future = torch.ones(n_pos, n_pos, dtype=torch.bool).triu(1)
    x = weights["embed.W_E"][ids] + weights["pos_embed.W_pos"][:n_pos]
    writes, layer = [x], 0
    while f"blocks.{layer}.attn.W_Q" in weights:
        a, m = f"blocks.{layer}.attn.", f"blocks.{layer}.mlp."
        attended = torch.zeros_like(x)
        for head in range(len(weights[f"{a}W_Q"])):
            q, k, v = (
                x @ weights[f"{a}W_{slot}"][head] + weights.get(f"{a}b_{slot}", torch.zeros(head + 1, 1))[head]
                for slot in "QKV"
            )
            scores = q @ k.transpose(-1, -2) / attention_scale
            if causal:
                scores = scores.masked_fill(future, -torch.inf)
            writes.append(scores.softmax(-1) @ v @ weights[f"{a}W_O"][head])
            attended = attended + writes[-1]
        x = x + attended + bias(f"{a}b_O")
        hidden = (x @ weights[f"{m}W_in"] + bias(f"{m}b_in")).relu()
        writes.append(hidden @ weights[f"{m}W_out"] + bias(f"{m}b_out"))
        x, layer = x + writes[-1], layer + 1
    return x @ weights["unembed.W_U"] + bias("unembed.b_U"), torch.stack(writes)

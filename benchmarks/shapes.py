"""Random models of GPT-2's shape: time depends on the shape, and on how many edges stay."""

import torch

from circuits.facts import Fact
from circuits.graph import Shape
from circuits.model import Batch, Model, WordVocabulary
from circuits.model.attention import Attention
from circuits.model.network import ComponentNetwork
from circuits.model.norm import Norm
from circuits.model.transformer import Block, Components, Mlp


def random_gpt2(
    n_layers: int,
    n_heads: int,
    *,
    d_head: int = 64,
    d_vocab: int = 50257,
    n_ctx: int = 64,
    seed: int = 0,
    gain: float = 1.0,
) -> Model:
    """A random model of GPT-2's architecture, its vocabulary the words w0, w1, ...

    Weights are scaled so that every node writes about as much as it reads, times ``gain`` / sqrt(layers): neither the
    first nor the last nodes carry all the answer.
    """
    generator = torch.Generator().manual_seed(seed)
    d_model = n_heads * d_head
    d_mlp = 4 * d_model

    def normal(*shape: int, scale: float) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * scale

    def norm() -> Norm:
        return Norm("layer", torch.ones(d_model), torch.zeros(d_model), 1e-5)

    blocks = []
    for _ in range(n_layers):
        attention = Attention(
            norm=norm(),
            W_Q=normal(n_heads, d_model, d_head, scale=2 * d_model**-0.5),
            W_K=normal(n_heads, d_model, d_head, scale=d_model**-0.5),
            W_V=normal(n_heads, d_model, d_head, scale=d_model**-0.5),
            W_O=normal(n_heads, d_head, d_model, scale=gain * (n_heads * d_head * n_layers) ** -0.5),
            b_Q=torch.zeros(n_heads, d_head),
            b_K=torch.zeros(n_heads, d_head),
            b_V=torch.zeros(n_heads, d_head),
            scale=d_head**-0.5,
        )
        mlp = Mlp(
            norm=norm(),
            W_in=normal(d_model, d_mlp, scale=d_model**-0.5),
            b_in=torch.zeros(d_mlp),
            W_out=normal(d_mlp, d_model, scale=2 * gain * (d_mlp * n_layers) ** -0.5),
            b_out=torch.zeros(d_model),
            activation="gelu_new",
        )
        blocks.append(Block(attention, mlp))
    parts = Components(
        shape=Shape(n_layers, n_heads),
        W_E=normal(d_vocab, d_model, scale=0.7),
        W_pos=normal(n_ctx, d_model, scale=0.7),
        blocks=tuple(blocks),
        b_O=torch.zeros(n_layers, d_model),
        final=norm(),
        W_U=normal(d_model, d_vocab, scale=2 * d_model**-0.5),
        b_U=torch.zeros(d_vocab),
    )
    words = tuple(f"w{i}" for i in range(d_vocab))
    name = f"random GPT-2, {n_layers} x {n_heads}"
    return Model.by_hand(ComponentNetwork(parts, n_ctx), WordVocabulary(words), name=name)


def likely_facts(model: Model, n: int, *, prompt_tokens: int = 8, seed: int = 0) -> tuple[Fact, ...]:
    """Random prompts with the answers that the model gives to them."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, model.network.d_vocab, (n, prompt_tokens), generator=generator)
    answers = model.logits(Batch.of_prompts(ids))[:, -1].argmax(-1)
    prompts = [model.vocabulary.decode(row) for row in ids.tolist()]
    return tuple(
        Fact(prompt, prompt.split()[0], model.vocabulary.decode([int(answer)]).strip())
        for prompt, answer in zip(prompts, answers, strict=True)
    )

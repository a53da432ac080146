"""Models for tests: small random ones in HuggingFace format, and transformers written by hand whose circuit is known."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor

from circuits.facts import Fact, Relation
from circuits.model import Batch, Model, WordVocabulary
from circuits.model.network import ComponentNetwork, OpenNetwork, PlainNetwork

END = "<|endoftext|>"
N_WORDS = 60
D_VOCAB = N_WORDS + 1
N_CTX = 32

COMMON = {"vocab_size": D_VOCAB, "bos_token_id": 0, "eos_token_id": 0}
GPT2 = {**COMMON, "n_positions": N_CTX, "n_embd": 32, "n_layer": 2, "n_head": 4}
LLAMA = {
    **COMMON,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": N_CTX,
    "pad_token_id": 0,
}
NEOX = {key: LLAMA[key] for key in LLAMA if key not in ("num_key_value_heads", "pad_token_id")}
QWEN2 = {**LLAMA, "sliding_window": None}
HEADS_OF_8 = {**LLAMA, "head_dim": 8}
MISTRAL = {**HEADS_OF_8, "sliding_window": 4}

GPT_NEO = {
    **COMMON,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "max_position_embeddings": N_CTX,
    "attention_types": [[["global", "local"], 1]],
    "window_size": 4,
}

CONFIGS: dict[str, tuple[str, Mapping[str, object]]] = {
    "gpt2": ("GPT2Config", GPT2),
    "llama": ("LlamaConfig", LLAMA),
    "qwen2": ("Qwen2Config", QWEN2),
    "qwen3": ("Qwen3Config", HEADS_OF_8),
    "neox": ("GPTNeoXConfig", NEOX),
    "mistral": ("MistralConfig", MISTRAL),
    "gptj": ("GPTJConfig", {**GPT2, "rotary_dim": 4}),
    "neo": ("GPTNeoConfig", GPT_NEO),
    "gemma2": ("Gemma2Config", HEADS_OF_8),
}
"""Layouts that differ: learnt positions, grouped queries, biases, query norms, parallel blocks, a sliding window, and
Gemma 2's norm after attention, which has no residual rewrite over heads."""


WITHOUT_BOS = ("qwen2", "qwen3", "neox")
"""Layouts whose tokenizers begin a text with nothing."""


def save_tokenizer(folder: Path, *, bos: bool = True) -> None:
    """Words w0 ... w59, each one token with its leading space, as GPT-2's tokenizer spells them; ``bos``: it begins a text
    with <|endoftext|> of its own accord."""
    from transformers import PreTrainedTokenizerFast

    words = [END, *(f"Ġw{i}" for i in range(N_WORDS))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\S+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


def save_model(name: str, folder: Path, seed: int = 0) -> Path:
    """A random model of that layout: wide weights, so that ablations show; random biases and norm weights."""
    import transformers

    config, settings = CONFIGS[name]
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(0.25 * noise)
            else:
                parameter.copy_(0.2 * noise + (0 if key.endswith("bias") else 1))
    model.save_pretrained(folder)
    save_tokenizer(folder, bos=name not in WITHOUT_BOS)
    return folder


def word_fact(prompt: str, answer: str) -> Fact:
    """``word_fact("3 7 7", "9")``: the fact "w3 w7 w7" => "w9", about its first word."""
    words = " ".join(f"w{i}" for i in prompt.split())
    return Fact(words, words.split()[0], " ".join(f"w{i}" for i in answer.split()))


def plain_model(
    weights: Mapping[str, Tensor], words: str, *, bos: int | None = None, attention_scale: float = 1.0
) -> Model:
    network = PlainNetwork(weights, attention_scale)
    return Model.by_hand(network, WordVocabulary(tuple(words.split()), bos))


def zero_weights(
    *, n_layers: int, n_heads: int, d_model: int, d_head: int, d_mlp: int, d_vocab: int, n_ctx: int
) -> dict[str, Tensor]:
    """All weights of a PlainNetwork, all zero: set the few that matter."""
    weights = {
        "embed.W_E": torch.zeros(d_vocab, d_model),
        "pos_embed.W_pos": torch.zeros(n_ctx, d_model),
        "unembed.W_U": torch.zeros(d_model, d_vocab),
    }
    for layer in range(n_layers):
        attention, mlp = f"blocks.{layer}.attn.", f"blocks.{layer}.mlp."
        weights |= {f"{attention}W_{slot}": torch.zeros(n_heads, d_model, d_head) for slot in "QKV"}
        weights[f"{attention}W_O"] = torch.zeros(n_heads, d_head, d_model)
        weights[f"{mlp}W_in"] = torch.zeros(d_model, d_mlp)
        weights[f"{mlp}W_out"] = torch.zeros(d_mlp, d_model)
    return weights


def random_plain_model(seed: int, *, n_layers: int = 2, n_heads: int = 2, scale: float = 0.5) -> Model:
    """A PlainNetwork with random weights and all its biases, over the words w0 ... w5."""
    generator = torch.Generator().manual_seed(seed)
    d_model, d_head, d_mlp, d_vocab = 6, 3, 5, 6
    weights = zero_weights(
        n_layers=n_layers, n_heads=n_heads, d_model=d_model, d_head=d_head, d_mlp=d_mlp, d_vocab=d_vocab, n_ctx=8
    )
    for layer in range(n_layers):
        attention, mlp = f"blocks.{layer}.attn.", f"blocks.{layer}.mlp."
        weights |= {f"{attention}b_{slot}": torch.zeros(n_heads, d_head) for slot in "QKV"}
        weights |= {f"{attention}b_O": torch.zeros(d_model), f"{mlp}b_in": torch.zeros(d_mlp)}
        weights[f"{mlp}b_out"] = torch.zeros(d_model)
    random = {name: scale * torch.randn(value.shape, generator=generator) for name, value in weights.items()}
    return plain_model(random, " ".join(f"w{i}" for i in range(d_vocab)))


MASSIVE = 25_000.0
"""What `massive_model` writes at its first position, in norm: as large as SmolLM2-135M does."""


def massive_model(like: Model) -> Model:
    """That small gated model with attention's sink of real ones: MLP 0 writes a vector of norm `MASSIVE` at token 0 (BOS).

    Coordinate 0 of the stream is token 0's alone, one hidden unit reads it, and nothing else writes it before.
    """
    assert isinstance(like.network, OpenNetwork)
    parts = like.network.components(N_CTX)
    block = parts.blocks[0]
    assert block.mlp.W_gate is not None
    W_E, W_O = parts.W_E.clone(), block.attention.W_O.clone()
    W_in, W_gate, W_out = block.mlp.W_in.clone(), block.mlp.W_gate.clone(), block.mlp.W_out.clone()
    W_E[:, 0], W_O[..., 0] = 0.0, 0.0
    W_E[0, 0] = 10.0
    for weight in (W_in, W_gate):
        weight[:, 0], weight[0, 0] = 0.0, 1.0
    attention, mlp = replace(block.attention, W_O=W_O), replace(block.mlp, W_in=W_in, W_gate=W_gate, W_out=W_out)

    def with_mlp() -> Model:
        blocks = (replace(block, attention=attention, mlp=mlp), *parts.blocks[1:])
        network = ComponentNetwork(replace(parts, W_E=W_E, blocks=blocks), like.n_ctx)
        return Model.by_hand(network, like.vocabulary, name="massive")

    W_out[0], W_out[0, 1] = 0.0, 1.0
    hidden = with_mlp().node_outputs(Batch.of_prompts(torch.tensor([[0]])))[1 + like.shape.n_heads, 0, 0, 1]
    W_out[0, 1] = MASSIVE / hidden
    return with_mlp()


def guessed_relation(model: Model, name: str = "guessed", n: int = 8) -> Relation:
    """A relation of n subjects whose objects are what the model itself puts first in its first template: it knows them all."""
    subjects = [f"w{i}" for i in range(10, 10 + n)]
    templates = ("w1 {} w2", "w3 w4 {}")
    pairs = []
    for subject in subjects:
        ids = torch.tensor([model.tokens(Fact(templates[0].format(subject), subject, "w0")).prompt])
        best = int(model.logits(Batch.of_prompts(ids))[0, -1, 1:].argmax()) + 1
        pairs.append((subject, model.token_text(best).strip()))
    return Relation(
        name=name, title=name, kind="factual", domain="word", range="word", templates=templates, pairs=tuple(pairs)
    )


def traces(figure: go.Figure) -> list[Any]:
    """A figure's traces; Plotly leaves their type open."""
    return list(figure.data)

"""A small random llama as a GGUF file, with its tokenizer, as llama.cpp's converter writes one."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import gguf
import numpy as np

N_LAYERS, D_MODEL, D_MLP, N_HEADS, N_GROUPS = 2, 64, 96, 4, 2
TOKENS = ["<|endoftext|>", *(chr(code) for code in range(ord("!"), ord("~") + 1)), "Ġ", "Ġw", "is", "Ġis"]
MERGES = ["Ġ w", "i s", "Ġ is"]


def save_gguf(
    file: Path,
    *,
    seed: int = 0,
    architecture: str = "llama",
    quantised: bool = True,
    extra: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Path:
    """Matrices in Q8_0 where ``quantised``, all else in F32; ``extra`` tensors after the model's own."""
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_name("tiny")
    writer.add_context_length(32)
    writer.add_embedding_length(D_MODEL)
    writer.add_block_count(N_LAYERS)
    writer.add_feed_forward_length(D_MLP)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_GROUPS)
    writer.add_rope_dimension_count(D_MODEL // N_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if quantised else gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL, *[gguf.TokenType.NORMAL] * (len(TOKENS) - 1)])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    for name, value in {**weights(seed), **extra}.items():
        if value.ndim == 2 and quantised:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(value, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def weights(seed: int) -> dict[str, np.ndarray]:
    """By their names in GGUF, rows first: a matrix from d_in to d_out has the shape (d_out, d_in)."""
    random = np.random.default_rng(seed)
    d_kv = D_MODEL // N_HEADS * N_GROUPS
    shapes = {"token_embd": (len(TOKENS), D_MODEL), "output_norm": (D_MODEL,)}
    for layer in range(N_LAYERS):
        shapes |= {
            f"blk.{layer}.attn_norm": (D_MODEL,),
            f"blk.{layer}.attn_q": (D_MODEL, D_MODEL),
            f"blk.{layer}.attn_k": (d_kv, D_MODEL),
            f"blk.{layer}.attn_v": (d_kv, D_MODEL),
            f"blk.{layer}.attn_output": (D_MODEL, D_MODEL),
            f"blk.{layer}.ffn_norm": (D_MODEL,),
            f"blk.{layer}.ffn_gate": (D_MLP, D_MODEL),
            f"blk.{layer}.ffn_up": (D_MLP, D_MODEL),
            f"blk.{layer}.ffn_down": (D_MODEL, D_MLP),
        }
    return {
        f"{name}.weight": (0.25 * random.standard_normal(shape) + (len(shape) == 1)).astype(np.float32)
        for name, shape in shapes.items()
    }

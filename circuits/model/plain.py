"""Plain weights: a folder with ``config.json`` and ``weights.safetensors`` in TransformerLens' names, and no tokenizer.

The form in which transformers compiled from programs (Tracr, Lindner et al. 2023) or made by hand are kept. They may
be bidirectional, have no norm, and put out, at every position, one of a few labels or a number instead of the next
token.

``config.json`` holds the sizes (``n_layers n_heads d_model d_head d_mlp d_vocab d_vocab_out n_ctx``), ``act_fn``,
``attn_scale`` (attention scores are divided by it), ``attention_dir`` (bidirectional or causal), ``output_kind``
(categorical or numerical), ``vocab`` (id to word), ``output_vocab`` (column to label) and ``bos_id``.
``weights.safetensors`` holds ``embed.W_E``, ``pos_embed.W_pos``, ``unembed.W_U``, ``unembed.b_U`` and for each layer
the matrices and biases of attention and MLP.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from circuits.graph import Shape
from circuits.model.attention import Attention
from circuits.model.norm import Norm
from circuits.model.transformer import Block, Components, Mlp, UnsupportedArchitecture
from circuits.records import Unreadable, read_json

CONFIG = "config.json"
WEIGHTS = "weights.safetensors"


class PlainWeightsError(ValueError):
    """A folder of plain weights that is not whole; the message names the file and the field or tensor."""


@dataclass(frozen=True)
class PlainWeights:
    """What such a folder holds."""

    parts: Components
    weights: Mapping[str, Tensor]
    n_ctx: int
    words: tuple[str, ...]
    """What goes in, by id."""
    bos: int | None
    labels: tuple[str, ...] | None
    """What comes out, by column; None if a number does."""


def is_plain(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def read_plain(folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> PlainWeights:
    """Read the folder.

    Raises:
        PlainWeightsError: a file that is damaged, or lacks a field or a tensor, or has one of another shape.
        UnsupportedArchitecture: a norm, positions that are not embedded, or an activation without description.
    """
    config = _Config(folder / CONFIG)
    path = folder / WEIGHTS
    try:
        weights = {name: tensor.to(device, dtype) for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise PlainWeightsError(f"cannot read {path}: {error}") from error
    tensors = _Tensors(path, weights)
    config.require_supported()
    n_heads, d_model, d_head, d_mlp = (config.size(name) for name in ("n_heads", "d_model", "d_head", "d_mlp"))
    n_layers, n_ctx = config.size("n_layers"), config.size("n_ctx")
    d_vocab, d_out = config.size("d_vocab"), config.size("d_vocab_out")

    def block(layer: int) -> Block:
        a, m = f"blocks.{layer}.attn.", f"blocks.{layer}.mlp."
        attention = Attention(
            norm=Norm(),
            W_Q=tensors.take(f"{a}W_Q", n_heads, d_model, d_head),
            W_K=tensors.take(f"{a}W_K", n_heads, d_model, d_head),
            W_V=tensors.take(f"{a}W_V", n_heads, d_model, d_head),
            W_O=tensors.take(f"{a}W_O", n_heads, d_head, d_model),
            b_Q=tensors.take(f"{a}b_Q", n_heads, d_head),
            b_K=tensors.take(f"{a}b_K", n_heads, d_head),
            b_V=tensors.take(f"{a}b_V", n_heads, d_head),
            scale=1 / config.number("attn_scale"),
            causal=config.text("attention_dir") == "causal",
        )
        mlp = Mlp(
            norm=Norm(),
            W_in=tensors.take(f"{m}W_in", d_model, d_mlp),
            b_in=tensors.take(f"{m}b_in", d_mlp),
            W_out=tensors.take(f"{m}W_out", d_mlp, d_model),
            b_out=tensors.take(f"{m}b_out", d_model),
            activation=config.text("act_fn"),
        )
        return Block(attention, mlp)

    parts = Components(
        shape=Shape(n_layers, n_heads, bool(config.get("parallel_attn_mlp", False))),
        W_E=tensors.take("embed.W_E", d_vocab, d_model),
        W_pos=tensors.take("pos_embed.W_pos", n_ctx, d_model),
        blocks=tuple(block(layer) for layer in range(n_layers)),
        b_O=torch.stack([tensors.take(f"blocks.{layer}.attn.b_O", d_model) for layer in range(n_layers)]),
        final=Norm(),
        W_U=tensors.take("unembed.W_U", d_model, d_out),
        b_U=tensors.take("unembed.b_U", d_out),
    )
    bos = config.get("bos_id")
    if bos is not None and not (isinstance(bos, int) and 0 <= bos < d_vocab):
        raise PlainWeightsError(f"{config.path}: field 'bos_id' should be an id below {d_vocab} or null, got {bos!r}")
    labels = config.words("output_vocab", d_out) if config.text("output_kind") == "categorical" else None
    return PlainWeights(parts, weights, n_ctx, config.words("vocab", d_vocab), bos, labels)


class _Config:
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = read_json(path)
        except Unreadable as error:
            raise PlainWeightsError(str(error)) from error
        if not isinstance(content, dict):
            raise PlainWeightsError(f"expected an object in {path}, got {type(content).__name__}")
        self._content: dict[str, Any] = content

    def get(self, name: str, default: Any = None) -> Any:
        return self._content.get(name, default)

    def size(self, name: str) -> int:
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise PlainWeightsError(
                f"{self.path}: field {name!r} should be a whole number of at least 1, got {value!r}"
            )
        return value

    def number(self, name: str) -> float:
        value = self.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise PlainWeightsError(f"{self.path}: field {name!r} should be a number above 0, got {value!r}")
        return float(value)

    def text(self, name: str) -> str:
        choices = _CHOICES.get(name)
        value = self.get(name)
        if not isinstance(value, str) or (choices and value not in choices):
            expected = " or ".join(choices) if choices else "text"
            raise PlainWeightsError(f"{self.path}: field {name!r} should be {expected}, got {value!r}")
        return value

    def words(self, name: str, n: int) -> tuple[str, ...]:
        value = self.get(name)
        if not isinstance(value, list) or len(value) != n or len({str(word) for word in value}) != n:
            raise PlainWeightsError(f"{self.path}: field {name!r} should list {n} distinct words, got {value!r}")
        if any(not str(word) or str(word).split() != [str(word)] for word in value):
            raise PlainWeightsError(f"{self.path}: the words of field {name!r} should hold no space, got {value!r}")
        return tuple(str(word) for word in value)

    def require_supported(self) -> None:
        for name, supported in (("normalization_type", None), ("positional_embedding_type", "standard")):
            if self.get(name, supported) != supported:
                raise UnsupportedArchitecture(
                    f"{self.path}: {name} {self.get(name)!r} is not read from plain weights, only {supported!r}"
                )


_CHOICES = {"attention_dir": ("bidirectional", "causal"), "output_kind": ("categorical", "numerical")}


class _Tensors:
    def __init__(self, path: Path, weights: Mapping[str, Tensor]) -> None:
        self._path, self._weights = path, weights

    def take(self, name: str, *shape: int) -> Tensor:
        """The tensor of that name. A bias that the file lacks is zero."""
        tensor = self._weights.get(name)
        if tensor is None and name.rpartition(".")[2].startswith("b_"):
            return next(iter(self._weights.values())).new_zeros(shape)
        if tensor is None:
            raise PlainWeightsError(f"{self._path} has no tensor {name!r}")
        if tuple(tensor.shape) != shape:
            raise PlainWeightsError(
                f"{self._path}: tensor {name!r} should have shape {shape}, as the config says, got {tuple(tensor.shape)}"
            )
        return tensor

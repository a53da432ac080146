"""GGUF files: their header, read strictly before anything trusts it.

Header: magic "GGUF", version, number of tensors, number of metadata pairs, the pairs, and each tensor's name, dimensions, type and
offset (the format's specification, versions 2 and 3, little-endian). Every count and length is bounded by the bytes that are
there, and every size that the model will be built with by a tensor that has it, so that no file makes a reader allocate more
than its own weights need.
"""

import math
import mmap
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits.model.errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""Those that transformers reads from GGUF and whose heads can be shown one by one; Mistral's call themselves llama."""
TOKENIZERS = {"gpt2": "merges", "llama": "scores"}
"""The kinds of tokenizer that transformers builds from a file, and what each needs besides its tokens."""
MAX_TOKENS = 2**20
MAX_ITEMS = 2**22
"""In all arrays of the metadata. A vocabulary of 256,000 has as many scores and kinds, and about 500,000 merges."""
MAX_CONTEXT = 2**24
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The metadata's scalar types, as `struct` spells them."""


class Items(int):
    """An array of the metadata: how many items it has. Never taken for a number of the metadata."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    dims: tuple[int, ...]
    """Innermost first, as the file has them: a matrix from d_in to d_out is (d_in, d_out)."""
    type: int
    offset: int
    """From the start of the data."""

    @property
    def n_elements(self) -> int:
        return math.prod(self.dims)


@dataclass(frozen=True, slots=True)
class Header:
    metadata: Mapping[str, Any]
    """Scalars and strings as they are; an array as its `Items`."""
    tensors: Mapping[str, TensorInfo]

    @property
    def architecture(self) -> str:
        return self.metadata["general.architecture"]

    @property
    def quantisation(self) -> str:
        """The name that the file gives to its quantisation (Q4_1, Q4_K_M, F16); without one, the type of most weights."""
        from gguf import GGMLQuantizationType, LlamaFileType

        try:
            return (
                LlamaFileType(self.metadata.get("general.file_type", -1))
                .name.removeprefix("MOSTLY_")
                .removeprefix("ALL_")
            )
        except ValueError:
            weights = Counter[int]()
            for tensor in self.tensors.values():
                weights[tensor.type] += tensor.n_elements
            return GGMLQuantizationType(weights.most_common(1)[0][0]).name


def is_gguf(file: Path) -> bool:
    """Whether to read this file as GGUF: by its name, or by its first four bytes."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return file.suffix.lower() == ".gguf" or opened.read(4) == MAGIC


def read_header(file: Path) -> Header:
    """The header of a whole GGUF file of a supported architecture.

    Raises:
        ModelError: no GGUF, truncated, of another architecture, or a header that does not fit its own file.
    """
    try:
        if file.stat().st_size < 24:
            raise _Bad(f"it is {file.stat().st_size} bytes long, shorter than any header")
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _header(_Cursor(data))
    except _Bad as error:
        raise ModelError(f"cannot read the GGUF file {file}: {error}") from None


class _Bad(ValueError):
    """What is wrong with the file."""


@dataclass(slots=True)
class _Cursor:
    """Reads on through the file, and never past its end."""

    data: mmap.mmap
    at: int = 0
    items: int = 0
    """Of all arrays so far."""

    def take(self, n_bytes: int, what: str) -> int:
        """Where the next ``n_bytes`` begin."""
        start = self.at
        if n_bytes > len(self.data) - start:
            raise _Bad(
                f"{what} goes past the end of the file ({len(self.data):,} bytes): truncated, or its header is damaged"
            )
        self.at += n_bytes
        return start

    def unpack(self, code: str, what: str) -> Any:
        return struct.unpack_from(f"<{code}", self.data, self.take(struct.calcsize(f"<{code}"), what))[0]

    def skip_string(self, what: str) -> None:
        self.take(self.unpack("Q", what), what)

    def string(self, what: str) -> str:
        length = self.unpack("Q", what)
        start = self.take(length, what)
        try:
            return self.data[start : start + length].decode()
        except UnicodeDecodeError:
            raise _Bad(f"{what} is no UTF-8") from None

    def value(self, kind: int, what: str) -> Any:
        if kind == STRING:
            return self.string(what)
        if kind in SCALARS:
            return self.unpack(SCALARS[kind], what)
        if kind != ARRAY:
            raise _Bad(f"{what} has the unknown type {kind}")
        kind, n_items = self.unpack("I", what), self.unpack("Q", what)
        self.items += n_items
        if self.items > MAX_ITEMS:
            raise _Bad(f"{what} claims {n_items:,} items; expected at most {MAX_ITEMS:,} in all arrays")
        if kind in SCALARS:
            self.take(n_items * struct.calcsize(f"<{SCALARS[kind]}"), what)
        elif kind == STRING:
            for _ in range(n_items):
                self.skip_string(what)
        else:
            raise _Bad(f"{what} is an array of items of type {kind}; expected numbers or strings")
        return Items(n_items)


def _header(cursor: _Cursor) -> Header:
    if cursor.data[:4] != MAGIC:
        raise _Bad(f"it begins with {cursor.data[:4]!r} instead of {MAGIC!r}")
    cursor.at = 4
    version, n_tensors, n_pairs = (
        cursor.unpack("I", "version"),
        cursor.unpack("Q", "counts"),
        cursor.unpack("Q", "counts"),
    )
    if version not in VERSIONS:
        raise _Bad(f"its version is {version}; expected one of {VERSIONS}, in little-endian order")
    # A pair takes at least 13 bytes and a tensor 32, so that no loop below is longer than the file.
    left = len(cursor.data) - cursor.at
    if n_pairs > left // 13 or n_tensors > left // 32:
        raise _Bad(
            f"it claims {n_tensors:,} tensors and {n_pairs:,} metadata pairs, more than {len(cursor.data):,} bytes hold"
        )
    metadata: dict[str, Any] = {}
    for i in range(n_pairs):
        key = cursor.string(f"the key of metadata pair {i}")
        if key in metadata:
            raise _Bad(f"it has two values for {key[:80]!r}")
        metadata[key] = cursor.value(cursor.unpack("I", key[:80]), repr(key[:80]))
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise _Bad(f"its architecture is {architecture!r}; supported: {', '.join(ARCHITECTURES)}")
    tensors = _tensors(cursor, n_tensors, _alignment(metadata))
    header = Header(metadata, tensors)
    _require_consistent(header)
    return header


def _alignment(metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 8 <= alignment <= 2**20 or alignment & (alignment - 1):
        raise _Bad(f"its alignment is {alignment!r}; expected a power of two from 8 on")
    return alignment


def _tensors(cursor: _Cursor, n_tensors: int, alignment: int) -> Mapping[str, TensorInfo]:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    tensors: dict[str, TensorInfo] = {}
    for i in range(n_tensors):
        name = cursor.string(f"the name of tensor {i}")
        what = f"the tensor {name[:80]!r}"
        n_dims = cursor.unpack("I", what)
        if not 1 <= n_dims <= 4:
            raise _Bad(f"{what} has {n_dims} dimensions; expected 1 to 4")
        if name in tensors:
            raise _Bad(f"it has {what} twice")
        dims = tuple(cursor.unpack("Q", what) for _ in range(n_dims))
        tensors[name] = TensorInfo(dims, cursor.unpack("I", what), cursor.unpack("Q", what))
    start = -(-cursor.at // alignment) * alignment
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].offset):
        what = f"the tensor {name[:80]!r}"
        try:
            block, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.type)]
        except (ValueError, KeyError):
            raise _Bad(f"{what} has the unknown type {tensor.type}") from None
        if min(tensor.dims) < 1 or tensor.dims[0] % block:
            raise _Bad(
                f"{what} has the dimensions {tensor.dims}; expected positive ones, the first a multiple of {block}"
            )
        if tensor.offset % alignment or tensor.offset < end:
            raise _Bad(f"{what} begins at byte {tensor.offset:,} of the data, inside another tensor or not aligned")
        end = tensor.offset + tensor.n_elements // block * n_bytes
        if start + end > len(cursor.data):
            raise _Bad(
                f"{what} goes past the end of the file ({start + end:,} of {len(cursor.data):,} bytes): truncated, or its "
                "header is damaged"
            )
    return tensors


def _require_consistent(header: Header) -> None:
    """Every number that a model is built from has its tensor in the file: a reader allocates by these numbers."""
    metadata, tensors, architecture = header.metadata, header.tensors, header.architecture

    def number(key: str, default: int | None = None, most: int = 2**31) -> int:
        value = metadata.get(f"{architecture}.{key}", default)
        if type(value) is not int or not 1 <= value <= most:
            raise _Bad(f"{architecture}.{key} is {value!r}; expected a whole number from 1 to {most:,}")
        return value

    for key in (f"{architecture}.expert_count", "split.count"):
        if metadata.get(key, 0) not in (0, 1):
            raise _Bad(f"{key} is {metadata[key]!r}: mixtures of experts and files in several parts are not read")
    scaling = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in tensors:
        raise _Bad(
            "its rotary positions are rescaled, which transformers' reader leaves out: its logits would be wrong"
        )
    eps = metadata.get(f"{architecture}.attention.layer_norm_rms_epsilon")
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise _Bad(f"{architecture}.attention.layer_norm_rms_epsilon is {eps!r}; expected a small positive number")
    base = metadata.get(f"{architecture}.rope.freq_base", 10000.0)
    if not isinstance(base, float) or not 1 <= base < math.inf:
        raise _Bad(f"{architecture}.rope.freq_base is {base!r}; expected a number from 1 on")
    number("context_length", most=MAX_CONTEXT)
    d_model, d_mlp, n_layers = number("embedding_length"), number("feed_forward_length"), number("block_count")
    n_heads = number("attention.head_count")
    n_groups = number("attention.head_count_kv", n_heads)
    d_head = number("attention.key_length", d_model // n_heads or None)
    if number("attention.value_length", d_head) != d_head or number("rope.dimension_count", d_head) != d_head:
        raise _Bad(f"its heads are not {d_head} wide in keys, values and rotary positions alike, which is not read")
    n_tokens = metadata.get("tokenizer.ggml.tokens")
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in TOKENIZERS:
        raise _Bad(f"its tokenizer is of kind {kind!r}; supported: {', '.join(TOKENIZERS)}")
    if not isinstance(metadata.get(f"tokenizer.ggml.{TOKENIZERS[kind]}"), Items):
        raise _Bad(f"its tokenizer of kind {kind} has no {TOKENIZERS[kind]}")
    if not isinstance(n_tokens, Items) or not 1 <= n_tokens <= MAX_TOKENS:
        raise _Bad(f"its tokenizer has {n_tokens!r} tokens; expected 1 to {MAX_TOKENS:,}")
    if n_heads % n_groups:
        raise _Bad(f"its {n_heads} query heads do not share {n_groups} key heads evenly")
    if n_layers > len(tensors):
        raise _Bad(f"it claims {n_layers:,} layers and has {len(tensors):,} tensors")
    if number("vocab_size", n_tokens) != n_tokens:
        raise _Bad(f"it claims a vocabulary of {metadata[f'{architecture}.vocab_size']:,} and has {n_tokens:,} tokens")
    for key, value in metadata.items():
        if (
            key.startswith("tokenizer.ggml.")
            and key.endswith("_token_id")
            and not (type(value) is int and value < n_tokens)
        ):
            raise _Bad(f"{key} is {value!r}; expected one of its {n_tokens:,} tokens")
    expected: dict[str, tuple[int, ...]] = {"token_embd": (d_model, n_tokens), "output_norm": (d_model,)}
    for layer in range(n_layers):
        block = f"blk.{layer}."
        expected |= {
            f"{block}attn_norm": (d_model,),
            f"{block}attn_q": (d_model, n_heads * d_head),
            f"{block}attn_k": (d_model, n_groups * d_head),
            f"{block}attn_v": (d_model, n_groups * d_head),
            f"{block}attn_output": (n_heads * d_head, d_model),
            f"{block}ffn_norm": (d_model,),
            f"{block}ffn_gate": (d_model, d_mlp),
            f"{block}ffn_up": (d_model, d_mlp),
            f"{block}ffn_down": (d_mlp, d_model),
        }
    if "output.weight" in tensors:
        expected["output"] = (d_model, n_tokens)
    for name, dims in expected.items():
        found = tensors.get(f"{name}.weight")
        if found is None or found.dims != dims:
            raise _Bad(
                f"expected the tensor {name}.weight with the dimensions {dims}, got {found.dims if found else 'none'}; the "
                "header's numbers and its tensors do not agree"
            )

"""GGUF files: read as what they dequantise to, and refused for what is wrong with them before anything trusts them."""

import random
import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from circuits.facts import Fact, Relations
from circuits.model import Model, ModelError
from circuits.model.batch import Batch
from circuits.model.checkpoint import dequantise
from circuits.model.gguf import Header, is_gguf, read_header
from circuits.pages.contents import page_of
from circuits.studies.run import Run
from circuits.studies.runs import run
from circuits.studies.specs import RunSpec
from tests.small_gguf import D_MODEL, N_HEADS, TOKENS, save_gguf, weights


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def edited(tiny: Path, to: Path, **metadata: object) -> Path:
    """The file with other numbers in its metadata, each in the place of the old one; ``_`` stands for a full stop."""
    data = bytearray(tiny.read_bytes())
    for name, value in metadata.items():
        key = name.replace("__", ".").encode()
        at = data.index(struct.pack("<Q", len(key)) + key) + 8 + len(key)
        (kind,) = struct.unpack_from("<I", data, at)
        struct.pack_into({4: "<I", 6: "<f"}[kind], data, at + 4, value)
    to.write_bytes(data)
    return to


def refuse(file: Path, message: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ModelError, match=message):
        Model.load(file)
    assert time.perf_counter() - started < 1  # before any reader takes the file's word for a size


# ---- what loads --------------------------------------------------------------------------------------------------------


def test_a_file_is_loaded_as_the_numbers_that_it_dequantises_to(tiny: Path, tmp_path: Path) -> None:
    """Against gguf's own arithmetic: a matrix as it is, and queries with the rows of each head's two halves interleaved."""
    dequantise(tiny, tmp_path / "folder")
    found = load_file(tmp_path / "folder" / "model.safetensors")
    kind = gguf.GGMLQuantizationType.Q8_0
    blocks = {name: gguf.quantize(value, kind) for name, value in weights(0).items() if value.ndim == 2}
    expected = {name: torch.from_numpy(gguf.dequantize(value, kind)) for name, value in blocks.items()}
    layer, block = "model.layers.1.", "blk.1."
    torch.testing.assert_close(found[f"{layer}mlp.up_proj.weight"], expected[f"{block}ffn_up.weight"], rtol=0, atol=0)
    halves = expected[f"{block}attn_q.weight"].reshape(N_HEADS, D_MODEL // N_HEADS // 2, 2, D_MODEL).transpose(1, 2)
    torch.testing.assert_close(
        found[f"{layer}self_attn.q_proj.weight"], halves.reshape(D_MODEL, D_MODEL), rtol=0, atol=0
    )
    original = torch.from_numpy(weights(0)[f"{block}ffn_up.weight"])
    assert (found[f"{layer}mlp.up_proj.weight"] != original).any()  # the control: quantising did change them


def test_a_file_and_what_it_was_dequantised_to_are_one_model(tiny: Path, tmp_path: Path) -> None:
    dequantise(tiny, tmp_path / "folder")
    file, folder = Model.load(tiny), Model.load(tmp_path / "folder")
    assert file.weights == folder.weights
    assert file.quantisation == folder.quantisation == "Q8_0"
    batch = Batch.of_prompts(torch.tensor([[0, 5, 9, 33]]))
    assert torch.equal(file.logits(batch), folder.logits(batch))
    fact = Fact("w is", "w", "w")
    assert file.tokens(fact) == folder.tokens(fact)
    assert [TOKENS[i] for i in file.tokens(fact).forced] == ["w", "Ġis"]


def test_a_file_that_was_not_quantised_says_so_and_keeps_its_numbers(tmp_path: Path) -> None:
    file = save_gguf(tmp_path / "plain", quantised=False)  # known by its first bytes, whatever it is called
    assert is_gguf(file)
    assert not is_gguf(tmp_path)
    assert Model.load(file).quantisation == "F32"


def test_a_quantisation_without_a_name_is_that_of_most_weights(tiny: Path) -> None:
    header = read_header(tiny)
    assert header.quantisation == "Q8_0"
    assert Header({**header.metadata, "general.file_type": 4242}, header.tensors).quantisation == "Q8_0"
    assert Header({**header.metadata, "general.file_type": 15}, header.tensors).quantisation == "Q4_K_M"


def test_a_result_names_the_quantisation_and_what_prompts_began_with(tiny: Path, relations: Relations) -> None:
    model = Model.load(tiny)
    spec = RunSpec(facts=(Fact("w is", "w", "w"),), model=str(tiny), tau=1e9, force=True)
    result = run(spec, relations, model=model)
    assert (result.quantisation, result.bos) == ("Q8_0", None)
    assert result.summary()["quantisation"] == "Q8_0"
    assert Run.model_validate_json(result.model_dump_json()) == result
    assert dict(page_of(result).settings)["weights"] == "compatibility, float32 on cpu, dequantised from Q8_0"


# ---- what is refused ---------------------------------------------------------------------------------------------------


def test_a_truncated_file_is_refused_wherever_it_ends(tiny: Path, tmp_path: Path) -> None:
    whole = tiny.read_bytes()
    for size in (0, 3, 23, 24, 200, len(whole) // 2, len(whole) - 200):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        refuse(
            tmp_path / "cut.gguf",
            r"cut\.gguf: .*(shorter than any header|past the end of the file|more than .* bytes hold)",
        )


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    refuse(
        save_gguf(tmp_path / "t.gguf", architecture="mamba"),
        "its architecture is 'mamba'; supported: llama, qwen2, qwen3",
    )


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_bytes(b"GGML" + bytes(100))
    refuse(tmp_path / "text.gguf", "it begins with b'GGML' instead of b'GGUF'")


@pytest.mark.parametrize(
    ("at", "code", "value", "message"),
    [
        (4, "<I", 1, r"its version is 1; expected one of \(2, 3\)"),
        (4, ">I", 3, "its version is 50331648; .*little-endian"),
        (8, "<Q", 2**63, "claims 9,223,372,036,854,775,808 tensors"),
        (16, "<Q", 2**40, "and 1,099,511,627,776 metadata pairs, more than"),
        (24, "<Q", 2**62, "the key of metadata pair 0 goes past the end of the file"),
    ],
)
def test_huge_counts_are_refused(tiny: Path, tmp_path: Path, at: int, code: str, value: int, message: str) -> None:
    data = bytearray(tiny.read_bytes())
    struct.pack_into(code, data, at, value)
    (tmp_path / "t.gguf").write_bytes(data)
    refuse(tmp_path / "t.gguf", message)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"llama__block_count": 2**31 - 1}, r"claims 2,147,483,647 layers and has 20 tensors"),
        ({"llama__block_count": 3}, r"expected the tensor blk\.2\.attn_norm\.weight .* got none"),
        ({"llama__embedding_length": 2**30}, "heads are not 268435456 wide in keys, values and rotary positions alike"),
        ({"llama__feed_forward_length": 2**30}, r"expected the tensor blk\.0\.ffn_gate\.weight with the dimensions"),
        ({"llama__context_length": 2**31}, "context_length is 2147483648; expected a whole number from 1 to"),
        ({"llama__attention__head_count": 0}, "head_count is 0"),
        ({"llama__attention__head_count_kv": 3}, "4 query heads do not share 3 key heads evenly"),
        ({"llama__vocab_size": 2**30}, "claims a vocabulary of 1,073,741,824 and has 99 tokens"),
        ({"llama__attention__layer_norm_rms_epsilon": float("nan")}, "layer_norm_rms_epsilon is nan"),
        ({"llama__rope__freq_base": float("inf")}, "freq_base is inf"),
        ({"tokenizer__ggml__bos_token_id": 99}, "bos_token_id is 99; expected one of its 99 tokens"),
    ],
)
def test_a_size_that_no_tensor_has_is_refused(
    tiny: Path, tmp_path: Path, metadata: dict[str, object], message: str
) -> None:
    refuse(edited(tiny, tmp_path / "t.gguf", **metadata), message)


def test_a_tokenizer_that_does_not_fit_together_is_refused(tiny: Path, tmp_path: Path) -> None:
    token = struct.pack("<Q", 2) + b"is"
    (tmp_path / "t.gguf").write_bytes(tiny.read_bytes().replace(token, struct.pack("<Q", 2) + b"it", 1))
    with pytest.raises(ModelError, match=r"cannot load the GGUF file .*Token `is` out of vocabulary"):
        Model.load(tmp_path / "t.gguf")


def test_a_tensor_beyond_the_file_or_inside_another_is_refused(tiny: Path, tmp_path: Path) -> None:
    name = b"blk.0.ffn_up.weight"
    data = tiny.read_bytes()
    at = data.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)  # dimensions (4 + 2 x 8 bytes), type, offset
    for where, code, value, message in (
        (at, "<I", 5, "has 5 dimensions"),
        (at + 4, "<Q", 2**60, "goes past the end of the file"),
        (at + 4, "<Q", 63, "the first a multiple of 32"),
        (at + 4, "<Q", 0, "expected positive ones"),
        (at + 20, "<I", 777, "has the unknown type 777"),
        (at + 24, "<Q", 2**50, "goes past the end of the file"),
        (at + 24, "<Q", 0, "inside another tensor or not aligned"),
        (at + 24, "<Q", 7, "inside another tensor or not aligned"),
    ):
        changed = bytearray(data)
        struct.pack_into(code, changed, where, value)
        (tmp_path / "t.gguf").write_bytes(changed)
        refuse(tmp_path / "t.gguf", message)


def test_rescaled_positions_are_refused_because_the_reader_leaves_them_out(tmp_path: Path) -> None:
    file = save_gguf(tmp_path / "t.gguf", extra={"rope_freqs.weight": np.ones(8, np.float32)})
    refuse(file, "its rotary positions are rescaled")


def test_five_hundred_damaged_headers_are_read_or_refused_and_never_anything_else(tiny: Path, tmp_path: Path) -> None:
    random_, data = random.Random(0), tiny.read_bytes()
    header, file = 3_300, tmp_path / "t.gguf"
    refused = 0
    for _ in range(500):
        changed = bytearray(data)
        for _ in range(random_.choice((1, 1, 2, 4))):
            at = random_.randrange(header)
            match random_.randrange(4):
                case 0:
                    changed[at] = random_.randrange(256)
                case 1:
                    struct.pack_into("<Q", changed, at, random_.choice((0, 10**9, 2**63, random_.getrandbits(64))))
                case 2:
                    struct.pack_into("<I", changed, at, random_.choice((0, 1, 8, 9, 2**31, random_.getrandbits(32))))
                case _:
                    del changed[at : at + random_.randrange(1, 9)]
        file.write_bytes(changed)
        try:
            read_header(file)
        except ModelError:
            refused += 1
    assert 350 < refused < 500  # the control: some changes do no harm, as one of a token's letters

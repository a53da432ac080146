"""Loading a model changes nothing that it computes, and gives its graph's nodes exactly; the rest is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from circuits.facts import Fact
from circuits.graph import Shape
from circuits.model import Batch, ContextError, Model, ModelError
from circuits.model.taps import Recorder, WriterKind
from tests.models import N_CTX, random_plain_model, word_fact

LoadModel = Callable[..., Model]
Folder = Callable[[str], Path]

MODELS = ["gpt2", "llama", "qwen2", "qwen3", "neox", "mistral"]
IDS = torch.tensor([[0, 5, 9, 5, 33, 60, 2], [0, 1, 2, 3, 4, 5, 6]])


def original_log_probabilities(folder: Path) -> Tensor:
    """HuggingFace's own forward pass, which this project has no part in."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(IDS).logits.log_softmax(-1)


@pytest.mark.parametrize("processing", ["compatibility", "raw"])
@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_gives_the_original_models_probabilities(
    small_model: LoadModel, model_folder: Folder, name: str, processing: str
) -> None:
    original = original_log_probabilities(model_folder(name))
    loaded = small_model(name, processing).logits(Batch.of_prompts(IDS)).log_softmax(-1)
    torch.testing.assert_close(loaded, original, rtol=0, atol=1e-4)
    assert original.std() > 0.3  # the control: these are no flat distributions


@pytest.mark.parametrize("processing", ["compatibility", "raw"])
@pytest.mark.parametrize("name", MODELS)
def test_node_outputs_and_biases_sum_to_the_residual_stream(small_model: LoadModel, name: str, processing: str) -> None:
    model = small_model(name, processing)
    outputs = model.node_outputs(Batch.of_prompts(IDS))
    assert outputs.shape == (len(model.graph().writers), *IDS.shape, model.network.d_model)
    stream = outputs.sum(0) + model.biases.sum(0)
    torch.testing.assert_close(model.readout(stream), model.logits(Batch.of_prompts(IDS)), rtol=1e-4, atol=1e-4)
    for writer in range(len(outputs)):  # the control: every writer matters
        assert not torch.allclose(
            model.readout(stream - outputs[writer]), model.logits(Batch.of_prompts(IDS)), atol=1e-2
        )


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral"])
def test_grouped_queries_are_ungrouped_so_that_every_head_has_its_own_k_and_v(
    small_model: LoadModel, name: str
) -> None:
    """Two groups serve four heads in the file; replacing one head's v read changes that head alone."""
    model = small_model(name)
    assert model.shape.n_heads == 4

    class Zeroed(Recorder):
        def read(self, kind: str, layer: int, slot: str | None, value: Tensor) -> Tensor:  # type: ignore[override]
            if (kind, layer, slot) == ("head", 0, "v"):
                value = value.clone()
                value[:, :, 1] = 0
            return value

    changed = Zeroed()
    model.run(Batch.of_prompts(IDS), changed)
    difference = (changed.outputs - model.node_outputs(Batch.of_prompts(IDS))).abs().amax((1, 2, 3))
    names = [node.name for node in model.graph().writers]
    assert [names[i] for i in range(1, 5) if difference[i] > 1e-3] == ["a0.h1"]


@pytest.mark.parametrize("name", [*MODELS])
def test_only_neox_has_parallel_blocks(small_model: LoadModel, name: str) -> None:
    assert small_model(name).shape == Shape(2, 4, parallel=name == "neox")


def test_an_intervention_that_changes_nothing_changes_nothing(small_model: LoadModel) -> None:
    for name in MODELS:
        model = small_model(name)
        torch.testing.assert_close(
            model.run(Batch.of_prompts(IDS), Recorder()), model.logits(Batch.of_prompts(IDS)), rtol=1e-5, atol=1e-5
        )
        assert torch.equal(model.logits(Batch.of_prompts(IDS)), model.logits(Batch.of_prompts(IDS)))


def test_every_read_and_write_is_reported_in_the_order_of_the_graph(small_model: LoadModel) -> None:
    class Diary(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.events: list[str] = []

        def write(self, kind: WriterKind, layer: int, value: Tensor) -> None:
            self.events.append(f"{kind} {layer} writes")
            super().write(kind, layer, value)

        def read(self, kind: str, layer: int, slot: str | None, value: Tensor) -> Tensor:  # type: ignore[override]
            self.events.append(f"{kind} {layer} reads {slot or ''}".strip())
            return value

    def layer(i: int) -> list[str]:
        return [f"head {i} reads {s}" for s in "qkv"] + [f"head {i} writes", f"mlp {i} reads", f"mlp {i} writes"]

    for model in (small_model("gpt2"), random_plain_model(0, n_heads=4)):
        diary = Diary()
        model.run(Batch.of_prompts(torch.tensor([[1, 2, 3]])), diary)
        assert sorted(diary.events) == sorted(["input -1 writes", *layer(0), *layer(1), "logits 2 reads"])
        order = {event: i for i, event in enumerate(diary.events)}
        assert order["input -1 writes"] == 0
        assert order["logits 2 reads"] == len(order) - 1
        assert order["head 0 writes"] < order["mlp 0 reads"] < order["mlp 0 writes"] < order["head 1 reads q"]


# ---- tokens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bos"), [("gpt2", (0,)), ("llama", (0,)), ("mistral", (0,)), ("qwen3", ()), ("neox", ())]
)
def test_prompt_and_answer_ids_are_concatenated_after_the_token_that_the_tokenizer_begins_a_text_with(
    small_model: LoadModel, name: str, bos: tuple[int, ...]
) -> None:
    tokens = small_model(name).tokens(word_fact("7 3 7", "12 59"))
    assert tokens.prompt == (*bos, 8, 4, 8)  # word i has id i + 1
    assert tokens.answer == (13, 60)
    assert tokens.forced == (*bos, 8, 4, 8, 13)


def test_a_token_is_shown_with_its_leading_space(small_model: LoadModel) -> None:
    model = small_model("gpt2")
    assert model.token_text(8) == " w7"
    assert model.vocabulary.decode([8, 4]) == " w7 w3"


def test_a_prompt_that_fills_the_context_fits_and_one_more_token_does_not(small_model: LoadModel) -> None:
    model = small_model("gpt2")
    words = " ".join(["1"] * (N_CTX - 1))  # and BOS
    fits, too_long = word_fact(words, "2"), word_fact(words, "2 3")  # the last answer token is never fed
    assert len(model.tokens(fits).forced) == N_CTX
    assert model.logits(Batch.of_prompts(torch.tensor([model.tokens(fits).forced]))).shape[1] == N_CTX
    with pytest.raises(ContextError, match=f"the prompt is {N_CTX + 1} tokens long .* reads at most {N_CTX}"):
        model.tokens(too_long)


def test_a_vocabulary_that_reads_nothing_in_a_text_is_refused(small_model: LoadModel) -> None:
    """Qwen2's own tokenizer class drops words that are not its own: without ids there is nothing to ask."""
    with pytest.raises(ValueError, match="no tokens"):
        small_model("qwen2").tokens(word_fact("1 2", "3"))


# ---- identity ----------------------------------------------------------------------------------------------------------


def test_the_weight_hash_is_of_the_weights_alone(small_model: LoadModel, model_folder: Folder, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = small_model("gpt2")
    assert model.weights == small_model("gpt2", "raw").weights
    copied = shutil.copytree(model_folder("gpt2"), tmp_path / "copy")
    assert Model.load(copied).weights == model.weights
    state = load_file(copied / "model.safetensors")
    state["transformer.h.0.mlp.c_fc.bias"][0] += 1e-6
    save_file(state, copied / "model.safetensors", {"format": "pt"})
    assert Model.load(copied).weights != model.weights


def test_a_model_says_what_it_is(small_model: LoadModel) -> None:
    model = small_model("gpt2")
    assert repr(model) == f"<Model {model.name}: 2 layers x 4 heads, {model.weights[:12]}>"
    assert model.processing == "compatibility"
    assert random_plain_model(0).processing == "raw"
    assert random_plain_model(0).weights == random_plain_model(0).weights != random_plain_model(1).weights


# ---- what is refused ---------------------------------------------------------------------------------------------------


def test_gemma2_is_refused_by_name_and_reason(model_folder: Folder) -> None:
    with pytest.raises(
        ModelError, match=r"gemma2 has no exact residual rewrite over heads: in layer 0, .*norm"
    ) as refused:
        Model.load(model_folder("gemma2"))
    assert "Gemma2ForCausalLM" in str(refused.value)


def test_a_missing_folder_a_file_and_a_folder_of_something_else_are_refused(
    model_folder: Folder, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no model")
    (tmp_path / "empty").mkdir()
    half = shutil.copytree(model_folder("gpt2"), tmp_path / "half")
    (half / "model.safetensors").unlink()
    for name, message in {
        "missing": "no model folder or GGUF file at .*missing; `--model factlm` is the embedded model",
        "file": "expected a model folder or a GGUF file, and .*file is neither",
        "empty": "empty is no HuggingFace model folder: it has no config.json",
        "half": "half is no whole model folder: .* no weights",
    }.items():
        with pytest.raises(ModelError, match=message):
            Model.load(tmp_path / name)


def test_a_model_file_that_lacks_weights_is_refused_and_not_filled_with_random_ones(
    model_folder: Folder, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    lacking = shutil.copytree(model_folder("gpt2"), tmp_path / "lacking")
    state = load_file(lacking / "model.safetensors")
    del state["transformer.h.1.mlp.c_fc.weight"]
    save_file(state, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"transformer\.h\.1\.mlp\.c_fc\.weight"):
        Model.load(lacking)


def test_damaged_weights_and_a_damaged_config_are_refused(model_folder: Folder, tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        damaged = shutil.copytree(model_folder("gpt2"), tmp_path / name)
        content = (damaged / name).read_bytes()
        (damaged / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ModelError, match="cannot load the model"):
            Model.load(damaged)


def test_a_hub_name_that_cannot_be_loaded_names_what_was_tried() -> None:
    with pytest.raises(ModelError, match=r"'nobody/nothing'.* a folder .*hub.*--model factlm"):
        Model.load("nobody/nothing")


def test_loading_leaves_logging_and_warnings_as_they_were(model_folder: Folder) -> None:
    import logging
    import warnings

    before, filters = logging.root.manager.disable, list(warnings.filters)
    Model.load(model_folder("gpt2"))
    assert logging.root.manager.disable == before
    assert list(warnings.filters) == filters


def test_a_fact_needs_only_its_words(small_model: LoadModel) -> None:
    fact = Fact("w1 w2", "w1", "w3", relation="anything")
    assert small_model("gpt2").tokens(fact) == small_model("gpt2").tokens(word_fact("1 2", "3"))

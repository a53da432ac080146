"""Weights as they are published: folders, hubs and GGUF files, read by transformers and never run as code."""

import copy
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from circuits.model.errors import ModelError
from circuits.model.gguf import read_header

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
"""Pickled weights (``pytorch_model.bin``) are never read: loading them may run code."""
QUANTISATION = "quantisation"
"""The key, in the metadata of a file of weights, for what they were dequantised from."""
HUB_TIMEOUT = 10.0
"""Seconds to wait for the hub's first answer."""


def dequantised_from(folder: Path) -> str | None:
    """What `dequantise` wrote into the file of weights."""
    file = folder / WEIGHT_FILES[0]
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as weights:
            return (weights.metadata() or {}).get(QUANTISATION)
    except SafetensorError:
        return None  # the loader says what is wrong with the file


def dequantise(file: Path, folder: Path) -> None:
    """Write what the GGUF file dequantises to as a model folder, which loads in a fraction of the time.

    The weights are float32, in which dequantised blocks are exact: the same numbers, so the same hash.

    Raises:
        ModelError: as `load_pretrained`.
    """
    header = read_header(file)
    with quiet():
        model, tokenizer = load_checkpoint(str(file), file.name, torch.float32, local=True)
        folder.mkdir(parents=True, exist_ok=True)
        model.config.architectures = [type(model).__name__]
        model.config.to_json_file(folder / "config.json")
        tokenizer.save_pretrained(folder)
    tied = model.config.tie_word_embeddings
    state = {
        key: value.contiguous() for key, value in model.state_dict().items() if not (tied and key == "lm_head.weight")
    }
    metadata = {"format": "pt", QUANTISATION: header.quantisation}
    try:
        save_file(state, folder / WEIGHT_FILES[0], metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"{folder / WEIGHT_FILES[0]} was not written: {error}") from error


def require_model_folder(folder: Path) -> None:
    """Raises:
    ModelError: the folder is none, or none that holds a model's weights.
    """
    if not folder.exists():
        raise ModelError(f"no model folder or GGUF file at {folder}; `--model factlm` is the embedded model")
    if folder.is_file():
        raise ModelError(f"expected a model folder or a GGUF file, and {folder} is neither")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no HuggingFace model folder: it has no config.json")
    if not any((folder / name).is_file() for name in WEIGHT_FILES):
        raise ModelError(
            f"{folder} is no whole model folder: it has a config.json and no weights in safetensors format "
            f"({WEIGHT_FILES[0]}); pickled weights are not read"
        )


def load_checkpoint(source: str, name: str, dtype: torch.dtype, *, local: bool) -> tuple[Any, Any]:
    """A model of transformers and its tokenizer, from a folder, a GGUF file or (not ``local``) the hub.

    Raises:
        ModelError: there is none, it is damaged, or some of its weights are missing.
    """
    import transformers

    # Out of reach, the hub is asked once and briefly, instead of with the loader's minute of retries.
    reachable = local or _hub_answers(source)
    local = local or not reachable
    file = Path(source) if local and Path(source).is_file() else None
    if file is None:
        options = {"local_files_only": local}
    else:
        source, options = str(file.parent), {"local_files_only": True, "gguf_file": file.name}
    try:
        # The reader of GGUF files draws a progress bar that no setting of the loader turns off.
        with redirect_stderr(io.StringIO()) if file else nullcontext():
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
            # Eager attention, because it is the one that TransformerLens' hooks can look into.
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                source,
                dtype=dtype,
                attn_implementation="eager",
                use_safetensors=None if file else True,
                output_loading_info=True,
                **options,
            )
        model, found = loaded
    except Exception as error:  # tokenizers' errors at a damaged file have no class of their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if not reachable:
            reason = "the hub is out of reach and the model is not in the local cache"
        if file is not None:
            raise ModelError(f"cannot load the GGUF file {file}: {reason}") from error
        tried = f"the folder {source}" if Path(source).is_dir() else f"a folder {source!r} (there is none) and the hub"
        raise ModelError(
            f"cannot load the model {name!r}: tried {tried}; {reason}. "
            "`--model factlm`, the embedded model, needs no hub"
        ) from error
    if missing := sorted(found["missing_keys"]):
        # The loader would fill them with random numbers, other ones at each load.
        raise ModelError(
            f"cannot load the model {name!r}: its files lack {len(missing)} weights, the first {missing[0]}"
        )
    if file is not None:
        # Its weights are plain numbers now, and nothing later shall take them for blocks.
        del model.config.quantization_config
    return model.eval().requires_grad_(False), tokenizer


def _hub_answers(name: str) -> bool:
    """Whether the model hub can be reached, whatever it then says of this model."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(name, "config.json"), timeout=HUB_TIMEOUT)
    except HfHubHTTPError:
        return True
    except Exception:
        # Its transport's errors share no public base; each means that no answer came.
        return False
    return True


def weight_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def ungrouped(source: Any, name: str) -> Any:
    """The same model with every key and value projection repeated per query head: the logits stay as they were."""
    import transformers

    config = source.config
    n_heads = getattr(config, "num_attention_heads", None)
    n_groups = getattr(config, "num_key_value_heads", None)
    if not n_heads or not n_groups or n_groups == n_heads:
        return source
    config = copy.deepcopy(config)
    config.num_key_value_heads = n_heads
    with torch.device("meta"):  # as a shape, without the time that random weights take
        ungrouped = transformers.AutoModelForCausalLM.from_config(
            config, dtype=source.dtype, attn_implementation="eager"
        )
    state = {
        key: value.unflatten(0, (n_groups, -1)).repeat_interleave(n_heads // n_groups, 0).flatten(0, 1)
        if key.split(".")[-2] in ("k_proj", "v_proj")
        else value
        for key, value in source.state_dict().items()
    }
    try:
        ungrouped.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ModelError(
            f"{name} shares keys and values between heads ({n_groups} for {n_heads} query heads) in a layout "
            f"that cannot be ungrouped: expected separate k_proj and v_proj weights ({type(source).__name__})"
        ) from error
    ungrouped.tie_weights()
    for key, buffer in source.named_buffers():  # tables of positions, which depend on no number of heads
        owner, _, attribute = key.rpartition(".")
        ungrouped.get_submodule(owner)._buffers[attribute] = buffer
    return ungrouped.eval().requires_grad_(False)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the loaders' progress bars, advice and notices; errors still show."""
    import transformers

    previous = logging.root.manager.disable
    bars = transformers.utils.logging.is_progress_bar_enabled()
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
        if bars:
            transformers.utils.logging.enable_progress_bar()

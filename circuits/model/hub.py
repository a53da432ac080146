"""Pretrained models from folders and hubs, through TransformerLens. The only importer of TransformerLens.

Weights are in TransformerLens' compatibility mode by default (LayerNorm folded, writing weights and unembedding
centred), because zero ablation depends on it; ``processing="raw"`` leaves them as trained.
"""

import copy
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from circuits.choices import Processing
from circuits.graph import Shape
from circuits.metrics import require_finite
from circuits.model.agreement import disagreement
from circuits.model.batch import Batch, Ids
from circuits.model.errors import ModelError
from circuits.model.gguf import is_gguf, read_header
from circuits.model.network import (
    ComponentNetwork,
    EditableNetwork,
    Network,
    is_value_matrix,
    layer_of,
    require_shape,
)
from circuits.model.profile import Profile
from circuits.model.rewrite import BlockTrace, require_residual_rewrite
from circuits.model.taps import Taps
from circuits.model.text import HubVocabulary
from circuits.model.transformer import Attention, Block, Components, Mlp, Norm, Rotary, UnsupportedArchitecture
from circuits.model.weights import named_weight

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
"""Pickled weights (``pytorch_model.bin``) are never read: loading them may run code."""
QUANTISATION = "quantisation"
"""The key, in the metadata of a file of weights, for what they were dequantised from."""
HUB_TIMEOUT = 10.0
"""Seconds to wait for the hub's first answer."""


@dataclass(frozen=True, slots=True)
class Loaded:
    network: Network
    vocabulary: HubVocabulary
    weights: str
    """Hash of the weights as loaded."""
    quantisation: str | None
    """What they were dequantised from (Q4_1); None where they were not."""


def load_pretrained(
    name: str, place: Path | None, profile: Profile, *, device: str, dtype: torch.dtype, processing: Processing
) -> Loaded:
    """The model in the folder or GGUF file ``place``, or (None) of that hub name.

    Grouped-query models are ungrouped: key and value projections are repeated per query head, an exact rewrite.

    Raises:
        ModelError: nothing to load there, an architecture that TransformerLens does not know, or a model without an exact
            residual rewrite over heads.
    """
    quantisation = None
    if place is not None and is_gguf(place):
        quantisation = read_header(place).quantisation
    elif place is not None:
        _require_model_folder(place)
        quantisation = _dequantised_from(place)
    with _quiet():
        source, tokenizer = _load_pretrained(str(place or name), name, dtype, local=place is not None)
        digest = weight_hash(source.state_dict())
        bridge = _boot(_ungrouped(source, name), tokenizer, name, device, dtype, processing)
        vocabulary = HubVocabulary.of(tokenizer, profile)
        network = _network(bridge, vocabulary, name)
    return Loaded(network, vocabulary, digest, quantisation)


def _dequantised_from(folder: Path) -> str | None:
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
    with _quiet():
        model, tokenizer = _load_pretrained(str(file), file.name, torch.float32, local=True)
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


def _require_model_folder(folder: Path) -> None:
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


def _load_pretrained(source: str, name: str, dtype: torch.dtype, *, local: bool) -> tuple[Any, Any]:
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
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _ungrouped(source: Any, name: str) -> Any:
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
def _quiet() -> Iterator[None]:
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


# ---- TransformerLens -------------------------------------------------------------------------------------------------


_REFUSALS = (NotImplementedError, RuntimeError, ValueError, KeyError, AttributeError, TypeError)
"""What TransformerLens raises at a model that it cannot take apart."""


def _boot(source: Any, tokenizer: Any, name: str, device: str, dtype: torch.dtype, processing: Processing) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    try:
        bridge = TransformerBridge.boot_transformers(
            source.config.name_or_path or name, hf_model=source, tokenizer=tokenizer, device=device, dtype=dtype
        )
        bridge.enable_compatibility_mode(disable_warnings=True, no_processing=processing == "raw")
    except _REFUSALS as error:
        raise ModelError(
            f"TransformerLens cannot load {name} ({type(source).__name__}): {_first_line(error)}"
        ) from error
    return bridge.eval()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


SENTENCE = "The official language of France is French, and Tokyo is the capital of Japan."


def _network(bridge: Any, vocabulary: HubVocabulary, name: str) -> Network:
    """The bridge with its hooks on heads; where it has none (GPT-J, GPT-Neo), the same model run from its weights.

    Raises:
        ModelError: neither shows the heads one by one.
    """
    ids = _text_ids(vocabulary, bridge.cfg.n_ctx, bridge.cfg.d_vocab).to(bridge.cfg.device)
    try:
        bridge.set_use_attn_result(True)
        bridge.set_use_split_qkv_input(True)
        bridge.set_use_hook_mlp_in(True)
    except _REFUSALS as error:
        architecture = bridge.cfg.architecture
        why = f"TransformerLens cannot show the heads of {name} ({architecture}) one by one: {_first_line(error)}"
        return _from_weights(bridge, ids, why)
    return _BridgeNetwork(bridge, ids, name)


def _text_ids(vocabulary: HubVocabulary, n_ctx: int, d_vocab: int) -> Ids:
    """A sentence as the model reads it; where its tokenizer knows too few of the words, tokens from all over it."""
    ids = vocabulary.encode(SENTENCE)
    if len(set(ids)) < 8:
        ids = torch.linspace(0, d_vocab - 1, 16).long().unique().tolist()
    start = [] if vocabulary.bos is None else [vocabulary.bos]
    return torch.tensor([(start + ids)[:n_ctx]])


def _from_weights(bridge: Any, ids: Ids, why: str) -> ComponentNetwork:
    config = bridge.cfg
    shape = Shape(config.n_layers, config.n_heads, bool(getattr(config, "parallel_attn_mlp", False)))
    try:
        biases = _output_biases(bridge, shape.n_layers)
        network = ComponentNetwork(_bridge_components(bridge, shape, biases, config.n_ctx), config.n_ctx)
        with torch.no_grad():
            own, expected = network.run(Batch.of_prompts(ids)), bridge(ids)
    except _REFUSALS as error:
        raise ModelError(why) from error
    if off := disagreement(own, expected):
        raise ModelError(f"{why}; and its weights, read as {shape}, give other logits than the model: {off}")
    return network


class _BridgeNetwork:
    """A TransformerBridge as a `Network`: the residual stream is read and written at its hooks."""

    def __init__(self, bridge: Any, ids: Ids, name: str) -> None:
        """``ids``: a text to check the model on."""
        self._bridge = bridge
        config = bridge.cfg
        self.d_model, self.d_vocab, self.n_ctx = config.d_model, config.d_vocab, config.n_ctx
        parallel = _require_residual_rewrite(bridge, ids, name)
        self.shape = Shape(config.n_layers, config.n_heads, parallel)
        self._replaced: Mapping[str, Tensor] = {}
        """Value matrices that take the place of the bridge's own, each while this network runs and no longer."""

    @property
    def biases(self) -> Float[Tensor, "layer d_model"]:
        return _output_biases(self._bridge, self.shape.n_layers)

    def run(self, batch: Batch, taps: Taps | None = None) -> Float[Tensor, "batch pos d_vocab"]:
        ids = batch.ids.to(self._bridge.cfg.device)
        with self._in_place():
            if taps is None:
                return self._bridge(ids)
            return self._bridge.run_with_hooks(ids, fwd_hooks=self._hooks(taps))

    def _hooks(self, taps: Taps) -> list[tuple[str, Any]]:
        # Lambdas, because shape checks in tests would compile functions with annotations anew at every run.
        def write(kind, layer):
            return lambda value, hook: taps.write(kind, layer, value)

        def read(kind, layer, slot):
            return lambda value, hook: taps.read(kind, layer, slot, value)

        last = self.shape.n_layers - 1
        hooks: list[tuple[str, Any]] = [("blocks.0.hook_resid_pre", write("input", -1))]
        for layer in range(self.shape.n_layers):
            block = f"blocks.{layer}."
            hooks += [(f"{block}hook_{slot}_input", read("head", layer, slot)) for slot in ("q", "k", "v")]
            hooks.append((f"{block}attn.hook_result", write("head", layer)))
            hooks.append((f"{block}hook_mlp_in", read("mlp", layer, None)))
            hooks.append((f"{block}hook_mlp_out", write("mlp", layer)))
        return [*hooks, (f"blocks.{last}.hook_resid_post", read("logits", last + 1, None))]

    def readout(self, vectors: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest d_vocab"]:
        from transformer_lens.tools.analysis import logit_readout

        return logit_readout(self._bridge, vectors).values

    def components(self, n_pos: int) -> Components:
        with self._in_place():
            return _bridge_components(self._bridge, self.shape, self.biases, n_pos)

    def weight(self, name: str) -> Float[Tensor, "..."]:
        if not is_value_matrix(name, self.shape.n_layers):
            return named_weight(self.components(self.n_ctx), name)
        parameter, transposed = self._value_matrix(name)
        stored = self._replaced.get(name, parameter.detach())
        return stored.T if transposed else stored

    def with_weights(self, weights: Mapping[str, Float[Tensor, "..."]]) -> "EditableNetwork":
        """Value matrices are exchanged in the bridge; with any other weight among them, the network is run from its weights
        as they are read here, which give the same logits (they were compared on loading)."""
        if not all(is_value_matrix(name, self.shape.n_layers) for name in weights):
            return ComponentNetwork(self.components(self.n_ctx), self.n_ctx).with_weights(weights)
        replaced = dict(self._replaced)
        for name, tensor in weights.items():
            parameter, transposed = self._value_matrix(name)
            require_shape(name, tensor, self.weight(name))
            stored = tensor.detach().to(parameter)
            replaced[name] = stored.T.contiguous() if transposed else stored
        network = copy.copy(self)
        network._replaced = replaced
        return network

    def _value_matrix(self, name: str) -> tuple[Tensor, bool]:
        """The bridge's own parameter, and whether it has a column for each hidden unit instead of a row.

        Read off the module's class, never off the shape: a square matrix would fit either way.
        """
        from transformers.pytorch_utils import Conv1D

        layer = layer_of(name, self.shape.n_layers)
        module = self._bridge.blocks[layer].mlp.out.original_component
        if not isinstance(module, Conv1D | torch.nn.Linear):
            raise UnsupportedArchitecture(
                f"{name} is kept by a {type(module).__name__}; expected a Conv1D or a Linear, whose orientation is known"
            )
        return module.weight, isinstance(module, torch.nn.Linear)

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Let the bridge's parameters be the replaced ones. The tensors are exchanged, not overwritten, so that what was
        there before comes back bit for bit."""
        own: list[tuple[Tensor, Tensor]] = []
        try:
            for name, tensor in self._replaced.items():
                parameter, _ = self._value_matrix(name)
                own.append((parameter, parameter.data))
                parameter.data = tensor
            yield
        finally:
            for parameter, data in own:
                parameter.data = data


# ---- weights as data: `circuits.model.transformer` --------------------------------------------------------------------------


def _bridge_components(bridge: Any, shape: Shape, biases: Tensor, n_pos: int) -> Components:
    """The bridge's processed weights. What is read off wrongly here shows in the engine's comparison of logits."""
    rotary = _rotary(bridge, n_pos)
    return Components(
        shape=shape,
        W_E=bridge.W_E.detach(),
        W_pos=None if rotary else _position_table(bridge),
        blocks=tuple(_block(bridge, layer, rotary) for layer in range(shape.n_layers)),
        b_O=biases,
        final=_norm(bridge.ln_final, bridge.cfg),
        W_U=bridge.W_U.detach(),
        b_U=_or_zero(getattr(bridge, "b_U", None), bridge.W_U, bridge.cfg.d_vocab),
    )


def _or_zero(tensor: Tensor | None, like: Tensor, *shape: int) -> Tensor:
    return like.new_zeros(shape) if tensor is None else tensor.detach()


def _position_table(bridge: Any) -> Tensor | None:
    kind = getattr(bridge.cfg, "positional_embedding_type", "standard")
    if kind != "standard":
        raise UnsupportedArchitecture(f"positions of kind {kind!r} are neither embedded nor rotated")
    return bridge.W_pos.detach()


def _norm(component: Any, config: Any) -> Norm:
    if component is None:
        return Norm()
    inner = component.original_component
    weight = component.weight.detach()
    eps = next((value for value in (getattr(inner, n, None) for n in ("eps", "variance_epsilon")) if value), config.eps)
    bias = None if component.uses_rms_norm else getattr(inner, "bias", None)
    return Norm(
        kind="rms" if component.uses_rms_norm else "layer",
        weight=1 + weight if component.uses_weight_offset else weight,
        bias=None if bias is None else bias.detach(),
        eps=float(eps),
    )


def _rotary(bridge: Any, n_pos: int) -> Rotary | None:
    if getattr(bridge.cfg, "positional_embedding_type", None) != "rotary":
        return None
    model = bridge.original_model
    table = getattr(model.get_submodule("transformer.h.0.attn"), "embed_positions", None) if _is_gptj(bridge) else None
    if table is not None:
        sin, cos = (half.repeat_interleave(2, -1) for half in table[:n_pos].to(bridge.W_U).chunk(2, -1))
        return Rotary(cos, sin, "pairs")
    for name, module in model.named_modules():
        if type(module).__name__.endswith("RotaryEmbedding") and ".layers." not in name:
            positions = torch.arange(n_pos, device=bridge.W_U.device)[None]
            cos, sin = module(bridge.W_U.new_zeros(1, n_pos, 1), positions)
            return Rotary(cos[0].detach(), sin[0].detach())
    raise UnsupportedArchitecture("the model rotates positions by a table that was not found")


def _is_gptj(bridge: Any) -> bool:
    return bridge.cfg.architecture == "GPTJForCausalLM"


def _block(bridge: Any, layer: int, rotary: Rotary | None) -> Block:
    block, config = bridge.blocks[layer], bridge.cfg
    heads, mlp = block.attn, block.mlp
    first = _norm(block.ln1, config)
    n_heads, _, d_head = heads.W_Q.shape
    attention = Attention(
        norm=first,
        W_Q=heads.W_Q.detach(),
        W_K=heads.W_K.detach(),
        W_V=heads.W_V.detach(),
        W_O=heads.W_O.detach(),
        b_Q=_or_zero(heads.b_Q, heads.W_Q, n_heads, d_head),
        b_K=_or_zero(heads.b_K, heads.W_Q, n_heads, d_head),
        b_V=_or_zero(heads.b_V, heads.W_Q, n_heads, d_head),
        scale=_score_scale(bridge, layer, d_head),
        rotary=rotary,
        q_norm=_norm(getattr(heads, "q_norm", None), config),
        k_norm=_norm(getattr(heads, "k_norm", None), config),
        window=_window(bridge, layer),
    )
    gate = getattr(mlp, "W_gate", None)
    return Block(
        attention,
        Mlp(
            norm=_norm(block.ln2, config) if getattr(block, "ln2", None) is not None else first,
            W_in=mlp.W_in.detach(),
            b_in=_or_zero(mlp.b_in, mlp.W_in, mlp.W_in.shape[1]),
            W_out=mlp.W_out.detach(),
            b_out=_or_zero(mlp.b_out, mlp.W_out, mlp.W_out.shape[1]),
            activation=str(config.act_fn),
            W_gate=None if gate is None else gate.detach(),
            b_gate=None if getattr(mlp, "b_gate", None) is None else mlp.b_gate.detach(),
        ),
    )


def _score_scale(bridge: Any, layer: int, d_head: int) -> float:
    if bridge.cfg.architecture == "GPTNeoForCausalLM":
        return 1.0
    inner = bridge.blocks[layer].attn.original_component
    scale = float(getattr(inner, "scaling", None) or d_head**-0.5)
    return scale / (layer + 1) if getattr(bridge.cfg, "scale_attn_by_inverse_layer_idx", False) else scale


def _window(bridge: Any, layer: int) -> int | None:
    config = bridge.original_model.config
    if bridge.cfg.architecture == "GPTNeoForCausalLM":
        return config.window_size if config.attention_layers[layer] == "local" else None
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[layer] != "sliding_attention":
        return None
    return getattr(config, "sliding_window", None)


def _output_biases(bridge: Any, n_layers: int) -> Float[Tensor, "layer d_model"]:
    zero = torch.zeros(bridge.cfg.d_model, device=bridge.cfg.device, dtype=bridge.cfg.dtype)
    rows = [_output_bias(bridge, layer) for layer in range(n_layers)]
    return torch.stack([zero if row is None else row.detach() for row in rows])


def _output_bias(bridge: Any, layer: int) -> Tensor | None:
    return getattr(bridge.blocks[layer].attn, "b_O", None)


def _require_residual_rewrite(bridge: Any, ids: Ids, name: str) -> bool:
    """Check on these ids that heads, MLPs and biases add up to the residual stream; True if blocks are parallel.

    Raises:
        ModelError: in some layer they do not.
        FloatingPointError: the model's logits are not finite.
    """
    config = bridge.cfg
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(ids, names_filter=lambda hook: hook.split(".", 2)[-1] in _TRACED)
    require_finite(logits, name)
    parallel = bool(getattr(config, "parallel_attn_mlp", False))
    biases = _output_biases(bridge, config.n_layers).double().cpu()

    def trace(layer: int) -> BlockTrace:
        before, heads, attention, mlp_in, mlp, after = (
            cache[f"blocks.{layer}.{site}"][0].double().cpu() for site in _TRACED
        )
        return BlockTrace(before, heads, biases[layer], attention, mlp_in, mlp, after, torch.finfo(config.dtype).eps)

    blocks = [trace(layer) for layer in range(config.n_layers)]
    require_residual_rewrite(blocks, parallel, name, config.architecture)
    return parallel


_TRACED = (
    "hook_resid_pre",
    "attn.hook_result",
    "hook_attn_out",
    "hook_mlp_in",
    "hook_mlp_out",
    "hook_resid_post",
)

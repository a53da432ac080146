"""Pretrained models from folders and hubs, through TransformerLens. The only importer of TransformerLens.

Weights are in TransformerLens' compatibility mode by default (LayerNorm folded, writing weights and unembedding
centred), because zero ablation depends on it; ``processing="raw"`` leaves them as trained.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.choices import Processing
from circuits.graph import Shape
from circuits.metrics import require_finite
from circuits.model.agreement import disagreement
from circuits.model.batch import Batch, Ids
from circuits.model.bridge import bridge_components, output_biases
from circuits.model.checkpoint import (
    dequantised_from,
    load_checkpoint,
    quiet,
    require_model_folder,
    ungrouped,
    weight_hash,
)
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
from circuits.model.transformer import Components, UnsupportedArchitecture
from circuits.model.weights import named_weight


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
        require_model_folder(place)
        quantisation = dequantised_from(place)
    with quiet():
        source, tokenizer = load_checkpoint(str(place or name), name, dtype, local=place is not None)
        digest = weight_hash(source.state_dict())
        bridge = _boot(ungrouped(source, name), tokenizer, name, device, dtype, processing)
        vocabulary = HubVocabulary.of(tokenizer, profile)
        network = _network(bridge, vocabulary, name)
    return Loaded(network, vocabulary, digest, quantisation)


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
        biases = output_biases(bridge, shape.n_layers)
        network = ComponentNetwork(bridge_components(bridge, shape, biases, config.n_ctx), config.n_ctx)
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
        return output_biases(self._bridge, self.shape.n_layers)

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
            return bridge_components(self._bridge, self.shape, self.biases, n_pos)

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
    biases = output_biases(bridge, config.n_layers).double().cpu()

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

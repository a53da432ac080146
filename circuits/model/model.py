"""Model: a pretrained transformer that circuits can be found in. The only importer of TransformerLens.

Weights are in TransformerLens' compatibility mode by default (LayerNorm folded, writing weights and unembedding
centred), because zero ablation depends on it; ``processing="raw"`` leaves them as trained.
"""

import copy
import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from circuits.facts import Fact
from circuits.graph import Granularity, Graph, Shape
from circuits.metrics import NLL, SQUARED_ERROR, Metric, require_finite
from circuits.model.components import Attention, Block, Components, Mlp, Norm, Rotary, UnsupportedArchitecture
from circuits.model.network import (
    BypassedNetwork,
    ComponentNetwork,
    EditableNetwork,
    Ids,
    Intervention,
    Network,
    Record,
    layer_of,
    require_shape,
)
from circuits.model.plain import PlainWeights, is_plain, read_plain
from circuits.paths import FACTLM, factlm_dir

Processing = Literal["compatibility", "raw"]
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
"""Pickled weights (``pytorch_model.bin``) are never read: loading them may run code."""
HUB_TIMEOUT = 10.0
"""Seconds to wait for the hub's first answer."""


class ModelError(ValueError):
    """A model that cannot be loaded, or that has no exact residual rewrite over heads; the message says which."""


class ContextError(ValueError):
    """A prompt that does not fit the model's context."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One fact as a model reads it: ids of the prompt (with BOS where the model expects it) and of the answer."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    """Columns of the model's output."""
    aligned: bool = False
    """The answer is what the model says at the prompt's own last positions, not what comes after the prompt."""
    numbers: tuple[float, ...] = ()
    """The answer where the output is a number; ``answer`` is then its only column, 0, each time."""

    @property
    def forced(self) -> tuple[int, ...]:
        """What is fed: when the answer is teacher-forced, the prompt and all but the answer's last token."""
        return self.prompt if self.aligned else self.prompt + self.answer[:-1]

    @property
    def at_end(self) -> int:
        """The part of the answer that the model gives at the prompt's last position."""
        return self.answer[-1] if self.aligned else self.answer[0]


@runtime_checkable
class Vocabulary(Protocol):
    """Text to token ids and back."""

    @property
    def bos(self) -> int | None:
        """The id to put before every prompt, or None."""
        ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True, slots=True)
class WordVocabulary:
    """One token a word, separated by spaces; for transformers made by hand."""

    words: tuple[str, ...]
    bos: int | None = None

    def encode(self, text: str) -> list[int]:
        return [_column(word, self.words) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.words[i] for i in ids)


@dataclass(frozen=True, slots=True)
class OutputVocabulary(WordVocabulary):
    """For a transformer that says something of every word that it reads, instead of the next word.

    What it says is one of ``labels``, or (None) a number. The answer to "a b c" is three of them, read at the positions of
    a, b and c, or fewer, read at the last ones. Nothing is teacher-forced.
    """

    labels: tuple[str, ...] | None = None

    def answer(self, prompt: tuple[int, ...], text: str) -> Tokens:
        words = text.split()
        if len(words) > len(prompt):
            raise ModelError(f"expected an answer of at most {len(prompt)} words, one a position, got {text!r}")
        if self.labels is not None:
            return Tokens(prompt, tuple(_column(word, self.labels) for word in words), aligned=True)
        try:
            numbers = tuple(float(word) for word in words)
        except ValueError:
            raise ModelError(f"this model's output is a number, and the answer {text!r} is none") from None
        return Tokens(prompt, (0,) * len(words), aligned=True, numbers=numbers)


def _column(word: str, words: tuple[str, ...]) -> int:
    if word not in words:
        raise ModelError(f"this model does not know the word {word!r}, only: {' '.join(words)}")
    return words.index(word)


class _HubVocabulary:
    """A HuggingFace tokenizer. Special tokens are never added by it, only by `Model`."""

    def __init__(self, tokenizer: Any, *, prepend_bos: bool) -> None:
        self._tokenizer = tokenizer
        self.bos: int | None = tokenizer.bos_token_id if prepend_bos else None

    def encode(self, text: str) -> list[int]:
        encode = partial(self._tokenizer.encode, add_special_tokens=False)
        ids = encode(text)
        # SentencePiece puts a space of its own before a text, so " Paris" would get two: the bare word means the same.
        if text.startswith(" ") and len(ids) > 1 and not self.decode(ids[:1]).strip():
            bare = encode(text[1:])
            if bare == ids[1:]:
                return bare
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


class Model:
    """A transformer with its vocabulary: token ids in, logits and node outputs out.

    Made by `load` or `default`; by hand from a `Network` and a `Vocabulary`.
    """

    def __init__(
        self,
        network: Network,
        vocabulary: Vocabulary,
        *,
        name: str,
        weights: str,
        processing: Processing,
        parent: "Model | None" = None,
    ) -> None:
        self.network = network
        self.vocabulary = vocabulary
        self.name = name
        self.weights = weights
        """SHA-256 over the names, shapes and bytes of the weights as loaded; of an edited model, over its parent's and
        the edit's."""
        self.processing: Processing = processing
        self.parent = parent
        """The model that this one is an edit of; None for a model as loaded."""

    # ---- loading ---------------------------------------------------------------------------------------------------

    @classmethod
    def default(cls) -> "Model":
        """factlm, the embedded model."""
        return cls.load(FACTLM)

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        processing: Processing = "compatibility",
    ) -> "Model":
        """``factlm``, any local HuggingFace folder, or any hub name that TransformerLens loads.

        Grouped-query models are ungrouped: key and value projections are repeated per query head, an exact rewrite.
        A folder of plain weights (`circuits.model.plain`) is loaded as it is, whatever ``processing`` says: it has no norm to fold.

        Raises:
            ModelError: nothing to load there, an architecture that TransformerLens does not know, or a model without
                an exact residual rewrite over heads.
        """
        name = str(name_or_path)
        folder = factlm_dir() if name == FACTLM else Path(name)
        is_folder = folder.is_dir()
        if is_plain(folder):
            return cls._plain(name, read_plain(folder, device=device, dtype=dtype))
        if name == FACTLM or is_folder or folder.is_absolute() or name.startswith("."):
            _require_model_folder(folder)
            is_folder = True
        with _quiet():
            source, tokenizer = _load_pretrained(str(folder) if is_folder else name, name, dtype, local=is_folder)
            digest = _weight_hash(source.state_dict())
            bridge = _boot(_ungrouped(source, name), tokenizer, name, device, dtype, processing)
            network = _network(bridge, name)
        vocabulary = _HubVocabulary(tokenizer, prepend_bos=bool(bridge.cfg.default_prepend_bos))
        return cls(network, vocabulary, name=name, weights=digest, processing=processing)

    @classmethod
    def _plain(cls, name: str, plain: PlainWeights) -> "Model":
        return cls(
            ComponentNetwork(plain.parts, plain.n_ctx),
            OutputVocabulary(plain.words, plain.bos, plain.labels),
            name=name,
            weights=_weight_hash(plain.weights),
            processing="raw",
        )

    @classmethod
    def by_hand(cls, network: Network, vocabulary: Vocabulary, *, name: str = "by hand") -> "Model":
        """A model of one's own making, such as a `PlainNetwork` with known weights."""
        weights: Mapping[str, Tensor] = getattr(network, "weights", {})
        return cls(network, vocabulary, name=name, weights=_weight_hash(weights), processing="raw")

    # ---- what it is --------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        return self.network.shape

    @property
    def n_ctx(self) -> int:
        return self.network.n_ctx

    def graph(self, granularity: Granularity = "qkv") -> Graph:
        return Graph(self.shape, granularity)

    @property
    def gives_numbers(self) -> bool:
        """Whether the output is a number instead of a word: it has no probability and no rank."""
        return isinstance(self.vocabulary, OutputVocabulary) and self.vocabulary.labels is None

    @property
    def metric(self) -> Metric:
        """What engines measure by default: MatchNLL, or where the output is a number, squared error."""
        return SQUARED_ERROR if self.gives_numbers else NLL

    @property
    def unedited(self) -> "Model":
        """The model before every edit."""
        return self if self.parent is None else self.parent.unedited

    def weight(self, name: str) -> Float[Tensor, "d_mlp d_model"]:
        """A value matrix (`circuits.model.network.value_matrix`), one row a hidden unit, whatever way round it is stored.

        It is the one that the model runs with, so in compatibility mode its rows are centred.

        Raises:
            UnknownWeight: no such weight, or one that cannot be edited.
        """
        return self._editable.weight(name)

    def with_weights(self, weights: Mapping[str, Float[Tensor, "d_mlp d_model"]], digest: str) -> "Model":
        """A model with these value matrices, which calls its weights ``digest``. This one stays as it is."""
        return self.with_network(self._editable.with_weights(weights), digest)

    def with_network(self, network: Network, digest: str) -> "Model":
        """A model that runs an edit of this one's network, and calls its weights ``digest``."""
        return Model(network, self.vocabulary, name=self.name, weights=digest, processing=self.processing, parent=self)

    @property
    def _editable(self) -> EditableNetwork:
        if not isinstance(self.network, EditableNetwork):
            raise UnsupportedArchitecture(f"{type(self.network).__name__} does not let its weights be edited")
        return self.network

    def __repr__(self) -> str:
        shape = self.shape
        return f"<Model {self.name}: {shape.n_layers} layers x {shape.n_heads} heads, {self.weights[:12]}>"

    # ---- tokens ------------------------------------------------------------------------------------------------------

    def tokens(self, fact: Fact) -> Tokens:
        """Prompt and answer are encoded apart and their ids concatenated, never decoded and encoded again.

        Raises:
            ContextError: prompt and answer do not fit the context.
        """
        bos = () if self.vocabulary.bos is None else (self.vocabulary.bos,)
        prompt = (*bos, *self.vocabulary.encode(fact.prompt))
        if isinstance(self.vocabulary, OutputVocabulary):
            tokens = self.vocabulary.answer(prompt, fact.answer)
        else:
            tokens = Tokens(prompt, tuple(self.vocabulary.encode(fact.answer)))
        if not tokens.prompt or not tokens.answer:
            empty = "answer" if tokens.prompt else "prompt"
            raise ModelError(f"the tokenizer of {self.name} gives no tokens for the {empty} of {str(fact)!r}")
        if len(tokens.forced) > self.n_ctx:
            raise ContextError(
                f"the prompt is {len(tokens.forced)} tokens long with its answer, and {self.name} reads at most {self.n_ctx}: "
                f"{fact.prompt[:60]!r}..."
            )
        return tokens

    def token_text(self, token: int) -> str:
        """One token as text, its leading space kept."""
        return self.vocabulary.decode([token])

    def output_text(self, column: int) -> str:
        """What one column of the output stands for, as text: a token, for a language model."""
        if isinstance(self.vocabulary, OutputVocabulary):
            return self.vocabulary.labels[column] if self.vocabulary.labels is not None else "the number"
        return self.token_text(column)

    # ---- running -----------------------------------------------------------------------------------------------------

    # ``n_prompt`` says how many of the ids are the prompt, the rest being its answer. Only a bypass asks: its anchors are
    # the entities of the prompt.

    @torch.no_grad()
    def logits(self, ids: Ids, *, n_prompt: int | None = None) -> Float[Tensor, "batch pos d_vocab"]:
        return self._run(ids, None, n_prompt)

    @torch.no_grad()
    def run(
        self, ids: Ids, intervention: Intervention, *, n_prompt: int | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """The logits while every read from the residual stream goes through ``intervention``."""
        return self._run(ids, intervention, n_prompt)

    @torch.enable_grad()
    def run_differentiably(
        self, ids: Ids, intervention: Intervention, *, n_prompt: int | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """`run`, so that the logits have gradients by what the intervention lets be read. The weights have none."""
        return self._run(ids, intervention, n_prompt)

    @torch.no_grad()
    def node_outputs(self, ids: Ids, *, n_prompt: int | None = None) -> Float[Tensor, "writer batch pos d_model"]:
        """What every writer of the graph adds to the residual stream, in the graph's order.

        Their sum plus the sum of `biases` is the residual stream before the final norm.
        """
        record = Record()
        self._run(ids, record, n_prompt)
        return record.outputs

    def _run(self, ids: Ids, intervention: Intervention | None, n_prompt: int | None) -> Tensor:
        if isinstance(self.network, BypassedNetwork):
            return self.network.run(ids, intervention, n_prompt)
        return self.network.run(ids, intervention)

    @property
    def biases(self) -> Float[Tensor, "layer d_model"]:
        """Attention output biases: they belong to no head."""
        return self.network.biases

    @torch.no_grad()
    def readout(self, vectors: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest d_vocab"]:
        """Logit lens of residual-stream vectors: W_U LN(v) + b_U with the model's own final norm."""
        return self.network.readout(vectors)


# ---- loading, step by step -------------------------------------------------------------------------------------------


def _require_model_folder(folder: Path) -> None:
    if not folder.exists():
        raise ModelError(f"no model folder at {folder}; `--model factlm` is the embedded model")
    if folder.is_file():
        raise ModelError(f"expected a model folder, and {folder} is a file")
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
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=local)
        # Eager attention, because it is the one that TransformerLens' hooks can look into.
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            attn_implementation="eager",
            local_files_only=local,
            use_safetensors=True,
            output_loading_info=True,
        )
        model, found = loaded
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if not reachable:
            reason = "the hub is out of reach and the model is not in the local cache"
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


def _weight_hash(state: Mapping[str, Tensor]) -> str:
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
    ungrouped = transformers.AutoModelForCausalLM.from_config(config, dtype=source.dtype, attn_implementation="eager")
    state = {
        key: value.unflatten(0, (n_groups, -1)).repeat_interleave(n_heads // n_groups, 0).flatten(0, 1)
        if key.split(".")[-2] in ("k_proj", "v_proj")
        else value
        for key, value in source.state_dict().items()
    }
    try:
        ungrouped.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"{name} shares keys and values between heads ({n_groups} for {n_heads} query heads) in a layout "
            f"that cannot be ungrouped: expected separate k_proj and v_proj weights ({type(source).__name__})"
        ) from error
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


def _network(bridge: Any, name: str) -> Network:
    """The bridge with its hooks on heads; where it has none (GPT-J, GPT-Neo), the same model run from its weights.

    Raises:
        ModelError: neither shows the heads one by one.
    """
    try:
        bridge.set_use_attn_result(True)
        bridge.set_use_split_qkv_input(True)
        bridge.set_use_hook_mlp_in(True)
    except _REFUSALS as error:
        architecture = bridge.cfg.architecture
        why = f"TransformerLens cannot show the heads of {name} ({architecture}) one by one: {_first_line(error)}"
        return _from_weights(bridge, why)
    return _BridgeNetwork(bridge, name)


def _from_weights(bridge: Any, why: str) -> ComponentNetwork:
    config = bridge.cfg
    shape = Shape(config.n_layers, config.n_heads, bool(getattr(config, "parallel_attn_mlp", False)))
    ids = torch.arange(1, min(config.n_ctx, 16) + 1).remainder(config.d_vocab).unsqueeze(0).to(config.device)
    try:
        biases = _output_biases(bridge, shape.n_layers)
        network = ComponentNetwork(_bridge_components(bridge, shape, biases, config.n_ctx), config.n_ctx)
        with torch.no_grad():
            own, expected = network.run(ids), bridge(ids)
    except _REFUSALS as error:
        raise ModelError(why) from error
    tolerance = 1e-4 if config.dtype == torch.float32 else 0.1
    if not (own - expected).norm() <= tolerance * expected.norm():
        raise ModelError(f"{why}; and its weights, read as {shape}, give other logits than the model")
    return network


class _BridgeNetwork:
    """A TransformerBridge as a `Network`: the residual stream is read and written at its hooks."""

    def __init__(self, bridge: Any, name: str) -> None:
        self._bridge = bridge
        config = bridge.cfg
        self.d_model, self.d_vocab, self.n_ctx = config.d_model, config.d_vocab, config.n_ctx
        parallel = _require_residual_rewrite(bridge, name)
        self.shape = Shape(config.n_layers, config.n_heads, parallel)
        self._replaced: Mapping[str, Tensor] = {}
        """Value matrices that take the place of the bridge's own, each while this network runs and no longer."""

    @property
    def biases(self) -> Float[Tensor, "layer d_model"]:
        return _output_biases(self._bridge, self.shape.n_layers)

    def run(self, ids: Ids, intervention: Intervention | None = None) -> Float[Tensor, "batch pos d_vocab"]:
        ids = ids.to(self._bridge.cfg.device)
        with self._in_place():
            if intervention is None:
                return self._bridge(ids)
            return self._bridge.run_with_hooks(ids, fwd_hooks=self._hooks(intervention))

    def _hooks(self, intervention: Intervention) -> list[tuple[str, Any]]:
        # Lambdas, because shape checks in tests would compile functions with annotations anew at every run.
        def write(kind, layer):
            return lambda value, hook: intervention.write(kind, layer, value)

        def read(kind, layer, slot):
            return lambda value, hook: intervention.read(kind, layer, slot, value)

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

    def weight(self, name: str) -> Float[Tensor, "d_mlp d_model"]:
        parameter, transposed = self._value_matrix(name)
        stored = self._replaced.get(name, parameter.detach())
        return stored.T if transposed else stored

    def with_weights(self, weights: Mapping[str, Float[Tensor, "d_mlp d_model"]]) -> "_BridgeNetwork":
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


# ---- weights as data: `circuits.model.components` --------------------------------------------------------------------------


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


def _require_residual_rewrite(bridge: Any, name: str) -> bool:
    """Check on a short prompt that heads, MLPs and biases add up to the residual stream; True if blocks are parallel.

    Raises:
        ModelError: in some layer they do not.
        FloatingPointError: the model's logits are not finite.
    """
    config = bridge.cfg
    ids = torch.arange(1, 6).remainder(config.d_vocab).unsqueeze(0).to(config.device)
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(ids)
    require_finite(logits, name)
    tolerance = 1e-3 if config.dtype == torch.float32 else 0.1

    def same(left: Tensor, right: Tensor) -> bool:
        return bool((left - right).norm() <= tolerance * right.norm().clamp_min(1e-6))

    parallel = set()
    for layer in range(config.n_layers):
        block = f"blocks.{layer}."
        bias = _output_bias(bridge, layer)
        heads = cache[f"{block}attn.hook_result"].sum(2) + (0 if bias is None else bias)
        before, attention, mlp, after = (
            cache[f"{block}{site}"] for site in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
        )
        if not same(heads, attention):
            raise ModelError(
                f"{name} has no exact residual rewrite over heads: in layer {layer} what attention adds to the residual stream "
                f"is not the sum of its heads' results ({config.architecture} puts an operation, such as a norm, after them)"
            )
        if not same(before + attention + mlp, after):
            raise ModelError(
                f"{name} has no exact residual rewrite: in layer {layer} the residual stream is not the sum of what attention "
                f"and MLP add to it ({config.architecture})"
            )
        parallel.add(same(cache[f"{block}hook_mlp_in"], before))
    if len(parallel) > 1:
        raise ModelError(
            f"{name} mixes parallel and sequential blocks ({config.architecture}), which no graph here describes"
        )
    return parallel.pop()

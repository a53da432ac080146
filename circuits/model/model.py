"""Model: a pretrained transformer that circuits can be found in."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.facts import Fact
from circuits.graph import Granularity, Graph, Shape
from circuits.metrics import NLL, SQUARED_ERROR, Metric
from circuits.model import library
from circuits.model.batch import Batch, Group, grouped
from circuits.model.checkpoint import weight_hash
from circuits.model.device import require_device
from circuits.model.errors import ModelError
from circuits.model.hub import Processing, load_pretrained
from circuits.model.network import (
    ComponentNetwork,
    EditableNetwork,
    Network,
)
from circuits.model.plain import PlainWeights, is_plain, read_plain
from circuits.model.profile import Profile
from circuits.model.taps import Recorder, Taps
from circuits.model.text import ContextError, HubVocabulary, OutputVocabulary, Tokens, Vocabulary
from circuits.model.transformer import UnsupportedArchitecture
from circuits.paths import FACTLM


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
        profile: Profile | None = None,
        quantisation: str | None = None,
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
        self.profile = Profile() if profile is None else profile
        """What was said beside the weights: the first token, wordings, training text, tuned options."""
        self.quantisation = quantisation
        """What the weights were dequantised from, such as Q4_1; None where they were not."""
        self.shown: tuple[int, ...] = ()
        """Ids of the text that an edit puts before every prompt."""

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
        """A name of the library (``factlm``, ``smollm2``), any local HuggingFace folder or GGUF file, or any hub name that
        TransformerLens loads.

        Grouped-query models are ungrouped: key and value projections are repeated per query head, an exact rewrite.
        A folder of plain weights (`circuits.model.plain`) is loaded as it is, whatever ``processing`` says: it has no norm to fold.

        Raises:
            DeviceError: no such device on this machine.
            ModelError: nothing to load there, a name whose weights were not got yet, a damaged profile, an architecture that
                TransformerLens does not know, or a model without an exact residual rewrite over heads.
        """
        require_device(device)
        name = str(name_or_path)
        place = library.find(name)
        profile = library.profile_of(name)
        if place is None and (Path(name).exists() or Path(name).is_absolute() or name.startswith(".")):
            place = Path(name)
        if place is not None and is_plain(place):
            return cls._plain(name, read_plain(place, device=device, dtype=dtype))
        loaded = load_pretrained(name, place, profile, device=device, dtype=dtype, processing=processing)
        return cls(
            loaded.network,
            loaded.vocabulary,
            name=name,
            weights=loaded.weights,
            processing=processing,
            profile=profile,
            quantisation=loaded.quantisation,
        )

    @classmethod
    def _plain(cls, name: str, plain: PlainWeights) -> "Model":
        return cls(
            ComponentNetwork(plain.parts, plain.n_ctx),
            OutputVocabulary(plain.words, plain.bos, plain.labels),
            name=name,
            weights=weight_hash(plain.weights),
            processing="raw",
        )

    @classmethod
    def by_hand(cls, network: Network, vocabulary: Vocabulary, *, name: str = "by hand") -> "Model":
        """A model of one's own making, such as a `PlainNetwork` with known weights."""
        weights: Mapping[str, Tensor] = getattr(network, "weights", {})
        return cls(network, vocabulary, name=name, weights=weight_hash(weights), processing="raw")

    # ---- what it is --------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """Layers, heads, and whether attention and MLP of a block read the same."""
        return self.network.shape

    @property
    def n_ctx(self) -> int:
        """How many tokens the model reads at most."""
        return self.network.n_ctx

    def graph(self, granularity: Granularity = "qkv") -> Graph:
        """Nodes and edges of the model; a head's query, key and value slots apart, or merged (``node``)."""
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

    def weight(self, name: str) -> Float[Tensor, "..."]:
        """A weight (`circuits.model.weights` names them), laid out in one way whatever way round it is stored.

        It is the one that the model runs with, so in compatibility mode the norms are folded into what reads after them, and
        the rows of what writes are centred.

        Raises:
            UnknownWeight: no such weight, or one that cannot be edited.
        """
        return self._editable.weight(name)

    def with_weights(self, weights: Mapping[str, Float[Tensor, "..."]], digest: str) -> "Model":
        """A model with these weights, which calls its weights ``digest``. This one stays as it is."""
        return self.with_network(self._editable.with_weights(weights), digest)

    def with_network(self, network: Network, digest: str) -> "Model":
        """A model that runs an edit of this one's network, and calls its weights ``digest``."""
        other = copy.copy(self)
        other.network, other.weights, other.parent = network, digest, self
        return other

    def showing(self, text: str, digest: str) -> "Model":
        """A model that reads ``text`` before every prompt, and calls its weights ``digest``. This one stays as it is.

        The ids of the text and of the prompt are concatenated, the text of a later edit after that of an earlier one.
        """
        other = self.with_network(self.network, digest)
        other.shown = (*self.shown, *self.vocabulary.encode(text))
        return other

    @property
    def opening(self) -> tuple[int, ...]:
        """The ids that every prompt begins with: BOS, if there is one, and what an edit shows before it."""
        return (*(() if self.vocabulary.bos is None else (self.vocabulary.bos,)), *self.shown)

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
        prompt = (*self.opening, *self.vocabulary.encode(fact.prompt))
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

    @property
    def bos(self) -> str | None:
        """The token that every prompt begins with, as text; None for no such token."""
        return None if self.vocabulary.bos is None else self.token_text(self.vocabulary.bos)

    def batches(self, facts: Sequence[Fact]) -> tuple[Group, ...]:
        """The facts, to be run, in groups of like length and in order of first occurrence."""
        return grouped([self.tokens(fact) for fact in facts])

    @property
    def beginnings(self) -> tuple[int | None, ...]:
        """What its prompts may begin with: nothing, or one of its tokenizer's special tokens."""
        special = self.vocabulary.special if isinstance(self.vocabulary, HubVocabulary) else ()
        return (None, *sorted({*special, *(() if self.vocabulary.bos is None else (self.vocabulary.bos,))}))

    @property
    def habit(self) -> int | None:
        """What its tokenizer begins a text with of its own accord; without a tokenizer, what its prompts begin with."""
        return self.vocabulary.habit if isinstance(self.vocabulary, HubVocabulary) else self.vocabulary.bos

    def with_bos(self, bos: int | None) -> "Model":
        """The same model, its prompts beginning with another token, or (None) with nothing.

        Raises:
            ModelError: it has no tokenizer whose special tokens could begin a prompt.
        """
        if bos == self.vocabulary.bos:
            return self
        if not isinstance(self.vocabulary, HubVocabulary):
            raise ModelError(f"{self.name} reads words, and how its prompts begin is part of how it was made")
        other = copy.copy(self)
        other.vocabulary = self.vocabulary.with_bos(bos)
        return other

    def token_text(self, token: int) -> str:
        """One token as text, its leading space kept."""
        return self.vocabulary.decode([token])

    def output_text(self, column: int) -> str:
        """What one column of the output stands for, as text: a token, for a language model."""
        if isinstance(self.vocabulary, OutputVocabulary):
            return self.vocabulary.labels[column] if self.vocabulary.labels is not None else "the number"
        return self.token_text(column)

    # ---- running -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def logits(self, batch: Batch) -> Float[Tensor, "batch pos d_vocab"]:
        """The next token's logits at every position of every row."""
        return self.network.run(batch)

    @torch.no_grad()
    def run(self, batch: Batch, taps: Taps) -> Float[Tensor, "batch pos d_vocab"]:
        """The logits while every read from the residual stream goes through ``taps``."""
        return self.network.run(batch, taps)

    @torch.enable_grad()
    def run_differentiably(self, batch: Batch, taps: Taps) -> Float[Tensor, "batch pos d_vocab"]:
        """`run`, so that the logits have gradients by what the taps let be read. The weights have none."""
        return self.network.run(batch, taps)

    @torch.no_grad()
    def node_outputs(self, batch: Batch) -> Float[Tensor, "writer batch pos d_model"]:
        """What every writer of the graph adds to the residual stream, in the graph's order.

        Their sum plus the sum of `biases` is the residual stream before the final norm.
        """
        record = Recorder()
        self.network.run(batch, record)
        return record.outputs

    @property
    def biases(self) -> Float[Tensor, "layer d_model"]:
        """Attention output biases: they belong to no head."""
        return self.network.biases

    @torch.no_grad()
    def readout(self, vectors: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest d_vocab"]:
        """Logit lens of residual-stream vectors: W_U LN(v) + b_U with the model's own final norm."""
        return self.network.readout(vectors)

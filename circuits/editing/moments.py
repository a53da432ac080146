"""Second moments of hidden units, C = E[k k^T]: what a value matrix holds on to while one key is given a new value.

ROME and MEMIT change a matrix as little as they can as measured on the keys of a corpus (Meng et al. 2022, Eq. 2;
Meng et al. 2023, Eq. 14). C is not centred and is a mean over tokens, BOS included: at BOS a model writes what every
prompt reads, which an edit must not touch.

They are computed once a model, layer, corpus and number of documents, and kept in the user's cache folder.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from circuits.editing.corpus import Corpus
from circuits.editing.edit import EditError
from circuits.editing.forward import MlpReads, open_network, require_layers
from circuits.editing.prompts import padded
from circuits.model import Model
from circuits.model.network import ComponentNetwork
from circuits.paths import FACTLM
from circuits.records import replacing

DOCUMENTS = 1000
"""Documents that are read unless another number is asked for."""
TOKENS_AT_ONCE = 4096
CACHE_VARIABLE = "KCIRCUIT_CACHE"
_VERSION = 1


class StatisticsError(EditError):
    """Second moments that are needed and cannot be had; the message says what to give."""


def cache_folder() -> Path:
    """Where computed statistics are kept: ``$KCIRCUIT_CACHE``, else ``kcircuit`` in the user's cache folder (XDG)."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kcircuit"


@dataclass(frozen=True, eq=False)
class SecondMoment:
    """C of one layer."""

    matrix: Float[Tensor, "d_mlp d_mlp"]
    """In float64, symmetric."""
    n_tokens: int
    convergence: tuple[tuple[int, float], ...]
    """(tokens read so far, relative Frobenius distance of C then from C at the end), at an eighth, a quarter and a half of
    the documents. The error of a mean falls with the root of the number of tokens: C at the end is about as far from the
    truth as C at the half is from it."""

    @property
    def error(self) -> float:
        """How far C at half the documents is from C at the end, relative to C."""
        return self.convergence[-1][1]

    def __str__(self) -> str:
        steps = ", ".join(f"{error:.1%} at {tokens:,}" for tokens, error in self.convergence)
        return f"second moment over {self.n_tokens:,} tokens (distance from it: {steps} tokens)"

    def solve(self, keys: Float[Tensor, "d_mlp n"], damping: float) -> Float[Tensor, "d_mlp n"]:
        """(C + damping * mean(diag C) * 1)^-1 keys, in float64.

        Damping makes up for directions that the corpus never shows, in which C alone has no inverse.

        Raises:
            StatisticsError: C is singular and there is no damping.
        """
        eye = torch.eye(len(self.matrix), dtype=torch.float64, device=self.matrix.device)
        damped = self.matrix + damping * self.matrix.diagonal().mean() * eye
        factor, failed = torch.linalg.cholesky_ex(damped)
        if failed:
            raise StatisticsError(
                f"the second moment over {self.n_tokens:,} tokens has no inverse: {len(self.matrix)} hidden units need more "
                "text, or a damping above 0"
            )
        return torch.cholesky_solve(keys.to(damped), factor)

    def to(self, device: torch.device) -> "SecondMoment":
        return SecondMoment(self.matrix.to(device), self.n_tokens, self.convergence)


@dataclass(frozen=True)
class Statistics:
    """The second moments of one unedited model on one corpus. They also serve every edit of that model."""

    model: Model
    corpus: Corpus
    documents: int = DOCUMENTS
    cache: Path | None = None
    """Folder; None is `cache_folder`."""

    @classmethod
    def of(
        cls, model: Model, corpus: Corpus | None = None, *, documents: int = DOCUMENTS, cache: Path | None = None
    ) -> "Statistics":
        """Those of the model before every edit; of factlm on its own training text unless another corpus is given.

        Raises:
            StatisticsError: another model, and no corpus.
        """
        model = model.unedited
        if corpus is None:
            if model.name != FACTLM:
                raise StatisticsError(
                    f"the second moments of {model.name} need a text corpus: name a file, one document a line "
                    "(a few thousand like the text that the model was trained on)"
                )
            corpus = Corpus.of_factlm()
        if documents < 8:
            raise StatisticsError(f"expected at least 8 documents to take second moments over, got {documents}")
        return cls(model, corpus, documents, cache)

    def require_for(self, model: Model) -> None:
        """Raises:
        StatisticsError: these are another model's.
        """
        if model.unedited.weights != self.model.weights:
            raise StatisticsError(
                f"the second moments are those of {self.model.name} with weights {self.model.weights[:12]}, not of "
                f"{model.name} with weights {model.unedited.weights[:12]}"
            )

    def path(self, layer: int) -> Path:
        """The file that keeps that layer's: named by hashes of all that it depends on."""
        content = f"{_VERSION} {self.model.weights} {layer} {self.corpus.digest} {self.documents} {self.model.n_ctx}"
        name = hashlib.sha256(content.encode()).hexdigest()[:32]
        return (self.cache or cache_folder()) / "second-moments" / f"{name}.safetensors"

    def second_moments(
        self, layers: Sequence[int], progress: Callable[[str], None] = lambda _: None
    ) -> dict[int, SecondMoment]:
        """From the cache; those that it lacks are computed together, in one reading of the corpus, and kept."""
        layers = require_layers(self.model, layers)
        missing = [layer for layer in layers if not self.path(layer).is_file()]
        if missing:
            for layer, moment in self._compute(missing, progress).items():
                _write(self.path(layer), moment)
        return {layer: _read(self.path(layer)) for layer in layers}

    @torch.no_grad()
    def _compute(self, layers: Sequence[int], progress: Callable[[str], None]) -> dict[int, SecondMoment]:
        documents = _spread(self.corpus.documents, self.documents)
        bos = [] if self.model.vocabulary.bos is None else [self.model.vocabulary.bos]
        rows = [[*bos, *self.model.vocabulary.encode(text)][: self.model.n_ctx] for text in documents]
        rows = [row for row in rows if row]
        if len(rows) < 8:
            raise StatisticsError(f"expected at least 8 documents in the corpus {self.corpus.name}, got {len(rows)}")
        longest = max(rows, key=len)
        network = open_network(self.model, torch.tensor([longest]))
        totals: dict[int, Tensor] = {layer: torch.zeros(()) for layer in layers}
        n_tokens = 0
        eighths = [len(rows) * part // 8 for part in range(9)]
        snapshots: list[tuple[int, dict[int, Tensor]]] = []
        for part, (start, stop) in enumerate(pairwise(eighths), start=1):
            # Within an eighth, rows of like length go together: less padding.
            for batch in _batches(sorted(rows[start:stop], key=len)):
                for layer, moment in _moments(network, batch, layers).items():
                    totals[layer] = totals[layer].to(moment) + moment
                n_tokens += sum(map(len, batch))
            progress(f"second moments: {part}/8 of {len(rows):,} documents, {n_tokens:,} tokens")
            if part in (1, 2, 4):
                snapshots.append((n_tokens, {layer: total / n_tokens for layer, total in totals.items()}))
        found = {}
        for layer, total in totals.items():
            matrix = total / n_tokens
            distances = tuple(
                (tokens, float((then[layer] - matrix).norm() / matrix.norm().clamp_min(1e-300)))
                for tokens, then in snapshots
            )
            found[layer] = SecondMoment(matrix.cpu(), n_tokens, distances)
        return found


def _spread(documents: Sequence[str], n: int) -> list[str]:
    """``n`` documents (all, if there are fewer), evenly from the whole corpus, dealt so that any first part is even too."""
    n = min(n, len(documents))
    chosen = [documents[i * len(documents) // n] for i in range(n)]
    return [chosen[i] for part in range(8) for i in range(part, n, 8)]


def _batches(rows: Sequence[list[int]]) -> list[list[list[int]]]:
    batches: list[list[list[int]]] = [[]]
    for row in rows:
        if batches[-1] and (len(batches[-1]) + 1) * len(row) > TOKENS_AT_ONCE:
            batches.append([])
        batches[-1].append(row)
    return batches


def _moments(
    network: ComponentNetwork, batch: Sequence[Sequence[int]], layers: Sequence[int]
) -> dict[int, Float[Tensor, "d_mlp d_mlp"]]:
    """sum k k^T over the batch's tokens, in float64, without the padding."""
    ids = padded(batch)
    real = torch.arange(ids.shape[1])[None, :] < torch.tensor([len(row) for row in batch])[:, None]
    reads = MlpReads(layers)
    network.resume(network.parts.embed(ids), 0, reads, stop=max(layers) + 1)
    moments = {}
    for layer in layers:
        keys = network.parts.blocks[layer].mlp.hidden(reads.values[layer][real.to(reads.values[layer].device)])
        moments[layer] = (keys.T @ keys).double()
    return moments


def _write(path: Path, moment: SecondMoment) -> None:
    tokens, errors = zip(*moment.convergence, strict=True)
    tensors = {
        "second_moment": moment.matrix.float().contiguous(),
        "n_tokens": torch.tensor(moment.n_tokens),
        "convergence_tokens": torch.tensor(tokens),
        "convergence_errors": torch.tensor(errors, dtype=torch.float64),
    }
    with replacing(path) as part:
        save_file(tensors, part)


def _read(path: Path) -> SecondMoment:
    try:
        with safe_open(path, framework="pt") as file:
            tokens, errors = file.get_tensor("convergence_tokens"), file.get_tensor("convergence_errors")
            pairs = tuple(zip(tokens.tolist(), errors.tolist(), strict=True))
            return SecondMoment(file.get_tensor("second_moment").double(), int(file.get_tensor("n_tokens")), pairs)
    except (SafetensorError, OSError) as error:
        raise StatisticsError(f"the kept second moments {path} are damaged ({error}); delete the file") from error

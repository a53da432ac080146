"""Second moments of hidden units, C = E[k k^T]: what a value matrix holds on to while one key is given a new value.

ROME and MEMIT change a matrix as little as they can as measured on the keys of a corpus (Meng et al. 2022, Eq. 2;
Meng et al. 2023, Eq. 14). C is not centred and is a mean over tokens, the first of each document included: there a model
writes what every prompt reads, which an edit must not touch. Real models' first keys are hundreds of times as long as all
others, so they are summed apart: the sum of the others keeps its precision, and how far it has converged can be read.

Of a layer at most two matrices of d_mlp x d_mlp numbers in float64 are held at any time, and one of them is all that is read
from the cache: the two sums; one sum and the factor that is kept of it; C and its Cholesky factor, made in place.

They are computed once a model, layer, corpus and number of documents, and kept in the user's cache folder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.editing.artefacts import Artefact, ArtefactError
from circuits.editing.corpus import Corpus
from circuits.editing.edit import EditError
from circuits.editing.forward import MlpReads, open_network, require_layers
from circuits.editing.own_texts import own_corpus
from circuits.editing.prompts import padded
from circuits.model import Model
from circuits.model.network import ComponentNetwork, value_matrix

DOCUMENTS = 1000
"""Documents that are read at least, unless another number is asked for."""
DOCUMENT_TOKENS = 512
"""A document is cut after so many tokens: longer ones cost much and show little more."""
TOKENS_A_UNIT = 10
"""More documents are read, where there are more, until there are so many tokens for each hidden unit."""
TOKENS_AT_ONCE = 4096
FIRST_AT_ONCE = 64
"""Rows of the first positions' factor that are added at once."""
SKETCH = 32
"""Random directions in which convergence is measured."""
_VERSION = 2


class StatisticsError(EditError):
    """Second moments that are needed and cannot be had; the message says what to give."""


@dataclass(frozen=True, eq=False)
class SecondMoment:
    """C of one layer."""

    matrix: Float[Tensor, "d_mlp d_mlp"]
    """Over every token. In float64, symmetric."""
    n_tokens: int
    convergence: tuple[tuple[int, float], ...]
    """(tokens read so far, relative Frobenius distance of C then from C at the end), first positions left out, at an
    eighth, a quarter and a half of the documents. The error of a mean falls with the root of the number of tokens: C at the
    end is about as far from the truth as C at the half is from it."""
    _factor: dict[float, Float[Tensor, "d_mlp d_mlp"]] = field(default_factory=dict, repr=False)
    """The Cholesky factor for the damping that was asked for last."""

    @classmethod
    def identity(cls, d_mlp: int) -> "SecondMoment":
        """C of keys of which nothing is known: every direction is as much in use."""
        return cls(torch.eye(d_mlp, dtype=torch.float64), 0, ((0, 0.0),))

    @property
    def error(self) -> float:
        """How far C at half the documents is from C at the end, relative to C."""
        return self.convergence[-1][1]

    def __str__(self) -> str:
        steps = ", ".join(f"{error:.1%} at {tokens:,}" for tokens, error in self.convergence)
        few = len(self.matrix) * TOKENS_A_UNIT
        short = "" if self.n_tokens >= few else f"; fewer than the {few:,} that {len(self.matrix):,} hidden units need"
        return f"second moment over {self.n_tokens:,} tokens (distance from it: {steps} tokens{short})"

    def solve(self, keys: Float[Tensor, "d_mlp n"], damping: float) -> Float[Tensor, "d_mlp n"]:
        """(C + damping * mean(diag C) * 1)^-1 keys, in float64. C is factored once for a damping, then only solved with.

        Damping makes up for directions that the corpus never shows, in which C alone has no inverse.

        Raises:
            StatisticsError: C is singular and there is no damping.
        """
        if damping not in self._factor:
            self._factor.clear()
            factor = self.matrix.clone()
            factor.diagonal().add_(damping * self.matrix.diagonal().mean())
            failed = torch.empty((), dtype=torch.int32, device=factor.device)
            torch.linalg.cholesky_ex(factor, out=(factor, failed))
            if failed:
                raise StatisticsError(
                    f"the second moment over {self.n_tokens:,} tokens has no inverse: {len(self.matrix)} hidden units need "
                    "more text, or a damping above 0"
                )
            self._factor[damping] = factor
        return torch.cholesky_solve(keys.to(self.matrix), self._factor[damping])

    def to(self, device: torch.device) -> "SecondMoment":
        if self.matrix.device == device:
            return self
        return SecondMoment(self.matrix.to(device), self.n_tokens, self.convergence)


@dataclass(frozen=True)
class Statistics:
    """The second moments of one unedited model on one corpus. They also serve every edit of that model."""

    model: Model
    corpus: Corpus
    documents: int = DOCUMENTS
    cache: Path | None = None
    """Folder; None is `circuits.editing.artefacts.cache_folder`."""

    @classmethod
    def of(
        cls,
        model: Model,
        corpus: Corpus | None = None,
        *,
        documents: int = DOCUMENTS,
        cache: Path | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> "Statistics":
        """Those of the model before every edit. Unless a corpus is given: of one that was taught here (factlm) on its training
        text, of any other on text that it writes itself (`circuits.editing.own_texts.own_corpus`).

        Raises:
            EditError: no corpus is given, and the model cannot write one.
        """
        model = model.unedited
        if documents < 8:
            raise StatisticsError(f"expected at least 8 documents to take second moments over, got {documents}")
        if corpus is None:
            taught = model.profile.corpus is not None
            corpus = Corpus.of_factlm() if taught else own_corpus(model, cache=cache, progress=progress)
        return cls(model, corpus, documents, cache)

    def artefact(self, layer: int) -> Artefact:
        """Where that layer's are kept: named by all that they depend on."""
        content = f"{_VERSION} {self.model.weights} {layer} {self.corpus.digest} {self.documents} {self.model.n_ctx}"
        return Artefact("second-moments", content, self.cache)

    def second_moments(
        self, layers: Sequence[int], progress: Callable[[str], None] = lambda _: None
    ) -> dict[int, SecondMoment]:
        """From the cache; those that it lacks are computed together, in one reading of the corpus, and kept."""
        layers = require_layers(self.model, layers)
        missing = [layer for layer in layers if not self.artefact(layer).exists]
        if missing:
            for layer, tensors in self._compute(missing, progress).items():
                self.artefact(layer).write(tensors)
        return {layer: _read(self.artefact(layer)) for layer in layers}

    @torch.no_grad()
    def _compute(self, layers: Sequence[int], progress: Callable[[str], None]) -> dict[int, dict[str, Tensor]]:
        rows = self._rows(max(self.model.weight(value_matrix(layer)).shape[0] for layer in layers))
        if len(rows) < 8:
            raise StatisticsError(f"expected at least 8 documents in the corpus {self.corpus.name}, got {len(rows)}")
        network = open_network(self.model, torch.tensor([max(rows, key=len)]))
        sums = {layer: _Sum() for layer in layers}
        n_tokens, snapshots = 0, []
        eighths = [len(rows) * part // 8 for part in range(9)]
        for part, (start, stop) in enumerate(pairwise(eighths), start=1):
            # Within an eighth, rows of like length go together: less padding.
            for batch in _batches(sorted(rows[start:stop], key=len)):
                for layer, (rest, first) in _keys(network, batch, layers).items():
                    sums[layer].add(rest, first)
                n_tokens += sum(map(len, batch))
            progress(f"second moments: {part}/8 of {len(rows):,} documents, {n_tokens:,} tokens")
            if part in (1, 2, 4):
                snapshots.append((n_tokens, {layer: one.sketch() for layer, one in sums.items()}))
        return {
            layer: one.tensors(n_tokens, [(tokens, sketches[layer]) for tokens, sketches in snapshots])
            for layer, one in sums.items()
        }

    def _rows(self, d_mlp: int) -> list[list[int]]:
        """Documents as the model reads them, cut; as many as asked for, or more until there is enough text."""
        bos = [] if self.model.vocabulary.bos is None else [self.model.vocabulary.bos]
        longest = min(self.model.n_ctx, DOCUMENT_TOKENS)
        n = self.documents
        while True:
            documents = _spread(self.corpus.documents, n)
            rows = [[*bos, *self.model.vocabulary.encode(text)][:longest] for text in documents]
            rows = [row for row in rows if row]
            if sum(map(len, rows)) >= TOKENS_A_UNIT * d_mlp or n >= len(self.corpus.documents):
                return rows
            n *= 2


class _Sum:
    """sum k k^T of one layer, in float64 where it is added up; first positions apart."""

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._first: Tensor | None = None
        self._n_rest = self._n_first = 0

    def add(self, rest: Float[Tensor, "n d_mlp"], first: Float[Tensor, "row d_mlp"]) -> None:
        gram = rest.T @ rest
        if self._total is None or self._first is None:
            self._total, self._first = (torch.zeros_like(gram, dtype=torch.float64) for _ in range(2))
        self._total.add_(gram)
        self._n_rest += len(rest)
        keys = first.double()
        self._first.addmm_(keys.T, keys)
        self._n_first += len(keys)

    def sketch(self) -> Float[Tensor, "d_mlp direction"]:
        """The mean over all but first positions, in a few random directions: |A S|_F^2 is SKETCH |A|_F^2 on average."""
        assert self._total is not None
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(len(self._total), SKETCH, dtype=torch.float64, generator=generator)
        return self._total @ directions.to(self._total) / max(self._n_rest, 1)

    def tensors(self, n_tokens: int, snapshots: Sequence[tuple[int, Tensor]]) -> dict[str, Tensor]:
        """What is kept; the sums are gone then. Distances are relative."""
        assert self._total is not None
        end = self.sketch()
        errors = [float((then - end).norm() / end.norm().clamp_min(1e-300)) for _, then in snapshots]
        rest = self._total.div_(n_tokens).float()
        self._total = None
        return {
            "rest": rest,
            "first": self._factor_of_first(n_tokens),
            "n_tokens": torch.tensor(n_tokens),
            "convergence_tokens": torch.tensor([tokens for tokens, _ in snapshots]),
            "convergence_errors": torch.tensor(errors, dtype=torch.float64),
        }

    def _factor_of_first(self, n_tokens: int) -> Float[Tensor, "row d_mlp"]:
        """F with F^T F = sum k k^T / n_tokens over first positions, in no more rows than there are such positions."""
        assert self._first is not None
        values, vectors = torch.linalg.eigh(self._first.div_(n_tokens))
        self._first = None
        largest = slice(max(0, len(values) - self._n_first), None)
        return (values[largest].clamp_min(0).sqrt()[:, None] * vectors[:, largest].T).float()


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


def _keys(
    network: ComponentNetwork, batch: Sequence[Sequence[int]], layers: Sequence[int]
) -> dict[int, tuple[Float[Tensor, "rest d_mlp"], Float[Tensor, "row d_mlp"]]]:
    """(keys of all but first positions, keys of first positions), without the padding."""
    ids = padded(batch)
    real = torch.arange(ids.shape[1])[None, :] < torch.tensor([len(row) for row in batch])[:, None]
    reads = MlpReads(layers)
    network.resume(network.parts.embed(ids), 0, reads, stop=max(layers) + 1)
    keys = {}
    for layer in layers:
        values, mlp = reads.values[layer], network.parts.blocks[layer].mlp
        rest = values[:, 1:][real[:, 1:].to(values.device)]
        keys[layer] = (mlp.hidden(rest), mlp.hidden(values[:, 0]))
    return keys


@lru_cache(maxsize=8)
def _read(artefact: Artefact) -> SecondMoment:
    """One value for all edits of a process, so that C is factored once."""
    kept = artefact.read()
    try:
        pairs = zip(kept["convergence_tokens"], kept["convergence_errors"], strict=True)
        convergence = tuple((int(tokens), float(error)) for tokens, error in pairs)
        matrix = kept["rest"].double()
        for some in kept["first"].split(FIRST_AT_ONCE):
            rows = some.double()
            matrix.addmm_(rows.T, rows)
        return SecondMoment(matrix, int(kept["n_tokens"]), convergence)
    except (KeyError, ValueError) as error:
        raise ArtefactError(
            f"the kept second moments {artefact.path} are damaged ({error}); delete the file"
        ) from error

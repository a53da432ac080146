"""Texts that a model itself writes: what an edit may take as the model's behaviour to keep, where no data is at hand."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.editing.anchors import Recogniser, token_ends
from circuits.editing.artefacts import Artefact
from circuits.editing.corpus import Corpus
from circuits.editing.forward import open_network
from circuits.model import Model, Vocabulary
from circuits.model.network import ComponentNetwork
from circuits.model.past import Past

Ids = tuple[int, ...]
AT_ONCE = 64
"""Texts that are written side by side."""
DRAWN, OPENING = 64, 16
"""How many texts are drawn for their beginnings, and the tokens that each is given to come to an entity."""
TEXT_TOKENS = 128
"""Length of a text of `own_corpus`, if the context reaches so far."""
TOKENS_A_UNIT = 65
"""What a model writes for its second moments, in tokens for each hidden unit of an MLP."""
_VERSION = 2


def own_corpus(
    model: Model,
    *,
    n_texts: int | None = None,
    seed: int = 0,
    cache: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Corpus:
    """What the model writes from nothing, as a corpus; written once, and kept under the hash of the model's weights.

    ``n_texts`` texts; by default as many as second moments need.

    Drawn from the model's own distribution at temperature 1, so that its keys are weighed as it uses them. A model whose texts
    begin with nothing is given its first token, which is then left out.

    Raises:
        EditError: a model that does not show its weights, whose tokens see those after them, or that was edited by a bypass.
    """
    start, length = nothing(model.vocabulary), min(model.n_ctx, TEXT_TOKENS)
    network = open_network(model, torch.tensor([start * length]))
    d_mlp = max(block.mlp.W_out.shape[0] for block in network.parts.blocks)
    n = max(AT_ONCE, -(-TOKENS_A_UNIT * d_mlp // length)) if n_texts is None else n_texts

    def write() -> dict[str, Tensor]:
        texts: list[Ids] = []
        while len(texts) < n:
            starts = [start] * min(AT_ONCE, n - len(texts))
            # A seed of its own for each lot.
            own = seed * n + len(texts)
            texts += sample_texts(network, starts, length - 1, bos=model.vocabulary.bos, seed=own)
            progress(f"{model.name} writes text of its own: {len(texts):,} of {n:,} texts")
        return {"ids": torch.tensor(texts)}

    kept = Artefact("own-texts", f"{_VERSION} {model.weights} {start} {n} {length} {seed}", cache).get(write)["ids"]
    documents = tuple(model.vocabulary.decode(text[1:]) for text in kept.tolist())
    return Corpus(f"text that {model.name} wrote itself ({kept.numel():,} tokens, seed {seed})", documents)


def texts_about(
    network: ComponentNetwork,
    vocabulary: Vocabulary,
    recogniser: Recogniser,
    subjects: Sequence[str],
    *,
    each: int,
    n_tokens: int,
    seed: int,
) -> tuple[Ids, ...]:
    """``each`` texts about each subject, subject by subject, in sentences that the network itself says of its entities.

    The network writes texts from nothing; each is cut before the first entity in it, the subject is put there, and the
    network goes on for ``n_tokens``. The beginnings are dealt out in turn.
    """
    openings = openings_before_entities(network, vocabulary, recogniser, seed=seed)
    prefixes = [
        (*openings[(i * each + j) % len(openings)], *vocabulary.encode(" " + subject))
        for i, subject in enumerate(subjects)
        for j in range(each)
    ]
    return sample_texts(network, prefixes, n_tokens, bos=vocabulary.bos, seed=seed)


def openings_before_entities(
    network: ComponentNetwork, vocabulary: Vocabulary, recogniser: Recogniser, *, seed: int
) -> tuple[Ids, ...]:
    """Distinct beginnings of the network's own texts, up to the first entity; the bare start if no text has one."""
    start = nothing(vocabulary)
    found: dict[Ids, None] = {}
    for text in sample_texts(network, [start] * DRAWN, OPENING, bos=vocabulary.bos, seed=seed):
        said, ends = token_ends(vocabulary, text)
        mentions = recogniser.find(said)
        # A name's first token carries the space before it.
        if mentions and (cut := next((i for i, end in enumerate(ends) if end > mentions[0].start), 0)) > len(start):
            found.setdefault(text[:cut])
    return tuple(found) or (start,)


def nothing(vocabulary: Vocabulary) -> Ids:
    """What a text of the model's own begins with: BOS, or the first token where there is none."""
    return (0,) if vocabulary.bos is None else (vocabulary.bos,)


@torch.no_grad()
def sample_texts(
    network: ComponentNetwork, prefixes: Sequence[Ids], n_tokens: int, *, bos: int | None, seed: int
) -> tuple[Ids, ...]:
    """Each prefix continued by ``n_tokens`` tokens drawn from the network, as far as its context reaches; no BOS among them.

    The same network, prefixes and seed give the same texts.
    """
    network = ComponentNetwork(network.parts.shared(), network.n_ctx)
    generator = torch.Generator().manual_seed(seed)
    by_length: dict[int, list[int]] = {}
    for row, prefix in enumerate(prefixes):
        by_length.setdefault(len(prefix), []).append(row)
    written: dict[int, Ids] = {}
    for length, every in sorted(by_length.items()):
        for start in range(0, len(every), AT_ONCE):
            rows, past = every[start : start + AT_ONCE], Past()
            ids = torch.tensor([prefixes[row] for row in rows])
            for _ in range(min(n_tokens, network.n_ctx - length)):
                logits = network.read_on(ids[:, past.length :], past)[:, -1]
                drawn = torch.rand(len(rows), generator=generator, dtype=torch.float64)
                ids = torch.cat((ids, at_quantile(logits.cpu(), drawn, never=bos)[:, None]), 1)
            written.update((row, tuple(text)) for row, text in zip(rows, ids.tolist(), strict=True))
    return tuple(written[row] for row in range(len(prefixes)))


def at_quantile(
    logits: Float[Tensor, "row d_vocab"], drawn: Float[Tensor, "row"], *, never: int | None = None
) -> Int[Tensor, "row"]:
    """The token at quantile ``drawn``, at least 0 and below 1, of each row's softmax without ``never``: a draw from it where
    ``drawn`` is uniform. Takes a tenth of the time of drawing by torch's multinomial."""
    chances = logits.float().softmax(-1)
    if never is not None:
        chances[:, never] = 0.0
    cumulative = chances.cumsum(-1, dtype=torch.float64)
    # The first token past the quantile: one without a chance is never that.
    return torch.searchsorted(cumulative, (drawn * cumulative[:, -1])[:, None], right=True)[:, 0]

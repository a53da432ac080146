"""Texts that a model itself writes: what an edit may take as the model's behaviour to keep, where no data is at hand."""

from collections.abc import Sequence

import torch

from circuits.editing.anchors import Recogniser, token_ends
from circuits.model import Vocabulary
from circuits.model.network import ComponentNetwork

Ids = tuple[int, ...]
DRAWN, OPENING = 64, 16
"""How many texts are drawn for their beginnings, and the tokens that each is given to come to an entity."""


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
    generator = torch.Generator().manual_seed(seed)
    by_length: dict[int, list[int]] = {}
    for row, prefix in enumerate(prefixes):
        by_length.setdefault(len(prefix), []).append(row)
    written: dict[int, Ids] = {}
    for length, rows in sorted(by_length.items()):
        ids = torch.tensor([prefixes[row] for row in rows])
        for _ in range(min(n_tokens, network.n_ctx - length)):
            final = network.resume(network.parts.embed(ids), 0)
            chances = network.readout(final[:, -1]).float().cpu().softmax(-1)
            if bos is not None:
                chances[:, bos] = 0.0
            ids = torch.cat((ids, torch.multinomial(chances, 1, generator=generator)), 1)
        written.update((row, tuple(text)) for row, text in zip(rows, ids.tolist(), strict=True))
    return tuple(written[row] for row in range(len(prefixes)))

"""Texts that an edited prompt is put after, so that the edit holds in more than one context.

ROME's key is a mean over contexts, and its value is optimised in all of them (Meng et al. 2022, section 3.1). They are
sampled from the model that is edited, with a seed; nothing is kept from one model or call to the next.
"""

from collections.abc import Sequence

import torch

from circuits.model import Batch, Model

TOP_K = 5
"""Tokens that are drawn from at each step, as the published code has it."""


@torch.no_grad()
def sample_contexts(model: Model, lengths: Sequence[int], seed: int) -> tuple[str, ...]:
    """One text of each length in tokens, each ended by a full stop and a space.

    A model with a BOS token begins with it; one without, with a token drawn at random.
    """
    generator = torch.Generator().manual_seed(seed)
    bos = model.vocabulary.bos
    contexts = []
    for n_tokens in sorted(set(lengths)):
        n_rows = list(lengths).count(n_tokens)
        first = torch.randint(0, model.network.d_vocab, (n_rows, 1), generator=generator)
        ids = first if bos is None else torch.full((n_rows, 1), bos)
        while ids.shape[1] < n_tokens + (bos is not None):
            best = model.logits(Batch.of_prompts(ids))[:, -1].cpu().topk(TOP_K)
            drawn = torch.multinomial(best.values.softmax(-1), 1, generator=generator)
            ids = torch.cat((ids, best.indices.gather(1, drawn)), 1)
        for row in ids.tolist():
            text = model.vocabulary.decode([token for token in row if token != bos])
            contexts.append(" ".join(text.split()).rstrip(". ") + ". ")
    return tuple(contexts)

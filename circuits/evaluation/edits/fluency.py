"""Fluency: how little a text repeats itself (paper 0, section 3.5; Meng et al. 2022, "generation entropy")."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from circuits.evaluation.edits.generation import Ids, sample
from circuits.model import Model

N_TOKENS = 50
"""Tokens in a sampled text. Entropies of texts of different lengths are not to be compared."""
N_SAMPLES = 2
"""Texts sampled after a prompt."""
WEIGHTS = {2: 1 / 3, 3: 2 / 3}
"""Weights of the bi-gram and tri-gram entropies. Published code weights them 2/3 and 4/3 and takes the mean of the two."""


def words(text: str) -> list[str]:
    """The words and punctuation marks of a text, in lower case."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def entropy(words: Sequence[str], n: int) -> float:
    """Entropy in bits of the text's own n-gram frequencies, -sum f log2 f; 0 for fewer than ``n`` words."""
    counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    total = counts.total()
    return abs(math.fsum(count / total * math.log2(count / total) for count in counts.values()))


def fluency(text: str) -> float:
    """Weighted mean of bi-gram and tri-gram entropy, in bits. A text of m different words has about log2(m)."""
    found = words(text)
    return math.fsum(weight * entropy(found, n) for n, weight in WEIGHTS.items())


def sampled_fluency(
    model: Model,
    prompts: Sequence[Ids],
    *,
    seed: int,
    n_tokens: int = N_TOKENS,
    n_samples: int = N_SAMPLES,
) -> tuple[float, ...]:
    """For each prompt, the mean fluency, in bits, of the texts that the model writes after it (the prompt left out).

    A model whose logits are not finite writes nothing, which has fluency 0.
    """
    texts = sample(model, [prompt for prompt in prompts for _ in range(n_samples)], n_tokens, seed)
    values = [fluency(model.vocabulary.decode(ids)) for ids in texts]
    return tuple(math.fsum(values[i : i + n_samples]) / n_samples for i in range(0, len(values), n_samples))

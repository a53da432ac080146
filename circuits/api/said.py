"""What a model says after a prompt."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from circuits.analysis.lens import TokenScore
from circuits.evaluation.continuations import completion
from circuits.metrics import require_finite
from circuits.model import Batch, Model
from circuits.pages.tables import grid, to_html


@dataclass(frozen=True, slots=True)
class Said:
    """The likeliest next tokens of a model after a prompt, best first.

    Each of ``tokens`` is a token as text, its leading space kept, with its logit; ``probabilities`` are theirs, in the same
    order, in 0 to 1 over the whole vocabulary.
    """

    prompt: str
    tokens: tuple[TokenScore, ...]
    probabilities: tuple[float, ...]

    @property
    def answer(self) -> str:
        """The likeliest token, without its space."""
        return self.tokens[0].token.strip()

    def __str__(self) -> str:
        said = ", ".join(f"{one.token.strip()} {p:.1%}" for one, p in zip(self.tokens, self.probabilities, strict=True))
        return f"{self.prompt} … {said}"

    def __repr__(self) -> str:
        return f"<Said: {self}>"

    def _repr_html_(self) -> str:
        lines = [(one.token.strip(), f"{p:.1%}") for one, p in zip(self.tokens, self.probabilities, strict=True)]
        return to_html(grid((f"{self.prompt} …", "probability"), lines))


class Asking:
    """What can be asked what it says: a model that something may have been done to."""

    def on(self) -> AbstractContextManager[Model]:
        """The model that answers, good inside the ``with`` that this returns."""
        raise NotImplementedError

    def ask(self, prompt: str, n: int = 5) -> Said:
        """What the model says next, an edit that it is asked with on it.

        Args:
            prompt: any text.
            n: how many tokens to show.

        Returns:
            The likeliest tokens, with probabilities in 0 to 1.
        """
        with self.on() as model:
            return say(model, prompt, n)


@torch.no_grad()
def say(model: Model, prompt: str, n: int) -> Said:
    """The ``n`` likeliest tokens after the prompt, read once at its last token.

    Raises:
        FloatingPointError: logits that are not finite.
    """
    if n < 1:
        raise ValueError(f"expected at least one token to be shown, got n={n}")
    ids = torch.tensor([completion(model, prompt, "x").prompt])
    logits = model.logits(Batch.of_prompts(ids))[0, -1]
    require_finite(logits, f"{model.name} on {prompt!r}")
    best = logits.topk(min(n, logits.shape[0]))
    tokens = [
        TokenScore(model.token_text(token), logit)
        for token, logit in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return Said(prompt, tuple(tokens), tuple(logits.double().softmax(-1)[best.indices].tolist()))

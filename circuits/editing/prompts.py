"""Edit requests as the model reads them: token ids, with the subject's last token found.

Ids of prompt and answer are concatenated, never decoded and encoded again. Rows of different lengths are padded at their
end: under a causal mask no token sees what comes after it, so padding changes nothing before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.editing.edit import EditError
from circuits.facts import EditRequest
from circuits.model import ContextError, Model

PAD = 0
"""Any id would do: it is never read."""

Site = Literal["subject", "end"]
"""The token at which an edit stores its value: the subject's last (ROME's and MEMIT's), or the prompt's last, where the
answer is predicted (``fact_token: last`` of the published code). Which of the two suits a model depends on where it decides
its facts: at the subject, whatever is asked about it, or at the end, once it knows what is asked."""


class SubjectNotFound(EditError):
    """The tokens of a prompt do not show where its subject ends."""


@dataclass(frozen=True, slots=True)
class SubjectPrompt:
    """A prompt's ids, with what the model's prompts open with, and the index of the subject's last token."""

    ids: tuple[int, ...]
    subject: int


def read_prompt(model: Model, template: str, subject: str, context: str = "") -> SubjectPrompt:
    """``template`` with the subject in its place, after a context that ends with a space (or is empty).

    The subject's last token is the one that holds the last character of the occurrence that ``{}`` marks; other
    occurrences of the same words do not matter.

    Raises:
        SubjectNotFound: the tokenizer does not show which token that is.
    """
    text = context + template.replace("{}", subject)
    end = len(context) + template.index("{}") + len(subject)
    ids = model.vocabulary.encode(text)
    index = _token_ending(model, ids, text, end)
    return SubjectPrompt((*model.opening, *ids), len(model.opening) + index)


def _token_ending(model: Model, ids: Sequence[int], text: str, end: int) -> int:
    """Index of the token that holds character ``end - 1`` of ``text``."""
    head = model.vocabulary.encode(text[:end])
    if head and list(ids[: len(head)]) == list(head):
        return len(head) - 1
    # The last word goes on after the subject ("Paris's" or "Paris,") and its tokens with it: count characters instead.
    whole = model.vocabulary.decode(ids)
    lead = len(whole) - len(whole.lstrip())
    if whole[lead:] == text:
        for index in range(len(ids)):
            # The replacement character stands for a letter of which only some bytes are there yet.
            if len(model.vocabulary.decode(ids[: index + 1]).rstrip("\ufffd")) - lead >= end:
                return index
    raise SubjectNotFound(
        f"cannot tell at which token of {text!r} the subject {text[:end].split()[-1]!r} ends: the tokenizer of {model.name} "
        "does not give the text back; write the subject so that it ends with a word"
    )


def answer_ids(model: Model, target: str) -> tuple[int, ...]:
    """The ids of the target with its leading space.

    Raises:
        EditError: the tokenizer gives none.
    """
    ids = tuple(model.vocabulary.encode(" " + target))
    if not ids:
        raise EditError(f"the tokenizer of {model.name} gives no tokens for the target {target!r}")
    return ids


@dataclass(frozen=True)
class Forced:
    """Prompts with their answers teacher-forced, row by row; rows of one request say it in different contexts.

    ``at`` are the positions whose logits predict the tokens in ``answer``; ``share`` weighs them, adding up to 1 in
    each row and being 0 for padding.
    """

    ids: Int[Tensor, "row pos"]
    subject: Int[Tensor, "row"]
    at: Int[Tensor, "row answer"]
    answer: Int[Tensor, "row answer"]
    share: Float[Tensor, "row answer"]
    request: Int[Tensor, "row"]

    @property
    def n_pos(self) -> int:
        return self.ids.shape[1]

    def stored_at(self, site: Site) -> Int[Tensor, "row"]:
        """The position in each row at which its value is stored."""
        return self.subject if site == "subject" else self.at[:, 0]

    def nll(self, logits: Float[Tensor, "row answer d_vocab"]) -> Float[Tensor, "row"]:
        """Each row's mean over its answer tokens of -log p, in nats, from the logits at ``at``."""
        taken = logits.log_softmax(-1).gather(-1, self.answer.to(logits.device)[..., None])[..., 0]
        return -(taken * self.share.to(taken)).sum(-1)

    def rows(self, chosen: slice | Int[Tensor, "chosen"]) -> "Forced":
        """Some of the rows."""
        return Forced(
            self.ids[chosen], self.subject[chosen], self.at[chosen], self.answer[chosen], self.share[chosen],
            self.request[chosen],
        )  # fmt: skip

    def trimmed(self) -> "Forced":
        """Without the padding that no row of these needs."""
        return replace(self, ids=self.ids[:, : int(self.at.max()) + 1])


def forced(
    model: Model, requests: Sequence[EditRequest], contexts: Sequence[str] = ("",), *, prompt_last: bool = False
) -> Forced:
    """Every request in every context, request by request.

    With ``prompt_last`` every answer token is predicted at the prompt's last position and none is fed: FT-L's objective.

    Raises:
        ContextError: a prompt and its answer do not fit the model's context.
        SubjectNotFound: see `read_prompt`.
    """
    prompts, answers = [], []
    for request in requests:
        answer = answer_ids(model, request.target)
        for context in contexts:
            prompts.append(read_prompt(model, request.template, request.subject, context))
            answers.append(answer)
    fed = [
        prompt.ids if prompt_last else prompt.ids + answer[:-1] for prompt, answer in zip(prompts, answers, strict=True)
    ]
    n_pos, n_answer = max(map(len, fed)), max(map(len, answers))
    if n_pos > model.n_ctx:
        raise ContextError(
            f"an edit's prompt is {n_pos} tokens long with its answer; {model.name} reads at most {model.n_ctx}"
        )
    at = [
        [len(prompt.ids) - 1 + (0 if prompt_last else min(t, len(answer) - 1)) for t in range(n_answer)]
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    return Forced(
        ids=torch.tensor([[*row, *[PAD] * (n_pos - len(row))] for row in fed]),
        subject=torch.tensor([prompt.subject for prompt in prompts]),
        at=torch.tensor(at),
        answer=torch.tensor([[*answer, *[PAD] * (n_answer - len(answer))] for answer in answers]),
        share=torch.tensor([[1 / len(a)] * len(a) + [0.0] * (n_answer - len(a)) for a in answers]),
        request=torch.arange(len(requests)).repeat_interleave(len(contexts)),
    )


def each_token(said: Forced) -> Forced:
    """The same prompts, each answer token asked for on its own, the right ones before it fed: ``request`` counts tokens.

    What is stored at a prompt's end is read by the first token of the answer; each later one is predicted at a position
    of its own and needs a value of its own. Rows stay together by request, then token, then context.
    """
    n_contexts = int((said.request == 0).sum())
    pairs = [
        (row, token)
        for start in range(0, len(said.ids), n_contexts)
        for token in range(int((said.share[start] > 0).sum()))
        for row in range(start, start + n_contexts)
    ]
    row, token = torch.tensor(pairs).T
    count = torch.arange(len(pairs) // n_contexts).repeat_interleave(n_contexts)
    one = (row, token)
    return Forced(
        said.ids[row], said.subject[row], said.at[one][:, None], said.answer[one][:, None],
        torch.ones(len(pairs), 1), count,
    )  # fmt: skip


def padded(rows: Sequence[Sequence[int]]) -> Int[Tensor, "row pos"]:
    """Rows of ids, padded at their ends."""
    n_pos = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (n_pos - len(row))] for row in rows])

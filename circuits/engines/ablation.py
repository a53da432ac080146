"""What an ablated edge carries instead of its sender's value: nothing, a mean, or a value from another prompt.

Zero ablation is paper 2's. Mean ablation takes the sender's mean over a reference set: at the first position the mean over
first positions, everywhere else the mean over all others. The first position is attention's sink, where real models write
with norms in the ten thousands (Sun et al. 2024, "Massive Activations in Large Language Models"): a mean across the two
would carry the sink to positions that never see it. Resample ablation takes the sender's value on a corrupted prompt, position
by position; where that prompt has the fact's own words about a subject of another length, subject by subject and words by
words (`aligned`).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.choices import AblationKind
from circuits.facts import Fact
from circuits.model import Batch, Model
from circuits.model.batch import Group, grouped

PROMPTS = 8
"""Most prompts whose node outputs a mean holds at once."""


class AblationError(ValueError):
    """An ablation that lacks the prompts it needs."""


@dataclass(frozen=True)
class Ablation:
    """``reference`` facts give the mean; ``corrupted`` facts, one for each fact in order, give the resampled values."""

    kind: AblationKind = "zero"
    reference: tuple[Fact, ...] = ()
    corrupted: tuple[Fact, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("zero", "mean", "resample"):
            raise AblationError(f"expected ablation zero, mean or resample, got {self.kind!r}")
        if self.kind == "mean" and not self.reference:
            raise AblationError("mean ablation needs reference facts to take the mean over, got none")
        if self.kind == "resample" and not self.corrupted:
            raise AblationError("resample ablation needs a corrupted prompt for each fact, got none")

    def values(
        self, model: Model, facts: Sequence[Fact], groups: Sequence[Group]
    ) -> list[Float[Tensor, "writer #batch #pos d_model"]]:
        """For each group, what every writer's ablated edges carry.

        Raises:
            AblationError: a corrupted prompt of another length and in other words than its fact's.
        """
        match self.kind:
            case "zero":
                zero = torch.zeros(len(model.graph().writers), 1, 1, model.network.d_model)
                return [zero.to(model.biases) for _ in groups]
            case "mean":
                mean = mean_outputs(model, self.reference)
                return [mean.at(group.ids.shape[1])[:, None] for group in groups]
            case "resample":
                if len(self.corrupted) != len(facts):
                    raise AblationError(
                        f"expected {len(facts)} corrupted prompts, one a fact, got {len(self.corrupted)}"
                    )
                return [self._resampled(model, facts, group) for group in groups]

    def _resampled(
        self, model: Model, facts: Sequence[Fact], group: Group
    ) -> Float[Tensor, "writer batch pos d_model"]:
        by_length: dict[int, list[tuple[int, tuple[int, ...], list[int]]]] = defaultdict(list)
        n_pos = group.ids.shape[1]
        for place, row in enumerate(group.rows):
            ids, at = _corrupted_ids(model, facts[row], self.corrupted[row], n_pos)
            by_length[len(ids)].append((place, ids, at))
        values: list[Tensor | None] = [None] * len(group.rows)
        for length, members in by_length.items():
            ids = torch.tensor([ids for _, ids, _ in members])
            corrupted = Batch.continued(ids, group.n_prompt + length - n_pos)
            outputs = model.node_outputs(corrupted)
            for (place, _, at), value in zip(members, outputs.unbind(1), strict=True):
                values[place] = value[:, at]
        return torch.stack([value for value in values if value is not None], 1)


def _corrupted_ids(model: Model, fact: Fact, other: Fact, n_pos: int) -> tuple[tuple[int, ...], list[int]]:
    """What to run for the resampled values, the other prompt and the answer's own tokens where they are fed; and which of its
    positions stands for each of the fact's."""
    clean, corrupted = model.tokens(fact), model.tokens(other)
    ids = replace(clean, prompt=corrupted.prompt).forced
    # Where every position has its own answer, the first positions of a longer prompt are one of the right length.
    longer = clean.aligned and len(corrupted.prompt) > len(clean.prompt)
    if len(corrupted.prompt) == len(clean.prompt) or longer:
        return ids, list(range(n_pos))
    if not _words(fact) & _words(other):
        raise AblationError(
            f"the corrupted prompt {other.prompt!r} is {len(corrupted.prompt)} tokens long, and "
            f"{fact.prompt!r} is {len(clean.prompt)}: resample ablation goes position by position, and of prompts that differ in "
            "length it can align those alone that have the same words about their subjects"
        )
    return ids, aligned(clean.prompt, corrupted.prompt, n_pos)


def _words(fact: Fact) -> set[tuple[str, str]]:
    """What stands before and after the subject, wherever the prompt has it."""
    parts = fact.prompt.split(fact.subject) if fact.subject else []
    return {(fact.subject.join(parts[:i]), fact.subject.join(parts[i:])) for i in range(1, len(parts))}


def aligned(clean: Sequence[int], corrupted: Sequence[int], n_pos: int) -> list[int]:
    """For each of the first ``n_pos`` positions of the clean prompt with what follows it, that of the corrupted one.

    The tokens that both begin with stand for themselves, and so do those that both end with and all that follows; of what is
    between, the subjects, the last token stands for the last, and so on to the front, where the shorter one's first is taken
    again. The first position, attention's sink, stands for the first and for no other.
    """
    n, m = len(clean), len(corrupted)
    alike = next((i for i, (one, other) in enumerate(zip(clean, corrupted, strict=False)) if one != other), min(n, m))
    least = min(max(alike, 1), m - 1)
    return [at if at < max(alike, 1) else max(least, at + m - n) for at in range(n_pos)]


@dataclass(frozen=True)
class MeanOutputs:
    """Every writer's mean output: over the prompts' first positions, and over all their other positions."""

    first: Float[Tensor, "writer d_model"]
    later: Float[Tensor, "writer d_model"] | None
    """None where no prompt has a second position."""

    def at(self, n_pos: int) -> Float[Tensor, "writer pos d_model"]:
        """What ablated edges carry at each position of a prompt.

        Raises:
            AblationError: later positions are asked for, and the reference has none.
        """
        if n_pos == 1:
            return self.first[:, None]
        if self.later is None:
            raise AblationError(
                f"mean ablation of {n_pos} positions needs a reference of at least two, and every prompt of it is one token "
                "long: give longer reference facts"
            )
        return torch.cat((self.first[:, None], self.later[:, None].expand(-1, n_pos - 1, -1)), 1)


def mean_outputs(model: Model, reference: Sequence[Fact]) -> MeanOutputs:
    """The mean of every writer over the reference's prompts with their forced answers, each position counting once.

    A prompt whose answers are said at its own positions has no first position apart: the first is asked like the others,
    and no sink. Holds the node outputs of `PROMPTS` prompts at most; sums in float64.
    """
    shape = (len(model.graph().writers), model.network.d_model)
    first, later, n_later = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64), 0
    tokens = [model.tokens(fact) for fact in reference]
    for group in grouped(tokens):
        for start in range(0, len(group.rows), PROMPTS):
            outputs = model.node_outputs(group[start : start + PROMPTS])
            first += outputs[:, :, 0].sum(1, dtype=torch.float64).cpu()
            later += outputs[:, :, 1:].sum((1, 2), dtype=torch.float64).cpu()
            n_later += outputs.shape[1] * (outputs.shape[2] - 1)
    like = model.biases
    if all(each.aligned for each in tokens):
        overall = ((first + later) / (len(reference) + n_later)).to(like)
        return MeanOutputs(overall, overall)
    return MeanOutputs((first / len(reference)).to(like), (later / n_later).to(like) if n_later else None)

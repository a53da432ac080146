"""How often a model that knows nothing gets a head labelled all the same.

Such a model is made from one that knows: the entries of each of its weight tensors are dealt anew. Sizes, tokenizer and prompts stay
as they are, and what training put there is gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from circuits.analysis.roles import ALPHA, MIN_EFFECT, MIN_READING, Roles, find_roles
from circuits.analysis.tracing import open_parts
from circuits.evaluation.roles import ROLE_FACTS, other_ranges
from circuits.facts import Fact, Relation, Relations
from circuits.model import Model
from circuits.model.network import ComponentNetwork
from circuits.model.transformer import map_tensors


def scrambled(model: Model, facts: Sequence[Fact], *, seed: int = 0) -> Model:
    """``model`` with the entries of every weight tensor in a random order, good for prompts as long as those of ``facts``.

    Raises:
        circuits.model.transformer.UnsupportedArchitecture: the model does not show its weights.
    """
    generator = torch.Generator().manual_seed(seed)

    def deal(tensor: Tensor) -> Tensor:
        order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
        return tensor.flatten()[order].view_as(tensor)

    own = open_parts(model, facts)
    parts = map_tensors(own, deal)
    # A rotary table is the architecture's and nothing learnt.
    blocks = tuple(
        replace(block, attention=replace(block.attention, rotary=before.attention.rotary))
        for block, before in zip(parts.blocks, own.blocks, strict=True)
    )
    parts = replace(parts, blocks=blocks)
    return Model.by_hand(ComponentNetwork(parts, model.n_ctx), model.vocabulary, name=f"{model.name}, scrambled")


@dataclass(frozen=True, slots=True)
class FalseLabels:
    """Labels on models that know nothing."""

    n_models: int
    labelled: int
    """Models in which any head got a role; at most `ALPHA` of them is claimed."""
    by_intervals: int
    """The control: models in which some head would have one if an interval off 0 were enough, as labels are often given."""

    def __str__(self) -> str:
        return (
            f"{self.labelled} of {self.n_models} have a head with a role ({self.labelled / self.n_models:.1%}; claimed: at most "
            f"{ALPHA:.0%}); by intervals alone it would be {self.by_intervals}."
        )


def false_labels(
    model: Model, relation: Relation, relations: Relations, *, n: int = ROLE_FACTS, seed: int = 0, which: int = 0
) -> FalseLabels:
    """A scrambled model, ``which`` of those of the seed, labelled from the relation's first n facts."""
    facts = relation.facts()[:n]
    roles = find_roles(
        scrambled(model, facts, seed=seed + which),
        facts,
        relation.objects,
        other_ranges=other_ranges(relation, relations),
        relation=relation.name,
        seed=seed,
    )
    return FalseLabels(1, int(bool(roles.labelled)), int(_by_intervals(roles)))


def _by_intervals(roles: Roles) -> bool:
    return any(
        abs(effect.mean) >= MIN_EFFECT and (effect.low > 0 or effect.high < 0) and reading >= MIN_READING
        for e in (verdict.evidence for verdict in roles.heads)
        for effect, reading in ((e.subject_cut, e.reading_subject), (e.relation_cut, e.reading_relation))
    )

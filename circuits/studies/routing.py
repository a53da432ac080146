"""Where MEMoE sends its tokens, and how loudly its bypass speaks: on what it was taught and on everything else.

Consistency (paper 3, Eq. 13) is the share of a group's tokens that the group's own expert handles. The equation compares an
expert with the router's input vector; read here as the favourite expert, argmax of softmax(W_g R), of each token.

A router that sends everything to one expert has a consistency of 1 and routes nothing. So beside each consistency stands its
chance level, that of the same prompts with the same experts, matched at random, and the share of tokens that each expert gets.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from circuits.editing.edit import EditError
from circuits.editing.experts import favourite
from circuits.editing.routed import RoutedEdit
from circuits.facts import EditRequest
from circuits.graph import Slot
from circuits.metrics import Measurement
from circuits.model import Batch, Model
from circuits.model.bypassed import BypassedNetwork
from circuits.model.taps import ReaderKind, Taps, WriterKind


@dataclass(frozen=True, slots=True)
class PromptRouting:
    """One prompt, at its positions in scope: the favourite expert of each, and ||bypass|| / ||MLP|| at all positions.

    ``experts`` is empty where the prompt is out of scope throughout.
    """

    prompt: str
    experts: tuple[int, ...]
    volume: float
    """Mean over the prompt's positions, BOS aside, of ||what the bypass writes|| / ||what the MLP beside it writes||."""
    volume_at_end: float
    """The same at the last position, where the answer is predicted."""
    read: tuple[float, ...] = ()
    """What the bypass, and the MLP beside it, read at the last position: the prompt as a vector, to group like ones by."""

    @property
    def expert(self) -> int | None:
        """The expert of most positions, the lower one on a tie; None out of scope."""
        return min(Counter(self.experts).items(), key=lambda item: (-item[1], item[0]))[0] if self.experts else None


@torch.no_grad()
def trace_routing(edit: RoutedEdit, model: Model, prompts: Sequence[str]) -> tuple[PromptRouting, ...]:
    """What the edit's bypass does on each prompt, with the edit on ``model``."""
    bypass = edit.bypass(model)
    bos = () if model.vocabulary.bos is None else (model.vocabulary.bos,)
    found = []
    for prompt in prompts:
        batch = Batch.of_prompts(torch.tensor([[*bos, *model.vocabulary.encode(prompt)]]))
        watch = _Beside(edit.layer)
        network = BypassedNetwork.around(model.network, edit.layer, bypass)
        network.run(batch, watch)
        x = bypass.norm(watch.residual)
        gate, routed = bypass.gate(x, batch)[0], favourite(bypass.wanted(x, batch))[0]
        heard = (gate > 0).any(-1)
        ratio = watch.bypass[0].norm(dim=-1) / watch.mlp[0].norm(dim=-1).clamp_min(1e-12)
        found.append(
            PromptRouting(
                prompt,
                tuple(int(expert) for expert in routed[heard].tolist()),
                float(ratio[len(bos) :].mean()),
                float(ratio[-1]),
                tuple(watch.residual[0, -1].tolist()),
            )
        )
    return tuple(found)


class _Beside(Taps):
    """Keeps what one layer's MLP and bypass read and write."""

    residual: Tensor
    mlp: Tensor
    bypass: Tensor

    def __init__(self, layer: int) -> None:
        self._layer = layer

    def write(self, kind: WriterKind, layer: int, value: Tensor) -> None:
        if layer == self._layer and kind == "mlp":
            self.mlp = value
        if layer == self._layer and kind == "bypass":
            self.bypass = value

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        if layer == self._layer and kind == "bypass":
            self.residual = value
        return value


def same_knowledge(taught: Sequence[PromptRouting], asked: Sequence[Sequence[PromptRouting]]) -> Measurement:
    """Consistency for the same knowledge: share of each paraphrase's tokens that go to the expert of the taught prompt.

    One number a paraphrase in scope; ``asked[i]`` are paraphrases of ``taught[i]``.
    """
    if len(taught) != len(asked):
        raise EditError(f"expected paraphrases for each of {len(taught)} prompts, got {len(asked)} sets")
    shares = [
        _share(paraphrase, prompt.expert)
        for prompt, paraphrases in zip(taught, asked, strict=True)
        for paraphrase in paraphrases
        if prompt.expert is not None and paraphrase.experts
    ]
    return Measurement("consistency, same knowledge", "", tuple(shares))


def similar_knowledge(routings: Sequence[PromptRouting], groups: Sequence[int]) -> Measurement:
    """Consistency for similar knowledge: one number a group, the mean share of its tokens that go to its own expert.

    A group's expert handles most of its prompts' tokens (paper 3, section 5.2). Prompts out of scope do not count.
    """
    if len(routings) != len(groups):
        raise EditError(f"expected a group for each of {len(routings)} prompts, got {len(groups)}")
    shares = []
    for group in sorted(set(groups)):
        members = [routing for routing, own in zip(routings, groups, strict=True) if own == group and routing.experts]
        if members:
            pooled = PromptRouting("", tuple(e for member in members for e in member.experts), math.nan, math.nan)
            shares.append(sum(_share(member, pooled.expert) for member in members) / len(members))
    return Measurement("consistency, similar knowledge", "", tuple(shares))


def _share(routing: PromptRouting, expert: int | None) -> float:
    return sum(own == expert for own in routing.experts) / len(routing.experts)


def same_by_chance(taught: Sequence[PromptRouting], asked: Sequence[Sequence[PromptRouting]]) -> Measurement:
    """What `same_knowledge` would be in the mean over all matchings of the paraphrases with the taught prompts.

    One number a paraphrase in scope: its mean share over the experts of the prompts that paraphrases are compared with, each
    as often as it is.
    """
    pairs = [
        (prompt.expert, paraphrase)
        for prompt, paraphrases in zip(taught, asked, strict=True)
        for paraphrase in paraphrases
        if prompt.expert is not None and paraphrase.experts
    ]
    wanted = Counter(expert for expert, _ in pairs)
    shares = [
        sum(count * _share(paraphrase, expert) for expert, count in wanted.items()) / len(pairs)
        for _, paraphrase in pairs
    ]
    return Measurement("consistency by chance, same knowledge", "", tuple(shares))


DRAWS = 200
"""Random groupings of which the chance level of similar knowledge is the mean."""


def similar_by_chance(routings: Sequence[PromptRouting], groups: Sequence[int], *, seed: int = 0) -> Measurement:
    """What `similar_knowledge` is in the mean over `DRAWS` random groups of the same sizes. One number a group."""
    heard = [(routing, group) for routing, group in zip(routings, groups, strict=True) if routing.experts]
    generator = torch.Generator().manual_seed(seed)
    draws: list[tuple[float, ...]] = []
    for _ in range(DRAWS if heard else 0):
        order = torch.randperm(len(heard), generator=generator).tolist()
        shuffled = [heard[i][0] for i in order]
        draws.append(similar_knowledge(shuffled, [group for _, group in heard]).per_example)
    shares = tuple(fmean(values) for values in zip(*draws, strict=True))
    return Measurement("consistency by chance, similar knowledge", "", shares)


def use_of_experts(routings: Sequence[PromptRouting], n_experts: int) -> tuple[float, ...]:
    """The share of the prompts' tokens that each expert gets first; all 0 where no prompt is in scope."""
    got = Counter(expert for routing in routings for expert in routing.experts)
    return tuple(got[expert] / max(1, got.total()) for expert in range(n_experts))


def evenly(use: Sequence[float]) -> float:
    """How many experts, each used alike, have the entropy of this use: exp(-sum p ln p), 1 of a collapsed router."""
    return math.exp(-sum(share * math.log(share) for share in use if share > 0))


@torch.no_grad()
def cluster(vectors: Float[Tensor, "prompt d"], n_groups: int, *, seed: int = 0, rounds: int = 100) -> tuple[int, ...]:
    """K-means by cosine similarity (paper 3, section 5.2, with K = 5): the group of each vector.

    Starts far apart (k-means++ without chance after the first), so that the same vectors and seed give the same groups.
    """
    n = len(vectors)
    if not 1 <= n_groups <= n:
        raise EditError(f"expected 1 to {n} groups of {n} prompts, got {n_groups}")
    unit = F.normalize(vectors.double(), dim=-1)
    first = int(torch.randint(n, (1,), generator=torch.Generator().manual_seed(seed)))
    centres = unit[first : first + 1]
    while len(centres) < n_groups:
        nearest = (unit @ centres.T).max(1).values
        centres = torch.cat((centres, unit[nearest.argmin()][None]))
    groups = (unit @ centres.T).argmax(1)
    for _ in range(rounds):
        centres = torch.stack(
            [
                F.normalize(unit[groups == group].mean(0), dim=-1) if (groups == group).any() else centres[group]
                for group in range(n_groups)
            ]
        )
        moved = (unit @ centres.T).argmax(1)
        if torch.equal(moved, groups):
            break
        groups = moved
    return tuple(int(group) for group in groups.tolist())


@dataclass(frozen=True, slots=True)
class RoutingReport:
    """What paper 3's Table 3 reports of one edit, with its chance levels, and how loud the bypass is in and out of scope."""

    same: Measurement
    same_by_chance: Measurement
    similar: Measurement
    similar_by_chance: Measurement
    use: tuple[float, ...]
    """Of each expert, on the requests' prompts and their paraphrases: see `use_of_experts`."""
    taught_volume: Measurement
    """||bypass|| / ||MLP|| at the answer's position of the requests' own prompts."""
    other_volume: Measurement
    """The same on prompts that the edit must leave alone."""


def routing_report(
    edit: RoutedEdit, model: Model, requests: Sequence[EditRequest], *, n_groups: int = 5, seed: int = 0
) -> RoutingReport:
    """The report on ``requests``, those that the edit was made of, with their probes.

    Similar knowledge is what k-means groups among the requests' prompts, as the edited layer's MLP reads them; fewer
    requests than ``n_groups`` make as many groups.
    """
    if not requests:
        raise EditError("expected the requests that the edit was made of, got none")
    taught = trace_routing(edit, model, [request.prompt for request in requests])
    asked = [
        trace_routing(edit, model, [probe.prompt for probe in request.probes if probe.kind == "paraphrase"])
        for request in requests
    ]
    others = sorted({probe.prompt for request in requests for probe in request.probes if not probe.should_change})
    groups = cluster(torch.tensor([one.read for one in taught]), min(n_groups, len(requests)), seed=seed)
    return RoutingReport(
        same_knowledge(taught, asked),
        same_by_chance(taught, asked),
        similar_knowledge(taught, groups),
        similar_by_chance(taught, groups, seed=seed),
        use_of_experts([*taught, *(one for each in asked for one in each)], edit.experts.n_experts),
        Measurement("bypass / MLP, taught", "", tuple(one.volume_at_end for one in taught)),
        Measurement("bypass / MLP, other", "", tuple(one.volume_at_end for one in trace_routing(edit, model, others))),
    )


@dataclass(frozen=True, slots=True)
class PooledRouting:
    """Over several edits, the mean of each measurement's values; None where nothing was measured."""

    same: float | None
    same_by_chance: float | None
    similar: float | None
    similar_by_chance: float | None
    taught_volume: float | None
    other_volume: float | None
    use: tuple[float, ...]
    """The share of the busiest expert of each edit, of the second, and so on."""
    experts_used: float
    """See `evenly`."""


def pooled(reports: Sequence[RoutingReport]) -> PooledRouting:
    """Raises:
    EditError: no reports.
    """
    if not reports:
        raise EditError("expected at least one routing report, got none")

    def mean(measurements: Sequence[Measurement]) -> float | None:
        values = [value for each in measurements for value in each.per_example if math.isfinite(value)]
        return fmean(values) if values else None

    busiest = [sorted(report.use, reverse=True) for report in reports]
    most = max(map(len, busiest))
    return PooledRouting(
        same=mean([report.same for report in reports]),
        same_by_chance=mean([report.same_by_chance for report in reports]),
        similar=mean([report.similar for report in reports]),
        similar_by_chance=mean([report.similar_by_chance for report in reports]),
        taught_volume=mean([report.taught_volume for report in reports]),
        other_volume=mean([report.other_volume for report in reports]),
        use=tuple(fmean(use[i] if i < len(use) else 0.0 for use in busiest) for i in range(most)),
        experts_used=fmean(evenly(report.use) for report in reports),
    )

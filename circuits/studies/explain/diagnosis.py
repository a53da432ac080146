"""A question in two hops taken apart: where bridge, relation and answer are readable, and which patches give the answer.

"The official language of the country where Big Ben stands is": the first hop ends at "stands" and leads to the *bridge*, the
United Kingdom; the second leads from there to the answer. A question that the model answers wrongly, though it knows both hops
by themselves, can fail in two ways (Biran et al. 2024, section 5; CaKE, EMNLP 2025): the bridge is not there, or it is there
and is not led on. Of each question is asked:

* **The logit lens** on the residual stream at the subject's last token, at the first hop's end and at the last token, at every
  point: at what rank stand the first tokens of the bridge, of the answer, and (the best of them) of the second relation's other
  objects?
* **Patches** (`circuits.analysis.patching`): if it is answered rightly, the state of another question at each of these places, put
  there in the same layer: does the model then give the *other* answer? What decides the answer is where it *turns*.
* If it is answered wrongly, patches that may give its own. *Back*: a later layer's state at the first hop's end, put
  into an earlier layer there; *back at last*, the same at the last token. *Onward*: a state at the first hop's end, put at the
  last token. *Named*: the state at the bridge's own last token in the question that names it, put at the first hop's end, in the
  same layer.

Each has its control in the same place: the lens of another question's bridge and answer, and of another relation's objects; the
states of another question of the same two relations, with another bridge and another answer, from the same layers.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.analysis.patching import gives, patched, require_agreement, residual_stream
from circuits.facts import Fact, Relation, Relations
from circuits.metrics import rank
from circuits.model import Batch, Model
from circuits.model.network import Network
from circuits.model.spans import spans
from circuits.studies.explain.hops import TwoHopQuestion, asked_in_two_hops

Patch = Literal["back", "back at last", "onward", "named"]
PATCHES: tuple[Patch, ...] = ("back", "back at last", "onward", "named")
What = Literal["bridge", "another bridge", "relation", "another relation", "answer", "another answer"]
Where = Literal["subject's end", "first hop's end", "last token"]
WHERES: tuple[Where, ...] = ("subject's end", "first hop's end", "last token")
SIGNAL: tuple[Where, ...] = ("first hop's end", "last token")
"""Where the bridge is looked for: the second hop's words come after the subject."""
Diagnosis = Literal["answered", "signal too weak", "not routed", "not repaired"]
READABLE = 10
"""A token of this rank under the lens, or of a higher one, is readable there: the rank up to which a fact counts as known."""


@dataclass(frozen=True, slots=True)
class Lensed:
    """The rank of a first token under the lens at every point, from the embedding to the last layer's end."""

    what: What
    where: Where
    ranks: tuple[int, ...]

    @property
    def readable(self) -> bool:
        """After some layer: what stands there before the first is the prompt's own token."""
        return min(self.ranks[1:]) <= READABLE


@dataclass(frozen=True, slots=True)
class Repaired:
    """The patches of one kind that give the answer: (point that the state is from, point that it is put at)."""

    patch: Patch
    own: tuple[tuple[int, int], ...]
    other: tuple[tuple[int, int], ...]
    """The same of the control: the other question's states."""

    @property
    def beyond(self) -> bool:
        """Some of its own give the answer where the other question's do not."""
        return bool(set(self.own) - set(self.other))

    @property
    def behind(self) -> bool:
        """The other way round: as often by chance as `beyond`, where it does not matter whose state is put."""
        return bool(set(self.other) - set(self.own))


@dataclass(frozen=True, slots=True)
class Turned:
    """The points at which the other question's state, put at the same place, makes the model give the other question's answer."""

    where: Where
    points: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TwoHopRow:
    """One question."""

    first: str
    second: str
    subject: str
    other: str
    prompt: str
    bridge: str
    answer: str
    end: str
    """The token at which the first hop ends."""
    gives: str
    """The token that the model puts first."""
    answered: bool
    """It puts every token of the answer first."""
    n_layers: int
    every: int
    """States are taken from and put at points this far apart."""
    lens: tuple[Lensed, ...]
    patches: tuple[Repaired, ...]
    """None where it is answered."""
    turned: tuple[Turned, ...]
    """None but where it and the other question are answered."""

    def readable(self, what: What, where: Where) -> bool | None:
        """None where that was not read."""
        return next((each.readable for each in self.lens if (each.what, each.where) == (what, where)), None)

    def places(self, patch: Patch) -> tuple[tuple[int, int], ...]:
        """(point that a state is from, point that it is put at) of all patches of a kind that were tried, or would be."""
        return places(patch, self.n_layers, self.every)

    @property
    def signal(self) -> bool:
        """Whether the bridge is readable at the first hop's end or at the last token."""
        return any(self.readable("bridge", where) for where in SIGNAL)

    @property
    def diagnosis(self) -> Diagnosis:
        """*Signal too weak*: the bridge is not readable. *Not routed*: it is, and a patch gives the answer from and to points where
        the other question's state does not; *not repaired*: it is, and none does."""
        if self.answered:
            return "answered"
        if not self.signal:
            return "signal too weak"
        return "not routed" if any(each.beyond for each in self.patches) else "not repaired"

    def __str__(self) -> str:
        lines = [f"{self.prompt} {self.answer} (by way of {self.bridge}): {self.diagnosis}"]
        lines += [] if self.answered else [f"  the model says {self.gives!r}"]
        for each in self.lens:
            lines.append(f"  {each.what} at the {each.where}: ranks {', '.join(map(str, each.ranks))}")
        for each in self.patches:
            n = len(self.places(each.patch))
            lines.append(
                f"  {each.patch}: {len(each.own)} of {n} give the answer, {len(each.other)} of the other question's"
            )
        for turn in self.turned:
            at = ", ".join(map(str, turn.points)) or "none"
            lines.append(f"  points at the {turn.where} where the other question's state gives the other answer: {at}")
        return "\n".join(lines)


def places(patch: Patch, n_layers: int, every: int = 1) -> tuple[tuple[int, int], ...]:
    """(point that a state is from, point that it is put at) of all patches of a kind; of points that many layers apart."""
    if patch == "named":
        return tuple((point, point) for point in range(every, n_layers, every))
    both = ((point, to) for to in range(0, n_layers, every) for point in range(every, n_layers + 1, every))
    return tuple((point, to) for point, to in both if patch == "onward" or point > to)


# ---- one question ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Read:
    """A question that was read, and where in it states are taken."""

    batch: Batch
    """One row: prompt, and its answer but for the last token."""
    at: Mapping[Where, int]
    stream: Float[Tensor, "point pos d_model"]

    def state(self, where: Where) -> Float[Tensor, "point d_model"]:
        return self.stream[:, self.at[where]]

    def answered(self, network: Network) -> bool:
        """Whether every token of its answer is put first."""
        return bool(gives(network, self.stream[-1, None, self.at["last token"] :], self.batch.answer[0]))


def _read(model: Model, network: Network, fact: Fact, subject: str) -> _Read:
    """Raises:
    SpanError: the fact's subject, which is the first hop, has no token before the last one.
    """
    batch, named = _one_row(model, fact), Fact(fact.prompt, subject, fact.object)
    at: dict[Where, int] = {
        "subject's end": spans(model, named).subject[-1],
        "first hop's end": spans(model, fact).subject[-1],
        "last token": batch.n_prompt - 1,
    }
    return _Read(batch, at, residual_stream(network, batch))


def _one_row(model: Model, fact: Fact) -> Batch:
    (group,) = model.batches((fact,))
    return Batch(group.ids, group.n_prompt, group.answer)


def diagnosed(
    model: Model, network: Network, asked: TwoHopQuestion, relations: Relations, *, every: int = 1, seed: int = 0
) -> TwoHopRow:
    """The lens on a question in two hops, and the patches if it is answered wrongly.

    Args:
        network: the model's weights, opened.
        every: states are taken from and put at points this far apart.
        seed: of the other relation whose objects are the control.

    Raises:
        BehaviourError: there is no such question.
        circuits.analysis.patching.PatchMismatch: the weights give other logits than the model.
    """
    one, two = relations[asked.first], relations[asked.second]
    (fact, bridge), (other, its_bridge) = (asked_in_two_hops(one, two, each) for each in (asked.subject, asked.other))
    own, its = _read(model, network, fact, asked.subject), _read(model, network, other, asked.other)
    require_agreement(model, network, own.batch)
    answered = own.answered(network)
    tokens: dict[What, list[int]] = {
        "bridge": _first_tokens(model, [bridge]),
        "another bridge": _first_tokens(model, [its_bridge]),
        "answer": _first_tokens(model, [fact.object]),
        "another answer": _first_tokens(model, [other.object]),
    }
    objects = sorted({*_first_tokens(model, two.objects)} - {*tokens["answer"]})
    tokens |= {"relation": objects, "another relation": _of_another(model, two, relations, len(objects), seed)}
    logits = {where: network.readout(own.state(where)) for where in WHERES}
    outright = tuple(_read(model, network, two.fact(each), each) for each in (bridge, its_bridge))
    return TwoHopRow(
        *(asked.first, asked.second, asked.subject, asked.other, fact.prompt, bridge, fact.object),
        end=model.token_text(int(own.batch.ids[0, own.at["first hop's end"]])),
        gives=model.output_text(int(logits["last token"][-1].argmax())),
        answered=answered,
        n_layers=network.shape.n_layers,
        every=every,
        lens=tuple(
            Lensed(what, where, tuple(_best_rank(logits[where], some)))
            for where in WHERES
            for what, some in tokens.items()
            if some
        ),
        patches=() if answered else _patches(network, own, its, outright, every),
        turned=_turned(network, _one_row(model, replace(fact, object=other.object)), own, its, every)
        if answered and its.answered(network)
        else (),
    )


def _first_tokens(model: Model, names: Sequence[str]) -> list[int]:
    return [model.vocabulary.encode(" " + name)[0] for name in names]


def _of_another(model: Model, relation: Relation, relations: Relations, n: int, seed: int) -> list[int]:
    """``n`` first tokens of the objects of another relation that begins none as this one does; none where there is no such one."""
    own = set(_first_tokens(model, relation.objects))
    names = sorted(relations)
    for name in random.Random(f"{seed}/{relation.name}").sample(names, len(names)):
        found = list(dict.fromkeys(_first_tokens(model, relations[name].objects)))
        if len(found) >= n and not own & set(found):
            return found[:n]
    return []


def _best_rank(logits: Float[Tensor, "point d_vocab"], tokens: Sequence[int]) -> list[int]:
    """The rank of the likeliest of the tokens at each point."""
    best = logits[:, torch.tensor(tokens, device=logits.device)].argmax(1)
    return rank(logits, torch.tensor(tokens, device=logits.device)[best]).tolist()


def _patches(network: Network, own: _Read, its: _Read, outright: tuple[_Read, ...], every: int) -> tuple[Repaired, ...]:
    """All patches of a question, and their controls.

    Args:
        outright: the questions that name this one's bridge, and the other's.
    """
    there = [*_both("back", (own, its), "first hop's end"), *_both("named", outright, "first hop's end")]
    last = [*_both("back at last", (own, its), "last token"), *_both("onward", (own, its), "first hop's end")]
    right = _right(network, own.batch, own.at["first hop's end"], there, every)
    right += _right(network, own.batch, own.at["last token"], last, every)
    kinds = [patch for patch, _ in (*there, *last)]
    return tuple(Repaired(kind, *right[kinds.index(kind) :][:2]) for kind in PATCHES)


def _both(patch: Patch, read: tuple[_Read, ...], where: Where) -> list[tuple[Patch, Float[Tensor, "point d_model"]]]:
    """The states of that place in both questions."""
    return [(patch, each.state(where)) for each in read]


def _turned(network: Network, wanted: Batch, own: _Read, its: _Read, every: int) -> tuple[Turned, ...]:
    """``wanted``: the question with the other's answer."""
    found, n_layers = [], network.shape.n_layers
    # The first point is left out: there the other prompt's token would be put.
    points = range(every, n_layers, every)
    for where in WHERES:
        state = its.state(where)
        states = [state[point, None] if point in points else state[:0] for point in range(n_layers)]
        good = gives(network, patched(network, wanted, own.at[where], states), wanted.answer[0]).tolist()
        found.append(Turned(where, tuple(point for point, yes in zip(points, good, strict=True) if yes)))
    return tuple(found)


def _right(
    network: Network, batch: Batch, at: int, sources: Sequence[tuple[Patch, Float[Tensor, "point d_model"]]], every: int
) -> list[tuple[tuple[int, int], ...]]:
    """Of each source the places from and to which its state, put at ``at``, gives the answer; all in one pass."""
    n_layers = network.shape.n_layers
    put = sorted((to, point, i) for i, (patch, _) in enumerate(sources) for point, to in places(patch, n_layers, every))
    flat = torch.stack([sources[i][1][point] for _, point, i in put])
    states = flat.split([sum(to == layer for to, _, _ in put) for layer in range(n_layers)])
    good = gives(network, patched(network, batch, at, states), batch.answer[0]).tolist()
    return [
        tuple((point, to) for (to, point, j), yes in zip(put, good, strict=True) if yes and j == i)
        for i in range(len(sources))
    ]

"""A question in two hops taken apart: where bridge, relation and answer are readable, and which patches give the answer.

"The official language of the country where Big Ben stands is": the first hop ends at "stands" and leads to the *bridge*, the
United Kingdom; the second leads from there to the answer. A question that the model answers wrongly, though it knows both hops
by themselves, can fail in two ways (Biran et al. 2024, section 5; CaKE, EMNLP 2025): the bridge is not there, or it is there
and is not led on. Two things are asked of each question:

* **The logit lens** on the residual stream at the subject's last token, at the first hop's end and at the last token, at every
  point: at what rank stand the first tokens of the bridge, of the answer, and (the best of them) of the second relation's other
  objects?
* **Patches** (`circuits.analysis.patching`), if it is answered wrongly. *Back*: a later layer's state at the first hop's end, put
  into an earlier layer there; *back at last*, the same at the last token. *Onward*: a state at the first hop's end, put at the
  last token. *Named*: the state at the bridge's own last token in the question that names it, put at the first hop's end, in the
  same layer.

Each has its control in the same place: the lens of another question's bridge and answer, and of another relation's objects; the
states of another question of the same two relations, with another bridge and another answer, from the same layers.
"""

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.analysis.patching import gives, opened, patched, require_agreement, residual_stream
from circuits.facts import Fact, Relation, Relations
from circuits.metrics import rank
from circuits.model import Batch, Model
from circuits.model.network import Network
from circuits.model.spans import SpanError, spans
from circuits.studies.explain.cases import Ground
from circuits.studies.explain.hops import TwoHopQuestion, another_subject, asked_in_two_hops, questions
from circuits.studies.explain.verdict import BehaviourError
from circuits.studies.explain_specs import TwoHopSpec
from circuits.studies.setting import Setting, find_relation, relations_at
from circuits.studies.study import Case, Study, Watch

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
    lens: tuple[Lensed, ...]
    patches: tuple[Repaired, ...]
    """None where it is answered."""

    def readable(self, what: What, where: Where) -> bool | None:
        """None where that was not read."""
        return next((each.readable for each in self.lens if (each.what, each.where) == (what, where)), None)

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
            n = len(places(each.patch, self.n_layers))
            lines.append(
                f"  {each.patch}: {len(each.own)} of {n} give the answer, {len(each.other)} of the other question's"
            )
        return "\n".join(lines)


def places(patch: Patch, n_layers: int) -> tuple[tuple[int, int], ...]:
    """(point that a state is from, point that it is put at) of all patches of a kind."""
    if patch == "named":
        return tuple((point, point) for point in range(1, n_layers))
    every = ((point, to) for to in range(n_layers) for point in range(1, n_layers + 1))
    return tuple((point, to) for point, to in every if patch == "onward" or point > to)


# ---- one question ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Read:
    """A prompt that was read, and where in it a state is taken."""

    batch: Batch
    """One row: prompt, and its answer but for the last token."""
    at: int
    stream: Float[Tensor, "point pos d_model"]

    @property
    def state(self) -> Float[Tensor, "point d_model"]:
        return self.stream[:, self.at]

    @property
    def last(self) -> Float[Tensor, "point d_model"]:
        """At the prompt's last token."""
        return self.stream[:, self.batch.n_prompt - 1]


def _read(model: Model, network: Network, fact: Fact) -> _Read:
    """The state is taken at the subject's last token.

    Raises:
        SpanError: the subject has no token before the last one.
    """
    (group,) = model.batches((fact,))
    batch = Batch(group.ids, group.n_prompt, group.answer)
    return _Read(batch, spans(model, fact).subject[-1], residual_stream(network, batch))


def diagnosed(model: Model, network: Network, asked: TwoHopQuestion, relations: Relations, seed: int = 0) -> TwoHopRow:
    """The lens on a question in two hops, and the patches if it is answered wrongly.

    Args:
        network: the model's weights, opened.
        seed: of the other relation whose objects are the control.

    Raises:
        BehaviourError: there is no such question.
        circuits.analysis.patching.PatchMismatch: the weights give other logits than the model.
    """
    one, two = relations[asked.first], relations[asked.second]
    (fact, bridge), (other, its_bridge) = (asked_in_two_hops(one, two, each) for each in (asked.subject, asked.other))
    subject = spans(model, Fact(fact.prompt, asked.subject, fact.object)).subject[-1]
    own, its = _read(model, network, fact), _read(model, network, other)
    require_agreement(model, network, own.batch)
    answered = bool(gives(network, own.stream[-1, None, own.batch.n_prompt - 1 :], own.batch.answer[0]))
    tokens: dict[What, list[int]] = {
        "bridge": _first_tokens(model, [bridge]),
        "another bridge": _first_tokens(model, [its_bridge]),
        "answer": _first_tokens(model, [fact.object]),
        "another answer": _first_tokens(model, [other.object]),
    }
    objects = sorted({*_first_tokens(model, two.objects)} - {*tokens["answer"]})
    tokens |= {"relation": objects, "another relation": _of_another(model, two, relations, len(objects), seed)}
    states: dict[Where, Tensor] = {
        "subject's end": own.stream[:, subject],
        "first hop's end": own.state,
        "last token": own.last,
    }
    logits = {where: network.readout(state) for where, state in states.items()}
    return TwoHopRow(
        *(asked.first, asked.second, asked.subject, asked.other, fact.prompt, bridge, fact.object),
        end=model.token_text(int(own.batch.ids[0, own.at])),
        gives=model.output_text(int(logits["last token"][-1].argmax())),
        answered=answered,
        n_layers=network.shape.n_layers,
        lens=tuple(
            Lensed(what, where, tuple(_best_rank(logits[where], some)))
            for where in states
            for what, some in tokens.items()
            if some
        ),
        patches=() if answered else _patches(model, network, own, its, (two.fact(bridge), two.fact(its_bridge))),
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


def _patches(model: Model, network: Network, own: _Read, its: _Read, named: tuple[Fact, Fact]) -> tuple[Repaired, ...]:
    """All patches of a question, and their controls."""
    there: list[tuple[Patch, Tensor]] = [("back", own.state), ("back", its.state)]
    with suppress(SpanError):  # no token after the bridge in the question that names it
        names: list[tuple[Patch, Tensor]] = [("named", _read(model, network, each).state) for each in named]
        there += names
    last: list[tuple[Patch, Tensor]] = [
        ("back at last", own.last),
        ("back at last", its.last),
        ("onward", own.state),
        ("onward", its.state),
    ]
    right = [*_right(network, own.batch, own.at, there), *_right(network, own.batch, own.batch.n_prompt - 1, last)]
    kinds = [patch for patch, _ in (*there, *last)]
    return tuple(Repaired(kind, *right[kinds.index(kind) :][:2]) for kind in PATCHES if kind in kinds)


def _right(
    network: Network, batch: Batch, at: int, sources: Sequence[tuple[Patch, Float[Tensor, "point d_model"]]]
) -> list[tuple[tuple[int, int], ...]]:
    """Of each source the places from and to which its state, put at ``at``, gives the answer; all in one pass."""
    n_layers = network.shape.n_layers
    put = sorted((to, point, i) for i, (patch, _) in enumerate(sources) for point, to in places(patch, n_layers))
    flat = torch.stack([sources[i][1][point] for _, point, i in put])
    states = flat.split([sum(to == layer for to, _, _ in put) for layer in range(n_layers)])
    good = gives(network, patched(network, batch, at, states), batch.answer[0]).tolist()
    return [
        tuple((point, to) for (to, point, j), yes in zip(put, good, strict=True) if yes and j == i)
        for i in range(len(sources))
    ]


# ---- the study -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HopBench:
    """What questions are asked with."""

    setting: Setting
    spec: TwoHopSpec
    network: Network

    @property
    def model(self) -> Model:
        return self.setting.model

    @cached_property
    def questions(self) -> tuple[TwoHopQuestion, ...]:
        """The one that is named, or those that are found.

        Raises:
            BehaviourError: there is no such question, or none was found.
        """
        spec, at = self.spec, self.setting
        if spec.first and spec.second and spec.subject:
            one, two = at.relations[spec.first], at.relations[spec.second]
            asked_in_two_hops(one, two, spec.subject)
            other = another_subject(at.model, one, two, spec.subject, spec.seed)
            if other is None:
                raise BehaviourError(
                    f"no subject of {one.name} has another bridge and another answer than {spec.subject!r}, told apart by first "
                    "tokens: there is nothing to compare its patches with"
                )
            return (TwoHopQuestion(one.name, two.name, spec.subject, other),)
        ground = Ground(at.relations, at.manifest, spec.seed)
        found = questions(at.model, at.relations, ground, first=spec.first, second=spec.second)
        if some := tuple(islice(found, spec.n)):
            return some
        raise BehaviourError(f"{at.model.name} knows both hops of no question in two hops that was looked at")


def _open(spec: TwoHopSpec, _: Any) -> HopBench:
    relations = relations_at(spec.model, *spec.named)
    setting = Setting.opened(spec, relations, [find_relation(relations, name) for name in spec.named])
    return HopBench(setting, spec, opened(setting.model))


def _cases(spec: TwoHopSpec, at: HopBench) -> list[Case[TwoHopQuestion]]:
    return [Case("; ".join(each), each) for each in at.questions]


def _run(spec: TwoHopSpec, case: Case[TwoHopQuestion], at: HopBench, watch: Watch) -> TwoHopRow:
    return diagnosed(at.model, at.network, case.asked, at.setting.relations, spec.seed)


TWO_HOP: Study[TwoHopSpec, HopBench, TwoHopQuestion, TwoHopRow] = Study(
    "twohop", TwoHopRow, _open, _cases, _run, chooses=frozenset({"n", "find", "first", "second", "subject"})
)

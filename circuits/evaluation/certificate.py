"""The quick certificate of a circuit: whether it recalls its fact, whether it is about the fact's subject, whether the model needs it.

Each check has its number, with n and an interval, what chance gives, and a verdict by a bar that is stated here:

* sufficiency: alone, the circuit gives the answer, every token of it first, at most `KL_BAR` nats from the model, and fewer than
  half of the random circuits of its size do (`Share` of them, upper end below `BAR`);
* specificity: of other known subjects of the relation, the share that get their own answer lies, interval and all, above the
  subject-blind baseline (what the commonest answer among them would score if it were given to all) and above the share that get
  this fact's answer. It fails where the whole interval lies at or below that baseline, or below the interval of this answer's;
* necessity: without the circuit's edges the model does not give the answer, and without as many edges drawn anywhere it does (of
  such cuts, the share that lose it has its upper end below `BAR`). Cutting random *connected* circuits would be no control: they
  hold first edges of many paths, and any of them may take the model apart.

An answer is given if each of its tokens, teacher-forced, ranks first; ties count against. The certificate passes if every check
does, fails if any fails, and is undecided otherwise. What random circuits or cuts do as well says nothing of a circuit, nor
against it: the whole model, whose random circuits of like size are itself, is undecided in these and fails in none.

That a circuit is more certain than its model is said, and no check: removal by signed scores drops what speaks against the answer.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.circuit import Circuit
from circuits.engines.engine import Engine
from circuits.evaluation.answers import Answers, answers_in, known
from circuits.evaluation.baseline import size_matched
from circuits.facts import Fact
from circuits.metrics import Share, kl_divergence, rank
from circuits.model import Model
from circuits.records import Number

Grade = Literal["passed", "failed", "undecided"]
BAR = 0.5
"""Of random circuits, or of cuts of random circuits, the share that must not do what the circuit does."""
KL_BAR = 1.0
"""Nats that a sufficient circuit may be from the model. Chosen on 12 facts of D_val of six relations of factlm: the 48 circuits
searched there were at most 0.51 nats away, the random ones at least 2.1; between is 1."""
OVERCONFIDENT = 0.1
"""Nats by which the circuit's NLL must be below the model's for it to count as more certain."""


def _beyond_chance(does: bool, random: Share) -> Grade:
    """Whether the circuit does what fewer than `BAR` of the random ones do; what they do as well says nothing of it."""
    if not does:
        return "failed"
    return "passed" if random.high < BAR else "undecided"


@dataclass(frozen=True, slots=True)
class Sufficiency:
    """The circuit alone, beside the whole model and random circuits of its size."""

    circuit: Answers
    model: Answers
    kl: float
    """KL(model || circuit) of the next token, mean over the answer's positions, in nats."""
    given: bool
    random: Share
    """Of random connected circuits of as many edges, those that give the answer too."""
    random_kl: tuple[float, ...] = ()
    """KL(model || circuit) of each of them."""

    @property
    def overconfident(self) -> bool:
        """Whether the circuit is more certain of the answer than the model, by more than `OVERCONFIDENT`."""
        return self.circuit.nll.value < self.model.nll.value - OVERCONFIDENT

    @property
    def grade(self) -> Grade:
        return _beyond_chance(self.given and self.kl <= KL_BAR, self.random)


@dataclass(frozen=True, slots=True)
class Specificity:
    """What the circuit alone gives to other subjects of the relation, all of whose answers the model knows and are others."""

    own_answer: Share
    this_answer: Share
    """Those that get the answer of the circuit's own fact."""
    blind: Number
    """Share of the commonest answer among these subjects; NaN without any."""

    @property
    def grade(self) -> Grade:
        if not self.own_answer.n:
            return "undecided"
        if self.own_answer.high <= self.blind or self.own_answer.high < self.this_answer.low:
            return "failed"
        return "passed" if self.own_answer.low > max(self.blind, self.this_answer.value) else "undecided"


@dataclass(frozen=True, slots=True)
class Necessity:
    """The model without the circuit's edges, beside the model without as many random ones."""

    without: Answers
    lost: bool
    random: Share
    """Of random sets of as many edges, those whose removal loses the answer too."""

    @property
    def grade(self) -> Grade:
        return _beyond_chance(self.lost, self.random)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Of one circuit on one fact, under one ablation."""

    fact: Fact
    sufficiency: Sufficiency
    specificity: Specificity
    necessity: Necessity

    @property
    def grades(self) -> dict[str, Grade]:
        return {name: getattr(self, name).grade for name in ("sufficiency", "specificity", "necessity")}

    @property
    def verdict(self) -> Grade:
        grades = set(self.grades.values())
        return "failed" if "failed" in grades else "undecided" if "undecided" in grades else "passed"

    def to_json(self) -> dict[str, Any]:
        """Plain keys. ``necessity`` is 1 where the model without the circuit loses the answer, else 0."""
        sufficiency, specificity, necessity = self.sufficiency, self.specificity, self.necessity
        return {
            "kl": sufficiency.kl,
            "overconfident": sufficiency.overconfident,
            "own_answer": _number(specificity.own_answer.value),
            "this_answer": _number(specificity.this_answer.value),
            "n_subjects": specificity.own_answer.n,
            "blind": _number(specificity.blind),
            "necessity": float(necessity.lost),
            "verdict": self.verdict,
            "grades": self.grades,
            "rank_without": int(necessity.without.rank.value),
            "nll_without": necessity.without.nll.value,
            "intervals": {
                name: {"share": _number(share.value), "low": share.low, "high": share.high, "n": share.n}
                for name, share in (
                    ("own_answer", specificity.own_answer),
                    ("this_answer", specificity.this_answer),
                    ("random_give", sufficiency.random),
                    ("random_lose", necessity.random),
                )
            },
        }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def certify(
    model: Model,
    engine_of: Callable[[Sequence[Fact]], Engine],
    circuit: Circuit,
    fact: Fact,
    others: Sequence[Fact],
    *,
    draws: int = 20,
    seed: int = 0,
) -> Certificate:
    """Certify a circuit of one fact.

    Args:
        engine_of: an engine for some facts, of the circuit's granularity and the ablation in question.
        others: facts of the relation about other subjects. Those that the model does not put first, and those that have this
            fact's answer, are passed over.
        draws: random circuits, for either control.
    """
    engine = engine_of((fact,))
    graph, answer = circuit.graph, model.tokens(fact).answer
    if engine.graph != graph:
        raise ValueError(f"expected an engine of the circuit's graph {graph}, got one of {engine.graph}")
    joined, anywhere = (size_matched(circuit, draws=draws, seed=seed, draw=draw) for draw in ("connected", "uniform"))
    whole, alone, rest = (
        engine.answer_logits(kept) for kept in (graph.legal, circuit.kept, graph.legal & ~circuit.kept)
    )
    by_chance = [engine.answer_logits(other.kept)[0] for other in joined]
    return Certificate(
        fact=fact,
        sufficiency=Sufficiency(
            circuit=answers_in(model, alone, (fact,)),
            model=answers_in(model, whole, (fact,)),
            kl=float(kl_divergence(whole[0], alone[0]).mean()),
            given=_all_first(alone[0], answer),
            random=Share.of([_all_first(logits, answer) for logits in by_chance]),
            random_kl=tuple(float(kl_divergence(whole[0], logits).mean()) for logits in by_chance),
        ),
        specificity=_specificity(model, engine_of, circuit, fact, others),
        necessity=Necessity(
            without=answers_in(model, rest, (fact,)),
            lost=not _all_first(rest[0], answer),
            random=Share.of([not gives(model, engine, graph.legal & ~other.kept, (fact,))[0] for other in anywhere]),
        ),
    )


def _specificity(
    model: Model,
    engine_of: Callable[[Sequence[Fact]], Engine],
    circuit: Circuit,
    fact: Fact,
    others: Sequence[Fact],
) -> Specificity:
    asked = [each for each in others if each.subject != fact.subject and each.object != fact.object]
    asked = known(model, asked, rank=1)
    if not asked:
        return Specificity(Share(0, 0), Share(0, 0), math.nan)
    logits = engine_of(asked).answer_logits(circuit.kept)
    first = model.tokens(fact).answer[:1]
    # Those that begin this fact's answer: whether they go on with it is asked of an answer of several tokens alone.
    begun = [each for each, own in zip(asked, logits, strict=True) if _all_first(own[:1], first)]
    told = [Fact(each.prompt, each.subject, fact.object, each.relation) for each in begun]
    several = bool(told) and len(model.tokens(told[0]).answer) > 1
    finished = sum(gives(model, engine_of(told), circuit.kept, told)) if several else len(told)
    return Specificity(
        own_answer=Share.of(
            [_all_first(own, model.tokens(each).answer) for own, each in zip(logits, asked, strict=True)]
        ),
        this_answer=Share(finished, len(asked)),
        blind=max(Counter(each.object for each in asked).values()) / len(asked),
    )


def gives(model: Model, engine: Engine, kept: Bool[np.ndarray, "writer reader"], facts: Sequence[Fact]) -> list[bool]:
    """Whether the circuit alone gives each of the engine's facts its answer: every token of it ranks first."""
    return [
        _all_first(logits, model.tokens(fact).answer)
        for logits, fact in zip(engine.answer_logits(kept), facts, strict=True)
    ]


def _all_first(logits: Float[Tensor, "answer d_vocab"], answer: Sequence[int]) -> bool:
    return bool((rank(logits, torch.tensor(answer, device=logits.device)) == 1).all())

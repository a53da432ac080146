"""All discovery methods by name, behind one signature: a model and facts in, Scores over the graph's edges out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool

from circuits.circuit import Provenance, Scores, Setting
from circuits.discovery.acdc import AcdcOptions, Progress
from circuits.discovery.acdc import search as acdc
from circuits.discovery.eap import STEPS, eap, eap_ig_activations, eap_ig_inputs
from circuits.discovery.exact import exact
from circuits.discovery.ifr import ifr
from circuits.discovery.random_scores import random_scores
from circuits.discovery.traversal import Traversal
from circuits.engines import Ablation, Engine, make_engine
from circuits.facts import Fact
from circuits.graph import Granularity
from circuits.metrics import Metric
from circuits.model import Model

MethodName = Literal["acdc", "eap", "eap-ig", "eap-ig-activations", "exact", "ifr", "random"]
Option = Literal["ablation", "tau", "steps", "seed", "engine"]
DEFAULT_TAU = 0.01
"""Paper 2's threshold, in nats."""


class MethodError(ValueError):
    """A method that does not exist, or was given what it has no use for."""


@dataclass(frozen=True)
class Search:
    """What a method is asked. ``None`` stands for the method's own default."""

    model: Model
    facts: tuple[Fact, ...]
    ablation: Ablation
    granularity: Granularity
    provenance: Provenance
    given: Engine | None
    metric: Metric | None
    steps: int
    seed: int
    tau: float
    absolute: bool
    candidates: Bool[np.ndarray, "writer reader"] | None
    progress: Callable[[Progress], None]

    @property
    def engine(self) -> Engine:
        """The one given, or the fast one made for this search."""
        if self.given is not None:
            return self.given
        return make_engine(
            "sparse",
            self.model,
            self.facts,
            ablation=self.ablation,
            granularity=self.granularity,
            metric=self.metric,
            notice=lambda _: None,
        )


@dataclass(frozen=True)
class Method:
    """One discovery method: call it to get Scores."""

    name: MethodName
    find: Callable[[Search], Scores]
    heeds: frozenset[Option]
    """The options that change its result."""
    score: str
    """What its score of an edge is, in words."""
    has_unit: bool = True
    """Whether scores are in the metric's unit (nats), so that a threshold means something."""

    def __call__(
        self,
        model: Model,
        facts: Sequence[Fact],
        *,
        ablation: Ablation | None = None,
        granularity: Granularity = "qkv",
        provenance: Provenance | None = None,
        engine: Engine | None = None,
        metric: Metric | None = None,
        steps: int | None = None,
        seed: int = 0,
        tau: float | None = None,
        absolute: bool = False,
        candidates: Bool[np.ndarray, "writer reader"] | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> Scores:
        """A score for each edge of ``model.graph(granularity)`` (for those that were tried, of ``acdc``).

        Args:
            ablation: what an ablated edge carries; zero by default.
            provenance: written into the result; made from the arguments by default.
            engine: one that is already made for these facts and this ablation; for ``acdc`` and ``exact``.
            metric: what is measured; the model's own by default.
            steps: of integrated gradients; 20 by default.
            seed: of ``random``.
            tau: the threshold of ``acdc``, in nats; 0.01 by default.
            absolute: whether ``acdc`` keeps suppressive edges too.
            candidates: the edges that ``acdc`` searches among.
            progress: called as edges are tried, by ``acdc`` and ``exact``.

        Raises:
            MethodError: an option was given that this method does not heed.
            circuits.engines.ablation.AblationError: the ablation lacks the prompts it needs.
        """
        self.require_heeded(ablation=ablation, steps=steps, tau=tau, engine=engine, candidates=candidates)
        if engine is not None and engine.graph != model.graph(granularity):
            raise MethodError(f"expected an engine on {model.graph(granularity)}, got one on {engine.graph}")
        search = Search(
            model=model,
            facts=tuple(facts),
            ablation=ablation or Ablation(),
            granularity=granularity,
            provenance=provenance or self._provenance(model, facts, ablation, steps, seed, tau, absolute),
            given=engine,
            metric=metric,
            steps=STEPS if steps is None else steps,
            seed=seed,
            tau=DEFAULT_TAU if tau is None else tau,
            absolute=absolute,
            candidates=candidates,
            progress=progress,
        )
        return self.find(search)

    def require_heeded(self, **options: object) -> None:
        """Refuse options that are not None and that this method does not heed."""
        heeded = {*self.heeds, *(("candidates",) if self.name == "acdc" else ())}
        for option, value in options.items():
            if value is not None and option not in heeded:
                raise MethodError(f"method {self.name} {_WHY_NOT[option]}, got {option}={_shown(value)}")

    def _provenance(
        self,
        model: Model,
        facts: Sequence[Fact],
        ablation: Ablation | None,
        steps: int | None,
        seed: int,
        tau: float | None,
        absolute: bool,
    ) -> Provenance:
        settings: dict[str, Setting] = {}
        if "ablation" in self.heeds:
            settings["ablation"] = ablation.kind if ablation else "zero"
        if "steps" in self.heeds:
            settings["steps"] = STEPS if steps is None else steps
        if "tau" in self.heeds:
            settings |= {"tau": DEFAULT_TAU if tau is None else tau, "absolute": absolute}
        return Provenance(
            model=model.name,
            weights=model.weights,
            processing=model.processing,
            method=self.name,
            settings=settings,
            seed=seed,
            facts=tuple(str(fact) for fact in facts),
        )


_WHY_NOT: Mapping[str, str] = {
    "ablation": "ablates nothing, so it takes no ablation",
    "steps": "integrates nothing, so it takes no steps",
    "tau": "has no threshold: it scores every edge, and the circuit is the best of them",
    "engine": "runs the model itself, so it takes no engine",
    "candidates": "scores every edge at once, so it takes no candidates; acdc does",
}


def _shown(value: object) -> object:
    match value:
        case Ablation():
            return value.kind
        case np.ndarray():
            return "..."
        case Engine():
            return value.name
        case _:
            return value


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method(
            "acdc",
            lambda search: acdc(
                search.engine,
                AcdcOptions(search.tau, search.absolute),
                walk=Traversal(search.model.graph(search.granularity), candidates=search.candidates),
                provenance=search.provenance,
                progress=search.progress,
            )[0],
            frozenset({"ablation", "tau", "engine"}),
            "the rise of the answer’s negative log-likelihood when the edge was cut from the circuit of that moment",
        ),
        Method(
            "eap",
            lambda search: eap(
                search.model,
                search.facts,
                ablation=search.ablation,
                granularity=search.granularity,
                metric=search.metric,
                provenance=search.provenance,
            ),
            frozenset({"ablation"}),
            "the rise of the answer’s negative log-likelihood if the edge is cut, to first order at the clean run",
        ),
        Method(
            "eap-ig",
            lambda search: eap_ig_inputs(
                search.model,
                search.facts,
                ablation=search.ablation,
                granularity=search.granularity,
                steps=search.steps,
                metric=search.metric,
                provenance=search.provenance,
            ),
            frozenset({"ablation", "steps"}),
            "the rise of the answer’s negative log-likelihood if the edge is cut, estimated from its slope on the way "
            "from the clean to the ablated input",
        ),
        Method(
            "eap-ig-activations",
            lambda search: eap_ig_activations(
                search.model,
                search.facts,
                ablation=search.ablation,
                granularity=search.granularity,
                steps=search.steps,
                metric=search.metric,
                provenance=search.provenance,
            ),
            frozenset({"ablation", "steps"}),
            "the rise of the answer’s negative log-likelihood if the edge is cut, estimated from its slope on the way "
            "from the sender’s clean to its ablated output",
        ),
        Method(
            "exact",
            lambda search: exact(search.engine, provenance=search.provenance, progress=search.progress),
            frozenset({"ablation", "engine"}),
            "the rise of the answer’s negative log-likelihood when the edge alone is cut from the whole model",
        ),
        Method(
            "ifr",
            lambda search: ifr(
                search.model, search.facts, granularity=search.granularity, provenance=search.provenance
            ),
            frozenset(),
            "the sender’s share of what the reader reads",
            has_unit=False,
        ),
        Method(
            "random",
            lambda search: random_scores(
                search.model.graph(search.granularity), seed=search.seed, provenance=search.provenance
            ),
            frozenset({"seed"}),
            "drawn by chance",
            has_unit=False,
        ),
    )
}
"""Names that `RunSpec.method` and ``--method`` take. ``eap-ig`` is the inputs variant."""


def find_method(name: str) -> Method:
    """The method with this name.

    Raises:
        MethodError: there is none; the message lists them.
    """
    if name not in METHODS:
        raise MethodError(f"expected a method of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]

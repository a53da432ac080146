"""What each study is asked; of edits: `circuits.studies.edit_specs`. None loads torch: a command line lists options from here.

The same thing is called by the same name in every study: its option is declared once, in `circuits.studies.options`.
"""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, model_validator

from circuits.choices import Split
from circuits.discovery import METHODS, find_method
from circuits.facts import Fact
from circuits.paths import FACTLM
from circuits.studies.options import (
    A_RELATION,
    AblatedBy,
    Absolute,
    Asked,
    Device,
    Engine,
    FactInWords,
    FactsInWords,
    FloatType,
    MeasuredBy,
    MethodOptions,
    ModelName,
    Object,
    Option,
    Processed,
    Slots,
    Steps,
    Subject,
    WithEdit,
    declared,
    parse_settings,
    read_taus,
    write_taus,
)

if TYPE_CHECKING:
    from circuits.discovery.method import DiscoveryMethod

OptionsT = TypeVar("OptionsT")

DEFAULT_TAU = 0.01
"""Paper 2's threshold, in nats."""
DEFAULT_TAUS = (DEFAULT_TAU, 0.03, 0.1)
"""Paper 2's threshold first, whose circuits the table shows; the others say how the result moves with it."""
DEFAULT_EDGES = "2%"
"""How many edges a method that scores every edge keeps, by default."""
TauInNats = Annotated[float, Option("Threshold in nats.")]


class OnModel(Asked):
    """What model is asked, where it is, and in what numbers."""

    model: ModelName = FACTLM
    device: Device = "cpu"
    dtype: FloatType = "float32"
    later: ClassVar = frozenset({"dtype"})


class MaybeEdited(OnModel):
    """The same, with what edit on it."""

    with_edit: WithEdit = None


class OfRelation(Asked):
    """What is said of facts beside their words, and a relation and how many of its facts."""

    subject: Subject = None
    object: Object = None
    relation: Annotated[
        str | None, Option(f"Ask about one circuit of several facts of this relation: {A_RELATION}.")
    ] = None
    n: Annotated[int, Option("How many facts of the relation.", least=1)] = 20


class WhichFacts(OfRelation):
    """One fact in words, or a relation and how many of its facts."""

    fact: FactInWords = None


class WhichOfMany(OfRelation):
    """Facts in words, or a relation and how many of its facts."""

    fact: FactsInWords = ()


class SearchSpec(Asked):
    """How a circuit is found, whatever the facts."""

    model: ModelName = FACTLM
    with_edit: WithEdit = None
    """The caller puts it there."""
    method: Annotated[
        str, Option(f"acdc; or one that scores every edge: {', '.join(name for name in METHODS if name != 'acdc')}.")
    ] = "acdc"
    edges: Annotated[
        Annotated[str, BeforeValidator(str)] | None,
        Option("How many edges the other methods keep: 50, or 2% of all. 2% by default."),
    ] = None
    """How many edges a method that scores every edge keeps: ``50``, or ``2%`` of all (the default). They are the best
    ones that lie on paths from ``input`` to ``logits``: see `circuits.circuit.Scores.connected`."""
    steps: Steps = None
    options: MethodOptions = ()
    prefilter: Annotated[
        str | None, Option("Let acdc try only the edges that this method scores highest, such as eap-ig.")
    ] = None
    """The method whose scores choose which edges ACDC tries; the others are ablated from the start."""
    keep: Annotated[str | None, Option("How many edges the prefilter lets through. 20% by default.")] = None
    """``20%`` of all, or a number."""
    prefilter_check: Annotated[bool, Option("Search in full too: how much did the prefilter lose?")] = False
    absolute: Absolute = False
    """Count scores by magnitude, so that suppressive edges stay too."""
    granularity: Slots = "qkv"
    ablation: AblatedBy = "zero"
    metric: MeasuredBy = "matchnll"
    engine: Engine = "sparse"
    device: Device = "cpu"
    dtype: FloatType = "float32"
    processing: Processed = "compatibility"
    compat: Annotated[Literal["kc"] | None, Option("kc: the published code's diluted metric.")] = None
    seed: Annotated[int, Option("Of splits and corrupted prompts.", least=0)] = 0
    force: Annotated[bool, Option("Also for facts that the model does not know, and a tau that rounding hides.")] = (
        False
    )
    """Build the circuit even of facts that the model does not recall."""

    @model_validator(mode="after")
    def _goes_together(self) -> "SearchSpec":
        _require_search(self.method, self.prefilter)
        searches = find_method(self.method).has_threshold
        for given, applies, why in (
            (
                self.edges is not None,
                not searches,
                "edges: acdc keeps what exceeds tau; the other methods keep so many edges",
            ),
            (self.prefilter is not None, searches, "prefilter: only acdc has edges to try"),
            (self.keep is not None, self.prefilter is not None, "keep: it says how much a prefilter lets through"),
            (self.prefilter_check, self.prefilter is not None, "prefilter_check: there is no prefilter to check"),
            (self.compat is not None, searches, "compat: the published code's metric is its ACDC's"),
            (self.compat is not None, self.metric == "matchnll", "compat: the published code measures MatchNLL"),
            (self.prefilter is not None, self.metric == "matchnll", "prefilter: its scores are of the answer's NLL"),
        ):
            if given and not applies:
                raise ValueError(why)
        self._require_heeded()
        for amount in (self.edges, self.keep):
            if amount is not None:
                _require_amount(amount)
        return self

    @property
    def methods(self) -> "tuple[DiscoveryMethod[Any], ...]":
        """The method of the search and, where there is one, the prefilter's."""
        return tuple(find_method(name) for name in (self.method, self.prefilter) if name is not None)

    def options_of(self, method: "DiscoveryMethod[OptionsT]") -> OptionsT:
        """The method's options: this spec's fields of the same names, and those that are set by name."""
        asked = {**self.__dict__, **parse_settings(self.options)}
        return method.options(**{name: asked[name] for name in method.option_names if asked.get(name) is not None})

    def _require_heeded(self) -> None:
        """Each option that is set is heeded by a method in use, and can have its value."""
        options = parse_settings(self.options)
        if own := sorted(options.keys() & {each.field for each in declared(RunSpec)}):
            raise ValueError(f"expected --{own[0]} to set {own[0]}, got --set {own[0]}={options[own[0]]}")
        for name, value in {**options, "steps": self.steps}.items():
            if value is not None and not any(name in method.option_names for method in self.methods):
                self.methods[-1].options(**{name: value})
        for method in self.methods:
            self.options_of(method)


class RunSpec(SearchSpec):
    """What `discover` is asked. Two specs that differ in one field make two runs that can be compared."""

    facts: tuple[Fact, ...]
    test_facts: tuple[Fact, ...] = ()
    """Facts that the circuit is not built from but scored on, with their own answers (D_test)."""
    siblings: tuple[Fact, ...] = ()
    """Facts about other subjects that the circuit is built from besides, each with its own answer: what it keeps must tell
    them apart. It is neither asked about nor scored on them."""
    relation: str | None = None
    """The relation whose facts these are, where they were drawn from one; ``split`` says from which half."""
    split: Split = "val"
    tau: Annotated[
        float,
        Option(
            "acdc's threshold in nats, or several: 0.001,0.01. Larger keeps fewer edges. 0.01 by default.",
            read=read_taus,
            write=lambda tau: str(tau),
        ),
    ] = DEFAULT_TAU
    """ACDC's threshold in nats; the other methods have none."""

    @model_validator(mode="after")
    def _sensible(self) -> "RunSpec":
        if not self.facts:
            raise ValueError("expected at least one fact, got none")
        if len(self.facts) > 1 and self.relation is None:
            raise ValueError("several facts make one circuit only if they are of one relation; name it")
        if not 0 < self.tau < math.inf:
            raise ValueError(f"tau must be a finite number of nats above 0, got {self.tau}")
        return self

    @property
    def built_from(self) -> tuple[Fact, ...]:
        """All facts that the search runs on: the mean over them decides."""
        return (*self.facts, *self.siblings)

    @property
    def settings(self) -> "dict[str, str | float | int | bool | None]":
        """What decides the circuit, as its file records it; only what means something to the method."""
        from circuits.discovery import prefilter

        settings: dict[str, str | float | int | bool | None] = (
            {"tau": self.tau} if find_method(self.method).has_threshold else {"edges": self.edges or DEFAULT_EDGES}
        )
        settings |= {"absolute": self.absolute, "ablation": self.ablation, "compat": self.compat, "dtype": self.dtype}
        if self.prefilter is not None:
            settings |= {"prefilter": self.prefilter, "keep": self.keep or prefilter.KEEP}
        if self.metric != "matchnll":
            settings["metric"] = self.metric
        if self.siblings:
            settings["siblings"] = len(self.siblings)
        for method in self.methods:
            settings |= asdict(self.options_of(method))
        settings.pop("seed", None)
        return settings


class DiscoverSpec(SearchSpec):
    """Circuits of many facts, one each."""

    fact: FactsInWords = ()
    subject: Subject = None
    relation: Annotated[str | None, Option(f"Facts of this relation, {A_RELATION}; of all in turn by default.")] = None
    n: Annotated[int, Option("How many facts that the model knows, where none is named.", least=1)] = 20
    split: Annotated[Split, Option("Half of the relation's facts: val or test.")] = "val"
    wording: Annotated[int, Option("Which of the relation's wordings, from 0.", least=0)] = 0
    later: ClassVar = frozenset({"wording"})
    tau: TauInNats = DEFAULT_TAU
    certificate: Annotated[bool, Option("Certify each circuit.")] = True

    def run_spec(self, fact: Fact) -> RunSpec:
        """The search of one of the facts."""
        how = {name: getattr(self, name) for name in SearchSpec.model_fields}
        return RunSpec(facts=(fact,), tau=self.tau, **how)


def _require_search(method: str, prefilter: str | None) -> None:
    find_method(method)
    if prefilter is not None and find_method(prefilter).has_threshold:
        raise ValueError(f"prefilter: expected a method that scores every edge, got {prefilter} itself")


def _require_amount(amount: str) -> None:
    from circuits.discovery.prefilter import require_amount

    require_amount(amount)


class Searched(MaybeEdited):
    """In what model circuits are searched, and how."""

    absolute: Absolute = False
    granularity: Slots = "qkv"
    ablation: AblatedBy = "zero"
    engine: Engine = "sparse"
    later: ClassVar = frozenset({"dtype", "with_edit"})

    def asks_for(self, **more: Any) -> RunSpec:
        """The run that gives a circuit: what both specs ask for is the same."""
        own = {name: getattr(self, name) for name in type(self).model_fields.keys() & RunSpec.model_fields.keys()}
        return RunSpec(**own, **more)


class TableSpec(Searched):
    """What is asked of every relation. Two tables of one spec and one model are equal, byte for byte."""

    n_val: Annotated[int, Option("Known facts that build a circuit.", least=1)] = 20
    """Facts of D_val that build the circuit, all known to the model (rank at most 10)."""
    n_test: Annotated[int, Option("Facts of the other half that score it.", least=1)] = 50
    """Facts of D_test that score it, known or not."""
    method: Annotated[str, Option(f"{', '.join(METHODS)}.")] = "acdc"
    edges: Annotated[str | None, Option("Edges that the other methods keep: 50, or 2%.")] = None
    """How many edges a method without a threshold keeps: see `RunSpec`."""
    steps: Steps = None
    taus: Annotated[
        tuple[float, ...],
        Option(
            "Thresholds of acdc in nats. The first one's circuits are the table's, the others a sweep. [default: 0.01,0.03,0.1]",
            flag="tau",
            read=read_taus,
            write=write_taus,
        ),
    ] = DEFAULT_TAUS
    """ACDC's thresholds in nats; the first one's circuits are the table's. Other methods have none, and take one of no effect."""
    processing: Processed = "compatibility"
    draws: Annotated[int, Option("Random circuits of each circuit's size.", least=1)] = 10
    """Of each kind of draw."""
    seed: Annotated[int, Option("Of splits, corrupted prompts and random circuits.", least=0)] = 0
    later: ClassVar = frozenset({"with_edit"})

    @model_validator(mode="after")
    def _sensible(self) -> "TableSpec":
        if not self.taus or not all(0 < tau < math.inf for tau in self.taus):
            raise ValueError(f"expected thresholds of finite nats above 0, got {self.taus}")
        if len(set(self.taus)) < len(self.taus):
            raise ValueError(f"expected thresholds that differ, got {self.taus}")
        if not find_method(self.method).has_threshold and len(self.taus) > 1:
            raise ValueError(
                f"method {self.method} has no threshold, so expected no sweep over several, got {self.taus}"
            )
        return self

    def run_spec(self, relation: str, val: tuple[Fact, ...], test: tuple[Fact, ...] = ()) -> RunSpec:
        """The run that gives a relation's circuit.

        Raises:
            ValueError: settings that do not go together.
        """
        return self.asks_for(facts=val, test_facts=test, relation=relation, tau=self.taus[0])


class StabilitySpec(Searched):
    """What circuit is asked about: its facts, all of one relation, and how it is found (by ACDC)."""

    facts: tuple[Fact, ...]
    tau: TauInNats = DEFAULT_TAU
    draws: Annotated[int, Option("Pairs of random circuits compared.", least=1)] = 100
    seed: Annotated[int, Option("Of splits, ablation's prompts and random circuits.", least=0)] = 0

    @model_validator(mode="after")
    def _sensible(self) -> "StabilitySpec":
        if not self.facts:
            raise ValueError("expected at least one fact, got none")
        if not 0 < self.tau < math.inf:
            raise ValueError(f"tau must be a finite number of nats above 0, got {self.tau}")
        return self

    def run_spec(self, relation: str | None) -> RunSpec:
        """The run that gives the circuit."""
        return self.asks_for(relation=relation)


class TruthSpec(Asked):
    """Discovery methods against circuits that are known beforehand."""

    method: Annotated[str | None, Option("Only these methods, with commas between; all by default.")] = None
    compiled: Annotated[
        bool, Option("Also transformers compiled from programs, in the folder that $KCIRCUIT_TRACR names.")
    ] = False

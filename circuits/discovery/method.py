"""What a discovery method is: a value with a name, a function of a `Problem` and the method's own options, and its words."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from pydantic import TypeAdapter, ValidationError

from circuits.circuit import Provenance, Scores
from circuits.discovery.problem import Problem, Progress
from circuits.discovery.table import MethodError

if TYPE_CHECKING:
    from circuits.discovery.state import State

Report = Callable[[Progress], None]
"""Told how far a method has come."""
OptionsT = TypeVar("OptionsT")
OptionsT_contra = TypeVar("OptionsT_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class NoOptions:
    """Of a method that heeds none."""


@runtime_checkable
class ScoreEdges(Protocol[OptionsT_contra]):
    """The method's function: a score for each edge of the problem's graph; what is no edge does not count."""

    def __call__(
        self, problem: Problem, options: OptionsT_contra, report: Report
    ) -> Float[np.ndarray, "writer reader"]: ...


@runtime_checkable
class Sweep(Protocol[OptionsT_contra]):
    """Scores and last state at each of several thresholds, in rising order, of a method that decides edge by edge.

    ``candidates`` are the edges to try, all others being ablated from the start, ``reverse_senders`` tries each receiver's from
    ``input`` on (of neither does the provenance tell unless it is made to); ``resume`` gives the state of a search that
    was interrupted; ``force`` searches even where rounding would decide.
    """

    def __call__(
        self,
        problem: Problem,
        options: OptionsT_contra,
        taus: Sequence[float],
        *,
        provenance: Callable[[float], Provenance],
        candidates: Bool[np.ndarray, "writer reader"] | None = None,
        reverse_senders: bool = False,
        resume: "Callable[[float], State | None]" = lambda tau: None,
        report: Report = lambda _: None,
        force: bool = False,
    ) -> "Iterator[tuple[float, Scores, State]]": ...


@dataclass(frozen=True)
class DiscoveryMethod(Generic[OptionsT]):
    """Called, it scores the edges of a problem's graph (or, where it searches, those that it tried).

    ``Options`` is a frozen dataclass: its fields are all that the method heeds besides the problem, with their defaults.
    """

    name: str
    run: ScoreEdges[OptionsT]
    Options: type[OptionsT]
    score: str
    """What its score of an edge is, in words."""
    has_unit: bool = True
    """Whether scores are in the metric's unit (nats), so that a threshold means something."""
    by_cutting: bool = False
    """Whether a score is measured by cutting that very edge: no estimate, and no share."""
    sweep: Sweep[OptionsT] | None = None
    """Of a method whose circuit is what exceeds a threshold; of the others, it is as many of the best edges as are asked for."""

    def __call__(
        self,
        problem: Problem,
        options: OptionsT | None = None,
        *,
        provenance: Provenance | None = None,
        report: Report = lambda _: None,
    ) -> Scores:
        """
        Args:
            options: the defaults, by default.
            provenance: written into the result; made from the problem and the options by default.
            report: told how far it is, by a method that tries edges one after another.

        Raises:
            MethodError: options of another method.
            circuits.engines.ablation.AblationError: the ablation lacks the prompts it needs.
        """
        options = self.options() if options is None else options
        if not isinstance(options, self.Options):
            raise MethodError(f"method {self.name} heeds {self.Options.__name__}, got {type(options).__name__}")
        return Scores(
            problem.graph, self.run(problem, options, report), provenance or self.provenance(problem, options)
        )

    @property
    def has_threshold(self) -> bool:
        return self.sweep is not None

    @property
    def option_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in fields(self.Options))  # type: ignore[arg-type]

    def options(self, **settings: Any) -> OptionsT:
        """The method's options, some of them set otherwise; texts are read as what the option is.

        Raises:
            MethodError: the method does not heed an option, or it cannot have that value.
        """
        for name, value in settings.items():
            if name not in self.option_names:
                heeded = ", ".join(self.option_names) or "no options"
                raise MethodError(f"method {self.name} heeds {heeded}, got {name}={value}")
        try:
            return TypeAdapter(self.Options).validate_python(settings)
        except ValidationError as error:
            first = error.errors()[0]
            name = first["loc"][0] if first["loc"] else ""
            came = f", got {name}={first['input']}" if name else ""
            raise MethodError(f"method {self.name}: {first['msg'].removeprefix('Value error, ')}{came}") from None

    def provenance(self, problem: Problem, options: OptionsT) -> Provenance:
        measured = {} if problem.metric is None else {"metric": problem.metric.name}
        settings = {"ablation": problem.ablation.kind, **measured, **asdict(options)}  # type: ignore[call-overload]
        return Provenance(
            model=problem.model.name,
            weights=problem.model.weights,
            processing=problem.model.processing,
            method=self.name,
            seed=settings.pop("seed", 0),
            settings=settings,
            facts=tuple(str(fact) for fact in problem.facts),
        )

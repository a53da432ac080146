"""What every discovery method is asked: which edges of a model matter to its answers.

All methods can be asked one problem. What does not matter to a method (information flow ablates nothing, chance looks at
nothing but the graph) is no error: it makes no difference.
"""

from dataclasses import dataclass, field
from functools import cached_property

from circuits.choices import counted
from circuits.discovery.state import State
from circuits.discovery.table import MethodError
from circuits.engines import Ablation, Engine, make_engine
from circuits.facts import Fact
from circuits.graph import Granularity, Graph
from circuits.metrics import Metric
from circuits.model import Model


@dataclass(frozen=True, slots=True)
class Progress:
    """What a progress bar shows: edges decided, of how many, those of them that are kept, and the NLL with these."""

    done: int
    total: int
    kept: int
    nll: float
    state: State | None = None
    """Of a search that can be continued: it may be saved at this moment, as of its mark."""


@dataclass(frozen=True)
class Problem:
    """Score the edges of ``model`` for ``facts``, an ablated edge carrying what ``ablation`` says."""

    model: Model
    facts: tuple[Fact, ...]
    ablation: Ablation = field(default_factory=Ablation)
    granularity: Granularity = "qkv"
    metric: Metric | None = None
    """What is measured of an answer; the model's own by default."""
    given: Engine | None = field(default=None, repr=False, compare=False)
    """An engine that was made for this problem already."""

    def __post_init__(self) -> None:
        if not self.facts:
            raise MethodError("expected at least one fact, got none")
        if self.given is not None and (self.given.graph, self.given.facts) != (self.graph, self.facts):
            raise MethodError(
                f"expected an engine on {self.graph} for {counted(len(self.facts), 'fact')}, got one on {self.given.graph} for "
                f"{counted(len(self.given.facts), 'fact')}"
            )

    @property
    def graph(self) -> Graph:
        return self.model.graph(self.granularity)

    @cached_property
    def engine(self) -> Engine:
        """The one given, or the fast one, made when it is first asked for.

        Raises:
            circuits.engines.ablation.AblationError: the ablation lacks the prompts it needs.
        """
        return self.given or make_engine(
            "sparse",
            self.model,
            self.facts,
            ablation=self.ablation,
            granularity=self.granularity,
            metric=self.metric,
            notice=lambda _: None,
        )

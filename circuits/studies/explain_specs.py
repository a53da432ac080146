"""What studies of behaviours and of heads' roles are asked: see `circuits.studies.specs`."""

from typing import Annotated, Literal

from pydantic import model_validator

from circuits.facts import Fact
from circuits.studies.edit_specs import HowEdited, TauOfSearches
from circuits.studies.options import (
    A_RELATION,
    FactInWords,
    NewObject,
    Option,
    Slots,
)
from circuits.studies.specs import DEFAULT_TAU, MaybeEdited, RunSpec

Wording = Literal["stated", "bare"]
SubjectOfDataset = Annotated[str | None, Option("The subject, as the dataset spells it.")]
Find = Annotated[
    bool,
    Option("Look for a case, in what the model's manifest says it was taught, or among the dataset's facts."),
]
Demonstrated = Annotated[
    Wording,
    Option(
        "How demonstrations and question are put: stated in the relation's words, or bare as pairs (Italy: Rome; Spain:)."
    ),
]
HopMethod = Annotated[str, Option("Editing method of the first hop.", flag="method", also=("edit",))]
MULTI_HOP_EDIT = "rome@subject"
"""The paper's: an edit that changes what is known of the subject. One of the prompt's end changes one prompt."""


class HeadsSpec(MaybeEdited):
    """What each head does for a relation, or for several."""

    relation: Annotated[
        str,
        Option(
            f"Tell the roles from facts of this relation, {A_RELATION}; all, or several with commas: a line each, with all checks.",
            short="r",
        ),
    ]
    n: Annotated[int, Option("How many facts that the model knows, at most.", least=1)] = 50
    template: Annotated[int, Option("Which of the relation's wordings, from 0.", least=0)] = 0
    checked: Annotated[
        bool, Option("Check the labels: paraphrases, held-out facts, wrong answers and ranges.", flag="validate")
    ] = False
    seed: Annotated[int, Option("Of shuffles and intervals.", least=0)] = 0


class Explained(MaybeEdited):
    """How circuits are searched whose differences explain something."""

    tau: TauOfSearches = DEFAULT_TAU
    granularity: Slots = "qkv"
    seed: Annotated[int, Option("Of whatever is drawn.", least=0)] = 0

    def run_spec(self) -> RunSpec:
        """The settings of the circuit searches; each puts its own fact in."""
        return RunSpec(
            facts=(Fact("a is", "a", "b"),),
            model=self.model,
            device=self.device,
            dtype=self.dtype,
            with_edit=self.with_edit,
            tau=self.tau,
            granularity=self.granularity,
            seed=self.seed,
        )

    @property
    def named(self) -> tuple[str, ...]:
        """The relations that it names."""
        return ()

    @property
    def about(self) -> str:
        """What tells its case from another's."""
        return "found"

    @model_validator(mode="after")
    def _can_be_searched(self) -> "Explained":
        self.run_spec()
        return self


class ExplainFactSpec(Explained):
    """A fact, or one that is to be found."""

    fact: FactInWords = None
    find: Find = False
    relation: Annotated[str | None, Option(f"With --find: look in this relation only: {A_RELATION}.")] = None

    @property
    def named(self) -> tuple[str, ...]:
        return () if self.relation is None else (self.relation,)

    @property
    def about(self) -> str:
        return self.fact or "found"

    @model_validator(mode="after")
    def _named_or_found(self) -> "ExplainFactSpec":
        _one_of("--fact", self.fact, self.find)
        return self


class InContextSpec(Explained):
    """A question and its demonstrations, or ones that are to be found."""

    relation: Annotated[str | None, Option(f"The relation that is demonstrated: {A_RELATION}.")] = None
    subject: SubjectOfDataset = None
    shots: Annotated[int, Option("How many demonstrations.", least=1)] = 3
    wording: Demonstrated = "stated"
    find: Find = False

    @property
    def named(self) -> tuple[str, ...]:
        return () if self.relation is None else (self.relation,)

    @property
    def about(self) -> str:
        return self.subject or "found"

    @model_validator(mode="after")
    def _named_or_found(self) -> "InContextSpec":
        _one_of("--subject", self.subject, self.find)
        if self.subject is not None and self.relation is None:
            raise ValueError("expected --relation with --subject: it says what is demonstrated")
        return self


class MultiHopSpec(Explained, HowEdited):
    """A question in two hops of which the first is edited, or one that is to be found."""

    first: Annotated[str | None, Option("The relation of the edited hop.")] = None
    second: Annotated[str | None, Option("The relation of the second hop.")] = None
    subject: SubjectOfDataset = None
    to: NewObject = None
    find: Find = False
    edit: HopMethod = MULTI_HOP_EDIT
    layer: Annotated[
        int | None, Option("Layer that is edited; the method's default otherwise.", flag="layers", also=("layer",))
    ] = None
    force: Annotated[bool, Option("Also after an edit that did not take.")] = False

    @property
    def named(self) -> tuple[str, ...]:
        return tuple(name for name in (self.first, self.second) if name is not None)

    @property
    def about(self) -> str:
        return self.subject or "found"

    @model_validator(mode="after")
    def _named_or_found(self) -> "MultiHopSpec":
        given = [f"--{name}" for name in ("first", "second", "subject", "to") if getattr(self, name)]
        if self.find == bool(given) or (given and len(given) < 4):
            raise ValueError(
                "expected either --find or all of --first, --second, --subject and --to, got "
                + (", ".join(given) or "neither")
            )
        return self


class TwoHopSpec(MaybeEdited):
    """A question in two hops, or several that are to be found."""

    first: Annotated[str | None, Option("The relation of the first hop; with --find, look at no other.")] = None
    second: Annotated[str | None, Option("The relation of the second hop; with --find, look at no other.")] = None
    subject: SubjectOfDataset = None
    find: Find = False
    n: Annotated[int, Option("With --find: how many questions, at most.", least=1)] = 60
    every: Annotated[
        int, Option("Patch at every so many layers: of a deep model 3 is nine times sooner, and coarser.", least=1)
    ] = 1
    seed: Annotated[int, Option("Of whatever is drawn.", least=0)] = 0

    @property
    def named(self) -> tuple[str, ...]:
        """The relations that it names."""
        return tuple(name for name in (self.first, self.second) if name is not None)

    @model_validator(mode="after")
    def _named_or_found(self) -> "TwoHopSpec":
        _one_of("--subject", self.subject, self.find)
        if self.subject is not None and len(self.named) < 2:
            raise ValueError("expected --first and --second with --subject: they say what is asked of it")
        return self


class SurveySpec(Explained):
    """Several cases of each behaviour."""

    n: Annotated[int, Option("Cases of each behaviour.", least=1)] = 5
    edit: HopMethod = MULTI_HOP_EDIT
    wording: Demonstrated = "stated"


def _one_of(name: str, given: str | None, find: bool) -> None:
    if (given is None) != find:
        raise ValueError(f"expected either {name} or --find, got {'neither' if given is None else 'both'}")

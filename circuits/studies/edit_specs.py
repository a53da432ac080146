"""What studies of edits are asked: see `circuits.studies.specs`."""

from typing import Annotated, Any, ClassVar

from circuits.facts import Fact
from circuits.studies.ability_specs import TaskFiles
from circuits.studies.options import (
    Asked,
    Corpus,
    EditCases,
    EditedLayer,
    EditMethod,
    EvalWhen,
    FactInWords,
    FluencySamples,
    NewObject,
    Object,
    Option,
    Settings,
    Slots,
    Subject,
    parse_settings,
)
from circuits.studies.specs import DEFAULT_TAU, OnModel, RunSpec

EditSeed = Annotated[int, Option("Of the facts, the new objects and the edits.", least=0)]
TauOfSearches = Annotated[float, Option("Threshold of the circuit searches, in nats.")]


class HowEdited(Asked):
    """How a method of editing is used: on what text its second moments are, and its settings."""

    corpus: Corpus = None
    settings: Settings = ()

    @property
    def chosen(self) -> dict[str, Any]:
        """The settings, read.

        Raises:
            circuits.studies.options.AskedError: one without a name or a value.
        """
        return parse_settings(self.settings)


class AtLayer(HowEdited):
    """The same, at a layer or several."""

    layer: EditedLayer = None

    @property
    def chosen(self) -> dict[str, Any]:
        return parse_settings(self.settings, self.layer)


class Sampled(Asked):
    """How much text is sampled."""

    fluency_samples: FluencySamples = 2


class Beside(Asked):
    """Text that no edit is about, to measure general ability on."""

    general: Annotated[
        int,
        Option("Documents that no edit is about, for perplexity and KL before and after; 0: none.", least=0),
    ] = 0
    text: Annotated[
        str | None, Option("Text file, one document a line, that they are taken from: real text, unseen by the method.")
    ] = None


class Drawn(Asked):
    """Facts given other objects: those that the model knows, drawn, or a file's."""

    seed: EditSeed = 0
    cases: EditCases = None


class WhichEdits(OnModel, Drawn, HowEdited):
    """Which facts of a model are given other objects, and how."""


class EditSpec(OnModel, AtLayer, Sampled):
    """One fact, given another object."""

    fact: FactInWords = None
    to: NewObject = None
    method: EditMethod = "rome"
    subject: Subject = None
    object: Object = None
    seed: Annotated[int, Option("Of everything drawn at random.", least=0)] = 0
    force: Annotated[bool, Option("Also for a fact that the model does not know, and an edit that does not take.")] = (
        False
    )


class LayersSpec(WhichEdits):
    """Methods of editing at one layer after another."""

    method: Annotated[
        str, Option("A method, or several: rome,memit/batch:10. Facts of a batch are edited together.")
    ] = "rome"
    n: Annotated[int, Option("How many facts.", least=1)] = 20
    layers: Annotated[
        str | None, Option("Layers, separated by commas; those joined by + are edited together: 0,1,2+3.")
    ] = None
    sites: Annotated[
        str, Option("Where ROME and MEMIT store a value: at the subject's last token, the prompt's end, both.")
    ] = "subject,end"


class Evaluated(WhichEdits, Beside, Sampled):
    """When and by what edits are evaluated."""

    eval_at: EvalWhen = "end"
    restrain_each: Annotated[bool, Option("Restrain after every edit, instead of once before it is evaluated.")] = False
    prefixes: Annotated[bool, Option("Ask the edited prompts after prefixes too: does the old answer come back?")] = (
        False
    )


class EvalSpec(Evaluated, AtLayer):
    """One method of editing on many facts, in every metric."""

    method: EditMethod = "rome"
    n: Annotated[int, Option("How many facts.", least=1)] = 50
    regime: Annotated[
        str, Option("single, batch:30, sequential:100, or sequential-batch:10x20 (20 edits of 10 facts each).")
    ] = "single"
    restrain: Annotated[
        str | None, Option("Restrain the sum of the edits: prune:alpha=1.2, prune:alpha=2,kind=linear.")
    ] = None
    alone: ClassVar = True

    @property
    def methods(self) -> str:
        return f"{self.method}/{self.regime}" + (f"+{self.restrain}" if self.restrain else "")


class CompareSpec(Evaluated):
    """Methods of editing on the same facts."""

    methods: Annotated[
        str,
        Option(
            "Methods, each alone or with its own regime and restraint: rome,memit/batch:30,rome/sequential:100+prune.",
            flag="method",
            also=("methods",),
        ),
    ] = "rome,memit,ft-l,ft-m,memoe,memoe-scoped"
    n: Annotated[int, Option("How many facts, or as many more as fill a regime's batches.", least=1)] = 50
    regime: Annotated[str, Option("Regime of the methods that name none.")] = "single"
    alone: ClassVar = False


class TraceSpec(WhichEdits, Beside):
    """Edits one on top of another, free and restrained."""

    method: Annotated[
        str,
        Option("A method that edits weights, or several: rome,memit/batch:10. Facts of a batch are edited together."),
    ] = "rome"
    n: Annotated[int, Option("How many edits, one on top of another.", least=1)] = 100
    restrain: Annotated[
        str,
        Option(
            "The restraint, or several: prune:alpha=1.2,prune:alpha=2,kind=linear. Of several, one is chosen on --others."
        ),
    ] = "prune:alpha=1.2"
    others: Annotated[
        int,
        Option(
            "Other facts, which the sequence leaves alone: paper 1's bound is measured on them, and a restraint chosen.",
            least=0,
        ),
    ] = 50
    every: Annotated[
        int | None,
        Option("Also restrain the sequence itself after each so many edits; by default a copy, at the end.", least=1),
    ] = None
    checkpoints: Annotated[str, Option("Numbers of edits after which to measure; the last always is.")] = "10,20,50,100"
    tasks: TaskFiles = ()


class DiffSpec(OnModel, HowEdited):
    """What edits do to circuits: of one fact at several prompts, or of many facts."""

    edit: Annotated[
        str | None,
        Option(
            "Editing method: rome (default), memit, ft-l, ft-m, memoe, memoe-scoped; rome@subject, memit@subject: as in the "
            "papers, with values stored at the subject; or several.",
            flag="method",
            also=("edit",),
        ),
    ] = None
    fact: Annotated[str | None, Option("The fact to edit; without it, a table over --n facts.")] = None
    to: NewObject = None
    layers: Annotated[
        str | None, Option("Layers to edit, one edit each: 0,2,4. The method's default otherwise.", also=("layer",))
    ] = None
    n: Annotated[int, Option("Facts in the table.", least=1)] = 30
    tau: TauOfSearches = DEFAULT_TAU
    granularity: Slots = "qkv"
    seed: EditSeed = 0
    force: Annotated[bool, Option("Also after an edit that did not take.")] = False

    def run_spec(self) -> RunSpec:
        """The settings of the circuit searches; each puts its own fact in."""
        return RunSpec(
            facts=(Fact("a is", "a", "b"),),
            model=self.model,
            device=self.device,
            dtype=self.dtype,
            tau=self.tau,
            granularity=self.granularity,
            seed=self.seed,
        )

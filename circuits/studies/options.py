"""A spec is what a study is asked, said once: its fields are the command's options and give the command back.

    class Spec(Asked):
        model: ModelName = FACTLM
        n: Annotated[int, Option("How many facts.", least=1)] = 20

A field without an `Option` is no option: it is worked out. This module loads no torch, because a command line lists its
options before it knows what it is asked.
"""

import ast
import inspect
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from circuits.choices import AblationKind, Dtype, EngineName, Granularity, MetricName, Processing


class SpecError(ValueError):
    """Settings that make no sense; says which, what was expected and what came."""


class Asked(BaseModel):
    """The base of all specs: frozen, and refusing what it has no field for.

    Raises:
        SpecError: a field is unknown, of another kind, or goes together with no other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that came when rows had been kept already: at their defaults they ask for what was asked before there were such
    fields, so they decide no row (`circuits.studies.study.Study.decides`)."""

    if not TYPE_CHECKING:  # or else a type checker would know no field by its name

        def __init__(self, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise SpecError(in_words(error, known=type(self).model_fields)) from None

    @model_validator(mode="after")
    def _at_least(self) -> "Asked":
        for each in declared(type(self)):
            least, value = each.option.least, getattr(self, each.field)
            if least is not None and value is not None and value < least:
                raise ValueError(f"expected {each.field} of at least {least}, got {value}")
        return self


@dataclass(frozen=True, slots=True)
class Option:
    """How a spec's field is asked for."""

    help: str
    flag: str = ""
    """Without its dashes; the field's name by default."""
    short: str = ""
    also: tuple[str, ...] = ()
    """Other flags that mean the same, without their dashes: what it was called, or is called elsewhere."""
    least: int | None = None
    read: Callable[[str], Any] | None = None
    """The field's value from a text, where it is none that every option has: (a whole) number, text, yes or no."""
    write: Callable[[Any], str] = str
    """The text that `read` makes the value of."""


@dataclass(frozen=True, slots=True)
class Declared:
    """An option of a spec."""

    field: str
    option: Option
    kind: Any
    """The field's type."""
    default: Any

    @property
    def flag(self) -> str:
        return "--" + (self.option.flag or self.field.replace("_", "-"))


def declared(spec: type[BaseModel]) -> tuple[Declared, ...]:
    """The spec's options in the order of its fields: its own, then those of the parts that it is made of."""
    names = [name for part in spec.__mro__ for name in inspect.get_annotations(part)]
    found = []
    for name in [name for name in dict.fromkeys(names) if name in spec.model_fields]:
        field = spec.model_fields[name]
        for mark in field.metadata:
            if isinstance(mark, Option):
                found.append(Declared(name, mark, field.annotation, field.get_default()))
    return tuple(found)


def in_words(error: ValidationError, known: Iterable[str] = ()) -> str:
    """What pydantic found, in a line: where, what was expected, what came.

    Args:
        known: the fields that there are, for who named another.
    """
    parts = []
    for item in error.errors():
        where, message = ".".join(str(part) for part in item["loc"]), str(item["msg"]).removeprefix("Value error, ")
        if item["type"] == "extra_forbidden" and known:
            parts.append(f"no setting called {where!r}; there are {', '.join(known)}")
        else:
            parts.append(f"{where}: {message}, got {item['input']!r}" if where else message)
    return "; ".join(parts)


def command(words: Sequence[str], spec: BaseModel, *, leave_out: Sequence[str] = (), more: Sequence[str] = ()) -> str:
    """The shell command that asks for this spec: those words, every option that is none of the defaults, flags last, and
    ``more``."""
    line, flags = ["kcircuit", *words], []
    for each in declared(type(spec)):
        value = getattr(spec, each.field)
        if each.field in leave_out or value == each.default:
            continue
        if isinstance(value, bool):
            flags.append(each.flag)
        elif isinstance(value, tuple) and each.option.read is None:
            line += [word for part in value for word in (each.flag, str(part))]
        else:
            line += [each.flag, each.option.write(value)]
    return shlex.join([*line, *flags, *more])


def given(options: Sequence[Declared], values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields' values from those of the options: texts read, and those left to the defaults left out.

    Raises:
        ValueError: a text that cannot be read; the message says what was expected.
    """
    found = {}
    for each in options:
        value = values[each.field]
        if value is None:
            continue
        if each.option.read is not None:
            value = each.option.read(value)
        found[each.field] = tuple(value) if isinstance(value, list) else value
    return found


# ---- what options read -----------------------------------------------------------------------------------------------


def read_taus(text: str) -> tuple[float, ...]:
    """Thresholds in nats, separated by commas."""
    try:
        taus = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"expected --tau as a number of nats or several, such as 0.001,0.01, got {text!r}") from None
    if not all(0 < tau < math.inf for tau in taus):
        raise ValueError(f"tau must be a finite number of nats above 0, got {text}")
    if len({f"{tau:g}" for tau in taus}) < len(taus):
        raise ValueError(f"expected thresholds that differ in their first six digits, got {text}")
    return taus


def write_taus(taus: Sequence[float]) -> str:
    return ",".join(f"{tau:g}" for tau in taus)


class AskedError(ValueError):
    """Words that say no requests, settings or layers."""


def parse_settings(given: Sequence[str] | None, layer: str | None = None) -> dict[str, Any]:
    """A method's options from ``name=value`` and ``layer``; values are Python literals, or else plain words.

    Raises:
        AskedError: no name or no value.
    """
    settings: dict[str, Any] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise AskedError(f"expected --set as name=value, such as lr=0.1, got {text!r}")
        try:
            settings[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            settings[name.strip()] = value.strip()
    if layer is not None:
        layers = parse_layers(layer)
        settings |= {"layer": layers[0]} if len(layers) == 1 else {"layers": layers}
    return settings


def parse_layers(text: str) -> tuple[int, ...]:
    """``3`` or ``3,4,5``.

    Raises:
        AskedError: no numbers.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise AskedError(f"expected layers as numbers, such as 3 or 3,4,5, got {text!r}") from None


# ---- the vocabulary that specs share ---------------------------------------------------------------------------------

A_RELATION = "a name, or a file in the layout of Known-1000, ParaRel or LRE (FILE:NAME where it holds several)"
"""What `--relation` takes."""

A_MODEL = "factlm, a name of `kcircuit models`, a HuggingFace folder, a GGUF file, or a hub name."
"""What `--model` takes."""
FLOATS = "float32 or bfloat16: what weights and values are held in."

ModelName = Annotated[str, Option(A_MODEL, short="m")]
Absolute = Annotated[bool, Option("Keep suppressive edges too.")]
Slots = Annotated[Granularity, Option("qkv: a head's slots apart; node: merged.")]
AblatedBy = Annotated[AblationKind, Option("zero, mean or resample.")]
MeasuredBy = Annotated[
    MetricName,
    Option(
        "matchnll: the answer's, the paper's; kl: all that the model says; contrast: the answer among the relation's objects."
    ),
]
Engine = Annotated[EngineName, Option("sparse: fast; hook: the reference.")]
Device = Annotated[str, Option("cpu, cuda, cuda:1, ...")]
FloatType = Annotated[Dtype, Option(FLOATS)]
Processed = Annotated[Processing, Option("compatibility (folded, centred weights) or raw.")]
Steps = Annotated[int | None, Option("Steps of integrated gradients (eap-ig). 20 by default.")]
WithEdit = Annotated[str | None, Option("Folder of an edit saved by `kcircuit edit --out`, put on the model first.")]
FactInWords = Annotated[str | None, Option("A sentence that ends with its object, or 'prompt => object'.")]
FactsInWords = Annotated[
    tuple[str, ...], Option("A sentence that ends with its object, or 'prompt => object'; again for another.")
]
Subject = Annotated[str | None, Option("The subject, as spelled in the prompt.")]
Object = Annotated[str | None, Option("The object, where it is more than the last word.")]
NewObject = Annotated[str | None, Option("The new object.")]
EditMethod = Annotated[str, Option("rome, memit, ft-l, ft-m, memoe (the paper's) or memoe-scoped.")]
EditedLayer = Annotated[
    str | None,
    Option(
        "Layer to edit, or several: 3,4,5. The method's own for this model by default.", flag="layers", also=("layer",)
    ),
]
EvalWhen = Annotated[str, Option("When a sequence is evaluated: immediate, after each edit; end; or checkpoints.")]
FluencySamples = Annotated[int, Option("Texts sampled for each edit to measure fluency; 0: none.", least=0)]
Settings = Annotated[
    tuple[str, ...], Option("A hyper-parameter of the method, such as lr=0.1; again for another.", flag="set")
]
MethodOptions = Annotated[
    tuple[str, ...],
    Option("Another option of the method or the prefilter, as name=value; again for another.", flag="set"),
]
Corpus = Annotated[
    str | None,
    Option(
        "Text file, one document a line: the covariance of ROME and MEMIT, in place of text that the model itself writes."
    ),
]
EditCases = Annotated[
    str | None,
    Option(
        "Cases from a published file instead: counterfact:FILE, zsre-alt:FILE, zsre-true:FILE, knowedit:FILE, mquake:FILE."
    ),
]

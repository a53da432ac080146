"""A spec is what a study is asked, said once: its fields are the command's options and give the command back.

    class Spec(Asked):
        model: ModelName = FACTLM
        n: Annotated[int, Option("How many facts.", least=1)] = 20

A field without an `Option` is no option: it is worked out. This module loads no torch, because a command line lists its
options before it knows what it is asked.
"""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, model_validator

from circuits.choices import AblationKind, Dtype, EngineName, Granularity, Processing


class Asked(BaseModel):
    """The base of all specs: frozen, and refusing what it has no field for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    """The spec's options, in the order of its fields."""
    found = []
    for name, field in spec.model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, Option):
                found.append(Declared(name, mark, field.annotation, field.get_default()))
    return tuple(found)


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


# ---- the vocabulary that specs share ---------------------------------------------------------------------------------

A_RELATION = "a name, or a file in the layout of Known-1000, ParaRel or LRE (FILE:NAME where it holds several)"
"""What `--relation` takes."""

ModelName = Annotated[str, Option("factlm, a local HuggingFace folder, or a hub name.", short="m")]
Absolute = Annotated[bool, Option("Keep suppressive edges too.")]
Slots = Annotated[Granularity, Option("qkv: a head's slots apart; node: merged.")]
AblatedBy = Annotated[AblationKind, Option("zero, mean or resample.")]
Engine = Annotated[EngineName, Option("sparse: fast; hook: the reference.")]
Device = Annotated[str, Option("cpu, cuda, cuda:1, ...")]
FloatType = Annotated[Dtype, Option("float32 or bfloat16.")]
Processed = Annotated[Processing, Option("compatibility (folded, centred weights) or raw.")]
Steps = Annotated[int | None, Option("Steps of integrated gradients (eap-ig). 20 by default.")]
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

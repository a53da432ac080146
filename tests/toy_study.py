"""A study that needs no model: squares of numbers, in a module that other processes can import."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits.studies.specs import Asked
from circuits.studies.study import Case, Study, Watch


@dataclass(frozen=True)
class Spec:
    numbers: tuple[int, ...]
    exponent: int = 2


@dataclass(frozen=True)
class Row:
    number: int
    power: int


@dataclass
class Context:
    log: Path
    """Every case that is begun leaves a line here."""


def open_(spec: Spec, log: Path) -> Context:
    return Context(log)


def cases(spec: Spec, context: Context) -> list[Case[int]]:
    return [Case(f"of {number}", number, "odd" if number % 2 else "") for number in spec.numbers]


def run(spec: Spec, case: Case[int], context: Context, watch: Watch) -> Row:
    with context.log.open("a") as log:
        log.write(f"{case.name} in {os.getpid()}\n")
    match case.asked:
        case 13:
            raise ValueError("13 is unlucky")
        case 66:
            os.kill(os.getpid(), signal.SIGKILL)
        case slow if 200 <= slow < 300:
            time.sleep(0.2)
        case 100:
            watch.notice("100 takes long")
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                with context.log.open("a") as log:
                    log.write("saved\n")
                raise
    watch.progress(1, 2, "half way")
    return Row(case.asked, case.asked**spec.exponent)


def weights(context: Context) -> str:
    return "none"


SQUARES: Study[Spec, Context, int, Any] = Study("squares", Row, open_, cases, run, weights)


class PowerSpec(Asked):
    """A spec as commands have them."""

    number: int
    log: str
    """Beside it, a file ``lucky`` makes 13 no failure."""


def open_power(spec: PowerSpec, _: Any) -> Context:
    return Context(Path(spec.log))


def power_cases(spec: PowerSpec, context: Context) -> list[Case[int]]:
    return [Case(f"of {spec.number}", spec.number)]


def power(spec: PowerSpec, case: Case[int], context: Context, watch: Watch) -> Row:
    if context.log.with_name("lucky").exists():
        return Row(case.asked, case.asked**2)
    return run(Spec((spec.number,)), case, context, watch)


POWERS: Study[PowerSpec, Context, int, Any] = Study("powers", Row, open_power, power_cases, power, weights)

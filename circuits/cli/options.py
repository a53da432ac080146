"""A command's options from the specs of its study."""

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from circuits.studies.options import Declared, declared, given

Command = Callable[..., None]


def asks(*specs: type[BaseModel], leave_out: Sequence[str] = ()) -> Callable[[Command], Command]:
    """The command takes the specs' options before its own, and gets their values as ``asked``, a dict by field.

    Args:
        leave_out: fields that this command does not ask for.
    """
    options = [each for spec in specs for each in declared(spec) if each.field not in leave_out]
    names = {each.field for each in options}

    def decorate(function: Command) -> Command:
        own = inspect.signature(function, eval_str=True).parameters
        parameters = [_parameter(each) for each in options]
        parameters += [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own.values() if one.name != "asked"]

        @wraps(function)
        def command(**values: Any) -> None:
            asked = given(options, values)
            function(asked=asked, **{name: value for name, value in values.items() if name not in names})

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        return command

    return decorate


def _parameter(each: Declared) -> inspect.Parameter:
    short = [f"-{each.option.short}"] if each.option.short else []
    flags = [each.flag, *short, *(f"--{name}" for name in each.option.also)]
    kind, default = (str | None, None) if each.option.read else _kind(each)
    least: dict[str, Any] = {} if each.option.least is None else {"min": each.option.least}
    option = typer.Option(*flags, help=each.option.help, **least)
    if default is PydanticUndefined:
        default = inspect.Parameter.empty
    return inspect.Parameter(
        each.field, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _kind(each: Declared) -> tuple[Any, Any]:
    """The type that typer knows, and the default: words to choose among are texts, which the spec checks; several are a list."""
    kind = each.kind
    optional = get_origin(kind) in (Union, UnionType)
    if optional:
        (kind,) = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        kind = str
    if get_origin(kind) is tuple:
        return list[str] | None, None
    return (kind | None if optional else kind), each.default

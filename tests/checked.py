"""The types and shapes of every call of the package, checked while tests run: jaxtyping's rules at a third of its time.

jaxtyping binds the arguments of each call in Python, and checks them a second time with what is returned. beartype's compiled
check does both once. Only where a signature speaks of tensors do dimensions need a place in which to be remembered.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray
from jaxtyping._storage import pop_shape_memo, push_shape_memo

_beartype = beartype(conf=BeartypeConf(violation_type=TypeError))


def use() -> None:
    """Take the place of jaxtyping's own decorator in what is imported from now on."""
    jaxtyping.jaxtyped = lambda *, typechecker: checked


def checked(asked: Any) -> Any:
    """The function with its calls checked, or the dataclass with its making; anything else as it is."""
    if inspect.isclass(asked):
        if dataclasses.is_dataclass(asked) and inspect.isfunction(asked.__init__):
            asked.__init__ = _function(asked.__init__)
        return asked
    return _function(asked) if inspect.isfunction(asked) else asked


def _function(asked: FunctionType) -> Callable[..., Any]:
    hints = {name: _resolved(hint, asked) for name, hint in asked.__annotations__.items()}
    if inspect.isgeneratorfunction(asked):
        # What a generator yields is made when the call's dimensions are forgotten.
        hints.pop("return", None)
    of_arrays = any(map(_of_arrays, hints.values()))
    quick: Callable[..., Any] | None = None

    @functools.wraps(asked)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal quick
        if quick is None:
            # At the first call: most functions that a test imports it never calls.
            quick = _compiled(asked, hints)
        if not of_arrays:
            return quick(*args, **kwargs)
        push_shape_memo({})
        try:
            return quick(*args, **kwargs)
        finally:
            pop_shape_memo()

    return call


def _compiled(asked: FunctionType, hints: dict[str, Any]) -> Callable[..., Any]:
    same = FunctionType(asked.__code__, asked.__globals__, asked.__name__, asked.__defaults__, asked.__closure__)
    same.__module__, same.__qualname__ = asked.__module__, asked.__qualname__
    same.__kwdefaults__, same.__annotations__ = asked.__kwdefaults__, hints
    return _beartype(same)


def _resolved(hint: Any, asked: FunctionType) -> Any:
    """What a name in quotes stands for; anything, where that is not there yet."""

    def spoken(value: Any) -> None: ...

    spoken.__annotations__ = {"value": hint}
    try:
        return get_type_hints(spoken, asked.__globals__, include_extras=True)["value"]
    except Exception:
        return Any


def _of_arrays(hint: Any) -> bool:
    return (inspect.isclass(hint) and issubclass(hint, AbstractArray)) or any(map(_of_arrays, get_args(hint)))

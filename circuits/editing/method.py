"""What an editing method is: a value with a name, a function, its options, their defaults, and what it needs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from types import UnionType
from typing import (
    Any,
    Generic,
    Literal,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from pydantic import ConfigDict, TypeAdapter, ValidationError

from circuits.editing.defaults import Settings, tuned
from circuits.editing.edit import Edit, EditError, EditProvenance
from circuits.editing.prompts import Site
from circuits.editing.resources import Need, Resources
from circuits.facts import EditRequest
from circuits.model import Model

Kind = Literal["weights", "bypass", "routed", "prompt"]
"""What an edit changes: weights, or what is computed beside them, or what is read before a prompt."""
ProgressLine = Callable[[str], None]
"""Told, in a line, how far a method has come."""

OptionsT = TypeVar("OptionsT")
OptionsT_contra = TypeVar("OptionsT_contra", contravariant=True)
EditT = TypeVar("EditT", bound=Edit)
EditT_co = TypeVar("EditT_co", bound=Edit, covariant=True)


@runtime_checkable
class Procedure(Protocol[OptionsT_contra, EditT_co]):
    """The method's function. Requests are at least one and do not contradict each other; options are of its own class."""

    def __call__(
        self,
        model: Model,
        requests: tuple[EditRequest, ...],
        options: OptionsT_contra,
        resources: Resources,
        seed: int,
        progress: ProgressLine,
    ) -> EditT_co: ...


@runtime_checkable
class Further(Protocol[OptionsT_contra]):
    """Goes on with an edit that the same method made: an edit of its requests and of these, which stands in its place."""

    def __call__(
        self,
        so_far: Edit,
        model: Model,
        requests: tuple[EditRequest, ...],
        options: OptionsT_contra,
        resources: Resources,
        seed: int,
        progress: ProgressLine,
    ) -> Edit: ...


@dataclass(frozen=True)
class Method(Generic[OptionsT, EditT]):
    """Called, it makes an edit of requests on a model.

    ``Options`` is a frozen dataclass whose own defaults are the method's where neither ``defaults``, by the family and depth of
    a model, nor what a model's profile was tuned to says otherwise. ``needs`` is all that ``run`` asks of `Resources`.
    ``makes`` is the kind of its edits, which can be asked before there is one.

    ``further`` is set of a method whose edits are trained on, where edits follow each other, instead of another being added:
    see `upon`.

    ``site`` is set of a method that is asked for with its values stored at that token, whatever the model was tuned to:
    `at` makes it.
    """

    name: str
    run: Procedure[OptionsT, EditT]
    Options: type[OptionsT]
    needs: frozenset[Need] = frozenset()
    defaults: Callable[[Model], Settings] = lambda model: {}
    makes: Kind = "weights"
    site: Site | None = None
    further: Further[OptionsT] | None = None

    def __str__(self) -> str:
        return self.name if self.site is None else f"{self.name}@{self.site}"

    def __call__(
        self,
        model: Model,
        requests: Sequence[EditRequest],
        *,
        options: OptionsT | None = None,
        resources: Resources | None = None,
        seed: int = 0,
        progress: ProgressLine = lambda _: None,
    ) -> EditT:
        """The edit of the requests. Without options, with the model's own; without resources, with those that it brings.

        Raises:
            EditError: requests that cannot be edited so, or a model, or options; a resource that is needed and cannot be had.
        """
        options = self.options(model) if options is None else options
        if not isinstance(options, self.Options):
            raise EditError(f"{self} takes options of class {self.Options.__name__}, got {type(options).__name__}")
        resources = (Resources() if resources is None else resources).only(self.needs)
        return self.run(model, require_requests(requests), options, resources, seed, progress)

    def upon(
        self,
        so_far: Edit,
        model: Model,
        requests: Sequence[EditRequest],
        *,
        options: OptionsT | None = None,
        resources: Resources | None = None,
        seed: int = 0,
        progress: ProgressLine = lambda _: None,
    ) -> Edit:
        """The edit so far and the requests, as one edit of ``model``, which has neither on it.

        A method with ``further`` goes on with what it made; any other makes an edit on the edited model, and it is added.

        Raises:
            EditError: as of a call; an edit that the method cannot go on with.
        """
        if self.further is None:
            with so_far.on(model) as edited:
                made = self(edited, requests, options=options, resources=resources, seed=seed, progress=progress)
            return so_far + made
        options = self.options(model) if options is None else options
        resources = (Resources() if resources is None else resources).only(self.needs)
        return self.further(so_far, model, require_requests(requests), options, resources, seed, progress)

    @property
    def option_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in fields(self.Options))  # type: ignore[arg-type]

    @property
    def has_sites(self) -> bool:
        """Whether the method chooses at which token a value is stored (`circuits.editing.prompts.Site`)."""
        return "site" in self.option_names

    def at(self, site: str) -> "Method[OptionsT, EditT]":
        """The method with its values stored at that token.

        Raises:
            EditError: it stores no values at a token, or there is no such site.
        """
        if not self.has_sites:
            raise EditError(f"{self.name} stores no values at a token, so there is no {self.name}@{site}")
        for known in get_args(Site):
            if known == site:
                return replace(self, site=known)
        raise EditError(f"expected a site of {', '.join(get_args(Site))} after the @ of {self.name}, got {site!r}")

    def options(self, model: Model, **settings: Any) -> OptionsT:
        """The method's options for that model, some of them set otherwise.

        ``layer`` and ``layers`` stand for each other, so that one setting means the same to every method. What a profile was
        tuned to with values at one token is not taken for another.

        Raises:
            EditError: no such option, or a value that is none of its kind.
        """
        known = self.option_names
        if "layer" in settings and "layer" not in known:
            settings["layers"] = (settings.pop("layer"),)
        if "layers" in settings and "layers" not in known:
            layers = tuple(settings.pop("layers"))
            if len(layers) != 1:
                raise EditError(f"{self.name} edits one layer, got {layers}")
            (settings["layer"],) = layers
        if unknown := sorted(set(settings).difference(known)):
            raise EditError(f"{self.name} has no option {', '.join(unknown)}; it has {', '.join(known)}")
        kinds = get_type_hints(self.Options)
        settings = {name: _of_kind(f"{self}'s {name}", kinds[name], value) for name, value in settings.items()}
        own = {**self.defaults(model), **tuned(self.name, self.site, model)}
        return self.Options(**{**own, **({} if self.site is None else {"site": self.site}), **settings})


def _of_kind(what: str, kind: Any, value: Any) -> Any:
    """The value as the option's type has it: a list as a tuple, a whole number as a float; numbers are finite."""
    try:
        return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError:
        raise EditError(f"expected {what} as {_in_words(kind)}, got {value!r}") from None


def _in_words(kind: Any) -> str:
    """A type, as it is asked for: its words to choose among, or its name."""
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if get_origin(kind) is UnionType:
        return " or ".join(_in_words(part) for part in get_args(kind))
    return {int: "a whole number", float: "a finite number", type(None): "None"}.get(kind) or str(kind)


def require_requests(requests: Sequence[EditRequest]) -> tuple[EditRequest, ...]:
    """The requests.

    Raises:
        EditError: none, or two that give one question different answers.
    """
    if not requests:
        raise EditError("expected at least one edit request, got none")
    targets: dict[str, str] = {}
    for request in requests:
        if targets.setdefault(request.prompt, request.target) != request.target:
            raise EditError(
                f"two requests contradict each other: {request.prompt!r} => {targets[request.prompt]!r} and {request.target!r}"
            )
    return tuple(requests)


def provenance(
    method: str,
    model: Model,
    requests: Sequence[EditRequest],
    options: Any,
    seed: int,
    losses: Sequence[Sequence[float]] = (),
    notes: Sequence[str] = (),
) -> EditProvenance:
    """Of an edit that ``method`` makes of these requests on this model."""
    return EditProvenance(
        method=method,
        model=model.name,
        weights=model.weights,
        processing=model.processing,
        seed=seed,
        options=asdict(options),
        requests=tuple(requests),
        losses=tuple(tuple(curve) for curve in losses),
        notes=tuple(notes),
    )

"""What every editing method is given and gives, and what several of them share."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from circuits.editing.edit import Edit, EditError, EditProvenance
from circuits.editing.moments import SecondMoment, Statistics, StatisticsError
from circuits.facts import EditRequest
from circuits.model import Model
from circuits.paths import FACTLM

Covariance = Literal["corpus", "identity"]
ProgressLine = Callable[[str], None]
"""Told, in a line, how far a method has come."""


@runtime_checkable
class Method(Protocol):
    """Makes an edit of ``requests`` on ``model``. Without ``hyper``, with the defaults for that model.

    Raises:
        EditError: requests that cannot be edited so, or a model, or hyper-parameters.
    """

    def __call__(
        self,
        model: Model,
        requests: Sequence[EditRequest],
        *,
        hyper: Any = None,
        statistics: Statistics | None = None,
        seed: int = 0,
        progress: ProgressLine = lambda _: None,
    ) -> Edit: ...


class IdentityCovariance(UserWarning):
    """An edit that does not know which keys are in use."""


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


def require_hyper(given: Any, expected: type, method: str) -> None:
    """Raises:
    EditError: the hyper-parameters are another method's.
    """
    if not isinstance(given, expected):
        raise EditError(f"{method} takes hyper-parameters of class {expected.__name__}, got {type(given).__name__}")


def covariances(
    model: Model, layers: Sequence[int], kind: Covariance, statistics: Statistics | None, progress: ProgressLine
) -> tuple[dict[int, SecondMoment], tuple[str, ...]]:
    """The second moment of each layer, and the notes that an edit made with them carries.

    The identity is used only when it is asked for, and warned of: an edit with it does not hold on to anything, and
    published results with and without it differ.

    Raises:
        StatisticsError: ``corpus`` was asked for, and there are no statistics for this model.
    """
    if kind == "identity":
        note = "identity covariance: the edit is not kept away from the keys that the model uses for other facts"
        warnings.warn(note, IdentityCovariance, stacklevel=3)
        sizes = {layer: model.weight(f"blocks.{layer}.mlp.W_out").shape[0] for layer in layers}
        return {layer: SecondMoment(torch.eye(n, dtype=torch.float64), 0, ((0, 0.0),)) for layer, n in sizes.items()}, (
            note,
        )
    if statistics is None:
        if model.unedited.name != FACTLM:
            raise StatisticsError(
                f"{model.name} has no second moments yet: give a text corpus (`Statistics.of(model, Corpus.from_file(...))`), "
                "or ask for covariance='identity', which does not protect other facts"
            )
        statistics = Statistics.of(model)
    statistics.require_for(model)
    moments = statistics.second_moments(layers, progress)
    notes = [f"layer {layer}: {moment}" for layer, moment in moments.items()]
    return moments, (f"second moments on {statistics.corpus.name}", *notes)


def provenance(
    method: str,
    model: Model,
    requests: Sequence[EditRequest],
    hyper: Any,
    seed: int,
    losses: Sequence[Sequence[float]],
    notes: Sequence[str] = (),
) -> EditProvenance:
    return EditProvenance(
        method=method,
        model=model.name,
        weights=model.weights,
        processing=model.processing,
        seed=seed,
        hyper=asdict(hyper),
        requests=tuple(requests),
        losses=tuple(tuple(curve) for curve in losses),
        notes=tuple(notes),
    )

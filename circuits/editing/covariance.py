"""The covariance of keys that ROME and MEMIT hold on to: the corpus' second moments, or by request the identity."""

import warnings
from collections.abc import Sequence
from typing import Literal

from circuits.editing.method import ProgressLine
from circuits.editing.moments import SecondMoment
from circuits.editing.resources import Resources
from circuits.model import Model
from circuits.model.network import value_matrix

Covariance = Literal["corpus", "identity"]


class IdentityCovariance(UserWarning):
    """An edit that does not know which keys are in use."""


def covariances(
    model: Model, layers: Sequence[int], kind: Covariance, resources: Resources, progress: ProgressLine
) -> tuple[dict[int, SecondMoment], tuple[str, ...]]:
    """The second moment of each layer, and the notes that an edit made with them carries.

    The identity is used only when it is asked for, and warned of: an edit with it does not hold on to anything, and
    published results with and without it differ.

    Raises:
        EditError: ``corpus`` was asked for, none is given, and the model cannot write one.
    """
    if kind == "identity":
        note = "identity covariance: the edit is not kept away from the keys that the model uses for other facts"
        warnings.warn(note, IdentityCovariance, stacklevel=4)
        sizes = {layer: model.weight(value_matrix(layer)).shape[0] for layer in layers}
        return {layer: SecondMoment.identity(n) for layer, n in sizes.items()}, (note,)
    statistics = resources.moments_of(model, progress)
    moments = statistics.second_moments(layers, progress)
    notes = [f"layer {layer}: {moment}" for layer, moment in moments.items()]
    return moments, (f"second moments on {statistics.corpus.name}", *notes)

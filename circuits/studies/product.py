"""A study over several specs, as one study: a product of relations, models, methods, thresholds, seeds.

Rows are those of the study itself, under its own keys: a case that another product, or the study alone, has done is not done again.
"""

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from circuits.studies.cores import fit_threads
from circuits.studies.specs import Asked
from circuits.studies.study import Case, Key, Study, Watch

OPEN = 2
"""Contexts, each with a model, that are open at once."""


def specs_of(kind: type[Asked], fixed: Mapping[str, Any], over: Mapping[str, Sequence[Any]]) -> tuple[Asked, ...]:
    """The spec for every combination, the last of ``over`` changing fastest.

    Raises:
        ValueError: a field that the spec does not have, or has no such value.
    """
    for name in (*fixed, *over):
        if name not in kind.model_fields:
            raise ValueError(f"{kind.__name__} has no field {name!r}; expected {', '.join(kind.model_fields)}")
    combinations = itertools.product(*over.values())
    return tuple(kind(**{**fixed, **dict(zip(over, values, strict=True))}) for values in combinations)


@dataclass
class Contexts:
    """What the study's cases are worked on with, for each spec: opened when it is needed, the last few kept."""

    study: Study[Any, Any, Any, Any]
    specs: tuple[Any, ...]
    given: Any = None
    weights: dict[int, str] = field(default_factory=dict)
    _open: OrderedDict[int, Any] = field(default_factory=OrderedDict)

    def at(self, i: int) -> Any:
        if i not in self._open:
            while len(self._open) >= OPEN:
                self._open.popitem(last=False)
            self._open[i] = self.study.open(self.specs[i], self.given)
            if (model := getattr(self._open[i], "model", None)) is not None:
                fit_threads(model)
            self.weights[i] = self.study.weights(self._open[i])
        self._open.move_to_end(i)
        return self._open[i]


@dataclass(frozen=True)
class Product(Study[tuple[Any, ...], Contexts, tuple[int, Case[Any]], Any]):
    """The study ``of`` over several specs; made by `product`."""

    of: Study[Any, Any, Any, Any] = None  # type: ignore[assignment]

    def key(self, spec: tuple[Any, ...], context: Contexts, case: Case[tuple[int, Case[Any]]]) -> Key:
        i, own = case.asked
        if i not in context.weights:
            context.at(i)
        return self.of.key(spec[i], _Weighed(context.weights[i]), own)


@dataclass(frozen=True, slots=True)
class _Weighed:
    """Stands for a context that may be closed, where its weights are asked for."""

    weights: str


def _digest(context: Any) -> str:
    return context.weights


def _opened(study: Study[Any, Any, Any, Any], specs: tuple[Any, ...], given: Any) -> Contexts:
    return Contexts(study, specs, given)


def _cases(
    study: Study[Any, Any, Any, Any], specs: tuple[Any, ...], contexts: Contexts
) -> list[Case[tuple[int, Case[Any]]]]:
    found = []
    for i, spec in enumerate(specs):
        for own in study.cases(spec, contexts.at(i)):
            name = own.name if len(specs) == 1 else f"{i + 1}: {own.name}"
            found.append(Case(name, (i, own), own.group and f"{i}: {own.group}"))
    return found


def _run(
    study: Study[Any, Any, Any, Any],
    specs: tuple[Any, ...],
    case: Case[tuple[int, Case[Any]]],
    contexts: Contexts,
    watch: Watch,
) -> Any:
    i, own = case.asked
    return study.run(specs[i], own, contexts.at(i), watch)


def product(study: Study[Any, Any, Any, Any]) -> Product:
    """The study over a tuple of its specs."""
    weighed = replace(study, weights=_digest)
    opened, cases, run = partial(_opened, study), partial(_cases, study), partial(_run, study)
    return Product(study.name, study.row, opened, cases, run, algorithm=study.algorithm, of=weighed)

"""How an explanation is asked for as a study: of one case, which is named or is to be found."""

from typing import Any

from circuits.studies.explain_specs import Explained
from circuits.studies.setting import Setting, find_relation, relations_at
from circuits.studies.study import Case


def open_case(spec: Explained, _: Any) -> Setting:
    """The model and the relations; what names no relation is refused before the model is loaded.

    Raises:
        circuits.studies.options.AskedError: there is no relation of that name.
    """
    relations = relations_at(spec.model, *spec.named)
    return Setting.opened(spec, relations, [find_relation(relations, name) for name in spec.named])


def one_case(spec: Explained, _: Setting) -> list[Case[None]]:
    return [Case(spec.about[:100], None)]

"""Every study by its name: the one table that a new study is entered in. Loads none of them, because that takes torch."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from circuits.studies import ability_specs, certify_specs, claims_specs, edit_specs, explain_specs, specs
from circuits.studies.study import Study


class NoSuchStudy(ValueError):
    """A name that no study has."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a study is asked, and where it is."""

    spec: type[specs.Asked]
    where: str
    """``module:attribute``."""

    def load(self) -> Study[Any, Any, Any, Any]:
        module, attribute = self.where.split(":")
        return getattr(import_module(module), attribute)


STUDIES: dict[str, Named] = {
    "ability": Named(ability_specs.AbilitySpec, "circuits.studies.ability:ABILITY"),
    "certificate": Named(certify_specs.CertifySpec, "circuits.studies.certify:CERTIFICATE"),
    "criteria": Named(certify_specs.CriteriaSpec, "circuits.studies.criteria:CRITERIA"),
    "claims": Named(claims_specs.ClaimsSpec, "circuits.studies.claims.table:CLAIMS"),
    "discover": Named(specs.DiscoverSpec, "circuits.studies.discover:DISCOVER"),
    "diff": Named(edit_specs.DiffSpec, "circuits.studies.diff:DIFF"),
    "diff-table": Named(edit_specs.DiffSpec, "circuits.studies.diff_table:DIFF_TABLE"),
    "edits": Named(edit_specs.CompareSpec, "circuits.studies.edits:EDITS"),
    "hallucination": Named(explain_specs.ExplainFactSpec, "circuits.studies.explain.hallucination:HALLUCINATION"),
    "heads": Named(explain_specs.HeadsSpec, "circuits.studies.heads:HEADS"),
    "heads-survey": Named(explain_specs.HeadsSpec, "circuits.studies.heads:HEADS_SURVEY"),
    "icl": Named(explain_specs.InContextSpec, "circuits.studies.explain.icl:ICL"),
    "multihop": Named(explain_specs.MultiHopSpec, "circuits.studies.explain.multihop:MULTIHOP"),
    "reverse": Named(explain_specs.ExplainFactSpec, "circuits.studies.explain.reverse:REVERSE"),
    "survey": Named(explain_specs.SurveySpec, "circuits.studies.explain.survey:SURVEY"),
    "trace": Named(edit_specs.TraceSpec, "circuits.studies.sequence:TRACE"),
    "layers": Named(edit_specs.LayersSpec, "circuits.studies.layers:LAYERS"),
    "role-errors": Named(claims_specs.RoleErrorsSpec, "circuits.studies.role_errors:ROLE_ERRORS"),
    "stability": Named(specs.StabilitySpec, "circuits.studies.stability:STABILITY"),
    "table": Named(specs.TableSpec, "circuits.studies.table.table:TABLE"),
    "twohop": Named(explain_specs.TwoHopSpec, "circuits.studies.explain.twohop:TWO_HOP"),
    "truth": Named(specs.TruthSpec, "circuits.studies.truth:TRUTH"),
}


def find_study(name: str) -> Named:
    """The study of that name.

    Raises:
        NoSuchStudy: there is none; says which there are.
    """
    if name not in STUDIES:
        raise NoSuchStudy(f"no study called {name!r}; expected {', '.join(sorted(STUDIES))}")
    return STUDIES[name]

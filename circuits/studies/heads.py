"""What each attention head does for a relation: its roles with their checks, or for several relations the checks and what chance gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from circuits.analysis.reading import Reading, read_fact
from circuits.analysis.roles import Roles
from circuits.evaluation.roles import known_facts, relation_roles
from circuits.facts import Relation, Relations
from circuits.studies.explain_specs import HeadsSpec
from circuits.studies.false_labels import FalseLabels, false_labels
from circuits.studies.options import AskedError
from circuits.studies.roles import RoleChecks, check_roles
from circuits.studies.setting import Setting, find_relations, relations_at
from circuits.studies.study import Case, Study, Watch

SEVERAL = "--with-edit, --template and --all are about one relation; several get a line each"


@dataclass(frozen=True, slots=True)
class Labels:
    """A relation's labels, what the heads do with one of its facts, and how far the labels can be trusted, if that was asked."""

    roles: Roles
    example: Reading
    checks: RoleChecks | None


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """A relation without labels, and why."""

    relation: str
    reason: str


@dataclass(frozen=True, slots=True)
class Surveyed:
    """One of several relations, and labels of its facts on a model that knows nothing."""

    checks: RoleChecks | Unlabelled
    chance: FalseLabels


def chosen(spec: HeadsSpec) -> tuple[Relations, tuple[Relation, ...]]:
    """(the relations at hand, those that are asked for).

    Raises:
        AskedError: there is none of a name.
    """
    names = list(dict.fromkeys(name.strip() for name in spec.relation.split(",")))
    relations = relations_at(spec.model, *names)
    if spec.relation == "all":
        return relations, tuple(relations.values())
    return relations, tuple(one for name in names for one in find_relations(relations, name))


def _open(spec: HeadsSpec, _: Any) -> Setting:
    relations, those = chosen(spec)
    for one in those:
        if spec.template >= len(one.templates):
            raise AskedError(
                f"expected a wording of {one.name} from 0 to {len(one.templates) - 1}, got {spec.template}: "
                f"{'; '.join(one.templates)}"
            )
    return Setting.opened(spec, relations, those)


def _open_survey(spec: HeadsSpec, _: Any) -> Setting:
    if spec.with_edit is not None or spec.template:
        raise AskedError(SEVERAL)
    return Setting.opened(spec, *chosen(spec))


def _cases(spec: HeadsSpec, at: Setting) -> list[Case[int]]:
    return [Case(relation.name, i) for i, relation in enumerate(at.chosen)]


def _run(spec: HeadsSpec, case: Case[int], at: Setting, watch: Watch) -> Labels:
    model, relation, checks = at.model, at.chosen[case.asked], None
    roles = relation_roles(model, relation, at.relations, template=spec.template, n=spec.n, seed=spec.seed)
    (fact, *_) = known_facts(model, relation, template=spec.template, n=1)
    example = read_fact(model, fact, roles, relation.objects)
    if spec.checked:
        watch.notice("checking the labels in other words, on other facts, and against chance")
        checks = check_roles(model, relation, at.relations, n=spec.n, seed=spec.seed)
    return Labels(roles, example, checks)


def _survey(spec: HeadsSpec, case: Case[int], at: Setting, watch: Watch) -> Surveyed:
    relation = at.chosen[case.asked]
    try:
        checks: RoleChecks | Unlabelled = check_roles(at.model, relation, at.relations, n=spec.n, seed=spec.seed)
    except ValueError as error:
        checks = Unlabelled(relation.name, str(error))
    # No two relations have the same model that knows nothing.
    chance = false_labels(at.model, relation, at.relations, n=spec.n, seed=spec.seed, which=case.asked)
    return Surveyed(checks, chance)


def total(rows: Sequence[Surveyed]) -> FalseLabels:
    """The labels on all models that know nothing."""
    counts = ((row.chance.n_models, row.chance.labelled, row.chance.by_intervals) for row in rows)
    return FalseLabels(*map(sum, zip(*counts, strict=True)))


HEADS: Study[HeadsSpec, Setting, int, Labels] = Study("heads", Labels, _open, _cases, _run)
HEADS_SURVEY: Study[HeadsSpec, Setting, int, Surveyed] = Study("heads-survey", Surveyed, _open_survey, _cases, _survey)

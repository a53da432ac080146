"""``kcircuit explain twohop`` as a study: the questions in two hops of a model, or one that is named, each diagnosed."""

from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from circuits.analysis.patching import opened
from circuits.model import Model
from circuits.model.network import Network
from circuits.studies.explain.cases import Ground
from circuits.studies.explain.diagnosis import TwoHopRow, diagnosed
from circuits.studies.explain.hops import TwoHopQuestion, another_subject, asked_in_two_hops, questions
from circuits.studies.explain.verdict import BehaviourError
from circuits.studies.explain_specs import TwoHopSpec
from circuits.studies.setting import Setting, find_relation, relations_at
from circuits.studies.study import Case, Study, Watch


@dataclass(frozen=True)
class HopBench:
    """What questions are asked with."""

    setting: Setting
    spec: TwoHopSpec
    network: Network

    @property
    def model(self) -> Model:
        return self.setting.model

    @cached_property
    def questions(self) -> tuple[TwoHopQuestion, ...]:
        """The one that is named, or those that are found.

        Raises:
            BehaviourError: there is no such question, or none was found.
        """
        spec, at = self.spec, self.setting
        if spec.first and spec.second and spec.subject:
            one, two = at.relations[spec.first], at.relations[spec.second]
            asked_in_two_hops(one, two, spec.subject)
            other = another_subject(at.model, one, two, spec.subject, spec.seed)
            if other is None:
                raise BehaviourError(
                    f"no subject of {one.name} has another bridge and another answer than {spec.subject!r}, told apart by first "
                    "tokens: there is nothing to compare its patches with"
                )
            return (TwoHopQuestion(one.name, two.name, spec.subject, other),)
        ground = Ground(at.relations, at.manifest, spec.seed)
        found = questions(at.model, at.relations, ground, first=spec.first, second=spec.second)
        if some := tuple(islice(found, spec.n)):
            return some
        raise BehaviourError(f"{at.model.name} knows both hops of no question in two hops that was looked at")


def _open(spec: TwoHopSpec, _: Any) -> HopBench:
    relations = relations_at(spec.model, *spec.named)
    setting = Setting.opened(spec, relations, [find_relation(relations, name) for name in spec.named])
    return HopBench(setting, spec, opened(setting.model))


def _cases(spec: TwoHopSpec, at: HopBench) -> list[Case[TwoHopQuestion]]:
    return [Case("; ".join(each), each) for each in at.questions]


def _run(spec: TwoHopSpec, case: Case[TwoHopQuestion], at: HopBench, watch: Watch) -> TwoHopRow:
    return diagnosed(at.model, at.network, case.asked, at.setting.relations, every=spec.every, seed=spec.seed)


TWO_HOP: Study[TwoHopSpec, HopBench, TwoHopQuestion, TwoHopRow] = Study(
    "twohop", TwoHopRow, _open, _cases, _run, chooses=frozenset({"n", "find", "first", "second", "subject"})
)

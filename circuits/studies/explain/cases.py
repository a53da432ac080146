"""Where the cases of an explanation are looked for: in what a manifest says that the model was taught, elsewhere in the dataset.

A manifest names facts that training showed often, rarely, or only as demonstrations. Without one, a relation's facts are drawn at
random, and what the model knows of them is found by asking it.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from circuits.datasets.manifest import Manifest, RelationPlan, TwoHop
from circuits.facts import Fact, Relation, Relations

AT_MOST = 40
"""Facts of a relation that are looked at where no manifest says which."""


@dataclass(frozen=True)
class Ground:
    """A dataset, and what is known of the model's training with it: None where nothing is."""

    relations: Relations
    manifest: Manifest | None
    seed: int = 0

    def names(self, relation: str | None = None) -> tuple[str, ...]:
        """The relations to look in; only ``relation``, if there is one."""
        if relation is not None:
            return (relation,)
        there: Mapping[str, object] = self.relations if self.manifest is None else self.manifest.relations
        return tuple(there)

    def shown_often(self, name: str) -> tuple[Fact, ...]:
        """Facts of a relation that the model may be expected to know."""
        taught = self._taught(name)
        return self._facts(self.relations[name], self.relations[name].subjects if taught is None else taught.head)

    def shown_rarely(self, name: str) -> tuple[Fact, ...]:
        """Facts of a relation that the model may be expected to get wrong: without a manifest, any."""
        taught = self._taught(name)
        return self._facts(
            self.relations[name], self.relations[name].subjects if taught is None else tuple(taught.tail)
        )

    def undemonstrated(self, relation: str | None = None) -> Iterator[tuple[Relation, Sequence[str], Sequence[str]]]:
        """(relation, subjects that training showed in no demonstration, subjects to demonstrate it with).

        Without a manifest, subjects are drawn from the same ones for both: one is never demonstrated before it is asked itself.
        """
        if self.manifest is None or (relation is not None and self._taught(relation) is None):
            for name in self.names(relation):
                subjects = [fact.subject for fact in self.shown_often(name)]
                yield self.relations[name], subjects, subjects
            return
        for group in self.manifest.demonstrations.values():
            for name in group.relations:
                if relation in (None, name):
                    own = set(self.relations[name].subjects)
                    yield (
                        self.relations[name],
                        [each for each in group.undemonstrated if each in own],
                        [each for each in group.subjects if each in own],
                    )

    def two_hops(self) -> Iterator[TwoHop]:
        """Pairs of relations with the subjects of the first whose object is a subject of the second."""
        if self.manifest is not None:
            yield from self.manifest.two_hop
            return
        for first in self.relations.values():
            for second in self.relations.values() if first.noun_phrases else ():
                known = set(second.subjects)
                subjects = [subject for subject, object_ in first.pairs if object_ in known]
                if first.name != second.name and subjects:
                    yield TwoHop(
                        first=first.name, second=second.name, rendered=tuple(self._some(first, subjects)), unrendered=()
                    )

    def _taught(self, name: str) -> RelationPlan | None:
        """What training showed of a relation; None where that is not known."""
        return None if self.manifest is None else self.manifest.relations.get(name)

    def _facts(self, relation: Relation, subjects: Sequence[str]) -> tuple[Fact, ...]:
        return tuple(relation.fact(subject) for subject in self._some(relation, subjects))

    def _some(self, relation: Relation, subjects: Sequence[str]) -> Sequence[str]:
        """All that a manifest names, in its order; else some, drawn with the seed."""
        if self._taught(relation.name) is not None or len(subjects) <= AT_MOST:
            return subjects
        return random.Random(f"{self.seed}/{relation.name}").sample(list(subjects), AT_MOST)

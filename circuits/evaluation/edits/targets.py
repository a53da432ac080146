"""Which facts are edited when methods are compared: ones that the model knows best."""

from collections.abc import Iterator, Sequence

from circuits.datasets.manifest import manifest_of
from circuits.datasets.probes import edit_facts, edit_requests
from circuits.evaluation.continuations import read
from circuits.facts import EditRequest, Fact, Relations
from circuits.model import Model


class TooFewFacts(ValueError):
    """A model that does not know as many facts as were asked for."""


def known_requests(model: Model, relations: Relations, n: int, *, seed: int = 0) -> tuple[EditRequest, ...]:
    """``n`` requests to give a fact that the model knows another object of its relation, with their probes.

    Known: every token of the answer is the likeliest one. Of factlm's facts, head facts alone. The same model and seed give
    the same requests, and a smaller ``n`` gives the first of them; their probes may differ, because no probe of one is about
    a fact that another edits.

    Raises:
        TooFewFacts: the model knows fewer.
    """
    manifest = manifest_of(model.unedited.profile)
    found: list[Fact] = []
    for fact in _known(model, edit_facts(relations, manifest, seed=seed)):
        found.append(fact)
        if len(found) == n:
            return edit_requests(found, relations, manifest, seed=seed)
    raise TooFewFacts(
        f"expected {n} facts that {model.name} knows, found {len(found)}; ask for fewer with --n, or give cases of your own"
    )


def _known(model: Model, facts: Sequence[Fact], block: int = 64) -> Iterator[Fact]:
    for start in range(0, len(facts), block):
        some = facts[start : start + block]
        for fact, reading in zip(some, read(model, [model.tokens(fact) for fact in some]), strict=True):
            if reading.exact:
                yield fact

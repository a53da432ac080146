"""Known-1000 (Meng et al. 2022, "Locating and editing factual associations in GPT"): 1,209 facts that GPT-2 XL knew.

Each record has a prompt of its own. It often goes on after its template with GPT-2 XL's own words, up to where the object
begins; so the prompt, not the template, is what to ask.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from circuits.datasets.lre import DatasetError
from circuits.datasets.records import Record, RecordError, Skip, Words, read_records, template_of
from circuits.facts import Fact, FactError, Relation, Relations, single_objects


class _Known(Record):
    subject: Words
    attribute: Words
    prompt: Words
    relation_id: Words


def load_known1000(path: Path, *, skip: Skip | None = None, limit: int | None = None) -> Mapping[str, tuple[Fact, ...]]:
    """The facts in their own prompts, by Wikidata's id of their relation, in the file's order.

    Raises:
        circuits.datasets.DatasetError: the file cannot be read or holds no facts; without ``skip``, for a record that
            makes no fact. It names file, record and field.
    """
    grouped: dict[str, list[Fact]] = {}
    for relation, fact in read_records(path, lambda raw: _Known, _fact, skip, limit):
        grouped.setdefault(relation, []).append(fact)
    if not grouped:
        raise DatasetError(f"{path}: expected facts of Known-1000, found none")
    return {relation: tuple(facts) for relation, facts in grouped.items()}


def known1000_relations(path: Path, *, skip: Skip | None = None) -> Relations:
    """The facts as relations, in alphabetical order of their ids: every fact of one in the same words.

    A relation's templates are its prompts with the subject taken out, those that two facts or more share, commonest first;
    or the commonest one where none is shared. So a fact in them differs from the file's where its prompt was its own. A
    subject with two objects is left out.

    Raises:
        circuits.datasets.DatasetError: as `load_known1000`.
    """
    grouped = load_known1000(path, skip=skip)
    return {name: _relation(name, grouped[name]) for name in sorted(grouped)}


def _fact(record: _Known) -> tuple[str, Fact]:
    try:
        return record.relation_id, Fact(record.prompt, record.subject, record.attribute, record.relation_id)
    except FactError as error:
        raise RecordError("prompt", str(error)) from error


def _relation(name: str, facts: tuple[Fact, ...]) -> Relation:
    counts = Counter(template_of(fact.prompt, fact.subject, "prompt") for fact in facts)
    common = [template for template, n in counts.most_common() if n > 1] or [counts.most_common(1)[0][0]]
    return Relation(
        name=name,
        title=f"{name}: {common[0].replace('{}', '…')}",
        kind="factual",
        domain="subject",
        range="object",
        templates=tuple(common),
        pairs=single_objects((fact.subject, fact.object) for fact in facts),
    )

"""Write ``data/facts/README.md``, the data card, from the fact files.

python data/write_facts_card.py
"""

import re
from pathlib import Path

from circuits.datasets import load_relations
from circuits.facts import KINDS, Relations

FACTS = Path(__file__).resolve().parent / "facts"


def n_words(object_: str) -> int:
    """Words and punctuation marks: the tokens of an object in factlm's vocabulary, as the card says."""
    return len(re.findall(r"'s|[^\W\d_]+|\d+|[^\w\s]", object_))


def relation_table(relations: Relations) -> str:
    lines = [
        "| relation | kind | from | to | facts | objects | most words in an object | templates | general |",
        "|---|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for kind in KINDS:
        for relation in relations.values():
            if relation.kind == kind:
                longest = max(n_words(object_) for object_ in relation.objects)
                lines.append(
                    f"| `{relation.name}` | {kind} | {relation.domain} | {relation.range} | {len(relation.pairs)} "
                    f"| {len(relation.objects)} | {longest} | {len(relation.templates)} | {len(relation.general_templates)} |"
                )
    return "\n".join(lines)


def card(relations: Relations) -> str:
    facts = sum(len(relation.pairs) for relation in relations.values())
    template = (FACTS.parent / "facts-card.md").read_text(encoding="utf-8")
    return template.format(facts=f"{facts:,}", relations=len(relations), table=relation_table(relations))


if __name__ == "__main__":
    (FACTS / "README.md").write_text(card(load_relations()), encoding="utf-8")
    print(f"wrote {FACTS / 'README.md'}")

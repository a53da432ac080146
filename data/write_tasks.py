"""Write `data/tasks/factlm`: what factlm is able to do besides recalling a stated fact.

    python data/write_tasks.py

Facts are drawn by a seed from the groups of the manifest, so that each file asks what its name says: demonstrations of subjects that no
training document demonstrated, two hops that no training document put together, wordings held out for their fact.
"""

import json
import random
from collections.abc import Iterable, Sequence

from circuits.datasets import load_relations
from circuits.datasets.corpus import demonstration, held_out_facts, two_hop_facts
from circuits.datasets.manifest import Manifest
from circuits.facts import Fact, Relations
from circuits.paths import data_dir
from circuits.records import write_whole

N = 30
CHOICES = 4
SHOWN = 3
"""Demonstrations before the one that is asked for."""
FORMS = ("noun_plural", "verb_past_tense", "verb_participle", "adj_comparative", "adj_superlative")


def written(facts: Iterable[Fact]) -> list[dict[str, object]]:
    return [{"prompt": fact.prompt, "answer": fact.object} for fact in facts]


def choosing(facts: Sequence[Fact], relations: Relations, rng: random.Random) -> list[dict[str, object]]:
    """Among objects of the same relation."""
    found = []
    for fact in facts:
        others = sorted({object_ for _, object_ in relations[fact.relation or ""].pairs} - {fact.object})
        choices = [fact.object, *rng.sample(others, CHOICES - 1)]
        rng.shuffle(choices)
        found.append({"prompt": fact.prompt, "choices": choices, "answer": fact.object})
    return found


def demonstrated(relations: Relations, manifest: Manifest, rng: random.Random) -> list[dict[str, object]]:
    """Of subjects that no training document demonstrated, after those that were."""
    found: dict[str, dict[str, object]] = {}
    for group in manifest.demonstrations.values():
        for name in group.relations:
            relation = relations[name]
            own = dict(relation.pairs)
            shown = [subject for subject in group.subjects if subject in own]
            for subject in (each for each in group.undemonstrated if each in own):
                pairs = [(each, own[each]) for each in rng.sample(shown, SHOWN)]
                prompt = demonstration(pairs, subject)
                found[prompt] = {"prompt": prompt, "answer": own[subject]}
    return list(found.values())


def main() -> None:
    relations, manifest, rng = load_relations(), Manifest.load(), random.Random(0)
    held_out = held_out_facts(relations, manifest)
    forms = [fact for fact in held_out if fact.relation in FORMS]
    wordings = [fact for fact in held_out if relations[fact.relation or ""].kind == "factual"]
    hops = [fact for hop in manifest.two_hop for fact in two_hop_facts(hop, relations, hop.unrendered)]
    shown = demonstrated(relations, manifest, rng)
    tasks = {
        "forms": (
            "exact",
            "Plurals, tenses and comparisons, in wordings held out for the word.",
            written(rng.sample(forms, N)),
        ),
        "demonstrations": (
            "exact",
            "The relation of three pairs, carried on to a subject never demonstrated.",
            rng.sample(shown, N),
        ),
        "composition": (
            "exact",
            "Two relations in one question, never put together for this subject.",
            written(rng.sample(hops, N)),
        ),
        "wordings": (
            "choice",
            "A fact in words held out for it, among four objects of its relation.",
            choosing(rng.sample(wordings, N), relations, rng),
        ),
    }
    for name, (measure, about, items) in tasks.items():
        head = {"task": name, "measures": [measure], "about": about}
        lines = [json.dumps(line, ensure_ascii=False) for line in (head, *items)]
        write_whole(data_dir() / "tasks" / "factlm" / f"{name}.jsonl", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

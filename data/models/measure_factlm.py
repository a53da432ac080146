"""Measure factlm as shipped and write its model card.

    python data/models/measure_factlm.py

Rank 1 means that the first token of the answer is the likeliest next token. Prompts of one length share a batch; no
prompt is padded.
"""

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from dealing import TAIL_RENDERINGS
from phases import PHASES
from torch import Tensor
from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerFast

from circuits.analysis.lens import trajectory
from circuits.datasets import load_relations
from circuits.datasets.corpus import TWO_HOP_TEMPLATES, demonstration, held_out_facts, trained_facts, two_hop_facts
from circuits.datasets.manifest import Demonstrations, Manifest
from circuits.facts import Fact, Relations
from circuits.model import Model

BATCH = 512
SHOTS = 3
DRAWS = 5
"""How often the demonstrations of a query are drawn anew."""
SEED = 1
DEPTH_FACTS = 20
"""Head facts of each factual relation whose answer is followed through the layers."""


@dataclass(frozen=True, slots=True)
class Recall:
    """How one group of prompts was answered: ranks of the right answers, and the likeliest next token of each."""

    facts: tuple[Fact, ...]
    ranks: tuple[int, ...]
    top_tokens: tuple[int, ...]

    def hit(self, k: int = 1) -> float:
        """Share of prompts whose answer ranks among the first k, in percent."""
        return 100 * sum(rank <= k for rank in self.ranks) / len(self.ranks) if self.ranks else float("nan")

    def only(self, keep: Iterable[bool]) -> "Recall":
        rows = [
            row
            for row, kept in zip(zip(self.facts, self.ranks, self.top_tokens, strict=True), keep, strict=True)
            if kept
        ]
        return Recall(*(tuple(column) for column in zip(*rows, strict=True))) if rows else Recall((), (), ())


class Reader:
    """A trained model with its tokenizer, ready to be asked."""

    def __init__(self, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model = model.float().eval()
        self.tokenizer = tokenizer

    def first_token(self, answer: str) -> int:
        return self.tokenizer(answer)["input_ids"][0]

    @torch.no_grad()
    def recall(self, facts: Sequence[Fact]) -> Recall:
        bos = self.tokenizer.bos_token_id
        prompts = [[bos, *ids] for ids in self.tokenizer([fact.prompt for fact in facts])["input_ids"]] if facts else []
        answers = [self.first_token(fact.answer) for fact in facts]
        ranks, tops = [0] * len(facts), [0] * len(facts)
        by_length = defaultdict(list)
        for i, ids in enumerate(prompts):
            by_length[len(ids)].append(i)
        for rows in by_length.values():
            for start in range(0, len(rows), BATCH):
                chunk = rows[start : start + BATCH]
                hidden = self.model.transformer(torch.tensor([prompts[i] for i in chunk])).last_hidden_state[:, -1]
                logits: Tensor = self.model.lm_head(hidden)
                right = logits.gather(1, torch.tensor([[answers[i]] for i in chunk]))
                for i, rank, top in zip(chunk, (logits > right).sum(1) + 1, logits.argmax(1), strict=True):
                    ranks[i], tops[i] = int(rank), int(top)
        return Recall(tuple(facts), tuple(ranks), tuple(tops))


def head(reader: Reader, relations: Relations, manifest: Manifest) -> tuple[Recall, Recall]:
    """Recall of head facts on templates (trained with that fact, held out for that fact)."""
    return reader.recall(trained_facts(relations, manifest)), reader.recall(held_out_facts(relations, manifest))


def tail(reader: Reader, relations: Relations, manifest: Manifest) -> tuple[Recall, list[int]]:
    """Recall of tail facts in the relation's first template, and how often each was rendered."""
    facts, renderings = [], []
    for name, plan in manifest.relations.items():
        for subject, times in plan.tail.items():
            facts.append(relations[name].fact(subject))
            renderings.append(times)
    return reader.recall(facts), renderings


def of_right_type(reader: Reader, relations: Relations, recall: Recall) -> float:
    """Of the wrong answers, the percentage that begin another object of the same relation."""
    first = {name: {reader.first_token(" " + o) for o in relation.objects} for name, relation in relations.items()}
    wrong = [
        (fact, top) for fact, rank, top in zip(recall.facts, recall.ranks, recall.top_tokens, strict=True) if rank > 1
    ]
    return 100 * sum(top in first[str(fact.relation)] for fact, top in wrong) / len(wrong) if wrong else float("nan")


def demonstration_only(reader: Reader, relations: Relations, manifest: Manifest) -> Recall:
    """Recall, in the first template, of facts that training showed as demonstrations alone."""
    return reader.recall(
        [relations[n].fact(s) for n, plan in manifest.relations.items() for s in plan.demonstration_only]
    )


def in_context(reader: Reader, relations: Relations, group: Demonstrations, relation: str, shots: int) -> Recall:
    """Recall of subjects never demonstrated in training, after ``shots`` demonstrations ("Italy: Rome; France:")."""
    rng = random.Random(f"{SEED}/{relation}")
    facts = relations[relation]
    shown = [s for s in group.subjects if s in set(facts.subjects)]
    queries = []
    for subject in group.undemonstrated:
        for _ in range(DRAWS if shots else 1):
            pairs = [(s, facts.object_of(s)) for s in rng.sample(shown, shots)]
            queries.append(Fact(demonstration(pairs, subject), subject, facts.object_of(subject), relation))
    return reader.recall(queries)


def two_hop(reader: Reader, relations: Relations, manifest: Manifest) -> list[tuple[str, Recall, Recall]]:
    """(first -> second, recall on pairs rendered in training, recall on pairs never rendered)."""
    rows = []
    for hop in manifest.two_hop:
        rendered, unrendered = (
            reader.recall([f for t in range(TWO_HOP_TEMPLATES) for f in two_hop_facts(hop, relations, subjects, t)])
            for subjects in (hop.rendered, hop.unrendered)
        )
        rows.append((f"{hop.first} → {hop.second}", rendered, unrendered))
    return rows


def reverse(reader: Reader, relations: Relations) -> Recall:
    """Recall of the subject from the object, in words that training never used."""
    return reader.recall(
        [
            Fact(template.format(object_), object_, subject, name)
            for name, relation in relations.items()
            for template in relation.reverse_templates
            for subject, object_ in relation.pairs
        ]
    )


def summary(reader: Reader, relations: Relations, manifest: Manifest) -> str:
    """One line of the main numbers, for following a training."""
    trained, held_out = head(reader, relations, manifest)
    tail_recall, _ = tail(reader, relations, manifest)
    shots = [
        (in_context(reader, relations, group, name, 0).hit(), in_context(reader, relations, group, name, SHOTS).hit())
        for group in manifest.demonstrations.values()
        for name in group.relations
    ]
    learnt = sum(zero < 20 and few >= 60 for zero, few in shots)
    hops = two_hop(reader, relations, manifest)
    return (
        f"head {trained.hit():.1f} trained {held_out.hit():.1f} held out | tail {tail_recall.hit():.1f}"
        f" ({of_right_type(reader, relations, tail_recall):.0f} right type) | demo-only"
        f" {demonstration_only(reader, relations, manifest).hit():.0f} | in context {learnt} of {len(shots)}"
        f" (3-shot mean {sum(few for _, few in shots) / len(shots):.0f}) | two-hop"
        f" {sum(r.hit() for _, r, _ in hops) / len(hops):.0f} rendered {sum(u.hit() for _, _, u in hops) / len(hops):.0f}"
        f" unrendered | reverse {reverse(reader, relations).hit():.1f}"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def depth(folder: Path, relations: Relations, manifest: Manifest) -> list[list[str]]:
    """(layer, percent of factual head facts whose answer stays first from its attention on, from its MLP on)."""
    model, decided = Model.load(folder), Counter[str | None]()
    for name, plan in manifest.relations.items():
        if relations[name].kind == "factual":
            subjects = random.Random(f"{SEED}/depth/{name}").sample(plan.head, min(DEPTH_FACTS, len(plan.head)))
            decided.update(trajectory(model, relations[name].fact(subject)).decided for subject in subjects)
    total = sum(decided.values())
    return [
        [str(layer), *(f"{100 * decided[f'L{layer} {part}'] / total:.0f}" for part in ("attn", "MLP"))]
        for layer in range(model.shape.n_layers)
    ]


def card(reader: Reader, relations: Relations, manifest: Manifest, layers: list[list[str]]) -> str:
    trained, held_out = head(reader, relations, manifest)
    tail_recall, renderings = tail(reader, relations, manifest)
    n_tail = {k: [r == k for r in renderings] for k in TAIL_RENDERINGS}
    per_relation = [
        [
            name,
            str(len(relations[name].pairs)),
            f"{trained.only(f.relation == name for f in trained.facts).hit():.1f}",
            f"{held_out.only(f.relation == name for f in held_out.facts).hit():.1f}",
            f"{tail_recall.only(f.relation == name for f in tail_recall.facts).hit():.1f}",
        ]
        for name in relations
    ]
    shots = [
        [
            f"{domain}: {name}",
            str(len(group.undemonstrated)),
            f"{in_context(reader, relations, group, name, 0).hit():.1f}",
            f"{in_context(reader, relations, group, name, SHOTS).hit():.1f}",
        ]
        for domain, group in manifest.demonstrations.items()
        for name in group.relations
    ]
    config = reader.model.config
    template = (Path(__file__).resolve().parent / "card.md").read_text(encoding="utf-8")
    return template.format(
        draws=DRAWS,
        depth=table(["layer", "from its attention on, %", "from its MLP on, %"], layers),
        depth_facts=DEPTH_FACTS,
        plain_epochs=PHASES[0].epochs,
        local_epochs=PHASES[1].epochs,
        layers=config.n_layer,
        heads=config.n_head,
        width=config.n_embd,
        context=config.n_positions,
        vocabulary=config.vocab_size,
        parameters=f"{sum(p.numel() for p in reader.model.parameters()):,}",
        facts=f"{sum(len(r.pairs) for r in relations.values()):,}",
        relations=len(relations),
        levels=", ".join(str(k) for k in TAIL_RENDERINGS),
        main=table(
            ["group of prompts", "prompts", "Hit@1 %", "Hit@10 %"],
            [
                [label, f"{len(r.ranks):,}", f"{r.hit():.1f}", f"{r.hit(10):.1f}"]
                for label, r in (
                    ("head facts, templates trained with that fact", trained),
                    ("head facts, the template held out for that fact", held_out),
                    ("tail facts, first template", tail_recall),
                    *((f"— rendered {k}× in training", tail_recall.only(n_tail[k])) for k in TAIL_RENDERINGS),
                    ("demonstration-only facts, first template", demonstration_only(reader, relations, manifest)),
                    ("reverse prompts (never trained)", reverse(reader, relations)),
                )
            ],
        ),
        right_type=f"{of_right_type(reader, relations, tail_recall):.1f}",
        shots=table(["domain: relation", "subjects", "zero-shot Hit@1 %", f"{SHOTS}-shot Hit@1 %"], shots),
        hops=table(
            ["first → second relation", "rendered: prompts", "Hit@1 %", "never rendered: prompts", "Hit@1 %"],
            [
                [label, str(len(seen.ranks)), f"{seen.hit():.1f}", str(len(new.ranks)), f"{new.hit():.1f}"]
                for label, seen, new in two_hop(reader, relations, manifest)
            ],
        ),
        per_relation=table(["relation", "facts", "head, trained %", "head, held out %", "tail %"], per_relation),
    )


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=here / "factlm", help="folder of the trained model")
    folder: Path = parser.parse_args().model
    reader = Reader(GPT2LMHeadModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    relations, manifest = load_relations(), Manifest.load(folder / "manifest.json")
    print(summary(reader, relations, manifest))
    (folder / "README.md").write_text(
        card(reader, relations, manifest, depth(folder, relations, manifest)), encoding="utf-8"
    )
    print(f"wrote {folder / 'README.md'}")


if __name__ == "__main__":
    main()

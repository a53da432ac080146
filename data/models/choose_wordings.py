"""Choose, for every relation, the wording that a model answers best, and write them into the model's profile.

    python data/models/choose_wordings.py --model smollm2 --profile data/models/smollm2/profile.json

Candidates are all templates of a relation, factlm's and the general ones. D_val (`circuits.datasets.split`) chooses: the
greatest Hit@10, then the greatest mean reciprocal rank. D_test, which nothing was chosen on, gives the number to believe.
A fact is known if its answer ranks 10th or better (DESIGN section 4). The profile's other fields stay as they are.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from circuits.datasets import load_relations
from circuits.datasets.split import split_facts
from circuits.evaluation import KNOWN_RANK, Answers, whole_model
from circuits.facts import Relation, Relations
from circuits.model import Model
from circuits.records import read_json, write_whole

ENOUGH = 20
"""Known facts that a study of a relation wants."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The wording of a relation that did best on D_val, and how it does on both halves."""

    relation: str
    wording: str
    general: bool
    val: Answers
    test: Answers

    @property
    def n(self) -> int:
        return len(self.val.rank.per_example) + len(self.test.rank.per_example)

    @property
    def known(self) -> int:
        """Facts of both halves whose answer is among the first ten."""
        return sum(rank <= KNOWN_RANK for half in (self.val, self.test) for rank in half.rank.per_example)


def choose(model: Model, relation: Relation, *, seed: int = 0) -> Choice:
    """The best wording of one relation for ``model``; of equal ones, the first."""
    answers = {
        wording: whole_model(model, split_facts(relation, "val", template=wording, seed=seed))
        for wording in relation.wordings
    }
    best = max(answers, key=lambda wording: (answers[wording].hit(KNOWN_RANK).value, answers[wording].mrr.value))
    test = whole_model(model, split_facts(relation, "test", template=best, seed=seed))
    return Choice(relation.name, best, best in relation.general_templates, answers[best], test)


def table(choices: Sequence[Choice]) -> Iterator[str]:
    """The choices as lines of a Markdown table, the last line the totals."""
    k = KNOWN_RANK
    yield f"| relation | wording | general | n | Hit@{k} val | Hit@{k} test | Hit@1 test | known |"
    yield "|---|---|---|---:|---:|---:|---:|---:|"
    for choice in choices:
        yield (
            f"| `{choice.relation}` | {choice.wording.replace('{}', '…')} | {'yes' if choice.general else 'no'} | {choice.n} "
            f"| {choice.val.hit(k).value:.1%} | {choice.test.hit(k).value:.1%} | {choice.test.hit(1).value:.1%} "
            f"| {choice.known} |"
        )
    enough = sum(choice.known >= ENOUGH for choice in choices)
    yield ""
    yield f"{enough} of {len(choices)} relations have at least {ENOUGH} known facts."


def write(profile: Path, model: Model, choices: Sequence[Choice]) -> None:
    """Put the wordings into the profile, keys sorted; a profile that is not there yet gets the model's name and BOS too."""
    content: dict[str, Any]
    if profile.exists():
        content = read_json(profile)
    else:
        bos = model.vocabulary.bos
        content = {"name": profile.parent.name, "bos": None if bos is None else model.vocabulary.decode([bos])}
    content["wordings"] = dict(sorted({**content.get("wordings", {}), **_wordings(choices)}.items()))
    write_whole(profile, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _wordings(choices: Sequence[Choice]) -> dict[str, str]:
    return {choice.relation: choice.wording for choice in choices}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="name or folder of the model, as Model.load takes it")
    parser.add_argument(
        "--profile", type=Path, help="profile.json to write the wordings into; without it, none is written"
    )
    parser.add_argument("--relations", help="names, separated by commas; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the split into D_val and D_test")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = Model.load(arguments.model)
    choices = [
        choose(model, relation, seed=arguments.seed) for relation in _chosen(load_relations(), arguments.relations)
    ]
    print("\n".join(table(choices)))
    if arguments.profile is not None:
        write(arguments.profile, model, choices)
        print(f"wrote {arguments.profile}")


def _chosen(relations: Relations, names: str | None) -> list[Relation]:
    wanted = list(relations) if names is None else names.split(",")
    unknown = sorted(set(wanted) - set(relations))
    if unknown:
        raise SystemExit(f"no such relations: {', '.join(unknown)}; there are {', '.join(relations)}")
    return [relations[name] for name in wanted]


if __name__ == "__main__":
    main()

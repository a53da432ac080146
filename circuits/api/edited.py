"""One fact given another object, and what one asks of that."""

import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from circuits.api.said import Asking
from circuits.editing import Edit
from circuits.evaluation import said, whole_model
from circuits.facts import Fact, Relations
from circuits.model import Model
from circuits.pages.tables import grid, to_html
from circuits.studies.diff import PROMPT_KINDS, EditDiff, PromptKind, choose_prompts, diff_edit
from circuits.studies.explain.sides import make_bench
from circuits.studies.specs import RunSpec


@dataclass(frozen=True)
class EditedFact(Asking):
    """A fact of a model after an edit. The model itself is as before: the edit is on it only while it is asked.

    ``target`` is the new object of ``fact``; ``method`` is what was asked for, and ``edit`` the edit that it made.
    """

    fact: Fact
    target: str
    method: str
    edit: Edit
    model: Model = field(repr=False)
    relations: Relations = field(repr=False)
    spec: RunSpec = field(repr=False)

    @contextmanager
    def on(self) -> Iterator[Model]:
        """The edited model, good inside the ``with`` that this returns."""
        with self.edit.on(self.model) as edited:
            yield edited

    def diff(self, *, kinds: Sequence[PromptKind] = PROMPT_KINDS, force: bool = False) -> EditDiff:
        """What the edit does to the circuits of the fact and of what stands beside it.

        Args:
            kinds: at which prompts: the ``edited`` one, a ``paraphrase``, a ``neighbour``, an ``unrelated`` fact.
            force: also after an edit that did not take.

        Returns:
            The circuits before and after, edges lost and gained, heads that changed roles; `str` tells it in sentences.

        Raises:
            circuits.studies.diff.EditDidNotTake: the edited model does not say the new object, and ``force`` is off.
        """
        bench = make_bench(self.model, self.fact, self.relations, self.spec)
        prompts = choose_prompts(self.model, self.fact, self.target, self.relations)
        return diff_edit(
            self.model, self.edit, self.target, prompts, bench, method=self.method, kinds=kinds, force=force
        )

    def save(self, folder: Path | str) -> Path:
        """Write the edit, kilobytes, into a folder that ``with_edit`` and ``--with-edit`` take.

        Args:
            folder: made if need be.

        Returns:
            The folder.
        """
        return self.edit.save(Path(folder))

    @cached_property
    def took(self) -> bool:
        """Whether the edited model says the whole new object: its every token the likeliest."""
        with self.on() as edited:
            return said(edited, self.fact.prompt, (self.target,)) is not None

    @cached_property
    def _rows(self) -> tuple[tuple[str, float, float, int, int], ...]:
        """(object, probability before, after, rank before, after) of the new object and the old."""
        asked = [
            Fact(self.fact.prompt, self.fact.subject, word, self.fact.relation)
            for word in (self.target, self.fact.object)
        ]
        before = whole_model(self.model, asked)
        with self.on() as edited:
            after = whole_model(edited, asked)
        p, p_after = (answers.probability.per_example for answers in (before, after))
        rank, rank_after = (tuple(map(int, answers.rank.per_example)) for answers in (before, after))
        return tuple(zip((fact.object for fact in asked), p, p_after, rank, rank_after, strict=True))

    def __str__(self) -> str:
        parts = [
            f"{word} rank {rank:,} → {rank_after:,}, probability {p:.3f} → {p_after:.3f}"
            for word, p, p_after, rank, rank_after in self._rows
        ]
        took = "" if self.took else " The edit did not take: the new object is not what the model writes."
        return f"{self.method} on {self.model.name}: {self.fact.prompt} … {'; '.join(parts)}.{took}"

    def __repr__(self) -> str:
        return f"<EditedFact: {self}>"

    def _repr_html_(self) -> str:
        lines = [
            (word, f"{p:.3f}", f"{p_after:.3f}", f"{rank:,}", f"{rank_after:,}")
            for word, p, p_after, rank, rank_after in self._rows
        ]
        table = to_html(grid(("", "probability before", "after", "rank before", "after"), lines))
        took = "" if self.took else "<p>The edit did not take.</p>"
        return f"<p>{html.escape(f'{self.method} on {self.model.name}: {self.fact.prompt} …')}</p>{table}{took}"

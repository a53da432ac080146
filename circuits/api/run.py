"""A run whose model is at hand: what one asks next of a fact whose circuit one has."""

import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from pydantic import PrivateAttr

from circuits.analysis.roles import HeadRole, RoleError
from circuits.api.edited import EditedFact
from circuits.api.models import model_of
from circuits.api.said import Asking
from circuits.datasets import relations_for
from circuits.editing import find_method, load_edit
from circuits.facts import EditRequest, Fact
from circuits.graph import Node
from circuits.model import Model
from circuits.pages.export import export_run, picture_of
from circuits.pages.stills import ranks_still
from circuits.pages.tables import grid, to_html
from circuits.studies.diffs import CircuitDiff
from circuits.studies.explain.compare import diff_runs
from circuits.studies.run import Run


@dataclass(frozen=True)
class HeadRoles(Sequence[HeadRole]):
    """The heads with an established role for a relation, the largest effect first; each, as text, says why."""

    relation: str
    heads: tuple[HeadRole, ...]
    inside: frozenset[Node]
    """Those in the circuit that they were asked of."""

    @overload
    def __getitem__(self, index: int) -> HeadRole: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[HeadRole, ...]: ...
    def __getitem__(self, index: int | slice) -> "HeadRole | tuple[HeadRole, ...]":
        return self.heads[index]

    def __len__(self) -> int:
        return len(self.heads)

    def __str__(self) -> str:
        if not self.heads:
            return f"{self.relation}: no head has an established role."
        return "\n".join(
            f"{one}{'' if one.head in self.inside else ' It is not in the circuit.'}" for one in self.heads
        )

    def __repr__(self) -> str:
        return (
            f"<HeadRoles: {self.relation}: {', '.join(f'{one.head.label} {one.role}' for one in self.heads) or 'none'}>"
        )

    def _repr_html_(self) -> str:
        header = ("head", "role", "in the circuit", "attention to subject", "write from subject")
        lines = [
            (
                one.head.label,
                one.role,
                "yes" if one.head in self.inside else "no",
                f"{one.evidence.attention_subject:.0%}",
                f"{one.evidence.reading_subject:.0%}",
                f"{one.evidence.subject_cut.mean:+.2f}",
                f"{one.evidence.relation_cut.mean:+.2f}",
            )
            for one in self.heads
        ]
        table = grid((*header, "answer falls, logits", "range falls, logits"), lines, left=3)
        return f"<p>{html.escape(self.relation)}</p>{to_html(table)}"


class LiveRun(Asking, Run):
    """A run and its model: shows itself, and answers what one asks next.

    As a `Run` it has the ``circuit`` (edges with their scores in nats), the ``certificate`` (whether these edges recall the
    fact), the ``story`` (sentences with their numbers), ``save``, ``summary`` and ``command``.
    """

    _model: Model | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, run: Run, model: Model | None = None) -> "LiveRun":
        """The run, its model at hand.

        Args:
            run: made or read from a folder.
            model: what it was made with, without its edit; loaded when it is first needed, by default.

        Returns:
            The same record, which can be asked.
        """
        live = cls.model_construct(**{name: getattr(run, name) for name in Run.model_fields})
        live._model = model
        return live

    @property
    def model(self) -> Model:
        """The model that the run was made with, without its edit.

        Raises:
            circuits.model.ModelError: it cannot be loaded.
        """
        if self._model is None:
            self._model = model_of(self.spec)
        return self._model

    @property
    def fact(self) -> Fact:
        """The fact whose circuit this is; the first, of several."""
        return self.spec.facts[0]

    def heads(self) -> HeadRoles:
        """What each attention head does for the fact's relation.

        Returns:
            The heads with an established role (mover, relation, mixture, suppressor, carrier), effects in logits.

        Raises:
            RoleError: no role can be told; says why.
        """
        told = self.reading.roles if self.reading else None
        if told is None:
            raise RoleError(
                f"no role can be told: {self.reading.unread if self.reading else 'the run was made without a reading'}"
            )
        return HeadRoles(told.relation, told.labelled, frozenset(self.circuit.nodes))

    def edit(self, to: str, *, method: str = "rome", seed: int = 0, **options: Any) -> EditedFact:
        """Give the fact another object. The model stays as it is: see `EditedFact`.

        Args:
            to: the new object.
            method: rome, memit, ft-l, ft-m, memoe or memoe-scoped; ``rome@subject`` stores the value at the subject's last
                token.
            seed: of whatever is drawn.
            options: of the method: ``layer=3``, ``layers=(3, 4)``, ``steps=20``, ...; its own for this model by default.

        Returns:
            The edited fact: what it says before and after, ``diff()``, ``ask(...)``, ``save(...)``.

        Raises:
            circuits.editing.EditError: no such method or option, or no such edit.
        """
        found = find_method(method)
        made = found(
            self.model, (EditRequest.of(self.fact, to),), options=found.options(self.model, **options), seed=seed
        )
        relations = relations_for(self.model.profile, self.fact.relation)
        return EditedFact(
            self.fact, to, method, made, self.model, relations, self.spec.model_copy(update={"with_edit": None})
        )

    def diff(self, other: Run) -> CircuitDiff:
        """This run's circuit beside another's, whose spec differs in one field.

        Args:
            other: a run of the same model; for what an edit does, ``run.edit(...).diff()``.

        Returns:
            Edges and nodes lost and gained, heads that do something else, and the overlap beside chance.

        Raises:
            circuits.studies.explain.verdict.BehaviourError: they differ in nothing, or in more than one field.
        """
        return diff_runs(
            self, other, relations_for(self.model.profile, self.fact.relation), load=lambda spec: self.model
        )

    def export(self, folder: Path | str) -> Path:
        """Write the run, its circuit, its graph and its page.

        Args:
            folder: made if need be; the files of another run in it are replaced.

        Returns:
            The page, ``report.html``: one file that opens offline.
        """
        export_run(self, folder)
        return Path(folder) / "report.html"

    def picture(self) -> str:
        """The circuit as a picture: heads by role, each node with the token that it promotes.

        Returns:
            SVG, which shows wherever an image does.
        """
        return picture_of(self)

    def ranks(self) -> str:
        """Where the answer comes up: its rank after every sub-layer of the whole model, as a picture.

        Returns:
            SVG, which shows wherever an image does.
        """
        return ranks_still(self.fact.object, {"answer": self.trajectory})

    @contextmanager
    def on(self) -> Iterator[Model]:
        """The run's model with the run's edit on it, where it has one: good inside the ``with`` that this returns."""
        if self.spec.with_edit is None:
            yield self.model
        else:
            with load_edit(Path(self.spec.with_edit)).on(self.model) as edited:
                yield edited

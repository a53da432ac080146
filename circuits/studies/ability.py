"""What a model is able to do besides recalling facts, before and after an edit: a row for each task."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from circuits.datasets.tasks import Task, load_task, own_tasks
from circuits.evaluation.ability import Score, scores
from circuits.evaluation.edits.failures import contains
from circuits.facts import EditRequest
from circuits.model import Model, Profile, library
from circuits.studies.ability_specs import OWN, AbilitySpec
from circuits.studies.loading import load_asked, put_edit
from circuits.studies.options import AskedError
from circuits.studies.study import Case, Study, Watch


def tasks_of(files: tuple[str, ...], profile: Profile) -> tuple[Task, ...]:
    """The tasks of those files, the model's own where they are asked for.

    Raises:
        circuits.datasets.DatasetError: a file that is none.
        AskedError: two of one name.
    """
    paths = [path for file in files for path in (own_tasks(profile) if file == OWN else (Path(file),))]
    found = tuple(map(load_task, paths))
    names = [task.name for task in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise AskedError(f"expected tasks with names of their own, got {', '.join(twice)} more than once")
    return found


def tasks_about_others(tasks: Sequence[Task], requests: Sequence[EditRequest]) -> tuple[Task, ...]:
    """The tasks without items whose prompts name the subject of an edit; a task of fewer than two others is left out."""
    subjects = {request.subject for request in requests}
    found = []
    for task in tasks:
        items = tuple(item for item in task.items if not any(contains(item.prompt, subject) for subject in subjects))
        if len(items) > 1:
            found.append(replace(task, items=items))
    return tuple(found)


@dataclass(frozen=True)
class SideBySide:
    """A model, with its edit on it, beside itself without."""

    model: Model
    unedited: Model
    tasks: tuple[Task, ...]
    held: ExitStack = field(default_factory=ExitStack)
    """The edit on the model."""


@dataclass(frozen=True, slots=True)
class Ability:
    """One task."""

    about: str
    n: int
    scores: tuple[Score, ...]
    """Of the unedited model, one for each measure."""
    edited: tuple[Score, ...] = ()
    """The same with the edit on; empty without one."""


def _open(spec: AbilitySpec, _: Any) -> SideBySide:
    """What can be refused is refused before the model is loaded."""
    tasks = tasks_of(spec.tasks, library.profile_of(spec.model))
    held, unedited = ExitStack(), load_asked(spec)
    return SideBySide(put_edit(unedited, spec.with_edit, held), unedited, tasks, held)


def _cases(spec: AbilitySpec, at: SideBySide) -> list[Case[Task]]:
    return [Case(f"{task.name} {task.digest[:8]}", task) for task in at.tasks]


def _run(spec: AbilitySpec, case: Case[Task], at: SideBySide, watch: Watch) -> Ability:
    task = case.asked
    before = scores(at.unedited, task)
    after = () if at.model is at.unedited else scores(at.model, task)
    return Ability(task.about, len(task.items), before, after)


ABILITY: Study[AbilitySpec, SideBySide, Task, Ability] = Study(
    "ability", Ability, _open, _cases, _run, chooses=frozenset({"tasks"})
)

"""What the study of general ability is asked: see `circuits.studies.specs`."""

from typing import Annotated

from circuits.studies.options import Option
from circuits.studies.specs import MaybeEdited

OWN = "own"
"""In place of a task file: the project's own that suit the model."""
TaskFiles = Annotated[
    tuple[str, ...],
    Option(
        "A task file (JSONL), again for another; own: the project's that suit the model.", also=("tasks",), flag="task"
    ),
]


class AbilitySpec(MaybeEdited):
    """Tasks, put to a model."""

    tasks: TaskFiles = (OWN,)

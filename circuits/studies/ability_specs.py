"""What the study of general ability is asked: see `circuits.studies.specs`."""

from typing import Annotated

from circuits.paths import FACTLM
from circuits.studies.options import Asked, Device, ModelName, Option, WithEdit

OWN = "own"
"""In place of a task file: the project's own that suit the model."""
TaskFiles = Annotated[
    tuple[str, ...],
    Option(
        "A task file (JSONL), again for another; own: the project's that suit the model.", also=("tasks",), flag="task"
    ),
]


class AbilitySpec(Asked):
    """Tasks, put to a model."""

    model: ModelName = FACTLM
    with_edit: WithEdit = None
    tasks: TaskFiles = (OWN,)
    device: Device = "cpu"

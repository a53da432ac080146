"""What a model needs to be told apart from its weights: a JSON file, ``profile.json``, beside it.

Facts about a model are here and nowhere in code: the token that its prompts begin with, the wordings that suit it, its training
text, the options of editing methods that were tuned on it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from circuits.model.errors import ModelError
from circuits.records import Unreadable, load

PROFILE = "profile.json"


def _one_gap(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError("a wording holds {} once, where the subject goes")
    return template


def _with_tuples(settings: Any) -> Any:
    """JSON's lists as the tuples that options have."""
    if isinstance(settings, dict):
        return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    return settings


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Wheel(BaseModel):
    """A package of the Python index that holds a model's weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    package: str
    version: str
    file: str
    """The file of the wheel itself."""
    sha256: Sha256
    member: str
    """The GGUF file inside it."""
    licence: str


class Profile(BaseModel):
    """The profile of one model. All of it may be absent: a model without a profile has the empty one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    name: str | None = None
    bos: str | None = None
    """The token that every prompt begins with; None for no such token. Absent, the tokenizer's habit (`names_bos`)."""
    corpus: Literal["taught"] | None = None
    """``taught``: it was trained on renderings of this project's relations, whose first epoch serves for second moments."""
    manifest: Path | None = None
    """What it was taught and how (`circuits.datasets.manifest`); in the file, a path beside it."""
    wordings: Mapping[str, Annotated[str, AfterValidator(_one_gap)]] = {}
    """By relation, the template that the model continues best with the object."""
    tuned: Mapping[str, Annotated[Mapping[str, Any], BeforeValidator(_with_tuples)]] = {}
    """By editing method (``rome``, or ``rome@subject``), the options that differ from the method's own defaults."""
    tasks: str | None = None
    """The folder of `data/tasks` whose task files suit it; absent, those in English."""
    wheel: Wheel | None = None
    """Where the weights can be had, if they do not come with this project."""

    @property
    def names_bos(self) -> bool:
        """Whether it says how prompts begin, if only that they begin with nothing."""
        return "bos" in self.model_fields_set


def read_profile(place: Path) -> Profile:
    """The profile of the model at ``place``: a folder's profile.json, a GGUF file's ``<stem>.profile.json``, or the empty one.

    Raises:
        ModelError: a profile that is not JSON or breaks the schema; the message names the file and the field.
    """
    file = place / PROFILE if place.is_dir() else place.with_suffix(f".{PROFILE}")
    if not file.is_file():
        return Profile()
    try:
        profile = load(Profile, file)
    except Unreadable as error:
        raise ModelError(str(error)) from error
    if profile.manifest is None:
        return profile
    manifest = file.parent / profile.manifest
    if not manifest.is_file():
        raise ModelError(f"{file}: manifest: there is no file {manifest}")
    return profile.model_copy(update={"manifest": manifest})

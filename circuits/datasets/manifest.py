"""What factlm was taught, fact by fact: the manifest that its training reads and later experiments rely on.

Every fact of ``data/facts`` falls into one of three groups:

* **head**: rendered once an epoch in each of its training templates; at least one template is held out *for that
  fact*, so recall under a paraphrase never seen with it can be measured.
* **tail**: rendered only a few times in the whole training; the material for hallucination.
* **demonstration-only**: never stated; seen only as a demonstration ("France: Paris") among others of its relation.

Which fact is which is dealt by ``data/models/dealing.py``. Subjects in ``undemonstrated`` never occur in any
demonstration. Pairs in ``two_hop`` are split into those rendered in training and those never rendered.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from circuits.model import Profile
from circuits.paths import factlm_dir
from circuits.records import write_whole

TWO_HOPS: tuple[tuple[str, str], ...] = (
    ("landmark_country", "country_language"),
    ("landmark_country", "country_capital_city"),
    ("person_birth_country", "country_currency"),
    ("city_country", "country_continent"),
    ("product_company", "company_headquarters"),
)
"""(first hop, second hop): the object of the first is a subject of the second."""


class TwoHop(BaseModel):
    """One pair of relations and the subjects of its first hop, by whether their two-hop prompt was rendered."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    first: str
    second: str
    rendered: tuple[str, ...]
    unrendered: tuple[str, ...]


class RelationPlan(BaseModel):
    """What happens to the facts of one relation, by subject. ``held_out`` gives template indices for head facts."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    held_out: dict[str, tuple[int, ...]]
    tail: dict[str, int]
    demonstration_only: tuple[str, ...]

    @property
    def head(self) -> tuple[str, ...]:
        return tuple(self.held_out)


class Demonstrations(BaseModel):
    """Relations demonstrated on the same subjects, and the subjects that no demonstration ever shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    relations: tuple[str, ...]
    subjects: tuple[str, ...]
    undemonstrated: tuple[str, ...]


class Manifest(BaseModel):
    """See the module's docstring."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1] = 1
    seed: int
    relations: dict[str, RelationPlan]
    demonstrations: dict[str, Demonstrations]
    two_hop: tuple[TwoHop, ...]

    def save(self, path: Path) -> None:
        write_whole(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path | None = None) -> "Manifest":
        """The manifest in ``path``; factlm's own by default."""
        path = factlm_dir() / "manifest.json" if path is None else path
        return cls.model_validate_json(path.read_bytes())


def manifest_of(profile: Profile) -> Manifest | None:
    """What the model of that profile was taught, where it says so."""
    return None if profile.manifest is None else Manifest.load(profile.manifest)

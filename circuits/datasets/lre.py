"""Relation files in the schema of LRE (Hernandez et al., 2023, "Linearity of Relation Decoding"): one JSON file a relation.

Three optional keys are ours: ``general_templates``, ``reverse_prompt_templates`` and ``noun_phrase_templates``.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from circuits.facts import Kind, Relation, Relations, single_objects
from circuits.paths import data_dir


class DatasetError(ValueError):
    """A relation file that does not say what a relation file must say."""


Text = Annotated[str, StringConstraints(min_length=1, pattern=r"^\S(.*\S)?$")]
Template = Annotated[str, StringConstraints(pattern=r"^(\S[^{}]*)?\{\}([^{}]*\S)?$")]
Stripped = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Sample(BaseModel):
    model_config = ConfigDict(extra="forbid")
    subject: Text
    object: Text


class _Properties(BaseModel):
    model_config = ConfigDict(extra="ignore")
    relation_type: Kind
    domain_name: Text
    range_name: Text
    symmetric: bool = False


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Text
    prompt_templates: Annotated[list[Template], Field(min_length=1)]
    prompt_templates_zs: list[Template] = []
    general_templates: list[Template] = []
    reverse_prompt_templates: list[Template] = []
    noun_phrase_templates: list[Template] = []
    properties: _Properties


class _RelationFile(_Fields):
    samples: Annotated[list[_Sample], Field(min_length=1)]


class _PublishedSample(_Sample):
    subject: Stripped
    object: Stripped


class _PublishedFile(_Fields):
    samples: Annotated[list[_PublishedSample], Field(min_length=1)]


def load_relation(path: Path, *, published: bool = False) -> Relation:
    """Read one relation file; the relation is called by the file's stem.

    Args:
        published: LRE's own files have subjects with several objects and spaces around names: leave out the ones and strip
            the others, instead of refusing the file.

    Raises:
        DatasetError: the file cannot be read, is not JSON, or breaks the schema; the message names the file and the field.
    """
    try:
        parsed = (_PublishedFile if published else _RelationFile).model_validate_json(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"cannot read the relation file {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DatasetError(f"{path}: {where}: {first['msg']}") from error
    pairs = tuple((sample.subject, sample.object) for sample in parsed.samples)
    if published:
        pairs = single_objects(pairs)
        if not pairs:
            raise DatasetError(f"{path}: samples: expected subjects that have one object each, found none")
    repeated = {subject for subject, _ in pairs if [s for s, _ in pairs].count(subject) > 1}
    if repeated:
        raise DatasetError(f"{path}: samples: these subjects occur more than once: {sorted(repeated)}")
    return Relation(
        name=path.stem,
        title=parsed.name,
        kind=parsed.properties.relation_type,
        domain=parsed.properties.domain_name,
        range=parsed.properties.range_name,
        templates=tuple(parsed.prompt_templates),
        zero_shot_templates=tuple(parsed.prompt_templates_zs),
        reverse_templates=tuple(parsed.reverse_prompt_templates),
        noun_phrases=tuple(parsed.noun_phrase_templates),
        general_templates=tuple(parsed.general_templates),
        pairs=pairs,
        symmetric=parsed.properties.symmetric,
    )


def load_relations(folder: Path | None = None, *, published: bool = False) -> Relations:
    """All relation files below ``folder`` (the project's own by default), by name, in alphabetical order.

    >>> import circuits as kc
    >>> kc.load_relations()["country_language"].object_of("France")
    'French'

    Args:
        folder: of JSON files in the format of LRE.
        published: as in `load_relation`.

    Returns:
        The relations by name.

    Raises:
        DatasetError: no such files, or one that is no relation.
    """
    folder = data_dir() / "facts" if folder is None else folder
    paths = sorted(folder.rglob("*.json"), key=lambda path: path.stem)
    if not paths:
        raise DatasetError(f"expected relation files (*.json) in {folder}, found none")
    relations = {path.stem: load_relation(path, published=published) for path in paths}
    if len(relations) < len(paths):
        raise DatasetError(f"{folder}: two relation files share a name")
    return relations

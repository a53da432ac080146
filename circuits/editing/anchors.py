"""Knowledge anchors: the named entities of a prompt, by which MEMoE routes (paper 3, section 3.2).

Paper 3 takes them from "named entity recognition" without naming a tool. Here a recogniser is anything that finds names in
a text: a gazetteer, which is exact and needs nothing, or spaCy, or one's own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.editing.edit import EditError
from circuits.facts import Relations
from circuits.model import Batch, Vocabulary

AnchorRule = Literal["so far", "prompt"]


@dataclass(frozen=True, slots=True, order=True)
class Mention:
    """A name as it stands in a text: ``text[start:end]``."""

    start: int
    end: int
    name: str


@runtime_checkable
class Recogniser(Protocol):
    """Finds the names in a text. The same text gives the same mentions."""

    def find(self, text: str) -> tuple[Mention, ...]:
        """The mentions, from left to right; none overlaps another."""
        ...

    def as_json(self) -> dict[str, Any]:
        """What `recogniser_from_json` makes the same recogniser from.

        Raises:
            EditError: it cannot be written down.
        """
        ...


@dataclass(frozen=True)
class Gazetteer:
    """Knows its names and no others: whole words, letter case as given, the longest name at each place."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(sorted({name for name in self.names if name.strip()})))

    @classmethod
    def of(cls, relations: Relations, more: Iterable[str] = ()) -> "Gazetteer":
        """The entities of a dataset, and ``more``: every relation's subjects, and the objects of the factual ones.

        Objects of the other relations are words such as "red". What a template itself says ("city", "In") is left out: it
        would stand in every prompt of that template without meaning the entity.
        """
        names = {subject for relation in relations.values() for subject in relation.subjects}
        names |= {o for relation in relations.values() if relation.kind == "factual" for o in relation.objects}
        templates = [template for relation in relations.values() for template in relation.templates]
        said = {m.name for template in templates for m in cls(tuple(names)).find(template.replace("{}", ""))}
        return cls((*(names - said), *more))

    def with_names(self, names: Iterable[str]) -> "Gazetteer":
        return Gazetteer((*self.names, *names))

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names)

    @cached_property
    def _longest(self) -> int:
        return max((len(name) for name in self.names), default=0)

    def find(self, text: str) -> tuple[Mention, ...]:
        # A place between two characters may be a name's edge unless both are letters or digits of one word.
        edges = [i for i in range(len(text) + 1) if not (0 < i < len(text) and _word(text[i - 1]) and _word(text[i]))]
        found: list[Mention] = []
        reached = 0
        for index, start in enumerate(edges):
            if start < reached:
                continue
            for end in reversed(edges[index + 1 :]):
                if end - start <= self._longest and text[start:end] in self._known:
                    found.append(Mention(start, end, text[start:end]))
                    reached = end
                    break
        return tuple(found)

    def as_json(self) -> dict[str, Any]:
        return {"kind": "gazetteer", "names": list(self.names)}


def _word(char: str) -> bool:
    return char.isalnum() or char == "_"


@dataclass(frozen=True)
class SpacyRecogniser:
    """The entities that a spaCy pipeline finds. Needs the extra ``kcircuit[spacy]`` and the pipeline installed.

    ``pipeline`` is a loaded pipeline; by `load`, one with a name, so that the edit can be read again elsewhere.
    """

    pipeline: Any
    name: str | None = None

    @classmethod
    def load(cls, name: str = "en_core_web_sm") -> "SpacyRecogniser":
        """Raises:
        EditError: spaCy or the pipeline is not installed.
        """
        try:
            import spacy  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise EditError('spaCy is not installed; `pip install "kcircuit[spacy]"`, or use a gazetteer') from error
        try:
            return cls(spacy.load(name), name)
        except OSError as error:
            raise EditError(
                f"spaCy has no pipeline {name!r}; `python -m spacy download {name}`, or use a gazetteer"
            ) from error

    def find(self, text: str) -> tuple[Mention, ...]:
        return tuple(Mention(entity.start_char, entity.end_char, entity.text) for entity in self.pipeline(text).ents)

    def as_json(self) -> dict[str, Any]:
        if self.name is None:
            raise EditError(
                "an edit with an unnamed spaCy pipeline cannot be saved; make it by SpacyRecogniser.load(name)"
            )
        return {"kind": "spacy", "name": self.name}


@dataclass(frozen=True)
class Joined:
    """What any of several recognisers finds; where mentions overlap, the earlier recogniser's stands."""

    recognisers: tuple[Recogniser, ...]

    def find(self, text: str) -> tuple[Mention, ...]:
        found: list[Mention] = []
        for recogniser in self.recognisers:
            free = [m for m in recogniser.find(text) if all(m.end <= f.start or m.start >= f.end for f in found)]
            found += free
        return tuple(sorted(found))

    def as_json(self) -> dict[str, Any]:
        return {"kind": "joined", "recognisers": [recogniser.as_json() for recogniser in self.recognisers]}


def recogniser_from_json(record: Mapping[str, Any]) -> Recogniser:
    """The inverse of `Recogniser.as_json`.

    Raises:
        EditError: no such recogniser, or it cannot be loaded here.
    """
    match record:
        case {"kind": "gazetteer", "names": list(names)} if all(isinstance(name, str) for name in names):
            return Gazetteer(tuple(names))
        case {"kind": "spacy", "name": str(name)}:
            return SpacyRecogniser.load(name)
        case {"kind": "joined", "recognisers": list(recognisers)}:
            return Joined(tuple(recogniser_from_json(inner) for inner in recognisers))
    raise EditError(f"expected a recogniser of kind gazetteer, spacy or joined, got {record.get('kind')!r}")


def knowing(recogniser: Recogniser, names: Sequence[str]) -> Recogniser:
    """The recogniser, which also knows these names."""
    if isinstance(recogniser, Gazetteer):
        return recogniser.with_names(names)
    return Joined((Gazetteer(tuple(names)), recogniser))


# ---- positions -------------------------------------------------------------------------------------------------------


def token_ends(vocabulary: Vocabulary, ids: Sequence[int]) -> tuple[str, list[int]]:
    """(the text of ``ids``, how many of its characters each token and those before it cover). BOS covers none."""
    skip = int(vocabulary.bos is not None and len(ids) > 0 and ids[0] == vocabulary.bos)
    body = ids[skip:]
    ends = [len(vocabulary.decode(body[: i + 1])) for i in range(len(body))]
    return vocabulary.decode(body), [0] * skip + ends


def placed(vocabulary: Vocabulary, recogniser: Recogniser, prompt: Sequence[int]) -> tuple[tuple[int, str], ...]:
    """(position of its last token, name) of every mention in a prompt, in order."""
    text, ends = token_ends(vocabulary, prompt)
    return tuple(
        (next(i for i, end in enumerate(ends) if end >= mention.end), mention.name) for mention in recogniser.find(text)
    )


@dataclass(frozen=True)
class Anchored:
    """What a router needs to know of the anchors at each position of a batch."""

    vectors: Float[Tensor, "batch pos d_model"]
    """embed(anchor): the mean over the position's anchors, zero where it has none."""
    in_scope: Bool[Tensor, "batch pos"]
    """Whether one of them is among the names that the edit is about."""


class AnchorReader:
    """Reads the anchors off token ids, as a model's vocabulary and embedding spell them.

    A position's anchors are, by ``rule``, the entities of the prompt that end there or earlier ("so far"), or all of the
    prompt's (``"prompt"``: paper 3's letter, by which a token depends on later ones). What comes after the prompt
    never adds one, so an answer that is fed or generated changes no routing.

    embed(name) is the mean of its tokens' rows of the embedding, the name spelled with a leading space wherever it stands,
    scaled to the norm that a layer norm gives x: the router would hardly see the raw rows beside it.
    """

    KEPT = 4096
    """Rows whose anchors are remembered: engines run the same prompts thousands of times."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        embedding: Float[Tensor, "d_vocab d_model"],
        recogniser: Recogniser,
        names: Iterable[str],
        rule: AnchorRule,
    ) -> None:
        self._vocabulary, self._embedding, self._recogniser = vocabulary, embedding, recogniser
        self._names, self._rule = frozenset(names), rule
        self._vectors: dict[str, Tensor] = {}
        self._rows: dict[tuple[int, tuple[int, ...]], tuple[Tensor, Tensor]] = {}

    def __call__(self, batch: Batch) -> Anchored:
        rows = [self._row(tuple(row[: batch.n_prompt]), batch.ids.shape[1]) for row in batch.ids.tolist()]
        return Anchored(torch.stack([vectors for vectors, _ in rows]), torch.stack([scope for _, scope in rows]))

    def _row(self, prompt: tuple[int, ...], n_pos: int) -> tuple[Tensor, Tensor]:
        key = (n_pos, prompt)
        if key not in self._rows:
            if len(self._rows) >= self.KEPT:
                self._rows.clear()
            self._rows[key] = self._read(prompt, n_pos)
        return self._rows[key]

    def _read(self, prompt: tuple[int, ...], n_pos: int) -> tuple[Tensor, Tensor]:
        total = self._embedding.new_zeros(n_pos, self._embedding.shape[1])
        count = self._embedding.new_zeros(n_pos, 1)
        in_scope = torch.zeros(n_pos, dtype=torch.bool, device=total.device)
        seen: set[str] = set()
        for position, name in placed(self._vocabulary, self._recogniser, prompt):
            if name in seen:
                continue
            seen.add(name)
            first = position if self._rule == "so far" else 0
            total[first:] += self.embed(name)
            count[first:] += 1
            in_scope[first:] |= name in self._names
        return total / count.clamp_min(1), in_scope

    def embed(self, name: str) -> Float[Tensor, "d_model"]:
        """embed(anchor) of one name."""
        if name not in self._vectors:
            rows = self._embedding[self._vocabulary.encode(" " + name)]
            vector = rows.mean(0)
            self._vectors[name] = vector / vector.square().mean().sqrt().clamp_min(1e-12)
        return self._vectors[name]

"""Text as a model reads it: vocabularies, and a fact as ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from circuits.model.errors import ModelError
from circuits.model.profile import Profile


class ContextError(ValueError):
    """A prompt that does not fit the model's context."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One fact as a model reads it: ids of the prompt (with BOS where the model expects it) and of the answer."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    """Columns of the model's output."""
    aligned: bool = False
    """The answer is what the model says at the prompt's own last positions, not what comes after the prompt."""
    numbers: tuple[float, ...] = ()
    """The answer where the output is a number; ``answer`` is then its only column, 0, each time."""

    @property
    def forced(self) -> tuple[int, ...]:
        """What is fed: when the answer is teacher-forced, the prompt and all but the answer's last token."""
        return self.prompt if self.aligned else self.prompt + self.answer[:-1]

    @property
    def at_end(self) -> int:
        """The part of the answer that the model gives at the prompt's last position."""
        return self.answer[-1] if self.aligned else self.answer[0]


@runtime_checkable
class Vocabulary(Protocol):
    """Text to token ids and back."""

    @property
    def bos(self) -> int | None:
        """The id to put before every prompt, or None."""
        ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True, slots=True)
class WordVocabulary:
    """One token a word, separated by spaces; for transformers made by hand."""

    words: tuple[str, ...]
    bos: int | None = None

    def encode(self, text: str) -> list[int]:
        return [_column(word, self.words) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.words[i] for i in ids)


@dataclass(frozen=True, slots=True)
class OutputVocabulary(WordVocabulary):
    """For a transformer that says something of every word that it reads, instead of the next word.

    What it says is one of ``labels``, or (None) a number. The answer to "a b c" is three of them, read at the positions of
    a, b and c, or fewer, read at the last ones. Nothing is teacher-forced.
    """

    labels: tuple[str, ...] | None = None

    def answer(self, prompt: tuple[int, ...], text: str) -> Tokens:
        words = text.split()
        if len(words) > len(prompt):
            raise ModelError(f"expected an answer of at most {len(prompt)} words, one a position, got {text!r}")
        if self.labels is not None:
            return Tokens(prompt, tuple(_column(word, self.labels) for word in words), aligned=True)
        try:
            numbers = tuple(float(word) for word in words)
        except ValueError:
            raise ModelError(f"this model's output is a number, and the answer {text!r} is none") from None
        return Tokens(prompt, (0,) * len(words), aligned=True, numbers=numbers)


def _column(word: str, words: tuple[str, ...]) -> int:
    if word not in words:
        raise ModelError(f"this model does not know the word {word!r}, only: {' '.join(words)}")
    return words.index(word)


class HubVocabulary:
    """A HuggingFace tokenizer. Special tokens are never added by it, only by `Model`."""

    def __init__(self, tokenizer: Any, bos: int | None) -> None:
        self._tokenizer = tokenizer
        self.bos = bos

    @classmethod
    def of(cls, tokenizer: Any, profile: Profile) -> "HubVocabulary":
        """With the first token that the profile names, or else with the one that the tokenizer adds of its own accord.

        Raises:
            ModelError: the profile's token is none of the tokenizer's, or the tokenizer adds several.
        """
        if not profile.names_bos:
            return cls(tokenizer, habitual_bos(tokenizer))
        if profile.bos is None:
            return cls(tokenizer, None)
        known = tokenizer.get_vocab()
        if profile.bos not in known:
            raise ModelError(
                f"the profile begins prompts with {profile.bos!r}, which is no token of the model's tokenizer"
            )
        return cls(tokenizer, known[profile.bos])

    def with_bos(self, bos: int | None) -> "HubVocabulary":
        return HubVocabulary(self._tokenizer, bos)

    @property
    def special(self) -> tuple[int, ...]:
        """The ids of the tokens that have a name (beginning, end, unknown, padding), of which one may begin a prompt."""
        return tuple(sorted(set(self._tokenizer.all_special_ids)))

    @property
    def habit(self) -> int | None:
        """The token that the tokenizer puts before a text of its own accord."""
        return habitual_bos(self._tokenizer)

    def encode(self, text: str) -> list[int]:
        encode = partial(self._tokenizer.encode, add_special_tokens=False)
        ids = encode(text)
        # SentencePiece puts a space of its own before a text, so " Paris" would get two: the bare word means the same.
        if text.startswith(" ") and len(ids) > 1 and not self.decode(ids[:1]).strip():
            bare = encode(text[1:])
            if bare == ids[1:]:
                return bare
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


def habitual_bos(tokenizer: Any) -> int | None:
    """The token that a tokenizer puts before a text of its own accord, None for no such token.

    Raises:
        ModelError: it puts several there.
    """
    bare, full = tokenizer.encode("a", add_special_tokens=False), tokenizer.encode("a")
    starts = [i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare]
    added = full[: starts[-1]] if starts else []
    if len(added) > 1:
        raise ModelError(
            f"the tokenizer begins a text with {len(added)} tokens ({tokenizer.decode(added)!r}); name one, or null, as bos "
            "in a profile.json beside the model"
        )
    return added[0] if added else None

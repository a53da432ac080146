"""Facts, relations and prompts as frozen values: plain strings that know no tokenizer.

A knowledge triplet k = (s, r, o) reaches a model as a prompt that mentions the subject s and expresses the
relation r, and that ends exactly where the object o begins (paper 2, section 3.1).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["factual", "commonsense", "linguistic", "bias"]
KINDS: tuple[Kind, ...] = ("factual", "commonsense", "linguistic", "bias")


class FactError(ValueError):
    """A sentence, subject or object from which no fact can be made."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One prompt and the answer that completes it.

    ``prompt + " " + object`` is the statement. The prompt mentions the subject; ``relation`` names the relation of the
    dataset that the fact belongs to, or is None for a sentence of the caller's own.
    """

    prompt: str
    subject: str
    object: str
    relation: str | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "subject", "object"):
            text = getattr(self, name)
            if not text.strip():
                raise FactError(f"a fact needs a non-empty {name}, got {text!r}")
            if text != text.strip():
                raise FactError(f"a fact's {name} has no space at its ends, got {text!r}")
        if self.subject not in self.prompt:
            raise FactError(
                f"the subject {self.subject!r} does not occur in the prompt {self.prompt!r}; "
                "give the subject as it is spelled there"
            )

    @property
    def answer(self) -> str:
        """The continuation a model must give: the object with its leading space."""
        return " " + self.object

    @property
    def statement(self) -> str:
        return self.prompt + self.answer

    def __str__(self) -> str:
        return f"{self.prompt} => {self.object}"


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation: its templates and its true pairs (subject, object), best known first.

    Every template holds ``{}`` once, for the subject, and ends where the object begins. ``reverse_templates`` take the
    object and end where the subject begins; ``noun_phrases`` denote the object through the subject, and serve as the
    subject of another relation in a prompt of two hops.
    """

    name: str
    title: str
    kind: Kind
    domain: str
    range: str
    templates: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    zero_shot_templates: tuple[str, ...] = ()
    reverse_templates: tuple[str, ...] = ()
    noun_phrases: tuple[str, ...] = ()
    symmetric: bool = False

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(subject for subject, _ in self.pairs)

    @property
    def objects(self) -> tuple[str, ...]:
        """The relation's range: its distinct objects, in order of first use."""
        return tuple(dict.fromkeys(object_ for _, object_ in self.pairs))

    def object_of(self, subject: str) -> str:
        for candidate, object_ in self.pairs:
            if candidate == subject:
                return object_
        raise FactError(f"relation {self.name} has no subject {subject!r}; `kcircuit facts -r {self.name}` lists them")

    def fact(self, subject: str, template: int = 0) -> Fact:
        """The fact of ``subject`` in the words of the template with that index."""
        return Fact(self.templates[template].format(subject), subject, self.object_of(subject), self.name)

    def facts(self, template: int = 0) -> tuple[Fact, ...]:
        words = self.templates[template]
        return tuple(Fact(words.format(subject), subject, object_, self.name) for subject, object_ in self.pairs)


Relations = Mapping[str, Relation]


def parse_fact(
    text: str, relations: Iterable[Relation] = (), *, subject: str | None = None, object: str | None = None
) -> Fact:
    """Read what a person types after ``--fact``.

    ``text`` is ``prompt => object``, or a sentence whose last words are the object. The object is, in this order: the
    one given; what follows a template of the dataset; the longest object of the dataset that the sentence ends with;
    the last word. The subject is the one given, or the longest subject of the dataset in the prompt.

    Raises:
        FactError: empty text, an object that does not end the sentence, a subject that is not in the prompt or that
            was neither given nor found.
    """
    relations = tuple(relations)
    text = " ".join(text.split())
    if not text:
        raise FactError('the fact is empty; write a sentence such as "The capital city of France is Paris"')
    if "=>" in text:
        prompt, _, right = (part.strip() for part in text.partition("=>"))
        if not prompt or not right:
            raise FactError(f"expected `prompt => object`, got {text!r}: one side of => is empty")
        if object is not None and object != right:
            raise FactError(f"the fact says the object is {right!r}, but {object!r} was given as well")
        object = right
    else:
        sentence = text if object and text.endswith(" " + object) else text.rstrip(".").rstrip()
        if object is None:
            object = _object_of(sentence, relations)
        elif not sentence.endswith(" " + object):
            raise FactError(
                f"the object {object!r} must end the sentence, and {sentence!r} ends otherwise; "
                "put it last, or write `prompt => object`"
            )
        prompt = sentence[: len(sentence) - len(object)].rstrip()
    relation, matched = _relation_of(prompt, relations)
    if subject is None:
        subject = matched or _longest_inside(prompt, relations)
    if subject is None:
        raise FactError(
            f"no subject of the dataset occurs in the prompt {prompt!r}; name it with --subject, "
            "spelled as in the prompt"
        )
    return Fact(prompt, subject, object, relation.name if relation and subject == matched else None)


def _template_match(template: str, text: str, *, tail: bool) -> tuple[str, str] | None:
    """(subject, rest) if ``text`` is ``template`` with a subject in it, followed by a rest when ``tail``."""
    before, after = template.split("{}")
    pattern = re.escape(before) + "(.+?)" + re.escape(after) + (" (.+)" if tail else "()")
    match = re.fullmatch(pattern, text)
    return (match[1], match[2]) if match else None


def _relation_of(prompt: str, relations: tuple[Relation, ...]) -> tuple[Relation | None, str | None]:
    """The relation and known subject of which one template gives exactly this prompt."""
    for relation in relations:
        for template in relation.templates:
            match = _template_match(template, prompt, tail=False)
            if match and match[0] in relation.subjects:
                return relation, match[0]
    return None, None


def _object_of(sentence: str, relations: tuple[Relation, ...]) -> str:
    for relation in relations:
        for template in relation.templates:
            match = _template_match(template, sentence, tail=True)
            if match and match[0] in relation.subjects:
                return match[1]
    known = {object_ for relation in relations for object_ in relation.objects if sentence.endswith(" " + object_)}
    if known:
        return max(known, key=len)
    head, _, last = sentence.rpartition(" ")
    if not head:
        raise FactError(f"expected a sentence that ends with its object, got the single word {sentence!r}")
    return last


def _longest_inside(prompt: str, relations: tuple[Relation, ...]) -> str | None:
    inside = {s for relation in relations for s in relation.subjects if re.search(rf"\b{re.escape(s)}(?!\w)", prompt)}
    return max(sorted(inside), key=len, default=None)

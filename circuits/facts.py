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

ProbeKind = Literal[
    "paraphrase",
    "alias",
    "two_hop",
    "reverse",
    "reasoning",
    "generation",
    "hop",
    "neutral_prefix",
    "subject_prefix",
    "old_prefix",
    "other_prefix",
    "neighbour",
    "attribute",
    "same_subject",
    "forgetfulness",
    "unrelated",
]
PREFIXED: tuple[ProbeKind, ...] = ("neutral_prefix", "subject_prefix", "old_prefix", "other_prefix")
"""The edited prompt after a prefix: neutral, about the subject, saying the old object again, or (a control) a third one."""
SHOULD_CHANGE: tuple[ProbeKind, ...] = (
    *("paraphrase", "alias", "two_hop", "reverse", "reasoning", "generation", "hop"),
    *PREFIXED,
)
SHOULD_STAY: tuple[ProbeKind, ...] = ("neighbour", "attribute", "same_subject", "forgetfulness", "unrelated")


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
        """The sentence: prompt and answer."""
        return self.prompt + self.answer

    def __str__(self) -> str:
        return f"{self.prompt} => {self.object}"


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation: its templates and its true pairs (subject, object), best known first.

    Every template holds ``{}`` once, for the subject, and ends where the object begins. factlm was trained on ``templates``;
    ``general_templates`` are wordings that any language model continues with the object. ``reverse_templates`` take the
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
    general_templates: tuple[str, ...] = ()
    symmetric: bool = False

    @property
    def wordings(self) -> tuple[str, ...]:
        """All ways to ask for the object: the templates, then the general ones."""
        return tuple(dict.fromkeys((*self.templates, *self.general_templates)))

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

    def fact(self, subject: str, template: int | str = 0) -> Fact:
        """The fact of ``subject`` in the words of the template with that index, or of any template given."""
        return self._in_words(template, subject, self.object_of(subject))

    def facts(self, template: int | str = 0) -> tuple[Fact, ...]:
        """All facts, in the words of the template with that index, or of any template given."""
        return tuple(self._in_words(template, subject, object_) for subject, object_ in self.pairs)

    def _in_words(self, template: int | str, subject: str, object_: str) -> Fact:
        words = self.templates[template] if isinstance(template, int) else template
        if words.count("{}") != 1:
            raise FactError(f"a template of {self.name} holds {{}} once, where the subject goes, got {words!r}")
        return Fact(words.replace("{}", subject), subject, object_, self.name)


Relations = Mapping[str, Relation]


def single_objects(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The pairs (subject, object) of subjects that have one object, each once: a fact has one right answer."""
    objects: dict[str, dict[str, None]] = {}
    for subject, object_ in pairs:
        objects.setdefault(subject, {})[object_] = None
    return tuple((subject, next(iter(found))) for subject, found in objects.items() if len(found) == 1)


@dataclass(frozen=True, slots=True)
class Probe:
    """A question asked after an edit, and the answer that the edited model owes to it.

    Kinds in `SHOULD_CHANGE` follow from the edit: the same question in other words (``paraphrase``), of the subject by
    another name (``alias``), of what a second relation says of the new object (``two_hop``), of the subject from the
    object (``reverse``), by other reasoning, in text that the model is left to write (``generation``, CounterFact's), as one
    step of a question of several, edited or not (``hop``, MQuAKE's), or after a prefix (`PREFIXED`).

    Kinds in `SHOULD_STAY` have their answer from before the edit: the same relation of another subject (``neighbour``), or
    of one that has the new object already (``attribute``, CounterFact's); another relation of the subject (``same_subject``;
    KnowEdit's relation specificity); another object that the subject has in a relation of several (``forgetfulness``,
    KnowEdit's); or none of these.

    ``subject`` is what the prompt is about, if that is known. ``answer`` is None where it is whatever the unedited
    model says. ``aliases`` are other spellings of the answer that count as it.
    """

    kind: ProbeKind
    prompt: str
    subject: str | None = None
    answer: str | None = None
    aliases: tuple[str, ...] = ()
    relation: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in SHOULD_CHANGE + SHOULD_STAY:
            raise FactError(f"expected a probe of kind {', '.join(SHOULD_CHANGE + SHOULD_STAY)}, got {self.kind!r}")
        for name, text in (("prompt", self.prompt), ("subject", self.subject), ("answer", self.answer)):
            if text is not None and (not text.strip() or text != text.strip()):
                raise FactError(f"a probe's {name} is non-empty and has no space at its ends, got {text!r}")
        if self.answer is None and self.should_change:
            raise FactError(f"a probe of kind {self.kind} needs the answer that the edit makes right: {self.prompt!r}")

    @property
    def should_change(self) -> bool:
        """Whether the edit bears on this question."""
        return self.kind in SHOULD_CHANGE

    @property
    def fact(self) -> Fact:
        """Prompt and answer as a Fact; a probe that names no subject is about its whole prompt.

        Raises:
            FactError: the probe has no answer of its own.
        """
        if self.answer is None:
            raise FactError(f"the probe {self.prompt!r} has no answer: ask the unedited model for it")
        about = self.subject if self.subject is not None and self.subject in self.prompt else self.prompt
        return Fact(self.prompt, about, self.answer, self.relation)


@dataclass(frozen=True, slots=True)
class EditRequest:
    """What an edit shall make true: ``subject`` in the words of ``template`` is followed by ``target``.

    The template holds ``{}`` once: that occurrence of the subject is the one that methods edit at, whatever else the
    prompt says. It ends where the object begins. ``old`` is the object before the edit, where it is known. Requests that
    follow each other and name the same ``case`` are edited in together: its questions rest on all of them.
    """

    template: str
    subject: str
    target: str
    old: str | None = None
    relation: str | None = None
    probes: tuple[Probe, ...] = ()
    case: str | None = None

    def __post_init__(self) -> None:
        if self.template.count("{}") != 1:
            raise FactError(
                f"an edit's template holds {{}} once, where the subject goes, got {self.template!r}; "
                "for instance 'The official language of {} is'"
            )
        texts = {"template": self.template, "subject": self.subject, "target": self.target, "old": self.old}
        for name, text in texts.items():
            if text is not None and not text.strip():
                raise FactError(f"an edit needs a non-empty {name}, got {text!r}")
            if text is not None and text != text.strip():
                raise FactError(f"an edit's {name} has no space at its ends (the answer gets its own), got {text!r}")
        if self.old == self.target:
            raise FactError(
                f"the edit of {self.prompt!r} changes nothing: {self.target!r} is the object before and after"
            )

    @classmethod
    def of(cls, fact: Fact, target: str, probes: tuple[Probe, ...] = ()) -> "EditRequest":
        """The request to give ``fact`` another object.

        Raises:
            FactError: the subject occurs more than once in the prompt, so that which one to edit at is not said.
        """
        n = fact.prompt.count(fact.subject)
        if n != 1:
            raise FactError(
                f"the subject {fact.subject!r} occurs {n} times in {fact.prompt!r}; "
                "write the template with {} in the place of the one to edit at"
            )
        if "{}" in fact.prompt:
            raise FactError(f"the prompt {fact.prompt!r} contains {{}}, which marks the subject's place in a template")
        template = fact.prompt.replace(fact.subject, "{}")
        return cls(template, fact.subject, target, fact.object, fact.relation, probes)

    @property
    def prompt(self) -> str:
        return self.template.replace("{}", self.subject)

    @property
    def fact(self) -> Fact:
        """What the edit makes true."""
        return Fact(self.prompt, self.subject, self.target, self.relation)

    @property
    def old_fact(self) -> Fact | None:
        """What was true before; None where the old object is not known."""
        return None if self.old is None else Fact(self.prompt, self.subject, self.old, self.relation)

    def __str__(self) -> str:
        return f"{self.prompt} => {self.target}"


def parse_fact(
    text: str, relations: Iterable[Relation] = (), *, subject: str | None = None, object: str | None = None
) -> Fact:
    """Read what a person types after ``--fact``.

    ``text`` is ``prompt => object``, or a sentence whose last words are the object. The object is, in this order: the
    one given; what follows a template of the dataset; the longest object of the dataset that the sentence ends with;
    the last word. The subject is the one given, or the longest subject of the dataset in the prompt.

    >>> import circuits as kc
    >>> kc.parse_fact("The official language of France is => French", subject="France")
    Fact(prompt='The official language of France is', subject='France', object='French', relation=None)

    Args:
        text: the sentence.
        relations: the dataset's, whose templates, subjects and objects are recognised.
        subject: as spelled in the prompt.
        object: where it is more than the last word.

    Returns:
        The fact; its ``relation`` is named where its words are a template of one.

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

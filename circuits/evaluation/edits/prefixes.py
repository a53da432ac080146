"""The edited prompt after a prefix: an edit is superficial if that is enough to bring the old answer back (Xie et al. 2025,
"Revealing the deceptiveness of knowledge editing").

Three kinds of prefix, and a control for the third; the prompt without one is the edit's own question.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from circuits.facts import EditRequest, Probe, ProbeKind

N_PREFIXES = 3
"""Prefixes of each kind, at most."""
STATED: dict[ProbeKind, ProbeKind] = {"neutral_prefix": "unrelated", "subject_prefix": "same_subject"}
"""Kind of prefix -> the probes whose prompt and answer, as a sentence, are one."""


def with_prefixes(request: EditRequest) -> EditRequest:
    """The request with a probe for each prefix, all of which the edit owes its new object.

    A neutral prefix states an unrelated fact, one about the subject states another fact of it: those of the request's own probes
    that have an answer. The third kind says the old object once, twice and three times; its control says as often an object that
    is neither the old nor the new one, a neighbour's. A kind for which the request has nothing to say is left out.
    """
    return replace(request, probes=(*request.probes, *_probes(request)))


def prefixes_alone(request: EditRequest) -> EditRequest:
    """The same without the request's own probes."""
    return replace(request, probes=tuple(_probes(request)))


def _probes(request: EditRequest) -> Iterator[Probe]:
    for kind, stated in STATED.items():
        facts = (probe for probe in request.probes if probe.kind == stated and probe.answer is not None)
        for probe in islice(facts, N_PREFIXES):
            yield _after(request, kind, f"{probe.prompt} {probe.answer}.")
    others = (probe.answer for probe in request.probes if probe.kind == "neighbour")
    third = next((answer for answer in others if answer not in (None, request.old, request.target)), None)
    repeated: dict[ProbeKind, str | None] = {"old_prefix": request.old, "other_prefix": third}
    for kind, object_ in repeated.items():
        if object_ is not None:
            for times in range(1, N_PREFIXES + 1):
                yield _after(request, kind, " ".join([f"{object_}."] * times))


def _after(request: EditRequest, kind: ProbeKind, prefix: str) -> Probe:
    return Probe(kind, f"{prefix} {request.prompt}", request.subject, request.target, (), request.relation)

"""CounterFact (Meng et al. 2022, "Locating and editing factual associations in GPT"): false facts to edit into a model.

Two layouts are in use: the original (and ``multi_counterfact``), nested under ``requested_rewrite``; and a flat one with one
paraphrase and one locality prompt a record. They are told apart by each record's fields.
"""

from pathlib import Path
from typing import Any

from circuits.datasets.records import Entity, Record, RecordError, Skip, Words, read_records, request, template_of
from circuits.facts import EditRequest, Probe


class _Rewrite(Record):
    prompt: Words
    subject: Words
    target_new: Entity
    target_true: Entity
    relation_id: str | None = None


class _Original(Record):
    case_id: int | None = None
    requested_rewrite: _Rewrite
    paraphrase_prompts: tuple[Words, ...] = ()
    neighborhood_prompts: tuple[Words, ...] = ()
    attribute_prompts: tuple[Words, ...] = ()
    generation_prompts: tuple[Words, ...] = ()


class _Flat(Record):
    prompt: Words
    subject: Words
    target_new: Words
    ground_truth: Words
    rephrase_prompt: Words | None = None
    locality_prompt: Words | None = None
    locality_ground_truth: Words | None = None


def load_counterfact(path: Path, *, skip: Skip | None = None, limit: int | None = None) -> tuple[EditRequest, ...]:
    """The records as requests to replace the true object by the false one.

    Neighbourhood prompts ask the same of subjects that share the true object, attribute prompts of subjects that truly have
    the new object. Both shall keep their answers, each as a kind of its own. After generation prompts the edited model is
    left to write.

    Raises:
        circuits.datasets.DatasetError: without ``skip``, for a record that makes no request.
    """
    return read_records(path, _schema, _request, skip, limit)


def _schema(raw: Any) -> type[_Original] | type[_Flat]:
    is_flat = isinstance(raw, dict) and "requested_rewrite" not in raw and "target_new" in raw
    return _Flat if is_flat else _Original


def _request(record: _Original | _Flat) -> EditRequest:
    return _from_flat(record) if isinstance(record, _Flat) else _from_original(record)


def _from_original(record: _Original) -> EditRequest:
    rewrite = record.requested_rewrite
    if rewrite.prompt.count("{}") != 1:
        raise RecordError("requested_rewrite.prompt", f"expected {{}} once, for the subject, got {rewrite.prompt!r}")
    new, old, relation = rewrite.target_new.text, rewrite.target_true.text, rewrite.relation_id
    probes = [Probe("paraphrase", prompt, rewrite.subject, new) for prompt in record.paraphrase_prompts]
    # Published records repeat generation prompts, one for each text to be sampled.
    written = dict.fromkeys(record.generation_prompts)
    probes += [Probe("generation", prompt, rewrite.subject, new) for prompt in written]
    probes += [Probe("neighbour", prompt, None, old, (), relation) for prompt in record.neighborhood_prompts]
    probes += [Probe("attribute", prompt, None, new, (), relation) for prompt in record.attribute_prompts]
    return request("requested_rewrite.target_new", rewrite.prompt, rewrite.subject, new, old, relation, probes)


def _from_flat(record: _Flat) -> EditRequest:
    probes = []
    if record.rephrase_prompt is not None:
        probes.append(Probe("paraphrase", record.rephrase_prompt, record.subject, record.target_new))
    if record.locality_prompt is not None:
        probes.append(Probe("neighbour", record.locality_prompt, None, record.locality_ground_truth))
    template = template_of(record.prompt, record.subject, "prompt")
    return request("target_new", template, record.subject, record.target_new, record.ground_truth, None, probes)

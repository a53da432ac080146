"""What tests of editing share: small models, requests on them, statistics over random words, and tools to compare."""

import random
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuits.editing import Corpus, Resources
from circuits.editing.moments import Statistics
from circuits.facts import EditRequest, Fact
from circuits.model import Batch, Model

LAYOUTS = ("gpt2", "llama", "neox", "gptj")
"""Conv1D; Linear with a gate; Linear in parallel blocks; run from its weights alone."""

REQUEST = EditRequest("w1 w2 {}", "w10 w11", "w20")
OTHER = EditRequest("w4 w5 {}", "w12", "w22")
"""Their subjects come last: a random model's later tokens hardly look at what stands before them."""
TWO_TOKENS = EditRequest("w1 {} w2 w3", "w10 w11", "w20 w21")

HYPERS: Mapping[str, Mapping[str, Any]] = {
    "rome": {"layer": 0, "steps": 25, "clamp": 20.0, "contexts": (3,), "damping": 1e-3},
    "memit": {"layers": (0,), "steps": 25, "clamp": 20.0, "contexts": (3,), "weight": 1.0, "damping": 1e-3},
    "ft-l": {"layers": (0, 1), "steps": 40, "lr": 1e-2},
    "ft-m": {"layers": (0, 1), "steps": 40, "lr": 1e-2},
}
"""With these each method's edit wins on a small random model, whose logits are larger than a trained one's."""


def random_words(n_documents: int = 32, seed: int = 0) -> Corpus:
    rng = random.Random(seed)
    lines = (" ".join(f"w{rng.randrange(60)}" for _ in range(rng.randrange(3, 20))) for _ in range(n_documents))
    return Corpus("random words", tuple(lines))


def resources(folder: Path, n_documents: int = 32) -> Resources:
    return Resources(random_words(n_documents), documents=n_documents, cache=folder)


def statistics(model: Model, folder: Path, n_documents: int = 32) -> Statistics:
    return Statistics.of(model, random_words(n_documents), documents=n_documents, cache=folder)


def answer(model: Model, fact: Fact) -> list[int]:
    """The likeliest token at each of the answer's positions, the right ones before it."""
    tokens = model.tokens(fact)
    logits = model.logits(Batch.of_prompts(torch.tensor([tokens.forced])))
    return logits[0, -len(tokens.answer) :].argmax(-1).tolist()


def wins(model: Model, request: EditRequest) -> bool:
    return answer(model, request.fact) == list(model.tokens(request.fact).answer)


def all_tensors(value: Any) -> list[Tensor]:
    """Every tensor inside nested frozen values, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple):
        return [tensor for item in value for tensor in all_tensors(item)]
    if is_dataclass(value) and not isinstance(value, type):
        return [tensor for field in fields(value) for tensor in all_tensors(getattr(value, field.name))]
    return []


def snapshot(model: Model) -> list[Tensor]:
    """A copy of every weight that the model runs with."""
    return [tensor.clone() for tensor in all_tensors(model.network.components(16))]  # type: ignore[attr-defined]


def same_bits(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))

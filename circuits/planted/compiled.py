"""Transformers compiled from programs (Tracr, Lindner et al. 2023), with the edges that their compiled weights use.

A folder holds one transformer: plain weights (`circuits.model.plain`), ``io.json`` (prompts with the outputs of Tracr's own
forward pass) and ``edges.json``. The latter has a list of edges for each ablation, because an edge that carries a
constant matters under zero ablation and not under resampling; a method is compared with the list of the ablation that
it applies. The lists used here leave out changes of the output at BOS, for which the programs define no answer.

Their graph has token and position embedding apart; here both are ``input``, whose edges are those of either. Where
both matter to one reader, ablating them together need not do what ablating one does.
"""

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from circuits.circuit import Circuit, Provenance
from circuits.facts import Fact
from circuits.graph import Graph
from circuits.model import Model
from circuits.planted.base import Ablated
from circuits.records import Unreadable, read_json

VARIABLE = "KCIRCUIT_TRACR"
"""The environment variable that names the folder of folders; by default ``../shared/data/tracr`` beside the repository."""
LISTS: Mapping[Ablated, str] = {"zero": "zero", "mean": "mean", "resample": "resample_aligned"}
"""The name in ``edges.json`` of each ablation of this project."""


class CompiledError(ValueError):
    """A folder that holds no whole compiled transformer; the message names the file and the field."""


@dataclass(frozen=True)
class Compiled:
    """A compiled transformer, its prompts and outputs, and the edges that matter under each ablation."""

    name: str
    title: str
    model: Model
    facts: tuple[Fact, ...]
    """Every prompt with its right outputs at all positions but BOS."""
    edges: Mapping[Ablated, frozenset[str]]
    connected: frozenset[str]
    """The edges that can have an effect under some ablation."""
    outputs: tuple[tuple[tuple[int, ...], tuple[tuple[float, ...], ...]], ...]
    """(ids, [position][column]) of Tracr's own forward pass."""

    def truth(self, ablation: Ablated) -> Circuit:
        return _circuit(self.model, self.edges[ablation])

    def pairs(self, n_donors: int, seed: int = 0) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
        """(facts, donors) for resample ablation: each fact with ``n_donors`` others at least as long, drawn with ``seed``."""
        generator = random.Random(seed)
        facts, donors = [], []
        for fact in self.facts:
            length = len(fact.prompt.split())
            longer = [other for other in self.facts if other != fact and len(other.prompt.split()) >= length]
            for donor in generator.sample(longer, min(n_donors, len(longer))):
                facts.append(fact)
                donors.append(donor)
        return tuple(facts), tuple(donors)


def compiled_folder() -> Path:
    """Where compiled transformers lie, if they are there."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen) if chosen else Path(__file__).resolve().parents[3] / "shared" / "data" / "tracr"


def compiled() -> tuple[Compiled, ...]:
    """All compiled transformers at hand, by name; none where the folder is absent."""
    root = compiled_folder()
    if not root.is_dir():
        return ()
    return tuple(read_compiled(folder) for folder in sorted(root.iterdir()) if (folder / "edges.json").is_file())


def read_compiled(folder: Path) -> Compiled:
    """
    Raises:
        CompiledError: a file is missing, no JSON, or lacks a field.
        circuits.model.plain.PlainWeightsError: the weights are not whole.
    """
    config, io, lists = (_json(folder / name) for name in ("config.json", "io.json", "edges.json"))
    model = Model.load(folder)
    try:
        examples = io["examples"]
        return Compiled(
            name=config["name"],
            title=config["description"],
            model=model,
            facts=tuple(_fact(example) for example in examples),
            edges={
                ablation: _edges(lists["functional_by_ablation_excluding_bos_output"][name])
                for ablation, name in LISTS.items()
            },
            connected=_edges(lists["connected"]),
            outputs=tuple(
                (tuple(example["tokens"]), tuple(tuple(row) for row in example["output"])) for example in examples
            ),
        )
    except (KeyError, TypeError, IndexError) as error:
        raise CompiledError(f"{folder}: its files lack a field ({error!r})") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except Unreadable as error:
        raise CompiledError(str(error)) from error
    if not isinstance(content, dict):
        raise CompiledError(f"expected an object in {path}, got {type(content).__name__}")
    return content


def _fact(example: Mapping[str, Any]) -> Fact:
    # Position 0 is BOS, which the model puts before every prompt itself.
    words = [str(word) for word in example["token_values"][1:]]
    return Fact(" ".join(words), words[0], " ".join(str(output) for output in example["decoded"][1:]))


def _edges(names: list[str]) -> frozenset[str]:
    return frozenset(name.replace("pos_embed->", "embed->").replace("embed->", "input->") for name in names)


def _circuit(model: Model, names: frozenset[str]) -> Circuit:
    graph = Graph(model.shape)
    kept = np.zeros_like(graph.legal)
    for name in names:
        kept[graph.edge(name)] = True
    return Circuit(graph, kept, Provenance(model.name, model.weights, processing="raw", method="compiled"))

"""How fast ACDC is: the reference engine against the fast one, a GPT-2-small-shaped search, and how time grows.

Models other than the one under test are random, of GPT-2's shape: time depends on the shape, and on how many edges stay.
"""

import html
import itertools
import math
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from circuits.circuit import Provenance
from circuits.datasets import corrupted as corruption
from circuits.discovery.acdc import AcdcOptions
from circuits.discovery.acdc import search as acdc
from circuits.discovery.problem import Progress
from circuits.discovery.state import State, fingerprint
from circuits.engines.ablation import Ablation, AblationKind
from circuits.engines.engine import Engine
from circuits.engines.hook import HookEngine
from circuits.engines.sparse import SparseEngine
from circuits.facts import Fact, Relations
from circuits.graph import Granularity, Shape
from circuits.model import Batch, Model, WordVocabulary
from circuits.model.network import ComponentNetwork
from circuits.model.transformer import Attention, Block, Components, Mlp, Norm


@dataclass(frozen=True)
class Search:
    """One timed ACDC search."""

    engine: str
    prompt_tokens: int
    facts: int
    edges: int
    tried: int
    """Edges tested; the others went untested, because nothing read their receiver."""
    kept: int
    evaluations: int
    """Circuits run, wasted guesses included."""
    seconds: float
    near_ties: int


@dataclass(frozen=True)
class Comparison:
    """The two engines on the same facts, one search a fact each."""

    model: str
    tau: float
    threads: int
    pairs: tuple[tuple[Search, Search], ...]
    """(reference, fast)."""
    decisions_differing: int
    largest_score_difference: float
    """In nats, over all edges that both tried."""
    peak_bytes: int

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(reference.seconds / fast.seconds for reference, fast in self.pairs)

    @property
    def median_ratio(self) -> float:
        return statistics.median(self.ratios)

    def to_json(self) -> dict[str, Any]:
        fast = [pair[1] for pair in self.pairs]
        return {
            "model": self.model,
            "tau": self.tau,
            "threads": self.threads,
            "facts": len(self.pairs),
            "median_ratio": self.median_ratio,
            "decisions_differing": self.decisions_differing,
            "largest_score_difference": self.largest_score_difference,
            "near_ties": sum(search.near_ties for search in fast),
            "median_seconds": statistics.median(search.seconds for search in fast),
            "median_seconds_reference": statistics.median(reference.seconds for reference, _ in self.pairs),
            "evaluations": sum(search.evaluations for search in fast),
            "evaluations_reference": sum(reference.evaluations for reference, _ in self.pairs),
            "peak_bytes": self.peak_bytes,
            "searches": [{"reference": asdict(reference), "fast": asdict(fast)} for reference, fast in self.pairs],
        }


def compare(
    model: Model,
    facts: Sequence[Fact],
    *,
    tau: float = 0.01,
    granularity: Granularity = "qkv",
    progress: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Both engines on each fact, after one unmeasured search that warms up the libraries."""
    quick, reading = (partial(engine, granularity=granularity) for engine in (SparseEngine, HookEngine))
    acdc(quick(model, facts[:1]), AcdcOptions(tau), provenance=provenance_of(model, tau), force=True)
    pairs, differing, largest = [], 0, 0.0
    for fact in facts:
        fast, state, values = timed(model, (fact,), tau, quick)
        reference, expected, expected_values = timed(model, (fact,), tau, reading)
        pairs.append((reference, fast))
        differing += sum(a != b for a, b in zip(state.kept, expected.kept, strict=True))
        both = np.abs(values - expected_values)
        largest = max(largest, float(np.nanmax(both, initial=0.0)))
        progress(
            f"{fact.prompt}: {reference.seconds:.2f} s / {fast.seconds:.3f} s = {reference.seconds / fast.seconds:.0f}"
        )
    return Comparison(model.name, tau, torch.get_num_threads(), tuple(pairs), differing, largest, peak_bytes())


@dataclass(frozen=True)
class Agreement:
    """One search by both engines: how many of its decisions differ."""

    fact: str
    ablation: AblationKind
    tau: float
    decisions: int
    """Edges of the graph; each is kept or not."""
    tried: int
    kept: int
    differing: int
    first_differing: float | None
    """How far the first decision that differs was from tau in the reference, in nats: all that follow are of another circuit."""
    near_ties: int
    largest_score_difference: float
    """In nats, over the edges tried before any decision differed."""


def agreement(
    model: Model,
    facts: Sequence[Fact],
    relations: Relations,
    *,
    taus: Sequence[float],
    granularity: Granularity,
    references: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Agreement]:
    """Both engines on each fact, with each ablation and threshold.

    The reference's decisions depend on the model and the search alone, and take nearly all the time: they are kept in the folder
    ``references``, a state file a search (`circuits.discovery.state.State`), where the next call finds them.
    """
    references.mkdir(parents=True, exist_ok=True)
    for kind, fact in itertools.product(get_args(AblationKind), facts):
        ablation = ablation_of(kind, fact, relations, model)
        slow = HookEngine(model, (fact,), ablation=ablation, granularity=granularity)
        fast = SparseEngine(model, (fact,), ablation=ablation, granularity=granularity)
        for tau in taus:
            settings = {"tau": tau, "ablation": kind, "granularity": granularity}
            origin = Provenance(model.name, model.weights, model.processing, "acdc", settings, facts=(str(fact),))
            file = references / f"{fingerprint(origin)[:16]}.json"
            state = State.load(file, fingerprint(origin)) if file.exists() else None
            _, expected = acdc(slow, AcdcOptions(tau), provenance=origin, state=state)
            expected.save(file)
            _, got = acdc(fast, AcdcOptions(tau), provenance=origin)
            row = _agree(fact, kind, tau, got, expected)
            progress(f"{kind}, tau {tau:g}, {fact.prompt}: {row.differing} of {row.decisions} differ, {row.kept} kept")
            yield row


def _agree(fact: Fact, kind: AblationKind, tau: float, got: State, expected: State) -> Agreement:
    differ = [i for i, (a, b) in enumerate(zip(got.kept, expected.kept, strict=True)) if a != b]
    end = differ[0] if differ else len(expected.kept)
    first = expected.scores[differ[0]] if differ else None
    pairs = zip(got.scores[:end], expected.scores[:end], strict=True)
    return Agreement(
        fact=str(fact),
        ablation=kind,
        tau=tau,
        decisions=len(expected.kept),
        tried=sum(score is not None for score in expected.scores),
        kept=sum(expected.kept),
        differing=len(differ),
        first_differing=None if first is None else abs(first - tau),
        near_ties=len(expected.near_ties),
        largest_score_difference=max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0),
    )


def ablation_of(kind: AblationKind, fact: Fact, relations: Relations, model: Model) -> Ablation:
    """That ablation of one fact, with the other prompts that it needs."""
    match kind:
        case "zero":
            return Ablation()
        case "mean":
            return Ablation("mean", reference=corruption.reference((fact,), relations))
        case "resample":
            return Ablation("resample", corrupted=(corruption.corrupted(fact, relations, model),))


def first_facts(relations: Relations, n: int) -> tuple[Fact, ...]:
    """The best-known fact of each of the first n relations, in alphabetical order; then the second-best, and so on."""
    ranked = [fact for k in range(n) for relation in relations.values() for fact in relation.facts()[k : k + 1]]
    return tuple(ranked[:n])


def search(
    model: Model, facts: Sequence[Fact], tau: float, *, progress: Callable[[Progress], None] = lambda _: None
) -> Search:
    """One search of the fast engine."""
    return timed(model, facts, tau, SparseEngine, progress)[0]


def timed(
    model: Model,
    facts: Sequence[Fact],
    tau: float,
    make: Callable[[Model, Sequence[Fact]], Engine],
    progress: Callable[[Progress], None] = lambda _: None,
) -> tuple[Search, State, np.ndarray]:
    """One search with its cost from a loaded model on: making the engine counts."""
    started = time.perf_counter()
    engine = make(model, facts)
    scores, state = acdc(engine, AcdcOptions(tau), provenance=provenance_of(model, tau), progress=progress, force=True)
    seconds = time.perf_counter() - started
    tokens = max(len(model.tokens(fact).forced) for fact in facts)
    return (
        Search(
            engine=engine.name,
            prompt_tokens=tokens,
            facts=len(facts),
            edges=engine.graph.n_edges,
            tried=state.evaluations - 1,
            kept=sum(state.kept),
            evaluations=engine.evaluations,
            seconds=seconds,
            near_ties=len(state.near_ties),
        ),
        state,
        scores.values,
    )


def provenance_of(model: Model, tau: float) -> Provenance:
    return Provenance(model.name, model.weights, model.processing, "acdc", {"tau": tau})


def peak_bytes() -> int:
    """Most memory that this process ever held; of the GPU's too, where there is one."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return host + (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)


# ---- random models of GPT-2's shape ---------------------------------------------------------------------------------------


def random_gpt2(
    n_layers: int,
    n_heads: int,
    *,
    d_head: int = 64,
    d_vocab: int = 50257,
    n_ctx: int = 64,
    seed: int = 0,
    gain: float = 1.0,
) -> Model:
    """A random model of GPT-2's architecture, its vocabulary the words w0, w1, ...

    Weights are scaled so that every node writes about as much as it reads, times ``gain`` / sqrt(layers): neither the
    first nor the last nodes carry all the answer.
    """
    generator = torch.Generator().manual_seed(seed)
    d_model = n_heads * d_head
    d_mlp = 4 * d_model

    def normal(*shape: int, scale: float) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * scale

    def norm() -> Norm:
        return Norm("layer", torch.ones(d_model), torch.zeros(d_model), 1e-5)

    blocks = []
    for _ in range(n_layers):
        attention = Attention(
            norm=norm(),
            W_Q=normal(n_heads, d_model, d_head, scale=2 * d_model**-0.5),
            W_K=normal(n_heads, d_model, d_head, scale=d_model**-0.5),
            W_V=normal(n_heads, d_model, d_head, scale=d_model**-0.5),
            W_O=normal(n_heads, d_head, d_model, scale=gain * (n_heads * d_head * n_layers) ** -0.5),
            b_Q=torch.zeros(n_heads, d_head),
            b_K=torch.zeros(n_heads, d_head),
            b_V=torch.zeros(n_heads, d_head),
            scale=d_head**-0.5,
        )
        mlp = Mlp(
            norm=norm(),
            W_in=normal(d_model, d_mlp, scale=d_model**-0.5),
            b_in=torch.zeros(d_mlp),
            W_out=normal(d_mlp, d_model, scale=2 * gain * (d_mlp * n_layers) ** -0.5),
            b_out=torch.zeros(d_model),
            activation="gelu_new",
        )
        blocks.append(Block(attention, mlp))
    parts = Components(
        shape=Shape(n_layers, n_heads),
        W_E=normal(d_vocab, d_model, scale=0.7),
        W_pos=normal(n_ctx, d_model, scale=0.7),
        blocks=tuple(blocks),
        b_O=torch.zeros(n_layers, d_model),
        final=norm(),
        W_U=normal(d_model, d_vocab, scale=2 * d_model**-0.5),
        b_U=torch.zeros(d_vocab),
    )
    words = tuple(f"w{i}" for i in range(d_vocab))
    name = f"random GPT-2, {n_layers} x {n_heads}"
    return Model.by_hand(ComponentNetwork(parts, n_ctx), WordVocabulary(words), name=name)


def likely_facts(model: Model, n: int, *, prompt_tokens: int = 8, seed: int = 0) -> tuple[Fact, ...]:
    """Random prompts with the answers that the model gives to them."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, model.network.d_vocab, (n, prompt_tokens), generator=generator)
    answers = model.logits(Batch.of_prompts(ids))[:, -1].argmax(-1)
    prompts = [model.vocabulary.decode(row) for row in ids.tolist()]
    return tuple(
        Fact(prompt, prompt.split()[0], model.vocabulary.decode([int(answer)]).strip())
        for prompt, answer in zip(prompts, answers, strict=True)
    )


# ---- the figure ----------------------------------------------------------------------------------------------------------


def scatter_svg(points: Sequence[tuple[str, float, float]], *, x: str, y: str) -> str:
    """Named points on two logarithmic axes, as an SVG of its own."""
    width, height, margin = 640, 400, 60
    bounds = [
        (math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))))
        for values in ([point[1] for point in points], [point[2] for point in points])
    ]

    def place(value: float, axis: int) -> float:
        low, high = bounds[axis]
        share = (math.log10(value) - low) / max(high - low, 1)
        return margin + share * (width - 2 * margin) if axis == 0 else height - margin - share * (height - 2 * margin)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for axis in (0, 1):
        for power in range(bounds[axis][0], bounds[axis][1] + 1):
            at = place(10.0**power, axis)
            label = f"{10.0**power:g}"
            if axis == 0:
                lines.append(f'<line x1="{at:.0f}" x2="{at:.0f}" y1="{margin}" y2="{height - margin}" stroke="#ddd"/>')
                lines.append(f'<text x="{at:.0f}" y="{height - margin + 18}" text-anchor="middle">{label}</text>')
            else:
                lines.append(f'<line x1="{margin}" x2="{width - margin}" y1="{at:.0f}" y2="{at:.0f}" stroke="#ddd"/>')
                lines.append(f'<text x="{margin - 8}" y="{at + 4:.0f}" text-anchor="end">{label}</text>')
    for name, value_x, value_y in points:
        at_x, at_y = place(value_x, 0), place(value_y, 1)
        lines.append(f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="5" fill="#1f77b4"/>')
        anchor, shift = ("end", -9) if at_x > width / 2 else ("start", 9)
        lines.append(
            f'<text x="{at_x + shift:.1f}" y="{at_y - 8:.1f}" text-anchor="{anchor}">{html.escape(name)}</text>'
        )
    lines.append(f'<text x="{width / 2}" y="{height - 14}" text-anchor="middle">{html.escape(x)}</text>')
    lines.append(f'<text x="16" y="{margin - 20}">{html.escape(y)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"

"""Rounding has a size, measured before a search; within it of tau a step is a near tie, and below ten times it no tau is taken."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from circuits.circuit import Provenance
from circuits.discovery.acdc import RESOLUTION, AcdcOptions, NoiseError, search, sweep
from circuits.discovery.averages import diluted
from circuits.discovery.traversal import Traversal
from circuits.engines.hook import HookEngine
from circuits.engines.sparse import SparseEngine
from circuits.model import Model
from tests.models import massive_model, random_plain_model, word_fact

HERE = Provenance("", "")
LoadModel = Callable[..., Model]
FACTS = (
    word_fact("3 1 4 1 5 9", "26"),
    word_fact("2 7", "18"),
    word_fact("1 6 1 8 0 3", "39"),
    word_fact("5 7", "7 2"),
)


def rounding(model: Model, dtype: torch.dtype, n_circuits: int = 6) -> np.ndarray:
    """How far the NLL of random circuits, computed in that type, is from float64's: the truth that noise stands for."""
    exact, engine = (SparseEngine(model, FACTS, dtype=t) for t in (torch.float64, dtype))
    rng, graph = np.random.default_rng(0), exact.graph
    circuits = [graph.legal & (rng.random(graph.legal.shape) < share) for share in np.linspace(0.3, 1.0, n_circuits)]
    return np.concatenate([engine.nll(kept) - exact.nll(kept) for kept in circuits])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["gpt2", "llama", "neox"])
def test_noise_is_as_large_as_rounding_is_and_not_much_larger(
    name: str, dtype: torch.dtype, small_model: LoadModel
) -> None:
    model = small_model(name)
    noise, errors = SparseEngine(model, FACTS, dtype=dtype).noise(), rounding(model, dtype)
    rms = float(np.sqrt((errors**2).mean()))
    assert noise > rms
    assert noise < 20 * rms
    # The control: the other type's noise would be wrong by orders of magnitude.
    other = torch.bfloat16 if dtype == torch.float32 else torch.float32
    assert not 0.05 * rms < SparseEngine(model, FACTS, dtype=other).noise() < 20 * rms


def test_a_massive_writer_brings_its_own_rounding(small_model: LoadModel) -> None:
    model = massive_model(small_model("llama"))
    errors = rounding(model, torch.float32)
    assert SparseEngine(model, FACTS).noise() > float(np.sqrt((errors**2).mean()))


def test_noise_is_a_function_of_model_and_facts_alone(small_model: LoadModel) -> None:
    model = small_model("gpt2")
    slow, fast = HookEngine(model, FACTS), SparseEngine(model, FACTS, width=2)
    assert slow.noise() == fast.noise() == SparseEngine(model, FACTS).noise() > 0
    assert (slow.precision, SparseEngine(model, FACTS, dtype=torch.bfloat16).precision) == ("float32", "bfloat16")


def test_a_tau_that_rounding_hides_is_refused_unless_forced(small_model: LoadModel) -> None:
    engine = SparseEngine(small_model("gpt2"), FACTS, dtype=torch.bfloat16)
    least = RESOLUTION * engine.noise()
    with pytest.raises(NoiseError, match=r"tau is 0\.01, and rounding alone moves .*bfloat16.*float32.*--force"):
        search(engine, AcdcOptions(0.01), provenance=HERE)
    with pytest.raises(NoiseError):
        next(sweep(engine, (0.01, 1.0), provenance=lambda tau: HERE))
    search(engine, AcdcOptions(1.01 * least), provenance=HERE)
    _, state = search(engine, AcdcOptions(0.01), provenance=HERE, force=True)
    assert len(state.near_ties) > 10
    # The control: the same threshold in float32 is far above the noise.
    search(SparseEngine(small_model("gpt2"), FACTS), AcdcOptions(0.01), provenance=HERE)


def test_a_step_within_the_noise_of_tau_is_named_and_one_beyond_it_is_not() -> None:
    engine = SparseEngine(random_plain_model(0), (word_fact("1 2 3", "4"),))
    scores, _ = search(engine, AcdcOptions(0.3, absolute=True), provenance=HERE)
    first, name = abs(float(scores.values[Traversal(engine.graph).edges[0]])), "m1->logits"
    for distance, is_near in ((0.5, True), (-0.5, True), (2.0, False), (-2.0, False)):
        tau = first + distance * engine.noise()
        _, state = search(engine, AcdcOptions(tau, absolute=True), provenance=HERE)
        assert (name in state.near_ties) == is_near


def test_noise_is_measured_in_the_unit_of_what_is_compared() -> None:
    # The published code's metric divides by the prompt's length, and rounding with it.
    engine = SparseEngine(random_plain_model(0), (word_fact("1 2 3", "4"),))
    tau = 5 * engine.noise()
    with pytest.raises(NoiseError):
        search(engine, AcdcOptions(tau), provenance=HERE)
    search(engine, AcdcOptions(tau), per_token=diluted([4], [1]), provenance=HERE)

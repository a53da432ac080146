"""Memory is bounded before a search starts, and a search that cannot fit says what would."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from circuits.circuit import Provenance
from circuits.discovery.acdc import AcdcOptions, search
from circuits.engines.memory import (
    AT_ONCE,
    Estimate,
    Sizes,
    TooLargeError,
    available_memory,
    estimate,
    matmul_speed,
    parse_bytes,
    readable,
)
from circuits.engines.sparse import SparseEngine
from circuits.model import Model
from circuits.studies.runs import PAGE, run_sweep
from circuits.studies.specs import RunSpec
from circuits.studies.study import Watch
from tests.models import word_fact

CPU = torch.device("cpu")
FACTS = tuple(word_fact(f"{i} 1 4 1 5 9", "2") for i in range(4))
GPT2_SMALL = Sizes(12, 12, 768, 64, 3072, 50257, False, 157, 32491, ((1, 8, 1),))


def test_weights_of_gpt2_small_are_what_its_shape_says() -> None:
    # 12 layers of 4 x 768 x 768 and 2 x 768 x 3072 numbers, and an unembedding of 768 x 50257; 4 bytes each.
    assert GPT2_SMALL.weights == 4 * (12 * (4 * 768 * 768 + 2 * 768 * 3072) + 768 * 50257)


def test_memory_grows_with_facts_and_with_variants() -> None:
    more = replace(GPT2_SMALL, groups=((20, 8, 1),))
    assert more.values == 20 * GPT2_SMALL.values
    assert GPT2_SMALL.peak(3) - GPT2_SMALL.peak(2) == GPT2_SMALL.per_variant


def test_fewer_variants_at_once_where_memory_is_short() -> None:
    room = GPT2_SMALL.fixed + 5 * GPT2_SMALL.per_variant
    assert GPT2_SMALL.fit(64, room) == 5
    assert GPT2_SMALL.fit(3, room) == 3


def test_a_search_that_cannot_fit_says_what_would() -> None:
    many = replace(GPT2_SMALL, groups=((400, 8, 1),))
    with pytest.raises(
        TooLargeError, match=r"400 facts of up to 8 tokens needs .* \d+ facts? of this length would fit"
    ):
        many.fit(1, 2 * GPT2_SMALL.peak(1))
    with pytest.raises(TooLargeError, match=r"--max-memory .* one fact would fit"):
        many.fit(1, 10**6)


def test_what_is_said_to_fit_fits() -> None:
    many = replace(GPT2_SMALL, groups=((400, 8, 1),))
    allowed = 2 * GPT2_SMALL.peak(1)
    with pytest.raises(TooLargeError) as caught:
        many.fit(1, allowed)
    n = int(str(caught.value).split("allowed: ")[1].split()[0])
    assert replace(GPT2_SMALL, groups=((n, 8, 1),)).fit(1, allowed) == 1


def test_an_engine_keeps_to_its_memory(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    free = SparseEngine(model, FACTS)
    tight = SparseEngine(model, FACTS, max_memory=free.sizes.peak(2))
    assert tight.width == 2
    assert tight.estimate().bytes <= free.sizes.peak(2)
    removals = [[writer] for writer in range(7)]
    last = len(free.graph.readers) - 1
    expected = free.nll_without(free.graph.legal, last, removals)
    assert tight.nll_without(free.graph.legal, last, removals) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(TooLargeError):
        SparseEngine(model, FACTS, max_memory=1000)


def test_what_is_free_decides_whether_a_search_runs_and_never_how() -> None:
    needed = GPT2_SMALL.peak(64)
    assert {GPT2_SMALL.width(64, available) for available in (needed, 2 * needed, 2**40)} == {64}
    with pytest.raises(TooLargeError, match=r"64 variants at once needs .* --max-memory \S+ runs it with fewer"):
        GPT2_SMALL.width(64, needed - 1)
    # Large ones are as many as fit into a stated amount, and always one.
    many = replace(GPT2_SMALL, groups=((200, 8, 1),))
    assert many.width(64, 2**40) == AT_ONCE // many.per_variant < 64
    assert replace(GPT2_SMALL, groups=((9000, 8, 1),)).width(64, 2**40) == 1


def test_a_searchs_width_and_circuits_run_do_not_depend_on_free_memory(
    small_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = set[tuple[int, int]]()
    needed = SparseEngine(small_model("gpt2"), FACTS).estimate().bytes
    for free in (needed, 100 * needed):
        monkeypatch.setattr("circuits.engines.sparse.available_memory", lambda device, free=free: free)
        engine = SparseEngine(small_model("gpt2"), FACTS)
        search(engine, AcdcOptions(0.05), provenance=Provenance("", ""))
        runs.add((engine.width, engine.evaluations))
    assert len(runs) == 1


def test_the_estimate_prints_itself() -> None:
    assert re.fullmatch(r"at most \d+\.\d MB and [\d,]+ s, 64 variants at once", str(estimate(GPT2_SMALL, 64, CPU)))


def test_speed_and_free_memory_are_positive() -> None:
    assert matmul_speed(CPU, 0.001) > 0
    assert available_memory(CPU) > 0


@pytest.mark.parametrize(("text", "expected"), [("4GB", 2**32), ("500 MB", 500 * 2**20), ("1.5k", 1536), ("12", 12)])
def test_amounts_of_memory_are_read(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "4 parsecs", "1..2GB"])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected an amount of memory"):
        parse_bytes(text)


def test_bytes_are_readable() -> None:
    assert readable(2**30) == "1.0 GB"
    assert readable(12) == "12 bytes"


def test_an_estimate_is_of_the_whole_command_and_says_what_of_it_is_the_search():
    search = Estimate(bytes=3 * 2**20, seconds=1.2, width=4)
    assert (search.whole, "follows" in str(search)) == (1.2, False)
    told = replace(search, afterwards=6.9)
    assert told.whole == pytest.approx(8.1)
    assert "and 8 s (1 s to search, 7 s for what follows), 4 variants at once" in str(told)


def test_a_run_is_told_of_its_certificate_and_page_before_its_search(small_model: Callable[..., Model]):
    told: list[str] = []
    spec = RunSpec(facts=FACTS[:1], tau=0.5, granularity="node", force=True)

    def whole(certified: bool) -> float:
        told.clear()
        next(
            run_sweep(spec, [0.5], {}, model=small_model("gpt2"), certified=certified, watch=Watch(notice=told.append))
        )
        (line,) = [line for line in told if line.startswith("before the search")]
        return float(re.findall(r"([0-9,]+) s for what follows", line)[0].replace(",", ""))

    assert whole(False) == pytest.approx(PAGE, abs=0.51)
    assert whole(True) >= whole(False)

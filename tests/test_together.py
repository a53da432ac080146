"""Many rows read together give what each gives alone, and what they begin with alike is read once."""

import random
from collections.abc import Callable, Sequence

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.evaluation import whole_model
from circuits.evaluation.continuations import read
from circuits.facts import Fact
from circuits.model import Batch, Model
from circuits.model.bypassed import BypassedNetwork
from circuits.model.network import ComponentNetwork
from circuits.model.past import Past
from circuits.model.together import TOKENS_AT_ONCE, Ids, from_weights, read_together, reads_on
from tests.test_past import LAYOUTS

NOISE = 1e-4
ROUNDING = 1e-5


def rows_of(d_vocab: int, seed: int = 0) -> list[Ids]:
    """As prompts are: two openings, subjects of one to three ids, and an end; one row stands by itself, and two are one."""
    rng = random.Random(seed)
    openings = [(1,), (1, 2, 3, 4)]
    rows = [
        (*opening, *(rng.randrange(5, d_vocab) for _ in range(1 + i % 3)), *((7, 8) if i % 2 else ()))
        for opening in openings
        for i in range(45)
    ]
    rows = [*rows, (9, 10, 11), rows[3], (1, 2, 3, 4, 5, 6)]
    rng.shuffle(rows)
    return rows


def together(network: ComponentNetwork | BypassedNetwork, rows: Sequence[Ids], last: Sequence[int]) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    for some, logits in read_together(network, [(row, len(row)) for row in rows], last):
        assert not found.keys() & set(some)
        found.update(zip(some, logits, strict=True))
    return [found[index] for index in range(len(rows))]


def alone(network: ComponentNetwork | BypassedNetwork, row: Ids, last: int) -> Float[Tensor, "last d_vocab"]:
    return network.run(Batch.of_prompts(torch.tensor([row])))[0, -last:]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_read_together_give_the_logits_that_each_gives_alone(
    layout: str, small_model: Callable[..., Model]
) -> None:
    network = from_weights(small_model(layout).network)
    assert reads_on(network)
    rows = rows_of(network.d_vocab)
    last = [1 + index % 2 for index in range(len(rows))]
    for row, n, logits in zip(rows, last, together(network, rows, last), strict=True):
        assert logits.shape == (n, network.d_vocab)
        assert torch.allclose(logits, alone(network, row, n), atol=NOISE)
    # Control: rows differ by more than that.
    assert not torch.allclose(alone(network, rows[0], 1), alone(network, rows[1], 1), atol=10 * NOISE)


def test_what_rows_begin_with_alike_is_read_once_and_only_what_is_asked_for_is_unembedded(
    small_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = from_weights(small_model("llama").network)
    assert isinstance(network, ComponentNetwork)
    tokens, unembedded, longest = [], [], []
    before = ComponentNetwork.read_on

    def counted(self: ComponentNetwork, ids: Tensor, past: Past, n: int = 1) -> Tensor:
        logits = before(self, ids, past, n)
        tokens.append(ids.numel())
        unembedded.append(len(logits) * logits.shape[1])
        longest.append(ids.shape[1])
        return logits

    monkeypatch.setattr(ComponentNetwork, "read_on", counted)
    shared = [(1, 2, 3, 4, 5, 6, 7, 8, subject) for subject in range(10, 30)]
    together(network, shared, [1] * len(shared))
    assert tokens == [8, len(shared)]
    assert sum(unembedded) == len(shared) + 1
    # Of few rows, a pass of its own over their beginning would cost more than it saves.
    tokens.clear()
    together(network, shared[:3], [1] * 3)
    assert tokens == [3 * 9]
    # Positions of which the logits are asked for are read in each row.
    tokens.clear()
    together(network, shared, [4] * len(shared))
    assert tokens == [5, 4 * len(shared)]
    tokens.clear()
    many = [(1, 2, *(3 + (index >> bit) % 2 for bit in range(12))) for index in range(2**12)]
    together(network, many, [12] * len(many))
    assert max(tokens) <= TOKENS_AT_ONCE


def test_a_network_with_a_bypass_reads_whole_rows_and_says_where_each_prompt_ends(
    small_model: Callable[..., Model],
) -> None:
    model = small_model("llama")
    ends = set[int]()

    def bypass(residual: Tensor, batch: Batch) -> Tensor:
        ends.add(batch.n_prompt)
        return torch.ones_like(residual) * batch.n_prompt

    network = from_weights(BypassedNetwork.around(model.network, 1, bypass))
    assert not reads_on(network)
    rows = [(1, 2, 3, 4, 5), (1, 2, 3, 4, 6), (1, 2, 3)]
    found = {
        index: logits
        for some, all_ in read_together(network, [(row, 2) for row in rows], [1, 2, 1])
        for index, logits in zip(some, all_, strict=True)
    }
    assert ends == {2}
    for index, row in enumerate(rows):
        own = network.run(Batch.continued(torch.tensor([row]), 2))[0, -len(found[index]) :]
        assert torch.allclose(found[index], own, atol=NOISE)


@pytest.mark.parametrize("layout", ["gpt2", "llama", "neox"])
def test_facts_asked_together_get_the_ranks_and_probabilities_of_each_alone(
    layout: str, small_model: Callable[..., Model]
) -> None:
    """Answers of one token and of two. The oracle is the model itself, which runs a prompt by its own code; a token whose logit is
    within rounding of the answer's may fall on either side of it."""
    model = small_model(layout)
    facts = [
        Fact(f"w1 w2 w3 w4 w5 w{6 + i} w7", f"w{6 + i}", f"w{1 + 7 * i % 40}" + (" w9" if i % 3 else ""))
        for i in range(30)
    ]
    found = whole_model(model, facts)
    for row, fact in enumerate(facts):
        tokens = model.tokens(fact)
        logits = model.logits(Batch.of_prompts(torch.tensor([tokens.forced])))[0, -len(tokens.answer) :]
        first, own = logits[0], logits[0, tokens.answer[0]]
        assert int((first > own + ROUNDING).sum()) < found.rank.per_example[row] <= int((first >= own - ROUNDING).sum())
        log_p = logits.double().log_softmax(-1)[range(len(tokens.answer)), list(tokens.answer)]
        assert found.probability.per_example[row] == pytest.approx(float(log_p[0].exp()), rel=1e-3)
        assert found.nll.per_example[row] == pytest.approx(-float(log_p.mean()), abs=1e-3)


def test_nothing_asked_is_nothing_read(small_model: Callable[..., Model]) -> None:
    assert read(small_model("llama"), []) == ()

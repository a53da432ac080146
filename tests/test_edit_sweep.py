"""The sweep over layers: shares counted as they are defined."""

import math
from collections.abc import Callable

import pytest
import torch

from circuits.editing import EditError
from circuits.facts import EditRequest, Probe
from circuits.model import Batch, Model
from circuits.studies.layers import _exact, _likeliest, share_of, sweep_layers
from tests.editing_models import REQUEST, TWO_TOKENS, answer

PROBED = EditRequest(
    REQUEST.template,
    REQUEST.subject,
    REQUEST.target,
    probes=(
        Probe("paraphrase", "w10 w11 w6", "w10 w11", "w20"),
        Probe("neighbour", "w1 w30 w31 w2 w3", "w30 w31"),
        Probe("same_subject", "w10 w11 w40", "w10 w11"),
    ),
)


def test_every_layer_is_measured_and_a_request_without_probes_counts_for_success_alone(
    small_model: Callable[..., Model],
) -> None:
    model = small_model("gpt2")
    lines: list[str] = []
    rows = sweep_layers(model, "ft-m", [PROBED, TWO_TOKENS], steps=40, lr=1e-2, progress=lines.append)
    assert [row.layers for row in rows] == [(0,), (1,)]
    assert len(lines) == 4
    for row in rows:
        assert row.success.per_example == (1.0, 1.0)
        assert [math.isnan(value) for value in row.locality.per_example] == [False, True]
        assert share_of(row.generality) == row.generality.per_example[0]
        assert "success 100.0 %" in str(row)


def test_without_a_step_nothing_changes_so_locality_is_whole_and_success_none(
    small_model: Callable[..., Model],
) -> None:
    """The control: a box too small for anything to happen."""
    (row,) = sweep_layers(small_model("gpt2"), "ft-m", [PROBED], [1], steps=1, box=1e-12)
    assert (share_of(row.success), share_of(row.locality), share_of(row.same_subject)) == (0.0, 1.0, 1.0)


def test_an_answer_is_exact_if_each_of_its_tokens_is_the_likeliest(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    prompt = "w3 w7 w7"
    fact = TWO_TOKENS.fact
    first = _likeliest(model, [prompt])[prompt]
    assert first == int(model.logits(Batch.of_prompts(torch.tensor([_ids(model, prompt)])))[0, -1].argmax())
    right = model.token_text(first).strip()
    wrong = next(f"w{i}" for i in range(60) if f"w{i}" != right)
    expected = float(answer(model, fact) == list(model.tokens(fact).answer))
    assert _exact(model, [(prompt, right), (prompt, wrong), (fact.prompt, fact.object)]) == [1.0, 0.0, expected]


def _ids(model: Model, text: str) -> list[int]:
    bos = [] if model.vocabulary.bos is None else [model.vocabulary.bos]
    return [*bos, *model.vocabulary.encode(text)]


def test_what_cannot_be_swept_is_refused(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    with pytest.raises(EditError, match="at least one"):
        sweep_layers(model, "ft-m", [])
    with pytest.raises(EditError, match="at least 1 request"):
        sweep_layers(model, "ft-m", [PROBED], batch=0)
    with pytest.raises(EditError, match="layers of 0 to 1"):
        sweep_layers(model, "ft-m", [PROBED], [7])

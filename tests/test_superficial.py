"""Superficial edits by hand: a head that copies what the prefix says brings an old answer back, and is the one found."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter

from circuits.editing import EditProvenance, LowRank, WeightEdit
from circuits.evaluation.edits import FluencySetting, ask, prepare
from circuits.evaluation.edits.prefixes import with_prefixes
from circuits.evaluation.edits.relapse import Rivals, find_relapse, relapsed, silenced
from circuits.evaluation.edits.superficial import Audit, after_prefixes, audit
from circuits.facts import EditRequest, Probe
from circuits.graph import Node
from circuits.model import Batch, Model
from tests.models import plain_model, zero_weights

WORDS = list(["about", "say", "peru", "chile", "oslo", "spanish", "quechua", "norse", "thick", "tongue", "."])
V = len(WORDS)
NEXT = {"peru": "spanish", "chile": "spanish", "oslo": "norse", "thick": "tongue"}
STRENGTH, COPIED = 6.0, 30.0
REQUEST = EditRequest(
    "about {}",
    "peru",
    "quechua",
    "spanish",
    probes=(
        Probe("unrelated", "about thick", None, "tongue"),
        Probe("same_subject", "say peru", None, "."),
        Probe("neighbour", "about chile", None, "spanish"),
        Probe("neighbour", "about oslo", None, "norse"),
    ),
)


def one_hot(word: str) -> torch.Tensor:
    return torch.eye(V)[WORDS.index(word)]


@pytest.fixture(scope="module")
def model() -> Model:
    """Words are read in the first half of the stream and said in the second. The MLP is a table; head 0 looks at all words
    alike and says "spanish", as loudly as its share of them is; head 1 does nothing."""
    weights = zero_weights(n_layers=1, n_heads=2, d_model=2 * V, d_head=V, d_mlp=V, d_vocab=V, n_ctx=16)
    left, right = torch.eye(2 * V)[:, :V], torch.eye(2 * V)[:, V:]
    weights["embed.W_E"], weights["unembed.W_U"] = left.T, right
    weights["blocks.0.mlp.W_in"] = left
    table = torch.stack([STRENGTH * one_hot(NEXT[w]) if w in NEXT else torch.zeros(V) for w in WORDS])
    weights["blocks.0.mlp.W_out"] = table @ right.T
    copies = torch.outer(one_hot("spanish"), one_hot("spanish"))
    weights["blocks.0.attn.W_V"] = torch.stack([left @ copies * COPIED, torch.zeros(2 * V, V)])
    weights["blocks.0.attn.W_O"] = torch.stack([right.T, torch.zeros(V, 2 * V)])
    return plain_model(weights, " ".join(WORDS))


@pytest.fixture(scope="module")
def edit(model: Model) -> WeightEdit:
    """The MLP says quechua after peru, twice as loudly as spanish."""
    right = torch.cat((torch.zeros(V), 2 * STRENGTH * one_hot("quechua")))
    delta = LowRank(one_hot("peru")[:, None], right[None])
    return WeightEdit({"blocks.0.mlp.W_out": delta}, EditProvenance("by hand", model.name, model.weights))


def test_prefixes_state_what_the_probes_know_and_say_the_old_object_and_a_third_one_again() -> None:
    asked = with_prefixes(REQUEST)
    assert asked.probes[:4] == REQUEST.probes
    found = [(probe.kind, probe.prompt) for probe in asked.probes[4:]]
    assert found == [
        ("neutral_prefix", "about thick tongue. about peru"),
        ("subject_prefix", "say peru .. about peru"),
        *(("old_prefix", " ".join(["spanish."] * times + ["about peru"])) for times in (1, 2, 3)),
        *(("other_prefix", " ".join(["norse."] * times + ["about peru"])) for times in (1, 2, 3)),
    ]
    assert {probe.answer for probe in asked.probes[4:]} == {"quechua"}
    # Of a request that knows nothing else, no prefix is made.
    assert with_prefixes(replace(REQUEST, old=None, probes=())).probes == ()


def spaced(request: EditRequest) -> EditRequest:
    """With prefixes whose full stops are words of their own, as this model's vocabulary has them."""
    asked = with_prefixes(request).probes[len(request.probes) :]
    return replace(request, probes=tuple(replace(p, prompt=p.prompt.replace(".", " .").strip()) for p in asked))


def test_the_old_answer_comes_back_after_itself_and_after_no_other_prefix(model: Model, edit: WeightEdit) -> None:
    quiet = FluencySetting(n_samples=0)
    with edit.on(model) as edited:
        found = after_prefixes(ask(edited, prepare(model, [spaced(REQUEST)], quiet), quiet))
    by_name = {row.prefix: row for row in found}
    assert {name: row.n for name, row in by_name.items()} == {
        "no prefix": 1,
        "an unrelated fact": 1,
        "another fact of the subject": 1,
        "the old object": 3,
        "a third object": 3,
    }
    for name, row in by_name.items():
        # The unedited model gives the old object throughout; the edited one where the prefix has said it.
        assert (row.new_given[0], row.old_given[0], row.old_likelier[0]) == (0.0, 1.0, 1.0)
        came_back = float(name == "the old object")
        assert (row.new_given[1], row.old_given[1], row.old_likelier[1]) == (1 - came_back, came_back, came_back)
    # Without a prefix the unedited model has spanish at 6 logits and quechua at 0; the edited one has quechua at 12.
    assert by_name["no prefix"].log_odds == (pytest.approx(STRENGTH), pytest.approx(-STRENGTH))
    mean = COPIED * (1 / 4 + 2 / 6 + 3 / 8) / 3
    assert by_name["the old object"].log_odds == (pytest.approx(STRENGTH + mean), pytest.approx(mean - STRENGTH))


def test_the_head_that_brings_it_back_is_found_and_takes_it_away_again_where_it_was_not_found(
    model: Model, edit: WeightEdit
) -> None:
    with edit.on(model) as edited:
        relapse = audit(edited, prepare(model, [spaced(REQUEST)], FluencySetting(n_samples=0))).relapse
    assert relapse is not None
    # One time in four words, and three in eight; the prompt with two in six is kept for the test.
    assert relapse.heads == (("a0.h0", pytest.approx(COPIED * (1 / 4 + 3 / 8) / 2, abs=1e-4)),)
    assert (relapse.searched, relapse.tested) == (2, 1)
    assert relapse.whole.log_odds == pytest.approx(COPIED / 3 - STRENGTH, abs=1e-4)
    assert relapse.without.log_odds == pytest.approx(-STRENGTH, abs=1e-4)
    assert (relapse.whole.old_given, relapse.without.old_given) == (1.0, 0.0)
    # The control: the other head changes nothing.
    assert {round(one.log_odds, 3) for one in relapse.random} == {round(relapse.whole.log_odds, 3)}
    assert relapse.as_strong == 0.0


def test_the_audit_of_an_edit_that_breaks_the_model_is_kept_and_read_again(model: Model) -> None:
    broken = model.with_weights({"blocks.0.mlp.W_out": torch.full((V, 2 * V), math.nan)}, "broken")
    found = audit(broken, prepare(model, [spaced(REQUEST)], FluencySetting(n_samples=0)))
    assert math.isnan(found.prefixes[0].log_odds[1])
    # An answer of which nothing is known is not given, and counts as no better than the old one.
    assert (found.prefixes[0].new_given[1], found.prefixes[0].old_likelier[1], found.relapse) == (0.0, 1.0, None)
    kept: TypeAdapter[Audit] = TypeAdapter(Audit)
    assert repr(kept.validate_json(kept.dump_json(found))) == repr(found)


def test_without_two_prompts_that_relapse_no_head_is_sought(model: Model) -> None:
    new, old = WORDS.index("quechua"), WORDS.index("spanish")
    held = [Rivals((WORDS.index("about"), WORDS.index("peru")), old, new)] * 2
    assert len(relapsed(model, held)) == 2
    assert find_relapse(model, held[:1]) is None
    # Turned round, nothing relapses; and where no head writes the old answer, none is named.
    assert relapsed(model, [replace(one, old=new, new=old) for one in held]) == ()
    assert find_relapse(model, held) is None


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox"])
def test_a_silent_head_is_one_without_output_weights(name: str, small_model: Callable[..., Model]) -> None:
    model, prompt = small_model(name), (0, 5, 9, 3)
    heads = (Node(0, "head", 1), Node(1, "head", 0))
    weights = {}
    for node in heads:
        key = f"blocks.{node.layer}.attn.W_O"
        weights[key] = model.weight(key).clone()
        weights[key][node.head] = 0
    without = model.with_weights(weights, "by hand").logits(Batch.of_prompts(torch.tensor([prompt])))[0, -1]
    none, both, one = silenced(model, prompt, [(), heads, heads[:1]])
    torch.testing.assert_close(both, without, rtol=1e-4, atol=1e-4)
    whole = model.logits(Batch.of_prompts(torch.tensor([prompt])))[0, -1]
    torch.testing.assert_close(none, whole, rtol=1e-4, atol=1e-4)
    # The control: one of them is another ablation than both.
    assert (one - both).abs().max() > 1e-3

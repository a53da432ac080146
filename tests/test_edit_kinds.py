"""The kinds of edit: a delta on any weight, a bypass that is shown the MLP, a router, a prompt; and what adding a method takes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from circuits.editing import (
    METHODS,
    Affine,
    BypassEdit,
    Dense,
    Edit,
    EditError,
    EditProvenance,
    LowRank,
    Method,
    PromptEdit,
    Resources,
    WeightEdit,
    find_method,
    load_edit,
    restrain,
)
from circuits.editing.method import ProgressLine, provenance
from circuits.engines import HookEngine, SparseEngine
from circuits.facts import EditRequest, Fact
from circuits.graph import Node
from circuits.model import Batch, Model
from circuits.model.errors import UnknownWeight
from circuits.model.network import ComponentNetwork
from circuits.model.spans import spans
from circuits.model.weights import with_named_weights
from circuits.studies.edits import Contestant, maker
from tests.editing_models import LAYOUTS, OTHER, REQUEST, same_bits, snapshot
from tests.test_edit import random_edit

IDS = torch.tensor([[5, 6, 7, 8, 9]])
FACTS = (Fact("w1 w2 w3", "w2", "w4"), Fact("w5 w6 w7", "w6", "w8"))
HEAD = 1
"""The head whose weights are changed."""

NAMES = {
    "embed.W_E": Node(-1, "input"),
    **{f"blocks.1.attn.{name}": Node(1, "head", HEAD) for name in ("W_Q", "W_K", "W_V", "W_O", "b_V")},
    **{f"blocks.1.mlp.{name}": Node(1, "mlp") for name in ("W_in", "W_out", "b_in")},
    "unembed.W_U": Node(2, "logits"),
}


def by_hand(model: Model) -> EditProvenance:
    return EditProvenance("by hand", model.name, model.weights)


def change_of(model: Model, name: str) -> WeightEdit:
    """Something added to one weight; of attention, to one head's."""
    weight = model.weight(name)
    change = 0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    if ".attn." in name:
        change[torch.arange(len(change)) != HEAD] = 0
    return WeightEdit({name: Dense(change)}, by_hand(model))


# ---- deltas of any weight --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_delta_on_any_weight_changes_first_what_its_nodes_write_and_nothing_before(
    layout: str, small_model: Callable[..., Model]
) -> None:
    model = small_model(layout)
    batch, writers = Batch.of_prompts(IDS), model.graph().writers
    before, logits = model.node_outputs(batch), model.logits(batch)
    bits = snapshot(model)
    for name, node in NAMES.items():
        edit = change_of(model, name)
        assert edit.nodes(model.shape) == (node,)
        with edit.on(model) as edited:
            assert torch.allclose(
                edited.weight(name), model.weight(name) + edit.deltas[name].dense().float(), atol=1e-6
            )
            moved = (edited.node_outputs(batch) - before).abs().amax((1, 2, 3)) > 1e-3 * before.abs().max()
            after = edited.logits(batch)
        first = [writers[i] for i in np.flatnonzero(moved.numpy())][:1] or [Node(2, "logits")]
        assert first == [node], name
        assert not torch.allclose(after, logits, atol=1e-3), name
    assert same_bits(bits, snapshot(model))


def test_a_gates_delta_changes_its_mlp_and_a_model_without_gates_has_none(small_model: Callable[..., Model]) -> None:
    llama = small_model("llama")
    edit = change_of(llama, "blocks.0.mlp.W_gate")
    assert edit.nodes(llama.shape) == (Node(0, "mlp"),)
    with pytest.raises(UnknownWeight, match="this model has no"):
        small_model("gpt2").weight("blocks.0.mlp.W_gate")
    for name in ("blocks.9.attn.W_Q", "blocks.0.attn.W_up", "moon"):
        with pytest.raises(UnknownWeight, match="expected the name of a weight"):
            llama.weight(name)


def test_circuits_are_found_on_a_model_whose_heads_were_edited(small_model: Callable[..., Model]) -> None:
    """Both engines run the edited head: an edge is cut, and they agree on what is left."""
    model = small_model("llama")
    edit = change_of(model, "blocks.1.attn.W_V") + random_edit(model)
    assert edit.nodes(model.shape) == (Node(0, "mlp"), Node(1, "head", HEAD))
    with edit.on(model) as edited:
        graph = edited.graph()
        kept = graph.legal.copy()
        kept[0, len(graph.readers) - 1] = False
        reference, fast = HookEngine(edited, FACTS).nll(kept), SparseEngine(edited, FACTS).nll(kept)
        assert fast == pytest.approx(reference, abs=1e-4)
    assert SparseEngine(model, FACTS).nll(kept) != pytest.approx(reference, abs=1e-3)


def test_a_low_rank_delta_of_a_heads_weight_is_read_back_and_prune_refuses_it(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    model = small_model("gpt2")
    weight = model.weight("blocks.0.attn.W_Q")
    left, right = torch.randn(*weight.shape[:-1], 1), torch.randn(len(weight), 1, weight.shape[-1])
    edit = WeightEdit({"blocks.0.attn.W_Q": LowRank(left, right)}, by_hand(model))
    read = load_edit(edit.save(tmp_path))
    with edit.on(model) as one, read.on(model) as two:
        assert one.weights == two.weights
        assert torch.equal(one.logits(Batch.of_prompts(IDS)), two.logits(Batch.of_prompts(IDS)))
    assert (edit + edit).deltas["blocks.0.attn.W_Q"].rank == 2
    with pytest.raises(EditError, match="PRUNE restrains matrices"):
        restrain(edit, model)


# ---- bypasses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bypass_that_sees_the_mlps_write_can_take_it_back_and_say_something_else(
    layout: str, small_model: Callable[..., Model], tmp_path: Path
) -> None:
    """Against the model whose MLP has no W_out and the value as its bias."""
    model = small_model(layout)
    d_model = model.network.d_model
    value = torch.randn(d_model, generator=torch.Generator().manual_seed(1))
    edit = BypassEdit(1, Affine(-torch.eye(d_model), value, "write"), by_hand(model))
    parts = model.network.components(8)  # type: ignore[attr-defined]
    silenced = {"blocks.1.mlp.W_out": torch.zeros_like(parts.blocks[1].mlp.W_out), "blocks.1.mlp.b_out": value}
    expected = ComponentNetwork(with_named_weights(parts, silenced), model.n_ctx).run(Batch.of_prompts(IDS))
    assert edit.nodes(model.shape) == (Node(1, "bypass"),)
    for each in (edit, load_edit(edit.save(tmp_path))):
        with each.on(model) as edited:
            assert torch.allclose(edited.logits(Batch.of_prompts(IDS)), expected, atol=1e-3)
            assert Node(1, "bypass") in edited.graph().writers


def test_a_bypass_may_see_what_the_mlp_reads(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    d_model = model.network.d_model
    for sees in ("input", "write"):
        silent = BypassEdit(0, Affine(torch.zeros(d_model, d_model), torch.zeros(d_model), sees), by_hand(model))
        with silent.on(model) as edited:
            same = edited.logits(Batch.of_prompts(IDS))
        assert torch.allclose(same, model.logits(Batch.of_prompts(IDS)), atol=1e-5)
    outputs = []
    for sees in ("input", "write"):
        edit = BypassEdit(0, Affine(torch.eye(d_model), torch.zeros(d_model), sees), by_hand(model))
        with edit.on(model) as edited:
            outputs.append(edited.node_outputs(Batch.of_prompts(IDS))[edited.graph().writers.index(Node(0, "bypass"))])
    mlp = model.node_outputs(Batch.of_prompts(IDS))[model.graph().writers.index(Node(0, "mlp"))]
    assert torch.allclose(outputs[1], mlp, atol=1e-4)
    assert not torch.allclose(outputs[0], mlp, atol=1e-2)


# ---- prompts ---------------------------------------------------------------------------------------------------------


def test_a_prompt_edit_is_read_before_every_prompt_and_circuits_are_those_behind_the_text(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    model = small_model("gpt2")
    edit = PromptEdit("w30 w31 w32 ", by_hand(model))
    shown = tuple(model.vocabulary.encode(edit.text))
    for each in (edit, load_edit(edit.save(tmp_path))):
        with each.on(model) as edited:
            assert edited.weights != model.weights
            assert edited.graph() == model.graph()
            for fact in FACTS:
                plain, behind = model.tokens(fact), edited.tokens(fact)
                n_special = len(plain.prompt) - len(model.vocabulary.encode(fact.prompt))
                assert behind.prompt == plain.prompt[:n_special] + shown + plain.prompt[n_special:]
                assert behind.answer == plain.answer
                before, after = spans(model, fact), spans(edited, fact)
                assert after.subject == tuple(position + len(shown) for position in before.subject)
                assert after.relation == tuple(position + len(shown) for position in before.relation)
            kept = edited.graph().legal.copy()
            kept[1:3, -1] = False
            got, reference = SparseEngine(edited, FACTS).nll(kept), HookEngine(edited, FACTS).nll(kept)
            logits = edited.logits(Batch.of_prompts(torch.tensor([edited.tokens(FACTS[0]).prompt])))[0, -1]
        assert got == pytest.approx(reference, abs=1e-4)
        assert got != pytest.approx(SparseEngine(model, FACTS).nll(kept), abs=1e-3)
        by_ids = model.logits(Batch.of_prompts(torch.tensor([edit_ids(model, shown, FACTS[0])])))[0, -1]
        assert torch.equal(logits, by_ids)
    assert edit.nodes(model.shape) == ()
    assert model.shown == ()
    with pytest.raises(EditError, match="expected a text"):
        PromptEdit(" ", by_hand(model))


def edit_ids(model: Model, shown: tuple[int, ...], fact: Fact) -> tuple[int, ...]:
    return (*model.opening, *shown, *model.vocabulary.encode(fact.prompt))


def test_kinds_add_up(small_model: Callable[..., Model], tmp_path: Path) -> None:
    model = small_model("gpt2")
    d_model = model.network.d_model
    bypass = BypassEdit(1, Affine(torch.eye(d_model), torch.zeros(d_model)), by_hand(model))
    total: Edit = PromptEdit("w30 ", by_hand(model)) + random_edit(model) + bypass
    assert total.nodes(model.shape) == (Node(0, "mlp"), Node(1, "bypass"))
    assert (dict(total.deltas), total.routers) == ({}, ())
    read = load_edit(total.save(tmp_path))
    with total.on(model) as one, read.on(model) as two:
        assert one.weights == two.weights
        ids = torch.tensor([one.tokens(FACTS[0]).prompt])
        assert one.shown == tuple(model.vocabulary.encode("w30 "))
        assert torch.equal(one.logits(Batch.of_prompts(ids)), two.logits(Batch.of_prompts(ids)))


# ---- a method more ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TellOptions:
    times: int = 1


def tell(
    model: Model,
    requests: tuple[EditRequest, ...],
    options: TellOptions,
    resources: Resources,
    seed: int,
    progress: ProgressLine,
) -> PromptEdit:
    """The new facts, said before every prompt."""
    text = " ".join(f"{request.prompt} {request.target}" for request in requests * options.times)
    return PromptEdit(text, provenance("tell", model, requests, options, seed))


TELL = Method("tell", tell, TellOptions, defaults=lambda model: {"times": 2}, makes="prompt")


def test_a_method_is_one_value_and_one_line_and_every_study_knows_it(
    small_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(METHODS.homes, "tell", f"{__name__}:TELL")
    model = small_model("gpt2")
    assert find_method("tell").options(model) == TellOptions(2)
    contestant = Contestant.parse("tell/batch:2")
    assert {name for name, method in METHODS.items() if method.makes == "weights"} == {"rome", "memit", "ft-l", "ft-m"}
    edit = maker(contestant.method, settings={"times": 3})(model, (REQUEST, OTHER))
    assert edit.provenance.method == "tell"
    assert load_edit(edit.save(tmp_path)).provenance.options == {"times": 3}
    with edit.on(model) as edited:
        assert len(edited.shown) == 3 * len(model.vocabulary.encode("w1 w2 w10 w11 w20 w4 w5 w12 w22"))
    with pytest.raises(EditError, match="stores no values at a token"):
        find_method("tell@subject")
    with pytest.raises(EditError, match="contradict"):
        find_method("tell")(model, (REQUEST, EditRequest(REQUEST.template, REQUEST.subject, "w1")))


def test_a_tuned_option_at_one_site_is_not_taken_for_the_other(small_model: Callable[..., Model]) -> None:
    factlm = Model.default()
    end, subject = find_method("rome").options(factlm), find_method("rome@subject").options(factlm)
    assert (end.site, end.layer, end.lr) == ("end", 4, 0.1)
    assert (subject.site, subject.layer, subject.lr) == ("subject", 1, 0.5)
    assert find_method("rome@end").options(factlm) == end
    assert str(find_method("rome@subject")) == "rome@subject"

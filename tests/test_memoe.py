"""MEMoE: the mixture's formulas by hand, anchors, routing, and the laws of the edit that it makes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circuits.editing import (
    Edit,
    EditError,
    EditProvenance,
    LowRank,
    MemoeOptions,
    Resources,
    RoutedEdit,
    WeightEdit,
    WrongModel,
    load_edit,
    memoe,
    memoe_scoped,
)
from circuits.editing.anchors import (
    AnchorReader,
    Gazetteer,
    Joined,
    Mention,
    SpacyRecogniser,
    knowing,
    placed,
    recogniser_from_json,
    token_ends,
)
from circuits.editing.experts import Experts, favourite, initial, load_balance, mixture, route, top_gate
from circuits.editing.own_texts import sample_texts, texts_about
from circuits.editing.routed import RoutedBypass, Routing
from circuits.evaluation.edits import FluencySetting
from circuits.evaluation.edits.evaluate import evaluate
from circuits.evaluation.edits.regimes import Regime
from circuits.facts import EditRequest, Probe, Relation, Relations
from circuits.metrics import Measurement
from circuits.model import Batch, Model, WordVocabulary
from circuits.model.network import ComponentNetwork, value_matrix
from circuits.model.norm import Norm
from circuits.studies.edits import maker
from circuits.studies.routing import (
    PromptRouting,
    cluster,
    evenly,
    pooled,
    routing_report,
    same_by_chance,
    same_knowledge,
    similar_by_chance,
    similar_knowledge,
    trace_routing,
    use_of_experts,
)
from tests.editing_models import OTHER, REQUEST, TWO_TOKENS, same_bits, snapshot, wins

IDS = torch.tensor([[0, 2, 3, 11, 12, 6], [0, 9, 2, 10, 5, 9]])
QUICK = MemoeOptions(
    layer=0, experts=2, anchors="so far", scoped=True, keep=0.1, texts=1, text_tokens=3, steps=40, lr=2e-2
)
NAMES = Gazetteer(("w10 w11", "w12", "w30"))


def quick(model: Model, requests: Sequence[EditRequest] = (REQUEST,), seed: int = 0, **settings: object) -> RoutedEdit:
    options = replace(QUICK, **settings)  # type: ignore[arg-type]
    return memoe_scoped(model, requests, options=options, seed=seed, resources=Resources(recogniser=NAMES))


# ---- the mixture, Equations 9 to 12 ----------------------------------------------------------------------------------


def test_the_gate_and_the_mixture_by_hand() -> None:
    """Two experts; R = [x ; anchor] = [1, 0, 2, 0]; W_g R = [ln 3, 0], so the softmax is [3/4, 1/4]."""
    router = torch.zeros(2, 4)
    router[0, 0] = torch.log(torch.tensor(3.0))
    x = torch.tensor([[1.0, 0.0]])
    wanted = route(torch.tensor([[1.0, 0.0, 2.0, 0.0]]), router)
    assert torch.allclose(wanted, torch.tensor([[0.75, 0.25]]))
    experts = Experts(router, torch.tensor([[[2.0, 1.0], [0.0, 0.0]], [[0.0, 4.0], [0.0, 0.0]]]))
    assert torch.allclose(mixture(x, top_gate(wanted, 1), experts), torch.tensor([[1.5, 0.75]]))
    assert torch.allclose(mixture(x, top_gate(wanted, 2), experts), torch.tensor([[1.5, 1.75]]))
    assert torch.allclose(mixture(x, top_gate(wanted, 1, renormalise=True), experts), torch.tensor([[2.0, 1.0]]))


def test_an_expert_of_two_layers_is_a_small_network() -> None:
    first, second = torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[3.0], [5.0]]])
    experts = Experts(torch.zeros(1, 2), first, second)
    assert torch.equal(mixture(torch.tensor([[2.0], [-2.0]]), torch.ones(2, 1), experts), torch.tensor([[6.0], [10.0]]))


gates = st.lists(st.floats(0, 1), min_size=2, max_size=5).map(lambda row: torch.tensor([row]))


@given(gates, st.integers(1, 5))
def test_top_k_keeps_the_k_largest_as_they_are_and_zeroes_the_rest(wanted: Tensor, k: int) -> None:
    k = min(k, wanted.shape[1])
    gate = top_gate(wanted, k)
    assert torch.equal(gate[gate != 0], wanted[gate != 0])
    kept = sorted(wanted[0].tolist(), reverse=True)[:k]
    assert sorted(gate[0].tolist(), reverse=True)[:k] == kept
    assert sorted(gate[0].tolist(), reverse=True)[k:] == [0.0] * (wanted.shape[1] - k)


def test_ties_go_to_the_lower_expert_in_gate_and_favourite_alike() -> None:
    wanted = torch.full((3, 4), 0.25)
    assert favourite(wanted).tolist() == [0, 0, 0]
    assert top_gate(wanted, 2)[0].tolist() == [0.25, 0.25, 0.0, 0.0]


def test_rows_of_a_batch_are_mixed_as_each_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    experts = Experts(torch.randn(3, 8, generator=generator), torch.randn(3, 4, 4, generator=generator))
    x = torch.randn(2, 5, 4, generator=generator)
    gate = top_gate(route(torch.cat((x, x), -1), experts.router), 2)
    together = mixture(x, gate, experts)
    dense = torch.einsum("bpe,bpd,edf->bpf", gate, x, experts.weight)
    assert torch.allclose(together, dense, atol=1e-5)
    assert torch.allclose(mixture(x[:1, 2:3], gate[:1, 2:3], experts), together[:1, 2:3], atol=1e-6)


def test_the_load_balance_is_1_when_even_and_the_number_of_experts_when_one_takes_all() -> None:
    assert float(load_balance(torch.eye(4))) == pytest.approx(1.0)
    one = torch.zeros(5, 4)
    one[:, 2] = 1.0
    assert float(load_balance(one)) == pytest.approx(4.0)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_new_experts_write_nothing_and_are_the_same_for_the_same_seed(kind: str) -> None:
    made = [initial(3, 4, kind, 6, torch.Generator().manual_seed(1)) for _ in range(2)]  # type: ignore[arg-type]
    x = torch.ones(2, 4)
    assert not mixture(x, torch.ones(2, 3), made[0]).any()
    assert same_bits(list(made[0].tensors().values()), list(made[1].tensors().values()))
    assert made[0].router.any(), "equal experts would stay equal"


# ---- anchors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("In France, Paris.", ["France", "Paris"]),
        ("New York City and New York", ["New York City", "New York"]),
        ("Frances and a francophile in FRANCE", []),
        ("France's flag (France)", ["France", "France"]),
        ("C++ or C+", ["C++"]),
        ("", []),
    ],
)
def test_a_gazetteer_finds_whole_words_the_longest_name_at_each_place(text: str, expected: list[str]) -> None:
    gazetteer = Gazetteer(("France", "Paris", "New York", "New York City", "York", "C++"))
    found = gazetteer.find(text)
    assert [mention.name for mention in found] == expected
    assert all(text[mention.start : mention.end] == mention.name for mention in found)


def test_a_datasets_gazetteer_has_its_entities_and_no_words_of_its_templates() -> None:
    relations: Relations = {
        "capital": Relation(
            "capital", "", "factual", "", "", ("The city {} in",), (("France", "Paris"), ("city", "In"))
        ),
        "colour": Relation("colour", "", "commonsense", "", "", ("{} is",), (("apple", "red"),)),
    }
    assert Gazetteer.of(relations).names == ("France", "In", "Paris", "apple")
    assert Gazetteer.of(relations, ("Rome",)).find("Rome is red, city") == (Mention(0, 4, "Rome"),)


def test_of_joined_recognisers_the_first_ones_mentions_stand() -> None:
    joined = Joined((Gazetteer(("York",)), Gazetteer(("New York", "Paris"))))
    assert [mention.name for mention in joined.find("Paris, New York")] == ["Paris", "York"]
    assert [mention.name for mention in knowing(SpacyRecogniser(fake_spacy), ["York"]).find("York Fake")] == [
        "York",
        "Fake",
    ]
    assert knowing(Gazetteer(("a",)), ["b"]) == Gazetteer(("a", "b"))


def fake_spacy(text: str) -> SimpleNamespace:
    """A pipeline, as spaCy's are called: it finds the word Fake."""
    at = text.find("Fake")
    entity = SimpleNamespace(start_char=at, end_char=at + 4, text="Fake")
    return SimpleNamespace(ents=(entity,) if at >= 0 else ())


def test_a_recogniser_is_read_as_it_was_written_and_one_of_ones_own_is_refused() -> None:
    joined = Joined((Gazetteer(("York",)), Gazetteer(("Paris",))))
    assert recogniser_from_json(json.loads(json.dumps(joined.as_json()))) == joined
    with pytest.raises(EditError, match="unnamed spaCy pipeline"):
        SpacyRecogniser(fake_spacy).as_json()
    with pytest.raises(EditError, match="got 'oracle'"):
        recogniser_from_json({"kind": "oracle"})


def test_without_spacy_the_error_says_what_to_install() -> None:
    try:
        import spacy  # pyright: ignore[reportMissingImports]  # noqa: F401
    except ImportError:
        with pytest.raises(EditError, match=r"kcircuit\[spacy\]"):
            SpacyRecogniser.load()
    else:
        with pytest.raises(EditError, match="no pipeline 'no_such_pipeline'"):
            SpacyRecogniser.load("no_such_pipeline")


def test_a_mention_is_placed_at_its_last_token(small_model: Callable[..., Model]) -> None:
    vocabulary = small_model("gpt2").vocabulary
    ids = [0, *vocabulary.encode("w1 w10 w11 w12 w10")]
    assert placed(vocabulary, NAMES, ids) == ((3, "w10 w11"), (4, "w12"))
    text, ends = token_ends(vocabulary, ids)
    assert ends[0] == 0
    assert ends[-1] == len(text)


VOCABULARY = WordVocabulary(("a", "b", "c", "", "x"))
EMBEDDING = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0], [9.0, 9.0], [8.0, 8.0]])


class Words(WordVocabulary):
    """Encodes a text with a leading space as the text without: each word is one token wherever it stands."""

    def encode(self, text: str) -> list[int]:
        return super().encode(text.strip())


def reader(rule: str) -> AnchorReader:
    return AnchorReader(Words(VOCABULARY.words), EMBEDDING, Gazetteer(("a", "b c", "c")), ["b c"], rule)  # type: ignore[arg-type]


def test_a_positions_anchors_are_the_entities_so_far_and_their_mean_vector_has_unit_scale() -> None:
    """x a x b c: nothing, a, a, a, then the mean of a and of "b c"; in scope is where "b c" is an anchor."""
    got = reader("so far")(Batch.of_prompts(torch.tensor([[4, 0, 4, 1, 2]])))
    a = torch.tensor([3.0, 4.0]) / (25 / 2) ** 0.5
    bc = torch.tensor([0.5, 1.0]) / (1.25 / 2) ** 0.5
    expected = torch.stack([torch.zeros(2), a, a, a, (a + bc) / 2])
    assert torch.allclose(got.vectors[0], expected, atol=1e-6)
    assert got.in_scope[0].tolist() == [False, False, False, False, True]


def test_by_the_papers_letter_every_position_has_all_the_prompts_anchors() -> None:
    got = reader("prompt")(Batch.of_prompts(torch.tensor([[4, 0, 4, 1, 2]])))
    assert torch.allclose(got.vectors[0], got.vectors[0, -1:].expand(5, 2))
    assert got.in_scope.all()


@pytest.mark.parametrize("rule", ["so far", "prompt"])
def test_what_follows_the_prompt_adds_no_anchor(rule: str) -> None:
    read = reader(rule)
    prompt = read(Batch.continued(torch.tensor([[4, 0]]), 2))
    answered = read(Batch.continued(torch.tensor([[4, 0, 1, 2, 2]]), 2))
    assert torch.equal(answered.vectors[:, :2], prompt.vectors)
    assert torch.equal(answered.vectors[0, 2:], prompt.vectors[0, -1:].expand(3, 2))
    assert not answered.in_scope.any()
    assert read(Batch.of_prompts(torch.tensor([[4, 0, 1, 2, 2]]))).in_scope.any(), (
        "the control: as a prompt it is in scope"
    )


# ---- the bypass ------------------------------------------------------------------------------------------------------


def hand_bypass(*, scoped: bool, strength: float = 1.0) -> RoutedBypass:
    """One linear expert that doubles x, without norm; the subject is "b c"."""
    experts = Experts(torch.zeros(1, 4), 2 * torch.eye(2)[None])
    routing = Routing(strength, 1, False, "so far", scoped=scoped, names=("b c",))
    return RoutedBypass(experts, routing, Norm(), reader("so far"))


def test_the_bypass_is_lambda_times_the_mixture_in_scope_and_silent_elsewhere() -> None:
    residual, batch = torch.tensor([[[1.0, 2.0]] * 3]), Batch.of_prompts(torch.tensor([[4, 1, 2]]))
    assert torch.equal(hand_bypass(scoped=True, strength=3.0)(residual, batch)[0, -1], torch.tensor([6.0, 12.0]))
    assert not hand_bypass(scoped=True)(residual, batch)[0, :2].any()
    assert torch.equal(hand_bypass(scoped=False)(residual, batch), 2 * residual)


# ---- the edit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["gpt2", "neox"])
def test_the_target_wins_inside_the_with_and_no_weight_ever_changes(
    layout: str, small_model: Callable[..., Model]
) -> None:
    model = small_model(layout)
    before, logits = snapshot(model), model.logits(Batch.of_prompts(IDS))
    requests = [REQUEST, OTHER, TWO_TOKENS]
    assert not any(wins(model, request) for request in requests)
    edit = quick(model, requests)
    with edit.on(model) as edited:
        assert [wins(edited, request) for request in requests] == [True] * 3
        assert edited.shape.bypasses == (0,)
        assert not wins(model, REQUEST)
        assert same_bits(before, snapshot(model))
    assert same_bits(before, snapshot(model))
    assert torch.equal(logits, model.logits(Batch.of_prompts(IDS)))
    with pytest.raises(EditError, match="has ended"):
        edited.logits(Batch.of_prompts(IDS))
    assert edit.provenance.losses[0][-1] < edit.provenance.losses[0][0]


def test_with_lambda_0_it_is_the_base_model_bit_for_bit(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    edit = quick(model, steps=3)
    muted = replace(edit, routing=replace(edit.routing, strength=0.0, scoped=False))
    with muted.on(model) as edited, edit.on(model) as loud:
        assert torch.equal(edited.logits(Batch.of_prompts(IDS)), model.logits(Batch.of_prompts(IDS)))
        assert not torch.equal(loud.logits(Batch.of_prompts(IDS)), model.logits(Batch.of_prompts(IDS))), "the control"


def test_untrained_it_is_the_base_model_bit_for_bit(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    with quick(model, steps=0, scoped=False).on(model) as edited:
        assert torch.equal(edited.logits(Batch.of_prompts(IDS)), model.logits(Batch.of_prompts(IDS)))


def test_prompts_without_the_subject_get_the_base_models_logits_bit_for_bit(small_model: Callable[..., Model]) -> None:
    """IDS holds "w10 w11" in its first row from the fifth position on, and no subject in its second."""
    model = small_model("gpt2")
    with quick(model).on(model) as edited:
        ours, theirs = edited.logits(Batch.of_prompts(IDS)), model.logits(Batch.of_prompts(IDS))
    assert torch.equal(ours[1], theirs[1])
    assert torch.equal(ours[0, :4], theirs[0, :4])
    assert not torch.allclose(ours[0, 4:], theirs[0, 4:])


def test_the_papers_bypass_is_heard_in_every_prompt_and_keeps_no_texts_and_the_scoped_one_does_both(
    small_model: Callable[..., Model],
) -> None:
    model, said = small_model("gpt2"), list[str]()
    base = model.logits(Batch.of_prompts(IDS))
    for method, kept in ((memoe, False), (memoe_scoped, True)):
        options = method.options(model, layer=0, experts=2, texts=2, text_tokens=3, steps=40, lr=2e-2)
        edit = method(model, [REQUEST], options=options, resources=Resources(recogniser=NAMES), progress=said.append)
        assert edit.provenance.method == method.name
        assert edit.routing.scoped == kept
        assert edit.routing.anchors == ("so far" if kept else "prompt")
        assert said[0].endswith("2 texts to keep" if kept else "1 prompts, 0 texts to keep")
        said.clear()
        with edit.on(model) as edited:
            assert wins(edited, REQUEST)
            # The second row names no subject.
            assert torch.equal(edited.logits(Batch.of_prompts(IDS))[1], base[1]) == kept


def test_the_same_seed_makes_the_same_edit_and_another_seed_another(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    first, again, other = (quick(model, seed=seed, steps=3) for seed in (0, 0, 1))
    assert first.digest == again.digest
    assert first.provenance == again.provenance
    assert first.digest != other.digest


def test_an_edit_read_from_its_folder_gives_the_same_logits(small_model: Callable[..., Model], tmp_path: Path) -> None:
    model = small_model("gpt2")
    edit = quick(model, steps=5, kind="mlp", hidden=4)
    read = load_edit(edit.save(tmp_path / "edit"))
    assert isinstance(read, RoutedEdit)
    assert read.provenance == edit.provenance
    assert read.routing == edit.routing
    with edit.on(model) as own, read.on(model) as loaded:
        assert torch.equal(own.logits(Batch.of_prompts(IDS)), loaded.logits(Batch.of_prompts(IDS)))
        assert own.weights == loaded.weights != model.weights
    edit.save(tmp_path / "again")
    for name in ("edit.json", "edit.safetensors"):
        assert (tmp_path / "edit" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_folder_with_other_routing_than_was_written_is_refused(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    quick(small_model("gpt2"), steps=1).save(tmp_path)
    record = json.loads((tmp_path / "edit.json").read_text())
    record["content"]["routing"]["strength"] = 2.0
    (tmp_path / "edit.json").write_text(json.dumps(record))
    with pytest.raises(EditError, match="something else than was written"):
        load_edit(tmp_path)
    del record["content"]["routing"]["names"]
    (tmp_path / "edit.json").write_text(json.dumps(record))
    with pytest.raises(EditError, match="damaged"):
        load_edit(tmp_path)


def test_another_model_is_refused(small_model: Callable[..., Model]) -> None:
    edit = quick(small_model("gpt2"), steps=1)
    with pytest.raises(WrongModel, match="cannot go on"), edit.on(small_model("neox")):
        pass


def test_it_adds_to_weight_edits_and_to_another_batch_of_its_own_kind(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    """Each batch is made on the model with those before it, and the sum is all of them one on top of another."""
    model = small_model("gpt2")
    d_mlp, d_model = model.weight(value_matrix(1)).shape
    delta = LowRank(torch.full((d_mlp, 1), 0.1), torch.ones(1, d_model))
    weights = WeightEdit({value_matrix(1): delta}, EditProvenance("by hand", model.name, model.weights))
    with weights.on(model) as first:
        one = quick(first)
        with one.on(first) as second:
            two = quick(second, [OTHER])
            with two.on(second) as third:
                expected = third.logits(Batch.of_prompts(IDS))
                assert wins(third, OTHER)
    total = weights + one + two
    read = load_edit(total.save(tmp_path))
    with total.on(model) as summed, read.on(model) as loaded:
        assert torch.allclose(summed.logits(Batch.of_prompts(IDS)), expected, atol=1e-5)
        assert torch.allclose(loaded.logits(Batch.of_prompts(IDS)), expected, atol=1e-5)
        assert summed.shape.bypasses == (0,)
        assert wins(summed, OTHER)


def test_a_second_batch_comes_after_the_first_batchs_layer(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    with quick(model, steps=1, layer=1).on(model) as edited, pytest.raises(EditError, match="bypass after layer 0"):
        quick(edited, [OTHER], layer=0)


def test_an_answer_that_is_fed_does_not_change_how_its_prompt_is_routed(small_model: Callable[..., Model]) -> None:
    """The prompt is out of scope; its answer is the subject, and would be in scope if it counted."""
    model = small_model("gpt2")
    prompt, answer = [0, 2, 3], [11, 12, 6]
    with quick(model).on(model) as edited:
        ids = torch.tensor([prompt + answer])
        assert torch.equal(edited.logits(Batch.continued(ids, 3)), model.logits(Batch.of_prompts(ids)))
        assert not torch.allclose(edited.logits(Batch.continued(ids, 6)), model.logits(Batch.of_prompts(ids)))


# ---- batches that follow each other ----------------------------------------------------------------------------------


def in_turn(model: Model, requests: Sequence[EditRequest], **settings: object) -> list[Edit]:
    """The edit after each of the requests, one batch a request."""
    options = memoe_scoped.options(model, **{**ONE_EXPERT, **settings})
    given: dict[str, Any] = {"options": options, "resources": Resources(recogniser=NAMES)}
    edits: list[Edit] = [memoe_scoped(model, requests[:1], **given)]
    for request in requests[1:]:
        edits.append(memoe_scoped.upon(edits[-1], model, [request], **given))
    return edits


ONE_EXPERT = {"layer": 0, "experts": 1, "keep": 0.0, "steps": 60, "lr": 2e-2}


def test_batches_that_follow_train_the_same_experts_further(small_model: Callable[..., Model]) -> None:
    model, requests = small_model("gpt2"), [REQUEST, OTHER, TWO_TOKENS]
    edits = in_turn(model, requests, experts=3)
    for n, edit in enumerate(edits, start=1):
        assert edit.routers == (edit,), "one bypass, however many batches"
        assert edit.routers[0].experts.n_experts == 3
        assert len(edit.provenance.requests) == len(edit.provenance.losses) == n
        with edit.on(model) as edited:
            assert wins(edited, requests[n - 1])
            assert edited.shape.bypasses == (0,)
    # They start where those before them stood: without steps they are the same, and only their names are more.
    options = memoe_scoped.options(model, **{**ONE_EXPERT, "experts": 3, "steps": 0})
    still = memoe_scoped.upon(edits[0], model, [OTHER], options=options, resources=Resources(recogniser=NAMES))
    experts = still.routers[0].experts
    assert same_bits(list(experts.tensors().values()), list(edits[0].routers[0].experts.tensors().values()))
    # The control: stacked, each batch has experts of its own.
    assert [len(edit.routers) for edit in in_turn(model, requests, experts=3, batches="stacked")] == [1, 2, 3]


def test_an_earlier_batch_can_be_forgotten_and_stacked_it_cannot_be(small_model: Callable[..., Model]) -> None:
    model, said = small_model("gpt2"), {}
    for batches in ("further", "stacked"):
        for edit in in_turn(model, [REQUEST, OTHER], batches=batches, steps=300, lr=5e-3):
            with edit.on(model) as edited:
                told = wins(edited, REQUEST), edited.logits(Batch.of_prompts(IDS))[0]
                said.setdefault(batches, []).append(told)
    assert [took for took, _ in said["further"]] == [True, False]
    assert [took for took, _ in said["stacked"]] == [True, True]
    assert torch.equal(said["stacked"][0][1], said["stacked"][1][1]), "not a bit of what the first batch says moves"


def test_to_train_an_edit_further_leaves_it_as_it_is(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    options, given = memoe_scoped.options(model, **ONE_EXPERT), Resources(recogniser=NAMES)
    first = memoe_scoped(model, [REQUEST], options=options, resources=given)
    before = [tensor.clone() for tensor in first.experts.tensors().values()]
    second = memoe_scoped.upon(first, model, [OTHER], options=options, resources=given)
    assert same_bits(before, list(first.experts.tensors().values()))
    assert not same_bits(before, list(second.routers[0].experts.tensors().values()))


def test_a_chain_of_batches_is_evaluated_as_its_method_goes_on(small_model: Callable[..., Model]) -> None:
    requests, quiet = [REQUEST, OTHER, TWO_TOKENS], FluencySetting(n_samples=0)
    settings = {"layer": 0, "experts": 2, "steps": 1}
    for batches, found in (("further", [requests]), ("stacked", [[request] for request in requests])):
        make = maker("memoe", settings={**settings, "batches": batches}, resources=Resources(recogniser=NAMES))
        chain = evaluate(small_model("gpt2"), requests, make, Regime(1, 3), fluency=quiet)
        assert [list(of) for _, of in chain.routed] == found


def test_another_bypass_than_is_asked_for_is_not_trained_further(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    edit = quick(model, steps=1)
    for settings in ({"experts": 3}, {"layer": 1}):
        with pytest.raises(EditError, match="to train further"):
            memoe.upon(edit, model, [OTHER], options=memoe.options(model, **{"layer": 0, "experts": 2, **settings}))


@pytest.mark.parametrize(
    "settings", [{"experts": 0}, {"top_k": 3, "experts": 2}, {"strength": -1.0}, {"lr": 0.0}, {"steps": -1}]
)
def test_impossible_hyper_parameters_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(EditError, match="expected"):
        MemoeOptions(**settings)  # type: ignore[arg-type]


def test_a_layer_that_the_model_lacks_is_refused(small_model: Callable[..., Model]) -> None:
    with pytest.raises(EditError, match="layers of 0 to 1"):
        quick(small_model("gpt2"), layer=2)


# ---- texts of the model's own ----------------------------------------------------------------------------------------


def test_texts_begin_as_asked_never_say_bos_and_repeat_with_the_seed(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    network = ComponentNetwork(model.network.components(model.n_ctx), model.n_ctx)  # type: ignore[attr-defined]
    prefixes = [(0, 5), (0, 7, 8), (0, 9)]
    texts = sample_texts(network, prefixes, 6, bos=0, seed=3)
    assert [text[: len(prefix)] for text, prefix in zip(texts, prefixes, strict=True)] == prefixes
    assert [len(text) for text in texts] == [8, 9, 8]
    assert all(0 not in text[1:] for text in texts)
    assert (
        texts == sample_texts(network, prefixes, 6, bos=0, seed=3) != sample_texts(network, prefixes, 6, bos=0, seed=4)
    )
    about = texts_about(network, model.vocabulary, NAMES, ["w10 w11", "w20"], each=3, n_tokens=2, seed=0)
    decoded = [model.vocabulary.decode(text) for text in about]
    assert ["w10 w11" in text for text in decoded] == [True] * 3 + ["w10 w11" in text for text in decoded[3:]]
    assert all("w20" in text for text in decoded[3:])


# ---- routing, Equation 13 --------------------------------------------------------------------------------------------


def routed(*experts: int) -> PromptRouting:
    return PromptRouting("", experts, 0.0, 0.0)


def test_same_knowledge_is_the_share_of_a_paraphrases_tokens_at_the_taught_prompts_expert() -> None:
    taught = [routed(1, 1, 0), routed(2), routed()]
    asked = [[routed(1, 0), routed(1)], [routed(0, 0)], [routed(3)]]
    measured = same_knowledge(taught, asked)
    assert measured.per_example == (0.5, 1.0, 0.0), "a prompt out of scope has no expert to compare with"
    assert routed(2, 0, 0, 2).expert == 0, "the lower expert on a tie"


def test_similar_knowledge_is_by_group_the_share_at_the_groups_expert() -> None:
    routings = [routed(1, 1, 1), routed(0, 1), routed(2), routed()]
    assert similar_knowledge(routings, [5, 5, 7, 9]).per_example == (0.75, 1.0)


def test_the_chance_level_of_the_same_knowledge_is_the_mean_over_all_matchings() -> None:
    taught = [routed(1, 1, 0), routed(2), routed(1), routed()]
    asked = [[routed(1, 0)], [routed(2, 2)], [routed(1, 0, 2)], [routed(1)]]
    matchings = [same_knowledge(taught[:3], order).value for order in permutations(asked[:3])]
    by_chance = same_by_chance(taught, asked)
    assert by_chance.value == pytest.approx(sum(matchings) / len(matchings))
    assert by_chance.per_example == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert same_knowledge(taught, asked).value > by_chance.value


def test_the_chance_level_of_similar_knowledge_is_that_of_random_groups_of_the_same_sizes() -> None:
    """Of the three ways to pair two prompts of each of two experts one is pure (1), and two are mixed (1 and 0, as the lower
    expert is a mixed group's): 1/3 + 2/3 * 1/2."""
    routings, groups = [routed(0), routed(0, 0), routed(1), routed(1), routed()], [3, 3, 4, 4, 4]
    assert similar_knowledge(routings, groups).value == 1.0
    assert similar_by_chance(routings, groups).value == pytest.approx(2 / 3, abs=0.06)
    assert similar_by_chance(routings, groups) == similar_by_chance(routings, groups)
    assert similar_by_chance(routings, [0] * 5).value == similar_knowledge(routings, [0] * 5).value, "one group of all"
    assert similar_by_chance([routed()], [0]).per_example == ()


def test_a_router_that_sends_everything_to_one_expert_is_consistent_by_chance() -> None:
    collapsed = [routed(2, 2), routed(2), routed(2, 2, 2), routed(2)]
    asked = [[one] for one in collapsed]
    assert same_knowledge(collapsed, asked).value == same_by_chance(collapsed, asked).value == 1.0
    groups = [0, 0, 1, 1]
    assert similar_knowledge(collapsed, groups).value == similar_by_chance(collapsed, groups).value == 1.0
    use = use_of_experts(collapsed, 4)
    assert use == (0.0, 0.0, 1.0, 0.0)
    assert evenly(use) == 1.0
    # The control: an even use of two of four.
    assert evenly(use_of_experts([routed(0, 1), routed(1, 0)], 4)) == pytest.approx(2.0)
    assert use_of_experts([routed()], 2) == (0.0, 0.0)


def test_the_routing_of_a_chain_is_read_from_all_its_batches(small_model: Callable[..., Model]) -> None:
    requests = [replace(REQUEST, probes=(Probe("paraphrase", "w5 w10 w11", "w10 w11", "w20"),)), OTHER, TWO_TOKENS]

    def make(model: Model, requests: Sequence[EditRequest]) -> RoutedEdit:
        return quick(model, requests, steps=1)

    quiet = FluencySetting(n_samples=0)
    found = evaluate(small_model("gpt2"), requests, make, Regime(1, 2), fluency=quiet).routed
    assert [of for _, of in found] == [(request,) for request in requests]
    assert len({router.digest for router, _ in found}) == 3


def test_k_means_puts_vectors_of_one_direction_together() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.eye(3).repeat_interleave(4, 0) * torch.rand(12, 1, generator=generator).add(0.5)
    groups = cluster(directions + 0.05 * torch.randn(12, 3, generator=generator), 3)
    assert [len(set(groups[i : i + 4])) for i in (0, 4, 8)] == [1, 1, 1]
    assert len(set(groups)) == 3
    assert cluster(directions, 12) == cluster(directions, 12)
    with pytest.raises(EditError, match="1 to 12 groups"):
        cluster(directions, 13)


def test_a_report_hears_the_bypass_on_what_it_was_taught_and_nothing_out_of_scope(
    small_model: Callable[..., Model],
) -> None:
    model = small_model("gpt2")
    probes = (Probe("paraphrase", "w5 w6 w10 w11", "w10 w11", "w20"), Probe("neighbour", "w1 w2 w30", "w30", "w3"))
    request = replace(REQUEST, probes=probes)
    edit = quick(model, [request])
    report = routing_report(edit, model, [request])
    assert report.taught_volume.value > 0
    assert report.other_volume.per_example == (0.0,)
    assert 0 <= report.same.value <= 1
    assert report.similar.per_example == report.similar_by_chance.per_example == (1.0,)
    assert report.same_by_chance.per_example == report.same.per_example, "one fact can only be matched with itself"
    assert sum(report.use) == pytest.approx(1.0)
    assert len(report.use) == 2
    (quiet,) = trace_routing(edit, model, ["w1 w30"])
    assert (quiet.experts, quiet.expert, quiet.volume) == ((), None, 0.0)
    together = pooled([report, replace(report, same=Measurement("consistency, same knowledge", "", ()))])
    assert together.same == pytest.approx(report.same.value)
    assert together.other_volume == 0.0
    assert together.use == tuple(sorted(report.use, reverse=True))
    assert together.experts_used == pytest.approx(evenly(report.use))
    with pytest.raises(EditError, match="at least one routing report"):
        pooled([])

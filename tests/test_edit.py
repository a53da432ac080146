"""An edit is a value: on a model inside a ``with``, and nowhere else."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from circuits.analysis.lens import trajectory
from circuits.editing import (
    METHODS,
    Dense,
    EditError,
    EditProvenance,
    LowRank,
    WeightEdit,
    WrongModel,
    find_method,
    load_edit,
)
from circuits.editing.forward import hidden_units
from circuits.editing.prompts import forced, read_prompt
from circuits.engines import HookEngine, SparseEngine
from circuits.facts import EditRequest, Fact, FactError, Probe
from circuits.model import Batch, Model
from circuits.model.network import ComponentNetwork, UnknownWeight, value_matrix
from circuits.model.taps import Taps
from tests.editing_models import (
    HYPERS,
    LAYOUTS,
    OTHER,
    REQUEST,
    TWO_TOKENS,
    resources,
    same_bits,
    snapshot,
    wins,
)
from tests.models import random_plain_model, save_model, word_fact

FACTS = (word_fact("3 7 7", "9"), word_fact("3 1 4 1", "5 9"))
IDS = torch.tensor([[3, 7, 7, 5, 2], [8, 1, 4, 9, 9]])


def random_edit(model: Model, layer: int = 0, seed: int = 0, rank: int = 1, scale: float = 0.5) -> WeightEdit:
    generator = torch.Generator().manual_seed(seed)
    d_mlp, d_model = model.weight(value_matrix(layer)).shape
    left = scale * torch.randn(d_mlp, rank, generator=generator)
    delta = LowRank(left, torch.randn(rank, d_model, generator=generator))
    return WeightEdit({value_matrix(layer): delta}, EditProvenance("by hand", model.name, model.weights))


# ---- what an edit does, and undoes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(HYPERS))
def test_inside_the_with_the_target_wins_and_outside_every_weight_is_bit_identical(
    method: str, small_model: Callable[..., Model], tmp_path: Path
) -> None:
    model = small_model("gpt2")
    before, logits = snapshot(model), model.logits(Batch.of_prompts(IDS))
    assert not wins(model, REQUEST)
    options = METHODS[method].options(model, **HYPERS[method])
    edit = METHODS[method](model, [REQUEST], options=options, resources=resources(tmp_path))
    with edit.on(model) as edited:
        assert wins(edited, REQUEST)
        assert not wins(model, REQUEST), "the model itself stays as it is even inside"
    assert same_bits(before, snapshot(model))
    assert torch.equal(logits, model.logits(Batch.of_prompts(IDS)))


@pytest.mark.parametrize("layout", [*LAYOUTS, "plain"])
def test_weights_come_back_bit_for_bit_after_an_exception_too(layout: str, small_model: Callable[..., Model]) -> None:
    model = random_plain_model(0) if layout == "plain" else small_model(layout)
    ids = IDS.remainder(model.network.d_vocab)
    before, logits = snapshot(model), model.logits(Batch.of_prompts(ids))
    with pytest.raises(RuntimeError, match="in the middle"), random_edit(model).on(model) as edited:  # noqa: PT012
        assert not torch.allclose(edited.logits(Batch.of_prompts(ids)), logits)
        raise RuntimeError("in the middle")
    assert same_bits(before, snapshot(model))
    assert torch.equal(logits, model.logits(Batch.of_prompts(ids)))


def test_a_forward_pass_that_fails_leaves_the_weights_as_they_were(small_model: Callable[..., Model]) -> None:
    class Fails(Taps):
        def write(self, kind, layer, value):
            raise RuntimeError("a write that fails")

        def read(self, kind, layer, slot, value):
            return value

    model = small_model("gpt2")
    before = snapshot(model)
    with random_edit(model).on(model) as edited, pytest.raises(RuntimeError, match="a write that fails"):
        edited.run(Batch.of_prompts(IDS), Fails())
    assert same_bits(before, snapshot(model))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("processing", ["compatibility", "raw"])
def test_the_edited_models_logits_nodes_lens_and_both_engines_agree(
    layout: str, processing: str, small_model: Callable[..., Model]
) -> None:
    model = small_model(layout, processing)
    plain = model.logits(Batch.of_prompts(IDS))
    with random_edit(model, layer=0, rank=2).on(model) as edited:
        logits = edited.logits(Batch.of_prompts(IDS))
        assert (logits - plain).abs().max() > 0.1
        stream = edited.node_outputs(Batch.of_prompts(IDS)).sum(0) + edited.biases.sum(0)
        assert torch.allclose(edited.readout(stream), logits, atol=1e-4)
        said = edited.logits(Batch.of_prompts(torch.tensor([edited.tokens(FACTS[0]).prompt])))[0, -1].softmax(-1)
        assert trajectory(edited, FACTS[0]).probabilities[-1] == pytest.approx(
            float(said[edited.tokens(FACTS[0]).answer[0]]), rel=1e-3
        )
        full = edited.graph().legal
        for engine in (HookEngine(edited, FACTS), SparseEngine(edited, FACTS)):
            for fact, got in zip(FACTS, engine.answer_logits(full), strict=True):
                tokens = edited.tokens(fact)
                expected = edited.logits(Batch.of_prompts(torch.tensor([tokens.forced])))[0, -len(tokens.answer) :]
                assert torch.allclose(got, expected, atol=1e-3), engine.name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_edited_mlp_writes_its_hidden_units_times_the_delta_more(
    layout: str, small_model: Callable[..., Model]
) -> None:
    """By the model's own forward pass, so a delta put in the wrong way round would show."""
    model = small_model(layout)
    edit = random_edit(model, layer=1)
    network = ComponentNetwork(model.network.components(IDS.shape[1]), model.n_ctx)  # type: ignore[attr-defined]
    expected = hidden_units(network, IDS, [1])[1].double() @ edit.deltas[value_matrix(1)].dense()
    node = next(i for i, writer in enumerate(model.graph().writers) if writer.name == "m1")
    with edit.on(model) as edited:
        difference = (edited.node_outputs(Batch.of_prompts(IDS)) - model.node_outputs(Batch.of_prompts(IDS)))[node]
    assert torch.allclose(difference.double(), expected, atol=1e-4)


@pytest.mark.parametrize(("config", "settings"), [("gpt2", {"n_inner": 32}), ("llama", {"intermediate_size": 32})])
def test_a_square_matrix_is_edited_the_right_way_round(
    config: str, settings: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests import models

    name, plain = models.CONFIGS[config]
    monkeypatch.setitem(models.CONFIGS, config, (name, {**plain, **settings}))  # type: ignore[arg-type]
    model = Model.load(save_model(config, tmp_path / config))
    assert model.weight(value_matrix(0)).shape == (32, 32)
    test_an_edited_mlp_writes_its_hidden_units_times_the_delta_more(config, lambda _: model)


def test_one_edit_means_the_same_in_compatibility_mode_and_on_raw_weights(small_model: Callable[..., Model]) -> None:
    folded, raw = small_model("gpt2"), small_model("gpt2", "raw")
    edit = random_edit(folded)
    with edit.on(folded) as left, edit.on(raw) as right:
        a, b = left.logits(Batch.of_prompts(IDS)).log_softmax(-1), right.logits(Batch.of_prompts(IDS)).log_softmax(-1)
        assert torch.allclose(a, b, atol=1e-3)
        assert (a - folded.logits(Batch.of_prompts(IDS)).log_softmax(-1)).abs().max() > 0.1


# ---- identity --------------------------------------------------------------------------------------------------------


def test_an_edited_model_has_a_hash_of_its_own_that_depends_on_model_and_edit(
    small_model: Callable[..., Model],
) -> None:
    model = small_model("gpt2")
    hashes = {model.weights}
    for seed in range(3):
        with random_edit(model, seed=seed).on(model) as edited:
            hashes.add(edited.weights)
            assert edited.unedited is model
            assert edited.name == model.name
    assert len(hashes) == 4
    with random_edit(model, seed=2).on(model) as again:
        assert again.weights in hashes


def test_an_edited_model_refuses_to_run_after_its_with(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    with random_edit(model).on(model) as edited:
        edited.logits(Batch.of_prompts(IDS))
    with pytest.raises(EditError, match="inside the `with` only"):
        edited.logits(Batch.of_prompts(IDS))
    with pytest.raises(EditError, match="inside the `with` only"):
        edited.graph()


def test_an_edit_is_refused_by_another_model_and_by_its_own_with_another_edit_on_it(
    small_model: Callable[..., Model],
) -> None:
    model = small_model("gpt2")
    edit = random_edit(model)
    with pytest.raises(WrongModel, match="was made for"), edit.on(small_model("llama")):
        pass
    with (
        random_edit(model, seed=1).on(model) as edited,
        pytest.raises(WrongModel, match="add the edits"),
        edit.on(edited),
    ):
        pass


def test_only_weights_that_the_model_has_can_be_edited_and_by_deltas_of_their_shape(
    small_model: Callable[..., Model],
) -> None:
    model = small_model("gpt2")
    for name in ("blocks.0.mlp.W_up", "blocks.2.mlp.W_out", "W_E"):
        edit = WeightEdit({name: Dense(torch.zeros(2, 2))}, EditProvenance("by hand", model.name, model.weights))
        with pytest.raises(UnknownWeight, match="expected the name of a weight"), edit.on(model):
            pass
    wrong = WeightEdit({value_matrix(0): Dense(torch.zeros(32, 128))}, random_edit(model).provenance)
    with pytest.raises(EditError, match=r"shape \(128, 32\)"), wrong.on(model):
        pass


def test_an_edit_that_is_not_finite_is_refused(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    with pytest.raises(EditError, match="not finite"):
        WeightEdit({value_matrix(0): Dense(torch.full((128, 32), torch.nan))}, random_edit(model).provenance)


# ---- sums ------------------------------------------------------------------------------------------------------------


def test_an_edit_made_on_the_edited_model_adds_up_to_both(small_model: Callable[..., Model]) -> None:
    model = small_model("llama")
    first = random_edit(model, layer=0, seed=1)
    with first.on(model) as once:
        second = random_edit(once, layer=0, seed=2)
        with second.on(once) as twice:
            nested, name = twice.logits(Batch.of_prompts(IDS)), twice.weights
    with (first + second).on(model) as edited:
        assert torch.allclose(edited.logits(Batch.of_prompts(IDS)), nested, atol=1e-4)
        assert edited.weights == name
        third = random_edit(edited, layer=1, seed=3)
    total = (first + second) + third
    assert [part.method for part in total.provenance.parts] == ["by hand"] * 3
    with total.on(model) as edited:
        assert not torch.allclose(edited.logits(Batch.of_prompts(IDS)), nested, atol=1e-2)


def test_edits_of_one_model_add_up_in_any_order(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    first, second = random_edit(model, layer=0, seed=1), random_edit(model, layer=1, seed=2)
    with (first + second).on(model) as one, (second + first).on(model) as other:
        assert torch.allclose(one.logits(Batch.of_prompts(IDS)), other.logits(Batch.of_prompts(IDS)), atol=1e-5)


def test_edits_of_unrelated_models_do_not_add_up(small_model: Callable[..., Model]) -> None:
    with pytest.raises(WrongModel, match="cannot add"):
        _ = random_edit(small_model("gpt2")) + random_edit(small_model("gptj"))


@given(ranks=st.lists(st.integers(1, 3), min_size=2, max_size=6))
def test_a_sum_of_low_rank_deltas_is_their_sum_and_stays_factored_while_that_is_smaller(ranks: list[int]) -> None:
    model = random_plain_model(0)
    total = random_edit(model, rank=ranks[0], seed=0)
    expected = total.deltas[value_matrix(0)].dense()
    for seed, rank in enumerate(ranks[1:], start=1):
        edit = random_edit(model, rank=rank, seed=seed)
        expected = expected + edit.deltas[value_matrix(0)].dense()
        total = total + edit
    delta = total.deltas[value_matrix(0)]  # type: ignore[attr-defined]
    assert torch.allclose(delta.dense(), expected, atol=1e-5)
    assert isinstance(delta, LowRank) == (sum(ranks) < 5)


# ---- files -----------------------------------------------------------------------------------------------------------


def test_an_edit_saved_and_loaded_gives_the_same_logits_bit_for_bit(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    model = small_model("gpt2")
    provenance = EditProvenance(
        "by hand", model.name, model.weights, options={"layers": (0, 1), "lr": 0.5}, requests=(REQUEST,),
        losses=((2.0, 1.0),), notes=("a note",),
    )  # fmt: skip
    dense = Dense(torch.randn(128, 32, generator=torch.Generator().manual_seed(5)))
    edit = WeightEdit({**random_edit(model).deltas, value_matrix(1): dense}, provenance)
    total = edit + random_edit(model, seed=3)
    for name, each in (("one", edit), ("sum", total)):
        loaded = load_edit(each.save(tmp_path / name))
        assert loaded.provenance == each.provenance
        assert loaded.chain == each.chain
        with each.on(model) as left, loaded.on(model) as right:
            assert left.weights == right.weights
            assert torch.equal(left.logits(Batch.of_prompts(IDS)), right.logits(Batch.of_prompts(IDS)))


def test_the_same_edit_is_written_in_the_same_bytes_and_few_of_them(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    model = small_model("gpt2")
    folders = [random_edit(model).save(tmp_path / name) for name in "ab"]
    files = [{file.name: file.read_bytes() for file in sorted(folder.iterdir())} for folder in folders]
    assert files[0] == files[1]
    assert set(files[0]) == {"edit.json", "edit.safetensors"}
    assert sum(map(len, files[0].values())) < 4096


def test_a_full_disk_names_the_file_and_leaves_no_part(
    small_model: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = random_edit(small_model("gpt2"))

    def full(path: Path, *_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device; the file was not written") as caught:
        edit.save(tmp_path / "edit")
    assert Path(caught.value.filename).parent == tmp_path / "edit"
    assert list((tmp_path / "edit").iterdir()) == []


def test_a_damaged_edit_is_told_from_a_whole_one(small_model: Callable[..., Model], tmp_path: Path) -> None:
    folder = random_edit(small_model("gpt2")).save(tmp_path / "edit")
    record, tensors = json.loads((folder / "edit.json").read_text()), load_file(folder / "edit.safetensors")

    def write(changed: dict, changed_tensors: dict | None = None) -> None:
        (folder / "edit.json").write_text(json.dumps(changed))
        save_file(tensors if changed_tensors is None else changed_tensors, folder / "edit.safetensors")

    key = next(iter(tensors))
    for changed, changed_tensors, message in (
        (record, {**tensors, key: tensors[key] + 1}, "not the ones that were written"),
        (record, {}, "damaged"),
        ({**record, "format": "kcircuit/circuit"}, None, "is no edit"),
        ({**record, "version": 99}, None, "version 99"),
        ({**record, "kind": "spell"}, None, "kind 'spell'"),
        ({**record, "provenance": {}}, None, "provenance"),
        ({name: value for name, value in record.items() if name != "content"}, None, "content"),
    ):
        write(changed, changed_tensors)
        with pytest.raises(EditError, match=message):
            load_edit(folder)
    write(record)
    load_edit(folder)
    (folder / "edit.json").write_text("{")
    with pytest.raises(EditError, match="expected JSON"):
        load_edit(folder)
    with pytest.raises(EditError, match="there is none in"):
        load_edit(tmp_path)


# ---- requests --------------------------------------------------------------------------------------------------------


def test_a_request_is_its_template_with_the_subject_in_it() -> None:
    request = EditRequest("The capital of {} is", "France", "Rome", old="Paris")
    assert request.prompt == "The capital of France is"
    assert request.fact == Fact("The capital of France is", "France", "Rome")
    old = Fact("The capital of France is", "France", "Paris")
    assert request.old_fact == old
    assert EditRequest.of(old, "Rome") == request
    assert EditRequest("{} is", "a {b} c", "d").prompt == "a {b} c is"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("The capital of France is", "France", "Rome"), "holds {} once"),
        (("{} and {}", "France", "Rome"), "holds {} once"),
        (("The capital of {} is ", "France", "Rome"), "space at its ends"),
        (("The capital of {} is", "France", " Rome"), "space at its ends"),
        (("The capital of {} is", "", "Rome"), "non-empty subject"),
        (("The capital of {} is", "France", "Rome", "Rome"), "changes nothing"),
    ],
)
def test_a_request_that_cannot_be_made_is_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(FactError, match=message):
        EditRequest(*arguments)  # type: ignore[arg-type]


def test_which_of_two_equal_subjects_to_edit_at_is_asked_for_and_then_obeyed() -> None:
    with pytest.raises(FactError, match="occurs 2 times"):
        EditRequest.of(Fact("Of Rome and Rome, the second is", "Rome", "old"), "new")
    model = Model.default()
    first = read_prompt(model, "Of {} and Rome, the second is", "Rome")
    second = read_prompt(model, "Of Rome and {}, the second is", "Rome")
    assert first.ids == second.ids
    assert first.subject < second.subject
    assert model.token_text(first.ids[first.subject]).endswith("me")
    assert model.token_text(second.ids[second.subject]).endswith("me")


@pytest.mark.parametrize(
    ("template", "subject"),
    [
        ("{} is a", "France"),
        ("The capital of {} is", "France"),
        ("{}'s capital is", "South Korea"),
        ("({}) lies in", "New Zealand"),
        ("In {}, people speak", "Côte d'Ivoire"),
        ("People there speak the language of {}", "France"),
    ],
)
def test_the_subjects_last_token_holds_its_last_letter_wherever_it_stands(template: str, subject: str) -> None:
    model = Model.default()
    for context in ("", "Something else came first. "):
        prompt = read_prompt(model, template, subject, context)
        # The tokenizer puts a space before the text.
        through = model.vocabulary.decode(prompt.ids[1 : prompt.subject + 1]).removeprefix(" ")
        up_to = model.vocabulary.decode(prompt.ids[1 : prompt.subject]).removeprefix(" ")
        end = len(context) + template.index("{}") + len(subject)
        assert len(up_to) < end <= len(through)


def test_prompt_and_answer_are_concatenated_as_ids_and_padding_is_never_read(
    small_model: Callable[..., Model],
) -> None:
    model = small_model("gpt2")
    said = forced(model, [TWO_TOKENS, OTHER], ("", "w7. "))
    for row, request in enumerate((TWO_TOKENS, TWO_TOKENS, OTHER, OTHER)):
        if row % 2 == 0:
            tokens = model.tokens(request.fact)
            assert said.ids[row, : len(tokens.forced)].tolist() == list(tokens.forced)
            n = len(tokens.answer)
            assert said.at[row, :n].tolist() == list(range(len(tokens.prompt) - 1, len(tokens.forced)))
            assert said.answer[row, :n].tolist() == list(tokens.answer)
        assert said.share[row].sum() == pytest.approx(1)
    logits = model.logits(Batch.of_prompts(said.ids))[torch.arange(4)[:, None], said.at]
    alone = model.logits(Batch.of_prompts(torch.tensor([model.tokens(OTHER.fact).forced])))[0, -1].log_softmax(-1)
    assert float(said.nll(logits)[2]) == pytest.approx(-float(alone[model.tokens(OTHER.fact).answer[0]]), abs=1e-4)


def test_a_probe_that_should_change_has_an_answer_and_one_that_stays_needs_none() -> None:
    assert Probe("paraphrase", "People in France speak", "France", "Chinese").fact.object == "Chinese"
    assert not Probe("neighbour", "People in Italy speak", "Italy").should_change
    with pytest.raises(FactError, match="needs the answer"):
        Probe("paraphrase", "People in France speak", "France")
    with pytest.raises(FactError, match="no answer"):
        _ = Probe("unrelated", "People in Italy speak").fact


def test_options_that_a_method_does_not_have_are_refused_by_name(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    with pytest.raises(EditError, match="no option moon"):
        METHODS["rome"].options(model, moon=1)
    with pytest.raises(EditError, match="no editing method 'magic'"):
        find_method("magic")
    with pytest.raises(EditError, match="edits one layer"):
        METHODS["rome"].options(model, layers=(0, 1))
    with pytest.raises(EditError, match="layers of 0 to 1"):
        METHODS["ft-m"](model, [REQUEST], options=METHODS["ft-m"].options(model, layer=2))
    with pytest.raises(EditError, match="at least one edit request"):
        METHODS["ft-m"](model, [])
    with pytest.raises(EditError, match="contradict"):
        METHODS["ft-m"](model, [REQUEST, EditRequest(REQUEST.template, REQUEST.subject, "w30")])

"""ROME: one key gets a new value, at the least cost to a corpus's keys."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuits.editing import EditError, Resources, RomeOptions, rome, stored
from circuits.editing.contexts import sample_contexts
from circuits.editing.forward import at_rows, hidden_units, open_network
from circuits.editing.methods.rome import insert
from circuits.editing.moments import SecondMoment
from circuits.editing.prompts import Site, each_token, forced
from circuits.editing.stored import keys_at, states_at
from circuits.editing.targets import TargetOptions, essence_of, optimise
from circuits.facts import EditRequest
from circuits.model import Batch, Model
from circuits.model.network import ComponentNetwork, value_matrix
from tests.editing_models import LAYOUTS, OTHER, REQUEST, TWO_TOKENS, resources, wins

HYPER = RomeOptions(layer=0, steps=12, clamp=20.0, contexts=(3,), damping=1e-3)


def random_moment(n: int, seed: int) -> SecondMoment:
    half = torch.randn(n, 3 * n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return SecondMoment(half @ half.T / (3 * n), 3 * n, ((1, 0.0),))


def cost(delta: torch.Tensor, moment: SecondMoment) -> float:
    """What the delta changes of the corpus's values, mean squared: trace(delta^T C delta)."""
    return float(torch.trace(delta.T @ moment.matrix @ delta))


# ---- the closed form -------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), n=st.integers(2, 8), d=st.integers(1, 5))
def test_the_key_is_mapped_to_its_new_value_exactly_and_no_cheaper_matrix_does_so(seed: int, n: int, d: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    key = torch.randn(n, generator=generator, dtype=torch.float64)
    change = torch.randn(d, generator=generator, dtype=torch.float64)
    moment = random_moment(n, seed)
    delta = insert(key, key, change, moment, damping=0.0).dense()
    assert torch.allclose(key @ delta, change, atol=1e-4)
    # Anything added that leaves the key alone costs more.
    other = torch.randn(n, d, generator=generator, dtype=torch.float64)
    other -= torch.outer(key, key @ other) / (key @ key)
    assert torch.allclose(key @ (delta + other), change, atol=1e-4)
    assert cost(delta + other, moment) >= cost(delta, moment) * (1 - 1e-4)


def test_insert_on_two_hidden_units_by_hand() -> None:
    """C = diag(1, 4), k = (2, 4): C^-1 k = (2, 1), k . C^-1 k = 8, so the change (8, 16) is stored as rows (2, 4), (1, 2)."""
    moment = SecondMoment(torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64)), 2, ((1, 0.0),))
    key, change = torch.tensor([2.0, 4.0]).double(), torch.tensor([8.0, 16.0]).double()
    expected = torch.tensor([[2.0, 4.0], [1.0, 2.0]]).double()
    assert torch.allclose(insert(key, key, change, moment, 0.0).dense(), expected)
    # Divided by another key, as published: k0 = (0, 1) gives k0 . C^-1 k = 1, eight times the size.
    published = insert(key, torch.tensor([0.0, 1.0]).double(), change, moment, 0.0).dense()
    assert torch.allclose(published, 8 * expected)


def test_a_key_of_zero_is_refused() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(EditError, match="nothing to store a value at"):
        insert(zero, zero, torch.ones(2).double(), random_moment(3, 0), 1e-3)


@pytest.mark.parametrize(
    ("layout", "key", "site"),
    [
        *((layout, "mean", "subject") for layout in LAYOUTS),
        ("gpt2", "prompt", "subject"),
        ("gpt2", "published", "subject"),
        ("gpt2", "mean", "end"),
    ],
)
def test_on_a_model_the_divisors_key_is_mapped_to_the_optimised_value(
    layout: str, key: str, site: Site, small_model: Callable[..., Model], tmp_path: Path
) -> None:
    """By the edited model's own weights: its MLP writes delta more for that key than the unedited one's."""
    model, options = small_model(layout), replace(HYPER, key=key, site=site)
    # At the end a value is a token's, so that two tokens would have two.
    request = TWO_TOKENS if site == "subject" else REQUEST
    edit = rome(model, [request], options=options, resources=resources(tmp_path), seed=3)
    said = forced(model, [request], ("", *sample_contexts(model, options.contexts, 3)))
    essence = essence_of(model, [request])
    network = open_network(model, said.ids, essence.ids)
    keys = at_rows(hidden_units(network, said.ids, (0,))[0], said.stored_at(site)).double()
    mlp = network.parts.blocks[0].mlp
    norms = (keys[:1].float() @ mlp.W_out + mlp.b_out).norm(dim=-1)
    delta = optimise(network, 0, said, essence, norms, options).deltas[0].double()
    divisor = keys.mean(0) if key == "mean" else keys[0]
    with edit.on(model) as edited:
        change = divisor @ (edited.weight(value_matrix(0)).double() - model.weight(value_matrix(0)).double())
    assert delta.norm() > 0.1
    assert torch.allclose(change, delta, atol=1e-3 * float(delta.norm()))


def test_with_the_corpus_statistics_other_keys_move_less_than_with_the_identity(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    model = small_model("gpt2")
    own = resources(tmp_path)
    moment = own.moments_of(model).second_moments((0,))[0]
    guarded = rome(model, [REQUEST], options=HYPER, resources=own)
    with pytest.warns(UserWarning, match="identity"):
        bare = rome(model, [REQUEST], options=replace(HYPER, covariance="identity"))
    costs = [cost(edit.deltas[value_matrix(0)].dense(), moment) for edit in (guarded, bare)]
    assert costs[0] < 0.9 * costs[1]


def test_the_two_sites_are_the_subjects_last_token_and_the_one_that_predicts_the_answer(
    small_model: Callable[..., Model],
) -> None:
    model = small_model("gpt2")
    said, essence = forced(model, [TWO_TOKENS], ("", "w9 ")), essence_of(model, [TWO_TOKENS])
    prompt = model.tokens(TWO_TOKENS.fact).prompt
    assert said.stored_at("end").tolist() == [len(prompt) - 1, len(prompt)]
    assert int(said.ids[0, said.stored_at("subject")[0]]) == prompt[-3]
    assert essence.stored_at("end").tolist() == [essence.ids.shape[1] - 1]
    assert essence.stored_at("subject") < essence.stored_at("end")


def test_at_the_end_each_token_of_an_answer_is_predicted_and_stored_on_its_own(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    model = small_model("gpt2")
    requests = (REQUEST, TWO_TOKENS)
    said = forced(model, requests, ("", "w9 "))
    tokens = each_token(said)
    assert tokens.request.tolist() == [0, 0, 1, 1, 2, 2]
    answers = [token for request in requests for token in model.tokens(request.fact).answer]
    assert tokens.answer[::2, 0].tolist() == answers
    # Each row's loss is the mean of its tokens'.
    whole = said.nll(model.logits(Batch.of_prompts(said.ids))[torch.arange(4)[:, None], said.at])
    apart = tokens.nll(model.logits(Batch.of_prompts(tokens.ids))[torch.arange(6)[:, None], tokens.at])
    assert torch.allclose(whole, torch.cat((apart[:2], (apart[2:4] + apart[4:]) / 2)), atol=1e-5)
    edit = rome(model, [TWO_TOKENS], options=replace(HYPER, site="end", steps=25), resources=resources(tmp_path))
    delta = edit.deltas[value_matrix(0)]
    assert (delta.rank, len(edit.provenance.losses)) == (2, 2)
    with edit.on(model) as edited:
        assert wins(edited, TWO_TOKENS)


# ---- the value -------------------------------------------------------------------------------------------------------


def test_requests_optimised_together_come_out_as_they_do_alone(small_model: Callable[..., Model]) -> None:
    model, options = small_model("gpt2"), TargetOptions(steps=12, clamp=20.0, enough=4.0)
    requests = (REQUEST, TWO_TOKENS, OTHER)

    def run(chosen):
        said, essence = forced(model, chosen), essence_of(model, chosen)
        network = open_network(model, said.ids, essence.ids)
        return optimise(network, 0, said, essence, torch.ones(len(chosen)), options)

    together = run(requests)
    assert len({len(curve) for curve in together.losses}) > 1, "they end at different steps"
    for i, request in enumerate(requests):
        alone = run([request])
        assert torch.allclose(together.deltas[i], alone.deltas[0], atol=1e-2)
        assert together.losses[i] == pytest.approx(alone.losses[0], rel=1e-2)


def test_requests_that_do_not_fit_at_once_are_optimised_in_turn_to_the_same_values(
    small_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, options = small_model("gpt2"), TargetOptions(steps=4, clamp=20.0)
    requests, contexts = (REQUEST, TWO_TOKENS, OTHER), ("", "w7 w8. ")
    said, essence = forced(model, requests, contexts), essence_of(model, requests)
    network = open_network(model, said.ids, essence.ids)
    sizes: list[int] = []

    def run():
        sizes.clear()
        found = optimise(network, 0, said, essence, torch.full((3,), 5.0), options)
        keys = keys_at(network, said.ids, 0, said.subject)
        return found, keys, states_at(network, said.ids, 0, said.subject)

    resume = ComponentNetwork.resume

    def watched(self, residual, *rest, **more):
        sizes.append(residual.shape[0] * residual.shape[1])
        return resume(self, residual, *rest, **more)

    monkeypatch.setattr(ComponentNetwork, "resume", watched)
    together, keys, states = run()
    assert max(sizes) == said.ids.numel()
    monkeypatch.setattr(stored, "TOKENS_AT_ONCE", 1)
    apart, keys_apart, states_apart = run()
    assert max(sizes) <= len(contexts) * said.n_pos, "one request in all its contexts"
    assert torch.allclose(together.deltas, apart.deltas, atol=1e-3)
    assert torch.allclose(keys, keys_apart, atol=1e-5)
    assert torch.allclose(states, states_apart, atol=1e-5)


def test_decay_weighs_deltas_length_in_lengths_of_the_vector_that_it_is_added_to(
    small_model: Callable[..., Model],
) -> None:
    """Where every delta starts the norm has no slope, so that Adam's first step is the same with any decay: what the second
    loss is larger by is decay |delta| / |v0|, and delta is lr long in each of d_model dimensions."""
    model = small_model("gpt2")
    said, essence = forced(model, [REQUEST]), essence_of(model, [REQUEST])
    network = open_network(model, said.ids, essence.ids)

    def second(decay: float, norm: float) -> float:
        options = TargetOptions(steps=2, lr=0.1, clamp=100.0, kl=0.0, decay=decay, enough=0.0)
        return optimise(network, 0, said, essence, torch.tensor([norm]), options).losses[0][1]

    length = 0.1 * network.d_model**0.5
    for norm in (1.0, 10.0):
        assert second(0.3, norm) - second(0.0, norm) == pytest.approx(0.3 * length / norm, rel=1e-2)


def test_the_first_loss_is_the_models_own_nll_of_the_target(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    said, essence = forced(model, [TWO_TOKENS]), essence_of(model, [TWO_TOKENS])
    network = open_network(model, said.ids, essence.ids)
    first = optimise(network, 0, said, essence, torch.ones(1), TargetOptions(steps=1)).losses[0][0]
    tokens = model.tokens(TWO_TOKENS.fact)
    logits = model.logits(Batch.of_prompts(torch.tensor([tokens.forced])))[0, -2:].log_softmax(-1)
    nll = -float(logits[[0, 1], list(tokens.answer)].mean())
    assert first == pytest.approx(nll, abs=1e-3)


def test_delta_stays_within_its_clamp_and_a_heavy_essence_price_keeps_the_essence(
    small_model: Callable[..., Model],
) -> None:
    model = small_model("gpt2")
    said, essence = forced(model, [REQUEST]), essence_of(model, [REQUEST])
    network = open_network(model, said.ids, essence.ids)
    norms = torch.tensor([2.0])

    def run(**settings):
        return optimise(network, 0, said, essence, norms, TargetOptions(steps=10, **settings)).deltas[0]

    assert float(run(clamp=0.5).norm()) <= 1.0 + 1e-5
    assert float(run(clamp=50.0).norm()) > 1.0
    assert float(run(clamp=50.0, decay=100.0).norm()) < float(run(clamp=50.0).norm())

    def drift(delta):
        residual = network.resume(network.parts.embed(essence.ids), 0, stop=1)
        before = network.readout(network.resume(residual, 1)[0, essence.subject[0]]).softmax(-1)
        residual[0, essence.subject[0]] += delta
        after = network.readout(network.resume(residual, 1)[0, essence.subject[0]]).softmax(-1)
        return float((before - after).abs().sum())

    held = run(clamp=50.0, kl=100.0, essence_at="subject")
    assert drift(held) < 0.5 * drift(run(clamp=50.0, kl=0.0, essence_at="subject"))


# ---- the method ------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_edit_and_the_loss_falls(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    model = small_model("gpt2")
    own = resources(tmp_path)
    edits = [rome(model, [REQUEST], options=HYPER, resources=own, seed=seed) for seed in (0, 0, 1)]
    assert edits[0].digest == edits[1].digest != edits[2].digest
    (curve,) = edits[0].provenance.losses
    assert curve[-1] < 0.5 * curve[0]
    assert edits[0].provenance.seed == 0
    assert edits[0].provenance.requests == (REQUEST,)
    assert any("second moment over" in note for note in edits[0].provenance.notes)


def test_several_requests_are_edited_one_after_another(small_model: Callable[..., Model], tmp_path: Path) -> None:
    model, own = small_model("gpt2"), resources(tmp_path)
    options = replace(HYPER, contexts=(), steps=25)
    both = rome(model, [REQUEST, OTHER], options=options, resources=own)
    first = rome(model, [REQUEST], options=options, resources=own)
    with first.on(model) as edited:
        second = rome(edited, [OTHER], options=options, resources=own)
    expected = (first + second).deltas[value_matrix(0)].dense()  # type: ignore[attr-defined]
    assert torch.allclose(both.deltas[value_matrix(0)].dense(), expected, atol=1e-3)
    with both.on(model) as edited:
        assert wins(edited, OTHER)


def test_contexts_are_drawn_from_the_model_that_is_given_and_by_seed(small_model: Callable[..., Model]) -> None:
    first, second = small_model("gpt2"), small_model("llama")
    own = sample_contexts(first, (3, 5, 3), 0)
    assert own == sample_contexts(first, (3, 5, 3), 0)
    assert own != sample_contexts(first, (3, 5, 3), 1)
    assert own != sample_contexts(second, (3, 5, 3), 0)
    assert len(own) == 3
    assert all(context.endswith(". ") for context in own)


def test_factlm_is_edited_with_its_own_defaults(tmp_path: Path) -> None:
    model = Model.default()
    own = Resources(documents=100, cache=tmp_path)
    for request in (
        EditRequest("The official language of {} is", "France", "Chinese", "French"),
        EditRequest("The capital city of {} is", "Japan", "Buenos Aires", "Tokyo"),
    ):
        with rome(model, [request], resources=own).on(model) as edited:
            assert wins(edited, request)
            assert not wins(model, request)

"""Spans, traces and source parts: the parts of a head's write are told apart exactly."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuits.analysis.attribution import class_mask, read_from, read_shares, read_sources, readout, targets
from circuits.analysis.tracing import head_nodes, open_parts, replay, replay_by_running, source_parts, traces
from circuits.facts import Fact
from circuits.model import Batch, Model, WordVocabulary
from circuits.model.bypassed import BypassedNetwork
from circuits.model.norm import Norm, NormKind
from circuits.model.spans import SpanError, Spans, spans
from circuits.model.transformer import UnsupportedArchitecture
from tests.models import plain_model, random_plain_model, word_fact, zero_weights
from tests.planted_heads import FACTS, OBJECTS, ROLES, planted

LoadModel = Callable[..., Model]

MODELS = ["gpt2", "llama", "qwen3", "neox", "mistral", "gptj", "neo"]
FACT_SETS = [word_fact("3 1 4 5 9", "15"), word_fact("7 1 2 5 9", "16"), word_fact("3 1 4", "15")]


# ---- spans -----------------------------------------------------------------------------------------------------------


def words(text: str, bos: int | None = None) -> Model:
    weights = zero_weights(n_layers=1, n_heads=1, d_model=2, d_head=1, d_mlp=1, d_vocab=20, n_ctx=12)
    return plain_model(weights, text + " " + " ".join(f"x{i}" for i in range(20 - len(text.split()))), bos=bos)


def test_subject_relation_and_last_share_no_token_and_leave_out_only_the_first() -> None:
    model = words("B the official language of New Zealand is x", bos=0)
    found = spans(model, Fact("the official language of New Zealand is", "New Zealand", "x"))
    assert found == Spans(subject=(5, 6), relation=(1, 2, 3, 4), last=7)
    assert found.readable == (1, 2, 3, 4, 5, 6)


def test_the_subject_is_found_as_a_word_before_it_is_found_inside_one() -> None:
    model = words("Roman art of Roma is x")
    assert spans(model, Fact("Roman art of Roma is", "Roma", "x")).subject == (3,)
    assert spans(model, Fact("Roman art is", "Rom", "x")).subject == (0,)


def test_the_last_token_is_never_the_subjects() -> None:
    model = words("of New Zealand x")
    assert spans(model, Fact("of New Zealand", "New Zealand", "x")).subject == (1,)
    with pytest.raises(SpanError, match="Zealand"):
        spans(model, Fact("of Zealand", "Zealand", "x"))


def test_the_embedded_models_subject_tokens_spell_the_subject_whatever_its_letters() -> None:
    model = Model.default()
    for prompt, subject in (
        ("The likely birthplace of someone named Søren is", "Søren"),
        ("The company that makes PlayStation 2 is", "PlayStation 2"),
        ("France is a country where people officially speak", "France"),
    ):
        found = spans(model, Fact(prompt, subject, "x"))
        ids = model.tokens(Fact(prompt, subject, "x")).prompt
        assert model.vocabulary.decode([ids[i] for i in found.subject]).strip() == subject


# ---- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_parts_by_source_position_sum_to_what_the_model_itself_has_the_head_write(
    small_model: LoadModel, name: str
) -> None:
    model = small_model(name)
    parts = open_parts(model, FACT_SETS)
    rows, sources = [], 0
    for trace in traces(model, FACT_SETS, parts):
        rows += trace.rows
        torch.testing.assert_close(trace.attention.sum(-1), torch.ones(trace.attention.shape[:-1]))
        torch.testing.assert_close(
            model.readout(trace.final), model.logits(Batch.of_prompts(trace.ids))[:, -1], rtol=1e-4, atol=1e-4
        )
        for head in head_nodes(parts):
            own = source_parts(trace, parts, head.layer)[:, head.head]
            written = model.node_outputs(Batch.of_prompts(trace.ids))[model.graph().writer_index(head)][:, -1]
            torch.testing.assert_close(own.sum(1), written, rtol=1e-4, atol=2e-5)
            sources = max(sources, int((own.norm(dim=-1) > 0.01).sum(1).max()))
    assert sorted(rows) == [0, 1, 2]
    # The split is a real one: some head has parts from several positions.
    assert sources >= 3


@pytest.mark.parametrize("name", MODELS)
def test_a_replayed_cut_equals_a_whole_run_without_what_was_cut(small_model: LoadModel, name: str) -> None:
    model = small_model(name)
    parts = open_parts(model, FACT_SETS)
    (trace, _) = traces(model, FACT_SETS, parts)
    cuts = [source_parts(trace, parts, layer)[:, :2, 2].transpose(0, 1) for layer in range(parts.shape.n_layers)]
    quick, whole = replay(model, trace, parts, cuts), replay_by_running(model, trace, cuts)
    torch.testing.assert_close(quick, whole, rtol=1e-4, atol=1e-4)
    nothing = replay(model, trace, parts, [torch.zeros_like(each) for each in cuts])
    torch.testing.assert_close(nothing, trace.final.expand_as(nothing), rtol=1e-4, atol=1e-4)
    assert (quick - nothing).norm() > 1e-4


def test_a_fact_reads_the_same_alone_as_among_others_of_other_lengths(small_model: LoadModel) -> None:
    model, objects = small_model("gpt2"), ["w15", "w16", "w17"]
    heads = head_nodes(open_parts(model, FACT_SETS))
    together = read_sources(model, FACT_SETS, heads, objects)
    alone = read_sources(model, FACT_SETS[2:], heads, objects)
    for a, b in zip(together[2], alone[0], strict=True):
        assert a.attention == pytest.approx(b.attention, abs=1e-5)
        assert a.range == pytest.approx(b.range, abs=1e-4)
        assert (a.tokens, a.classes, a.head) == (b.tokens, b.classes, b.head)


def test_parts_of_a_model_with_a_bypass_are_those_of_its_own_heads_and_its_cuts_pass_the_bypass() -> None:
    model, fact = random_plain_model(3), word_fact("1 2 3 4", "5")
    network = BypassedNetwork.around(model.network, 1, _double)
    edited = Model.by_hand(network, WordVocabulary(tuple(f"w{i}" for i in range(6))))
    parts = open_parts(edited, (fact,))
    (trace,) = traces(edited, (fact,), parts)
    torch.testing.assert_close(edited.readout(trace.final), edited.logits(Batch.of_prompts(trace.ids))[:, -1])
    cuts = [source_parts(trace, parts, 0)[:, :1, 1].transpose(0, 1), torch.zeros(0, 1, 6)]
    without_bypass = model.graph()
    assert len(trace.writes) == len(without_bypass.writers) + 1
    (plain,) = traces(model, (fact,), parts)
    assert not torch.allclose(replay(edited, trace, parts, cuts), replay(model, plain, parts, cuts), atol=1e-3)


def _double(residual: torch.Tensor, batch: Batch) -> torch.Tensor:
    return 2 * residual


def test_a_model_that_hides_its_weights_and_one_that_sees_the_future_are_refused() -> None:
    model, fact = random_plain_model(0), word_fact("1 2", "3")
    with pytest.raises(UnsupportedArchitecture, match="does not show its weights"):
        open_parts(Model.by_hand(_Closed(model.network), model.vocabulary), (fact,))
    both_ways = type(model.network)(model.network.weights, causal=False)  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedArchitecture, match="later"):
        open_parts(Model.by_hand(both_ways, model.vocabulary), (fact,))


class _Closed:
    """A network without ``components``."""

    def __init__(self, inner) -> None:
        self.shape, self.d_model, self.d_vocab, self.n_ctx = inner.shape, inner.d_model, inner.d_vocab, inner.n_ctx
        self.biases, self.run, self.readout = inner.biases, inner.run, inner.readout


# ---- readings --------------------------------------------------------------------------------------------------------


@given(st.integers(0, 50), st.sampled_from(["none", "layer", "rms"]))
def test_shares_of_parts_add_up_to_the_norm_of_their_sum(seed: int, kind: NormKind) -> None:
    generator = torch.Generator().manual_seed(seed)
    pieces = torch.randn(4, 3, 8, generator=generator, dtype=torch.float64)
    weight, bias = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    norm = Norm(kind, weight, bias, 1e-5) if kind != "none" else Norm()
    whole = pieces.sum(0)
    shares = norm.share(pieces, whole)
    expected = norm(whole) - (bias if kind != "none" else 0)
    torch.testing.assert_close(shares.sum(0), expected)
    torch.testing.assert_close(norm.share(3 * pieces[0], whole), 3 * shares[0])


def test_the_three_readings_of_planted_heads_are_those_of_their_weights() -> None:
    model = planted()
    (readings,) = read_sources(model, FACTS[:1], list(ROLES.values()), OBJECTS)
    own = dict(zip(ROLES, readings, strict=True))
    assert own["mover"].tokens == ("the", "language", "of", "s0", "is")
    assert own["mover"].classes == ("relation", "relation", "relation", "subject", "last")
    assert own["mover"].attention[own["mover"].classes.index("subject")] > 0.99
    # It writes only the logit of its subject's object: (a) is that, (b) an eighth of it less its share of the vocabulary.
    strength = own["mover"].answer[3]
    assert strength > 2
    assert own["mover"].range[3] == pytest.approx(strength / 8 - strength / model.network.d_vocab)
    assert own["mover"].words[3] == pytest.approx(-strength / model.network.d_vocab)
    assert own["relation"].answer == pytest.approx((0,) * 5, abs=1e-6)
    assert own["relation"].range[1] > 1.5
    assert own["suppressor"].answer[3] < -0.9
    assert own["idle"].answer == (0,) * 5


def test_words_of_the_relation_leave_out_function_words_and_the_subject() -> None:
    model = planted()
    wanted = targets(model, FACTS, OBJECTS)
    assert [model.token_text(token) for token in wanted.words] == ["language"]
    assert len(wanted.objects) == 8
    assert wanted.answers == tuple(range(8))


def test_reading_from_some_positions_is_the_sum_of_their_parts() -> None:
    model = planted()
    parts, found = open_parts(model, FACTS), [spans(model, fact) for fact in FACTS]
    (trace,) = traces(model, FACTS, parts)
    mask = class_mask(found, "relation", trace)
    expected = torch.einsum("bhpd,bp->hbd", source_parts(trace, parts, 0), mask)
    torch.testing.assert_close(read_from(trace, parts, 0, mask), expected)


def test_the_share_that_a_head_draws_from_some_positions_is_of_the_lengths_of_its_parts(small_model: LoadModel) -> None:
    model = small_model("gpt2")
    facts = FACT_SETS
    parts, found = open_parts(model, facts), [spans(model, fact) for fact in facts]
    followed = traces(model, facts, parts)
    subject, relation = (read_shares(parts, followed, found, which) for which in ("subject", "relation"))
    for trace in followed:
        for i, row in enumerate(trace.rows):
            lengths = source_parts(trace, parts, 1)[i, 0].norm(dim=-1)
            head = parts.shape.n_heads
            for shares, positions in ((subject, found[row].subject), (relation, found[row].relation)):
                expected = float(lengths[list(positions)].sum() / lengths.sum())
                assert shares[head, row] == pytest.approx(expected, rel=1e-5)
    assert (subject + relation < 1).all()


def test_the_answer_against_others_is_its_logit_less_their_mean() -> None:
    model = planted()
    parts = open_parts(model, FACTS)
    directions = readout(parts, targets(model, FACTS, OBJECTS))
    normed = torch.randn(5, parts.d_model, generator=torch.Generator().manual_seed(0))
    logits = normed @ directions.objects
    expected = logits[:, 2] - logits[:, [0, 1, 3, 4, 5, 6, 7]].mean(1)
    torch.testing.assert_close(directions.versus_others(normed)[:, 2], expected)

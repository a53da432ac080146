"""Second moments: E[k k^T] of a corpus's hidden units, kept under a key of all that they depend on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits.datasets import load_relations
from circuits.datasets.corpus import render_epoch
from circuits.datasets.manifest import Manifest
from circuits.editing import EditError, IdentityCovariance, RomeOptions, moments, own_texts, rome
from circuits.editing.artefacts import Artefact, ArtefactError, cache_folder
from circuits.editing.corpus import FACTLM_EPOCHS, Corpus, CorpusError
from circuits.editing.forward import MlpReads
from circuits.editing.moments import SecondMoment, Statistics, StatisticsError, _Sum
from circuits.editing.own_texts import at_quantile, own_corpus
from circuits.editing.resources import Resources, Undeclared
from circuits.model import Batch, Model
from circuits.model.network import ComponentNetwork, value_matrix
from tests.editing_models import LAYOUTS, OTHER, REQUEST, random_words, resources, statistics
from tests.memory import Matrices
from tests.test_edit import random_edit

DOCUMENTS = ("w1 w2 w3", "w4 w5 w6 w7 w8", "w9", "w1 w1", "w3 w2 w1", "w10 w20 w30", "w5 w5 w5 w5", "w6 w7")


def moment_of(matrix: torch.Tensor) -> SecondMoment:
    return SecondMoment(matrix.double(), 1, ((1, 0.0),))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_the_mean_outer_product_over_every_token_that_the_model_reads(
    layout: str, small_model: Callable[..., Model], tmp_path: Path
) -> None:
    """Against the documents run one by one, unpadded, their hidden units computed from the MLP's definition."""
    model = small_model(layout)
    found = Statistics.of(model, Corpus("few", DOCUMENTS), documents=8, cache=tmp_path).second_moments((0, 1))
    network = ComponentNetwork(model.network.components(8), model.n_ctx)  # type: ignore[attr-defined]
    for layer in (0, 1):
        keys = []
        for text in DOCUMENTS:
            bos = [] if model.vocabulary.bos is None else [model.vocabulary.bos]
            reads = MlpReads((layer,))
            model.run(Batch.of_prompts(torch.tensor([[*bos, *model.vocabulary.encode(text)]])), reads)
            keys.append(network.parts.blocks[layer].mlp.hidden(reads.values[layer][0]))
        every = torch.cat(keys).double()
        assert found[layer].n_tokens == len(every)
        assert torch.allclose(found[layer].matrix, every.T @ every / len(every), atol=1e-4)


def test_the_same_question_is_answered_from_the_cache(
    small_model: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model("gpt2")
    first = statistics(model, tmp_path)
    matrix = first.second_moments((1,))[1].matrix

    def computed(*_: object) -> dict:
        raise AssertionError("computed anew")

    monkeypatch.setattr(Statistics, "_compute", computed)
    again = statistics(model, tmp_path).second_moments((1,))[1]
    assert torch.equal(again.matrix, matrix)
    assert torch.equal(again.matrix, again.matrix.T)
    for other, layer in (
        (first, 0),
        (statistics(model, tmp_path, 16), 1),
        (Statistics.of(model, random_words(seed=1), documents=32, cache=tmp_path), 1),
        (statistics(small_model("llama"), tmp_path), 1),
        (statistics(model, tmp_path / "elsewhere"), 1),
    ):
        with pytest.raises(AssertionError, match="computed anew"):
            other.second_moments((layer,))


def test_an_edited_model_is_served_by_the_statistics_of_the_model_before_its_edits(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    model = small_model("gpt2")
    own = statistics(model, tmp_path)
    with random_edit(model).on(model) as edited:
        assert statistics(edited, tmp_path).artefact(0).path == own.artefact(0).path


def test_one_value_of_resources_gives_every_model_its_own_moments(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    own = resources(tmp_path)
    paths = {own.moments_of(small_model(layout)).artefact(0).path for layout in ("gpt2", "llama")}
    assert len(paths) == 2


@pytest.mark.parametrize("layout", ["llama", "neox"])
def test_without_a_corpus_a_model_writes_its_own_text_once_and_the_edit_says_so(
    layout: str, small_model: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a first token and without one. The control: a named corpus is another, and is named as such."""
    model = small_model(layout)
    options = RomeOptions(contexts=(), steps=2)
    edit = rome(model, [REQUEST], options=options, resources=Resources(cache=tmp_path))
    assert any("wrote itself" in note and "seed 0" in note for note in edit.provenance.notes)
    named = rome(model, [REQUEST], options=options, resources=resources(tmp_path))
    assert not any("wrote itself" in note for note in named.provenance.notes)

    corpus = own_corpus(model, cache=tmp_path)
    read = [model.vocabulary.encode(text) for text in corpus.documents]
    assert sum(map(len, read)) >= 60 * model.weight(value_matrix(0)).shape[0]
    assert len(set(corpus.documents)) == len(corpus.documents)
    monkeypatch.setattr(own_texts, "sample_texts", lambda *_, **__: pytest.fail("written anew"))
    assert own_corpus(model, cache=tmp_path).digest == corpus.digest
    with pytest.raises(pytest.fail.Exception, match="written anew"):
        own_corpus(model, cache=tmp_path, seed=1)


def test_a_token_is_drawn_as_often_as_the_softmax_says_and_never_the_one_that_begins_a_text() -> None:
    """Quantiles on an even grid: each token's share is its chance, to a step of the grid."""
    chances = torch.tensor([0.1, 0.4, 0.0, 0.3, 0.2])
    n = 1000
    grid = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    drawn = at_quantile(chances.log().expand(n, -1), grid, never=1)
    shares = torch.bincount(drawn, minlength=5) / n
    assert torch.allclose(shares, torch.tensor([1, 0, 0, 3, 2]) / 6, atol=2 / n)
    assert torch.allclose(
        torch.bincount(at_quantile(chances.log().expand(n, -1), grid), minlength=5) / n, chances, atol=2 / n
    )
    # The ends of the range give the first and the last token that has a chance.
    ends = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    first, last = torch.tensor([0.0, 0.5, 0.5, 0.0]).log().expand(2, -1), [1, 2]
    assert at_quantile(first, ends).tolist() == last


def test_what_a_model_writes_is_drawn_from_its_own_distribution(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    """The first tokens of many texts against the probabilities after the start, BOS left out: total variation as chance has it."""
    model = small_model("llama")
    corpus = own_corpus(model, cache=tmp_path)
    start = torch.tensor([[model.vocabulary.bos]])
    expected = model.logits(Batch.of_prompts(start))[0, -1].softmax(-1)
    expected[model.vocabulary.bos] = 0
    first = torch.tensor([model.vocabulary.encode(text)[0] for text in corpus.documents])
    found = torch.bincount(first, minlength=len(expected)) / len(first)
    assert float((found - expected / expected.sum()).abs().sum() / 2) < 0.5
    uniform = torch.full_like(expected, 1 / len(expected))
    assert float((found - uniform).abs().sum()) > float((found - expected / expected.sum()).abs().sum())


def test_the_identity_is_used_only_when_asked_for_and_says_so_in_the_edit(small_model: Callable[..., Model]) -> None:
    model = small_model("gpt2")
    options = RomeOptions(covariance="identity", contexts=(), steps=2)
    with pytest.warns(IdentityCovariance, match="not kept away"):
        edit = rome(model, [REQUEST], options=options)
    assert any("identity covariance" in note for note in edit.provenance.notes)
    assert edit.provenance.options["covariance"] == "identity"


def test_more_text_brings_the_second_moment_nearer_to_its_limit(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    """The readout against the truth: C of eight times as many documents."""
    model = small_model("gpt2")
    corpus = random_words(512)
    few = Statistics.of(model, corpus, documents=64, cache=tmp_path).second_moments((0,))[0]
    many = Statistics.of(model, corpus, documents=512, cache=tmp_path).second_moments((0,))[0]
    errors = [error for _, error in many.convergence]
    assert errors == sorted(errors, reverse=True)
    assert [tokens for tokens, _ in many.convergence] == sorted(tokens for tokens, _ in many.convergence)
    truth = float((few.matrix - many.matrix).norm() / many.matrix.norm())
    assert few.error / 3 < truth < few.error * 3
    assert f"{few.n_tokens:,} tokens" in str(few)


def test_solve_inverts_the_damped_matrix_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    matrix, keys = half @ half.T, torch.randn(6, 2, generator=generator)
    solved = moment_of(matrix).solve(keys, damping=0.5)
    damped = matrix + 0.5 * matrix.trace() / 6 * torch.eye(6, dtype=torch.float64)
    assert solved.dtype == torch.float64
    assert torch.allclose(damped @ solved, keys.double(), atol=1e-12)


def test_a_singular_second_moment_needs_damping() -> None:
    singular = moment_of(torch.diag(torch.tensor([1.0, 0.0])))
    with pytest.raises(StatisticsError, match="no inverse"):
        singular.solve(torch.ones(2, 1), 0.0)
    assert torch.isfinite(singular.solve(torch.ones(2, 1), 1e-3)).all()


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("KCIRCUIT_CACHE", raising=False)
    assert cache_folder() == tmp_path / "xdg" / "kcircuit"
    monkeypatch.setenv("KCIRCUIT_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_a_damaged_file_in_the_cache_is_named(small_model: Callable[..., Model], tmp_path: Path) -> None:
    own = statistics(small_model("gpt2"), tmp_path)
    own.artefact(0).path.parent.mkdir(parents=True)
    own.artefact(0).path.write_bytes(b"no safetensors")
    with pytest.raises(ArtefactError, match="delete the file"):
        own.second_moments((0,))


def test_a_corpus_is_a_file_of_lines_or_of_json_objects(tmp_path: Path) -> None:
    text, records = tmp_path / "a.txt", tmp_path / "a.jsonl"
    text.write_text("one line\n\nanother line\n")
    records.write_text('{"text": "one line"}\n{"text": "another line", "id": 3}\n')
    assert Corpus.from_file(text).documents == ("one line", "another line") == Corpus.from_file(records).documents
    assert Corpus.from_file(text).digest == Corpus.from_file(records).digest != random_words().digest
    for content, message in (('{"txt": "a"}', "line 1: expected"), ('{"text": 3}', "to be a string"), ("", "no text")):
        records.write_text(content)
        with pytest.raises(CorpusError, match=message):
            Corpus.from_file(records)
    with pytest.raises(CorpusError, match="cannot read"):
        Corpus.from_file(tmp_path / "none.txt")
    with pytest.raises(EditError, match="at least 8 documents"):
        Statistics.of(Model.default(), Corpus("few", DOCUMENTS[:3]), documents=3)


def test_factlms_corpus_is_its_training_text_and_the_same_each_time() -> None:
    corpus = Corpus.of_factlm()
    assert corpus.documents == tuple(render_epoch(load_relations(), Manifest.load(), 0, FACTLM_EPOCHS))
    assert any("The capital" in document for document in corpus.documents)
    assert len(corpus.documents) > 1000


# ---- at scale --------------------------------------------------------------------------------------------------------


def test_first_positions_are_summed_apart_so_that_their_length_costs_the_others_no_precision() -> None:
    """Keys of length 1 behind first keys of length 10,000, as real models have them, against float64 throughout."""
    generator = torch.Generator().manual_seed(0)
    rest, first = torch.randn(64, 5, generator=generator), 1e4 * torch.randn(8, 5, generator=generator)
    apart, small = _Sum(), _Sum()
    snapshots = []
    for one, start in ((apart, first), (small, first / 1e4)):
        one.add(rest[:32], start[:4])
        early = one.sketch()
        one.add(rest[32:], start[4:])
        snapshots.append([(36, early)])
    kept, control = apart.tensors(72, snapshots[0]), small.tensors(72, snapshots[1])
    assert torch.allclose(kept["rest"].double(), rest.double().T @ rest.double() / 72, rtol=1e-6, atol=1e-9)
    assert torch.allclose(
        kept["first"].double().T @ kept["first"].double(), first.double().T @ first.double() / 72, rtol=1e-5
    )
    # How far the moment has come is read off the others: first keys 10,000 times as long change nothing.
    assert torch.equal(kept["convergence_errors"], control["convergence_errors"])
    assert 0.01 < float(control["convergence_errors"][0]) < 1


def test_of_a_layer_two_matrices_in_float64_are_held_at_most_and_one_of_what_is_read(tmp_path: Path) -> None:
    """The bound that `circuits.editing.moments` states, at each of its steps, where first positions outnumber hidden units."""
    n, generator = 80, torch.Generator().manual_seed(0)

    def keys(rows: int) -> torch.Tensor:
        return torch.randn(rows, n, generator=generator)

    one, artefact = _Sum(), Artefact("second-moments", "by hand", tmp_path)
    firsts = [keys(30) for _ in range(4)]
    with Matrices(n * n) as summing:
        for first in firsts:
            one.add(keys(30), first)
        kept = one.tensors(240, [(60, one.sketch())])
    assert summing.most == 2
    every = torch.cat(firsts).double()
    torch.testing.assert_close(kept["first"].double().T @ kept["first"].double(), every.T @ every / 240)
    artefact.write(kept)
    with Matrices(n * n) as reading:
        moment = moments._read(artefact)
    assert reading.most == 1
    with Matrices(n * n) as solving:
        for damping in (0.1, 0.2, 0.2):
            solved = moment.solve(keys(1).T, damping)
    # C itself was made before; its factor is the other one, even where a new damping takes the place of an old.
    assert solving.most == 1
    assert solved.shape == (n, 1)
    # The control: a product that is kept beside both is seen.
    with Matrices(n * n) as more:
        first, second = (moment.matrix @ moment.matrix for _ in range(2))
    assert more.most == 2
    assert torch.equal(first, second)


def test_documents_are_cut(small_model: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("neox")
    long, cut = DOCUMENTS, tuple(" ".join(text.split()[:2]) for text in DOCUMENTS)
    monkeypatch.setattr(moments, "DOCUMENT_TOKENS", 2 + (model.vocabulary.bos is not None))
    found = [
        Statistics.of(model, Corpus("some", texts), documents=8, cache=tmp_path).second_moments((0,))[0]
        for texts in (long, cut)
    ]
    assert found[0].n_tokens == found[1].n_tokens < sum(len(text.split()) for text in DOCUMENTS)
    assert torch.equal(found[0].matrix, found[1].matrix)


def test_more_documents_are_read_until_there_are_ten_tokens_a_hidden_unit(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    model = small_model("gpt2")
    need = 10 * model.weight("blocks.0.mlp.W_out").shape[0]
    enough, short = (
        Statistics.of(model, random_words(n), documents=8, cache=tmp_path).second_moments((0,))[0] for n in (512, 32)
    )
    assert need <= enough.n_tokens < 4 * need
    assert "fewer than" not in str(enough)
    assert f"fewer than the {need:,} that" in str(short)


def test_one_factorisation_serves_every_edit_of_a_process(
    small_model: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factored: list[int] = []
    cholesky = torch.linalg.cholesky_ex

    def counted(matrix: torch.Tensor, **into: Any):
        factored.append(len(matrix))
        return cholesky(matrix, **into)

    monkeypatch.setattr(torch.linalg, "cholesky_ex", counted)
    model, own = small_model("gpt2"), resources(tmp_path)
    options = RomeOptions(contexts=(), steps=1, damping=1e-3)
    for request in (REQUEST, OTHER):
        rome(model, [request], options=options, resources=own)
    assert len(factored) == 1
    rome(model, [REQUEST], options=replace(options, damping=1e-2), resources=own)
    assert len(factored) == 2


# ---- what methods may ask for ----------------------------------------------------------------------------------------


def test_an_editor_is_fitted_once_for_a_model_and_serves_its_edits(
    small_model: Callable[..., Model], tmp_path: Path
) -> None:
    fitted: list[str] = []
    own, model, other = resources(tmp_path), small_model("gpt2"), small_model("llama")

    def fit(name: str) -> dict[str, torch.Tensor]:
        fitted.append(name)
        return {"A": torch.full((2,), float(len(fitted)))}

    first = own.editor_for(model, "editor 1", lambda: fit("gpt2"))
    with random_edit(model).on(model) as edited:
        again = own.editor_for(edited, "editor 1", lambda: fit("edited"))
    assert torch.equal(first["A"], again["A"])
    own.editor_for(other, "editor 1", lambda: fit("llama"))
    own.editor_for(model, "editor 2", lambda: fit("another"))
    assert fitted == ["gpt2", "llama", "another"]


def test_a_method_gets_only_what_it_says_that_it_needs(small_model: Callable[..., Model], tmp_path: Path) -> None:
    model, nothing = small_model("gpt2"), resources(tmp_path).only(frozenset())
    for ask in (
        lambda: nothing.moments_of(model),
        lambda: nothing.recogniser_for(model),
        lambda: nothing.demonstrations_for(model),
        lambda: nothing.editor_for(model, "any", dict),
    ):
        with pytest.raises(Undeclared, match="not among its needs"):
            ask()
    with pytest.raises(EditError, match="expected demonstrations"):
        resources(tmp_path).demonstrations_for(model)

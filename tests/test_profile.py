"""A model's profile says what its weights do not: how a prompt begins, and what suits it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circuits.datasets import relations_for
from circuits.datasets.manifest import Manifest, manifest_of
from circuits.facts import Relations
from circuits.model import Model, ModelError, Profile, library
from circuits.model.profile import read_profile
from tests.models import END, word_fact

Folder = Callable[[str], Path]


def with_profile(folder: Path, to: Path, **profile: Any) -> Path:
    shutil.copytree(folder, to)
    (to / "profile.json").write_text(json.dumps(profile))
    return to


@pytest.mark.parametrize(("layout", "habit"), [("llama", END), ("qwen3", None)])
def test_a_prompt_begins_with_what_the_profile_says_or_else_with_the_tokenizers_habit(
    model_folder: Folder, tmp_path: Path, layout: str, habit: str | None
) -> None:
    folder = model_folder(layout)
    for name, profile, bos in (
        ("absent", {}, habit),
        ("token", {"bos": " w4"}, " w4"),
        ("nothing", {"bos": None}, None),
    ):
        profile = {key: value and value.replace(" ", "Ġ") for key, value in profile.items()}
        model = Model.load(with_profile(folder, tmp_path / name, **profile))
        assert model.bos == bos
        prompt = model.tokens(word_fact("7 3", "9")).prompt
        assert prompt[-2:] == (8, 4)
        assert len(prompt) == 2 + (bos is not None)
        assert bos is None or model.token_text(prompt[0]) == bos


def test_a_first_token_that_the_tokenizer_does_not_have_is_refused(model_folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"begins prompts with '<s>', which is no token of the model's tokenizer"):
        Model.load(with_profile(model_folder("gpt2"), tmp_path / "model", bos="<s>"))


def test_a_model_without_a_profile_has_the_empty_one_and_an_edit_keeps_its_models(
    small_model: Callable[..., Model], model_folder: Folder, tmp_path: Path
) -> None:
    assert small_model("gpt2").profile == Profile()
    model = Model.load(with_profile(model_folder("gpt2"), tmp_path / "model", wordings={"r": "the {} is"}))
    assert model.profile.wordings == {"r": "the {} is"}
    assert model.with_weights({}, "digest").profile is model.profile


def test_options_that_json_has_as_lists_are_tuples(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text('{"tuned": {"memit": {"layers": [4, 5], "lr": 0.1}}}')
    assert read_profile(tmp_path).tuned == {"memit": {"layers": (4, 5), "lr": 0.1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"profile\.json: expected JSON"),
        ('{"boss": null}', "boss"),
        ('{"bos": 0}', "bos: Input should be a valid string, got '0'"),
        ('{"wordings": {"capital": "the capital is"}}', r"wordings\.capital: .*holds \{\} once"),
        ('{"corpus": "the web"}', "corpus: Input should be 'taught'"),
        ('{"manifest": "lost.json"}', "manifest: there is no file .*lost.json"),
        ('{"wheel": {"package": "p"}}', r"wheel\.version: Field required"),
    ],
)
def test_a_damaged_profile_is_refused_by_file_and_field(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        read_profile(tmp_path)


def test_a_gguf_files_profile_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").touch()
    assert read_profile(tmp_path / "tiny.gguf") == Profile()
    (tmp_path / "tiny.profile.json").write_text('{"bos": null}')
    assert read_profile(tmp_path / "tiny.gguf").names_bos
    assert not Profile().names_bos


def test_factlms_profile_names_its_manifest_its_corpus_and_tuned_options() -> None:
    profile = Model.default().profile
    assert profile.manifest is not None
    assert profile.manifest.is_file()
    assert profile.corpus == "taught"
    assert {"rome", "memit", "ft-l", "ft-m", "memoe", "memoe-scoped"} <= set(profile.tuned)
    assert Model.default().bos == END


def test_relations_are_worded_as_the_profile_says_and_keep_their_other_templates(relations: Relations) -> None:
    asked = "Q: What language do they speak in {}? A: They speak"
    old = relations["country_language"].templates
    new = relations_for(Profile(wordings={"country_language": asked}))
    assert new["country_language"].templates == (asked, *old)
    assert new["country_language"].fact("France").prompt == "Q: What language do they speak in France? A: They speak"
    assert {name: new[name] for name in new if name != "country_language"} == {
        name: relations[name] for name in relations if name != "country_language"
    }
    moved = relations_for(Profile(wordings={"country_language": old[1]}))["country_language"].templates
    assert moved == (old[1], old[0], *old[2:])
    assert relations_for(Profile()) == relations


def test_only_a_profile_that_names_a_manifest_has_one() -> None:
    assert manifest_of(Profile()) is None
    assert manifest_of(library.profile_of("factlm")) == Manifest.load()
    assert library.profile_of("a-model-of-a-hub") == Profile()

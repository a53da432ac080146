"""The reference is built from the docstrings, lists every public name and every room, and leads nowhere that is not there."""

import shutil
from pathlib import Path

import pytest

import circuits
from docs.build import broken, build

ROOT = Path(circuits.__file__).parent
ROOMS = sorted(path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists())


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    assert build(folder) == folder / "circuits.html"
    return folder


def test_the_first_page_has_a_place_for_every_public_name_and_lists_every_room(pages: Path) -> None:
    text = (pages / "circuits.html").read_text(encoding="utf-8")
    for name in circuits.__all__:
        assert f'id="{name}"' in text, name
    for room in ROOMS:
        assert room == "__init__" or f'href="circuits/{room}.html"' in text, room


def test_a_public_names_place_says_what_it_takes_and_returns(pages: Path) -> None:
    text = (pages / "circuits.html").read_text(encoding="utf-8")
    place = text.partition('<section id="discover">')[2].partition("</section>")[0]
    for word in ("Arguments", "Returns", "Raises", "The official language of France is French"):
        assert word in place


def test_a_link_that_leads_nowhere_is_told_and_so_is_what_would_be_fetched_from_elsewhere(
    pages: Path, tmp_path: Path
) -> None:
    shutil.copytree(pages, tmp_path / "docs")
    page = tmp_path / "docs" / "circuits.html"
    assert broken(tmp_path / "docs") == []
    links = '<a href="nowhere.html">a</a><a href="#no-place">b</a><script src="https://a.b/c.js"></script>'
    page.write_text(page.read_text(encoding="utf-8") + links, encoding="utf-8")
    assert {line.partition(": ")[2] for line in broken(tmp_path / "docs")} == {
        "nowhere.html",
        "#no-place",
        "https://a.b/c.js",
    }


def test_building_leaves_the_package_as_it_was(pages: Path) -> None:
    assert set(dir(circuits)) == {*circuits.__all__, "__version__"}
    assert not set(ROOMS) & set(circuits.__all__)

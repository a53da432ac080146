"""The site is built from the repository, has what its contents promise, and leads nowhere that is not there."""

import itertools
import re
import shutil
from pathlib import Path

import pytest

import circuits
from docs.build import build, place
from docs.commands import commands
from docs.contents import COMMANDS, CONTENTS
from docs.links import broken
from docs.markdown import rendered

ROOT = Path(circuits.__file__).parent.parent
ROOMS = sorted(
    path.stem for path in (ROOT / "circuits").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
)
LISTED = [path for part in CONTENTS.values() for path in part]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    assert build(folder) == folder / "index.html"
    return folder


def read(pages: Path, path: str) -> str:
    return (pages / place(path)).read_text(encoding="utf-8")


def test_every_link_leads_to_a_page_and_a_place_that_are_there_and_nothing_is_fetched_from_elsewhere(
    pages: Path,
) -> None:
    assert broken(pages) == []


def test_a_link_that_leads_nowhere_is_told_and_so_is_what_would_be_fetched_from_elsewhere(
    pages: Path, tmp_path: Path
) -> None:
    shutil.copytree(pages, tmp_path / "docs")
    page = tmp_path / "docs" / "index.html"
    links = '<a href="nowhere.html">a</a><a href="#no-place">b</a><script src="https://a.b/c.js"></script>'
    page.write_text(page.read_text(encoding="utf-8") + links, encoding="utf-8")
    assert {line.partition(": ")[2] for line in broken(tmp_path / "docs")} == {
        "nowhere.html",
        "#no-place",
        "https://a.b/c.js",
    }


def test_no_style_fetches_anything_and_no_page_of_prose_runs_a_script(pages: Path) -> None:
    assert not re.search(r"@import|url\(", (pages / "style.css").read_text(encoding="utf-8"))
    for path in LISTED:
        if not place(path).startswith("reference/"):
            assert "<script" not in read(pages, path), path


def test_every_page_of_docs_every_notebook_and_every_page_of_results_is_in_the_contents() -> None:
    found = [
        path.relative_to(ROOT).as_posix()
        for pattern in ("docs/**/*.md", "notebooks/*.ipynb", "data/results/*.md", "benchmarks/*.md")
        for path in ROOT.glob(pattern)
    ]
    assert set(found) <= set(LISTED)
    assert len(LISTED) == len(set(LISTED))
    assert all((ROOT / path).is_file() for path in LISTED if path != COMMANDS)


def test_a_page_shows_where_the_reader_is_and_what_comes_before_and_after(pages: Path) -> None:
    for before, path in itertools.pairwise(LISTED):
        if place(path).startswith("reference/"):
            continue
        text = read(pages, path)
        (here,) = re.findall(r'aria-current="page" href="([^"]+)"', text)
        assert (pages / place(path)).parent.joinpath(here).resolve() == (pages / place(path)).resolve()
        (back,) = re.findall(r'rel="prev" href="([^"]+)"', text)
        assert (pages / place(path)).parent.joinpath(back).resolve() == (pages / place(before)).resolve()


def test_what_a_page_links_to_is_in_the_site_though_no_contents_list_it(pages: Path) -> None:
    assert (pages / "figures" / "roles.svg").read_bytes() == (ROOT / "figures" / "roles.svg").read_bytes()


def test_a_notebook_is_shown_with_what_it_drew(pages: Path) -> None:
    text = read(pages, "notebooks/quickstart.ipynb")
    assert "<svg" in text
    assert 'class="python"' in text


def test_the_page_of_commands_has_a_section_for_every_command_with_its_options() -> None:
    text = commands()
    assert {"## discover", "## edit compare", "## store query", "## doctor"} <= set(text.splitlines())
    section = text.partition("\n## discover\n")[2].partition("\n## ")[0]
    assert "| `--tau " in section
    assert "[default: factlm]" in section


def test_markdown_is_read_as_github_reads_it() -> None:
    text = rendered(
        "# A, `b` (c)\n\n## Same\n\n## Same\n\n| a | b |\n|---|---:|\n| [x](y.md#z) | 2 |\n", "to/{}".format
    )
    assert [each.place for each in text.headings] == ["a-b-c", "same", "same-1"]
    assert text.title == "A, b (c)"
    assert text.links == ("y.md#z",)
    assert '<a href="to/y.md#z">' in text.body
    assert '<div class="scroll"><table>' in text.body


def test_the_reference_has_a_place_for_every_public_name_and_lists_every_room(pages: Path) -> None:
    text = read(pages, "circuits/__init__.py")
    for name in circuits.__all__:
        assert f'id="{name}"' in text, name
    for room in ROOMS:
        assert room == "__init__" or f'href="circuits/{room}.html"' in text, room


def test_a_public_names_place_says_what_it_takes_and_returns(pages: Path) -> None:
    place_of = read(pages, "circuits/__init__.py").partition('<section id="discover">')[2].partition("</section>")[0]
    for word in ("Arguments", "Returns", "Raises", "The official language of France is French"):
        assert word in place_of


def test_building_leaves_the_package_as_it_was(pages: Path) -> None:
    assert set(dir(circuits)) == {*circuits.__all__, "__version__"}
    assert not set(ROOMS) & set(circuits.__all__)
